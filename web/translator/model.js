/**
 * A bundle's ONNX engine: loaded, checked, translating. Runs where it is imported; `translator.js`
 * runs it in a worker.
 */

import * as ort from "./ort/ort.wasm.bundle.min.js";
import { neededFiles, onnxEngine, outputLimit } from "./bundle.js";
import { addressOf, fetchChecked, fetchJson, unpacked } from "./download.js";
import { Source } from "./source.js";
import { splitText } from "./text.js";
import { Tokenizer } from "./tokenizer.js";

const EOS = 3n;
const INPUTS = ["limit", "return_scores", "src"];
const RUNTIME = new URL("./ort/", import.meta.url);
const PYTHON_LINE_BREAK = /\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]/u;
const PYTHON_EDGES =
  /^[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+|[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/gu;
/** A module with one SIMD instruction: whether it is valid says whether the browser has SIMD. */
const SIMD = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11);

export class Model {
  constructor(manifest, source, tokenizer, session) {
    this.manifest = manifest;
    this.source = source;
    this.tokenizer = tokenizer;
    this.session = session;
  }

  /**
   * @param {URL} base the bundle's folder, with a slash at its end
   * @param {(progress: {loaded: number, total: number}) => void} onProgress bytes
   * @returns {Promise<Model>}
   * @throws {Error} saying what to do
   */
  static async load(base, onProgress) {
    checkBrowser();
    const [manifest, runtime] = await Promise.all([
      fetchJson(new URL("manifest.json", base)),
      fetchJson(new URL("runtime.json", RUNTIME)),
    ]);
    const [wasm, entry] = Object.entries(runtime.files).find(([name]) => name.endsWith(".wasm"));
    const files = [[addressOf(wasm, RUNTIME), entry], ...neededFiles(manifest, base)];
    const total = files.reduce((sum, [, { bytes }]) => sum + bytes, 0);
    let loaded = 0;
    const onBytes = (bytes) => onProgress({ loaded: (loaded += bytes), total });
    const [wasmBinary, tokenizerBytes, graph, sourceBytes = tokenizerBytes] = await Promise.all(
      files.map(([address, expected]) => fetchChecked(address, expected, onBytes)));
    const tokenizer = new Tokenizer(tokenizerBytes);
    if (tokenizer.size !== manifest.vocab_size) {
      throw new Error(
        `the tokenizer has ${tokenizer.size} pieces, the manifest says ${manifest.vocab_size}: ` +
        "export the bundle again");
    }
    const source = new Source(manifest, sourceBytes);
    return new Model(manifest, source, tokenizer, await openSession(await unpacked(graph), wasmBinary));
  }

  /** What a page may want to show. */
  get info() {
    const { name, source_lang, target_lang, parameters, licence, attribution } = this.manifest;
    return {
      name, source: source_lang, target: target_lang, parameters, licence, attribution,
      engine: onnxEngine(this.manifest).name,
      formality: this.source.formality,
    };
  }

  /**
   * Translate a text, keeping its lines, spaces and blank lines.
   *
   * @param {string} text
   * @param {(part: {text: string, done: number, sentences: number}) => Promise<boolean>} onPart
   *   given what has been translated so far; false ends it there
   * @param {"formal" | "informal"} [formality] form of address, the bundle's own if left out
   * @returns {Promise<{text: string, sentences: number, tokens: number, truncated: boolean}>}
   *   `tokens` that were written; `truncated`: the output limit cut a sentence off
   */
  async translate(text, onPart = async () => true, formality = undefined) {
    const countTokens = (sentence) => this.source.countTokens(sentence);
    const { source_lang: language } = this.manifest;
    const parts = splitText(text, language, countTokens, this.source.maxTokens);
    const sentences = parts.filter((part) => part.translate).length;
    const result = { text: "", sentences: 0, tokens: 0, truncated: false };
    for (const part of parts) {
      if (!part.translate) {
        result.text += part.text;
        continue;
      }
      const one = await this.translateSentence(part.text, formality);
      result.text += one.text;
      result.sentences += 1;
      result.tokens += one.tokens;
      result.truncated ||= one.truncated;
      if (!(await onPart({ text: result.text, done: result.sentences, sentences }))) break;
    }
    return result;
  }

  /**
   * Translate one sentence of at most `source.maxTokens` tokens.
   *
   * @param {string} sentence
   * @param {"formal" | "informal"} [formality]
   * @returns {Promise<{text: string, tokens: number, truncated: boolean}>}
   */
  async translateSentence(sentence, formality) {
    const ids = this.source.encode(sentence, formality);
    if (!ids.length) return { text: "", tokens: 0, truncated: false };
    const src = BigInt64Array.from([...ids.map(BigInt), EOS]);
    const limit = BigInt64Array.of(BigInt(outputLimit(this.manifest.decoding, ids.length)));
    const { trg } = await this.session.run({
      src: new ort.Tensor("int64", src, [1, src.length]),
      limit: new ort.Tensor("int64", limit, []),
      return_scores: new ort.Tensor("bool", [false], []),
    });
    const end = trg.data.indexOf(EOS);
    const target = Array.from(end < 0 ? trg.data : trg.data.subarray(0, end), Number);
    const text = this.tokenizer.decode(target).split(PYTHON_LINE_BREAK).join(" ");
    return {
      text: text.replace(PYTHON_EDGES, ""),
      tokens: target.length,
      truncated: end < 0,
    };
  }
}

function checkBrowser() {
  if (globalThis.WebAssembly?.validate(SIMD) && globalThis.Intl?.Segmenter) return;
  throw new Error(
    "this browser lacks WebAssembly SIMD or Intl.Segmenter: use Chrome or Edge 91, Firefox 125, " +
    "Safari 16.4, or newer ones");
}

async function openSession(graph, wasmBinary) {
  ort.env.wasm.wasmBinary = wasmBinary;
  ort.env.wasm.numThreads = 1; // more would need cross-origin isolation
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  const inputs = [...session.inputNames].sort();
  if (inputs.join() !== INPUTS.join()) {
    throw new Error(
      `greedy.onnx takes ${inputs.join(", ")}, this page gives ${INPUTS.join(", ")}: build the ` +
      "page with the version of Quickstudy that wrote the bundle");
  }
  return session;
}
