/** Long texts → pieces that are translated one by one; joined, they are the text again. */

const BLOCK_END = "</(?:p|div|li|h[1-6]|tr|table|ul|ol|dl|dd|dt|section|article|header|footer|main|nav|"
  + "blockquote|figure|head|title|option|details)\\s*>|<br\\s*/?>";
const VERBATIM = "<!--[\\s\\S]*?-->|<(script|style|pre|textarea|svg|code)\\b[\\s\\S]*?</\\1\\s*>";

/**
 * Cut a text into pieces of about `size` characters and at most `limit`, at places that leave its
 * structure whole. Throws an Error where there is no such place.
 */
export function cut(text, format, size, limit) {
  const atoms = { text: paragraphs, markdown: markdownBlocks, html: htmlBlocks }[format](text);
  const fitting = atoms.flatMap((atom) => (atom.length <= limit ? [atom] : smaller(atom, format, limit)));
  return together(fitting, size);
}

/** Join neighbours as long as they stay within a size. */
export function together(atoms, size) {
  const pieces = [];
  for (const atom of atoms) {
    const last = pieces.length - 1;
    if (last >= 0 && pieces[last].length + atom.length <= size) pieces[last] += atom;
    else pieces.push(atom);
  }
  return pieces;
}

const paragraphs = (text) => text.split(/(?<=\n[ \t]*\r?\n)(?!\s*?\n)/);
const lines = (text) => text.split(/(?<=\n)/);

/** Blocks that end at a blank line, outside of fences, with nothing indented after it. */
function markdownBlocks(text) {
  const blocks = [];
  let block = "";
  let fence = null;
  let blank = false;
  for (const line of lines(text)) {
    const mark = /^[ \t>]*(`{3,}|~{3,})/.exec(line)?.[1] ?? null;
    if (!fence && blank && /^(?!---|\+\+\+)\S/.test(line)) {
      blocks.push(block);
      block = "";
    }
    if (!fence) fence = mark;
    else if (mark?.startsWith(fence)) fence = null;
    block += line;
    blank = !line.trim();
  }
  return [...blocks, block].filter(Boolean);
}

function htmlBlocks(text) {
  const places = new RegExp(`${VERBATIM}|${BLOCK_END}`, "gi");
  const blocks = [];
  let begin = 0;
  for (const found of text.matchAll(places)) {
    const isEnd = found[0].startsWith("</") || /^<br/i.test(found[0]);
    if (!isEnd) continue;
    const end = found.index + found[0].length;
    blocks.push(text.slice(begin, end));
    begin = end;
  }
  return [...blocks, text.slice(begin)].filter(Boolean);
}

function smaller(atom, format, limit) {
  if (format === "html") {
    throw new Error("A stretch of this file is too long to be translated: it has no paragraphs.");
  }
  const fitting = lines(atom).flatMap((line) => (line.length <= limit ? [line] : cutLine(line, limit)));
  return together(fitting, limit);
}

/** Cut a line after sentences, else after words, else anywhere but within a character. */
function cutLine(line, limit) {
  const sentences = line.split(/(?<=[.!?…]["'”’)\]]*\s+|[。！？])/);
  const fitting = sentences.flatMap((sentence) => {
    if (sentence.length <= limit) return [sentence];
    const words = sentence.split(/(?<=\s)/);
    return words.flatMap((word) => (word.length <= limit ? [word] : together([...word], limit)));
  });
  return together(fitting, limit);
}
