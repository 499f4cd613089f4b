/** Files as texts to translate: reading them, cutting them, and putting them together again. */

import { cut } from "./pieces.js";
import { readSubtitles } from "./subtitles.js";

const FORMATS = { txt: "text", md: "markdown", markdown: "markdown", html: "html", htm: "html" };
const SUBTITLES = ["srt", "vtt"];
const MAX_BYTES = 10_000_000;
const UNIT_CHARS = 1000;
const MEDIA_TYPES = { html: "text/html", htm: "text/html", vtt: "text/vtt" };

/** The text of a file. Throws an Error that says in plain words why it is not one. */
export async function readFile(file) {
  const extension = extensionOf(file.name);
  if (!(extension in FORMATS) && !SUBTITLES.includes(extension)) {
    throw new Error(`${file.name} is not a file for this page: it takes txt, md, html, srt and vtt.`);
  }
  if (file.size > MAX_BYTES) throw new Error(`${file.name} is larger than ${MAX_BYTES / 1e6} MB.`);
  const text = decode(new Uint8Array(await file.arrayBuffer()));
  if (text.includes("\0")) throw new Error(`${file.name} does not hold text.`);
  return text;
}

/**
 * A file's text as `{units, rebuild(translations), formatOf(unit)}`: units are texts of at most
 * `maxChars` characters, most of them far shorter.
 */
export function openDocument(name, text, maxChars) {
  const extension = extensionOf(name);
  if (SUBTITLES.includes(extension)) {
    const { texts, rebuild } = readSubtitles(text);
    return { units: texts, rebuild, formatOf: (unit) => (/<[^>]+>/.test(unit) ? "html" : "text") };
  }
  const format = FORMATS[extension];
  const units = cut(text, format, Math.min(UNIT_CHARS, maxChars), maxChars);
  return { units, rebuild: (translations) => translations.join(""), formatOf: () => format };
}

/** `notes.md` translated to German: `notes.de.md`. */
export function translatedName(name, target) {
  const dot = name.lastIndexOf(".");
  return `${name.slice(0, dot)}.${target}${name.slice(dot)}`;
}

/** What is downloaded. */
export function asBlob(name, text) {
  const type = MEDIA_TYPES[extensionOf(name)] ?? "text/plain";
  return new Blob([text], { type: `${type};charset=utf-8` });
}

function extensionOf(name) {
  return name.slice(name.lastIndexOf(".") + 1).toLowerCase();
}

function decode(bytes) {
  const mark = (bytes[0] << 8) | bytes[1];
  if (mark === 0xfffe) return new TextDecoder("utf-16le").decode(bytes);
  if (mark === 0xfeff) return new TextDecoder("utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}
