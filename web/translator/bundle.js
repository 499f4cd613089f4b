/** A bundle's manifest, as far as the browser needs it. */

import { addressOf } from "./download.js";

const FORMATS = [1, 2, 3];
/** The second is packed by gzip, as bundles have it today. */
const GRAPHS = ["greedy.onnx", "greedy.onnx.gz"];
/** `WIDTHS` and `WIDTH_STEP` of export/runtime/engines/base.py. */
const WIDTHS = [8, 9, 11, 15, 23, 24];
const WIDTH_STEP = 8;

/**
 * The engine that the browser runs: the bundle's first ONNX one without a shortlist.
 *
 * @throws {Error} if there is none, or the format is another
 */
export function onnxEngine(manifest) {
  if (!FORMATS.includes(manifest.format_version)) {
    throw new Error(
      `the bundle has format ${manifest.format_version}, this page reads ${FORMATS[0]} to ${FORMATS.at(-1)}: ` +
      "build the page with the version of Quickstudy that wrote the bundle");
  }
  const engine = manifest.engines.find(({ kind, shortlist }) => kind === "onnx" && !shortlist);
  if (!engine) {
    throw new Error(
      `the bundle ${manifest.name} has no ONNX engine: write ` +
      "`engines: [ctranslate2-int8, onnx-int8]` under `export` in its recipe and run " +
      "`quickstudy export`");
  }
  return engine;
}

/**
 * Files to load: [address, entry of the manifest] of the tokenizer, of the greedy graph and of the
 * source's tokenizer, where it has one of its own.
 *
 * @param {object} manifest
 * @param {URL} base the bundle's folder
 */
export function neededFiles(manifest, base) {
  const { tokenizer, source_tokenizer: own } = manifest;
  const [first, packed] = GRAPHS.map((name) => `${onnxEngine(manifest).path}/${name}`);
  const graph = packed in manifest.files ? packed : first;
  return [tokenizer, graph, ...(own ? [own] : [])].map((path) => {
    const entry = manifest.files[path];
    if (!entry) throw new Error(`the bundle does not list ${path}: export it again`);
    return [addressOf(path, base), entry];
  });
}

/**
 * Most output tokens for a source of so many, as `SentenceEngine.output_limit` of the service: those
 * of the longest source that would share its batch there.
 */
export function outputLimit(decoding, sourceTokens) {
  const longest = paddedTokens(sourceTokens) - 1;
  const wanted = Math.floor(decoding.max_output_ratio * longest + decoding.max_output_constant);
  return Math.min(wanted, decoding.max_output_tokens);
}

function paddedTokens(sourceTokens) {
  const width = sourceTokens + 1;
  const step = WIDTHS.find((one) => one >= width);
  return step ?? Math.ceil(width / WIDTH_STEP) * WIDTH_STEP;
}
