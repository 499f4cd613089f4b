/** SubRip and WebVTT: the texts of the cues, and the file again with others in their place. */

const TIMES = /^\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-->/;
const DASH = /^\s*[-–—]\s*/;
const OPENING = /^(?:\s*(?:<[^>]*>|\{\\[^}]*\}))+\s*/;
const CLOSING = /(?:\s*<\/[^>]*>)+\s*$/;

/**
 * `{texts, rebuild}`. A text is what one speaker says in one cue, its lines joined. `rebuild` takes
 * as many translations; times, numbers, notes, styles and tags around texts stay as they are.
 */
export function readSubtitles(file) {
  const lines = file.split(/\r\n|\n|\r/);
  const lineEnd = /\r\n|\n|\r/.exec(file)?.[0] ?? "\n";
  const parts = []; // Strings are kept; objects are what someone says.
  let inCue = false;
  for (const line of lines) {
    if (TIMES.test(line)) {
      inCue = true;
      parts.push(line);
    } else if (!inCue || !line.trim()) {
      inCue = false;
      parts.push(line);
    } else {
      const former = parts[parts.length - 1];
      if (typeof former === "object" && !DASH.test(line)) former.lines.push(line);
      else parts.push({ lines: [line] });
    }
  }
  const spoken = parts.filter((part) => typeof part === "object").map(readSpoken);
  return {
    texts: spoken.map(({ text }) => text),
    rebuild(translations) {
      let at = 0;
      return parts.map((part) => {
        if (typeof part === "string") return part;
        const { before, after, count } = spoken[at];
        const rows = wrap(translations[at], count);
        at += 1;
        return `${before}${rows.join(lineEnd)}${after}`;
      }).join(lineEnd);
    },
  };
}

function readSpoken({ lines }) {
  let text = lines.map((line) => line.trim()).join(" ");
  let before = "";
  for (const pattern of [OPENING, DASH, OPENING]) {
    const found = pattern.exec(text)?.[0] ?? "";
    before += found;
    text = text.slice(found.length);
  }
  const after = CLOSING.exec(text)?.[0] ?? "";
  return { before, text: text.slice(0, text.length - after.length), after, count: lines.length };
}

/** A text on at most `count` lines of like length, cut between words. */
export function wrap(text, count) {
  const rows = [];
  let rest = text.trim();
  for (let left = count; left > 1; left -= 1) {
    const words = rest.split(" ");
    const wanted = rest.length / left;
    let row = words.shift();
    while (words.length && row.length + (words[0].length + 1) / 2 < wanted) row += ` ${words.shift()}`;
    rows.push(row);
    rest = words.join(" ");
    if (!rest) break;
  }
  return rest ? [...rows, rest] : rows;
}
