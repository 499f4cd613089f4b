/**
 * Texts → sentences a model can translate, and back, losing nothing in between; the counterpart of
 * the service's `service/text/`, with the browser's own sentence boundaries.
 */

const LINE_BREAK = /(\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029])/u;
const EDGES = /^(\s*)(.*?)(\s*)$/su;
/** An English title or a lone initial does not end a sentence. */
const ABBREVIATION = /(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|vs|\p{Lu})\.\s*$/u;
/** Where a sentence that is too long may be cut, best first: after a clause, a comma, a word. */
const CUTS = [
  /(?<=[;:!?…。！？；：—–])\s*(?=\S)/gu,
  /(?<=[,、，)\]])\s+(?=\S)/gu,
  /\s+(?=\S)/gu,
];
/** Where in a sentence a cut must fall, as a share of its length. */
const MIDDLE = [0.15, 0.85];

/**
 * Cut a text into parts that together are the text in NFC: sentences to translate, of at most
 * `maxTokens` tokens, and everything else (line breaks, spaces, lines without a letter) to keep.
 *
 * @param {string} text
 * @param {string} language BCP 47, for the sentence boundaries
 * @param {(sentence: string) => number} countTokens
 * @param {number} maxTokens
 * @returns {{text: string, translate: boolean}[]}
 */
export function splitText(text, language, countTokens, maxTokens) {
  const parts = text.normalize("NFC").split(LINE_BREAK).flatMap((line, index) =>
    index % 2
      ? [{ text: line, translate: false }]
      : sentences(line, language).flatMap((one) => cut(one, countTokens, maxTokens)));
  return parts.filter((part) => part.text);
}

function sentences(line, language) {
  const segmenter = new Intl.Segmenter(language, { granularity: "sentence" });
  const found = [];
  let open = false;
  for (const { segment } of segmenter.segment(line)) {
    if (open) found[found.length - 1] += segment;
    else found.push(segment);
    open = ABBREVIATION.test(segment);
  }
  return found;
}

function cut(sentence, countTokens, maxTokens) {
  const [, before, core, after] = EDGES.exec(sentence);
  const whole = (translate) => [{ text: core, translate }];
  const parts = () => {
    if (!/\p{L}/u.test(core)) return whole(false);
    if ([...core].length === 1 || countTokens(core) <= maxTokens) return whole(true);
    const place = cuttingPlace(core);
    return [core.slice(0, place), core.slice(place)]
      .flatMap((piece) => cut(piece, countTokens, maxTokens));
  };
  return [{ text: before, translate: false }, ...parts(), { text: after, translate: false }];
}

/** Where to cut a sentence of two or more characters: the best place nearest its middle. */
function cuttingPlace(sentence) {
  const [low, high] = MIDDLE.map((share) => share * sentence.length);
  for (const pattern of CUTS) {
    const places = [...sentence.matchAll(pattern)].map((match) => match.index);
    const inside = places.filter((place) => place >= low && place <= high);
    if (inside.length) return nearestMiddle(inside, sentence);
  }
  const letters = [...new Intl.Segmenter().segment(sentence)].map(({ index }) => index).slice(1);
  if (letters.length) return nearestMiddle(letters, sentence);
  const middle = Math.floor(sentence.length / 2); // one letter with too many marks
  return sentence.codePointAt(middle - 1) > 0xffff ? middle + 1 : middle;
}

function nearestMiddle(places, sentence) {
  const distance = (place) => Math.abs(place - sentence.length / 2);
  return places.reduce((best, place) => (distance(place) < distance(best) ? place : best));
}
