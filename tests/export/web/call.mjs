// Calls one of the page's functions: `node call.mjs NAME < arguments.json`, the result as JSON.
import { readFileSync } from "node:fs";
import { neededFiles, onnxEngine, outputLimit } from "../../../web/translator/bundle.js";
import { addressOf } from "../../../web/translator/download.js";
import { sha256, sha256Plain } from "../../../web/translator/sha256.js";
import { Source } from "../../../web/translator/source.js";
import { splitText } from "../../../web/translator/text.js";
import { Tokenizer } from "../../../web/translator/tokenizer.js";

const attempt = (call) => {
  try {
    return call();
  } catch (error) {
    return { error: error.message };
  }
};
const base = new URL("http://page.example/model/");
const functions = {
  ids({ model, texts, ids }) {
    const tokenizer = new Tokenizer(readFileSync(model));
    return {
      encoded: texts.map((text) => tokenizer.encode(text)),
      decoded: ids.map((row) => tokenizer.decode(row)),
    };
  },
  tokenizer: ({ bytes }) => attempt(() => new Tokenizer(Uint8Array.from(bytes)).size),
  parts({ model, texts, maxTokens }) {
    const tokenizer = new Tokenizer(readFileSync(model));
    const countTokens = (text) => tokenizer.encode(text).length;
    return texts.map((text) => splitText(text, "en", countTokens, maxTokens));
  },
  sources: ({ model, manifest, texts, forms }) => attempt(() => {
    const source = new Source(manifest, readFileSync(model));
    return {
      maxTokens: source.maxTokens,
      formality: source.formality,
      ids: forms.map((form) => texts.map((text) => source.encode(text, form ?? undefined))),
      counts: texts.map((text) => source.countTokens(text)),
    };
  }),
  files: ({ manifest }) => attempt(() => neededFiles(manifest, base).map(([address]) => address.href)),
  limits: ({ decoding, counts }) => counts.map((count) => outputLimit(decoding, count)),
  engines: ({ manifests }) => manifests.map((one) => attempt(() => onnxEngine(one).name)),
  addresses: ({ paths }) => paths.map((path) => attempt(() => addressOf(path, base).href)),
  async sha256({ texts }) {
    const bytes = texts.map((text) => new TextEncoder().encode(text));
    return [await Promise.all(bytes.map(sha256)), bytes.map(sha256Plain)];
  },
};
const result = await functions[process.argv[2]](JSON.parse(readFileSync(0, "utf-8")));
process.stdout.write(JSON.stringify(result));
