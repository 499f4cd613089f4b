// Bergamot's WebAssembly engine on standard input and output, one JSON value a line.
//
//     node translate.mjs '{"model": PATH, "shortlist": PATH, "vocabulary": PATH, "workers": N}'
//
// Says {"ready": true} once every worker has the model. An order {"sentences": [...], "batch": N}
// is answered by {"texts": [...]}: N sentences a call of the engine, calls shared among the workers.
// Workers are called directly, since the package's own queue waits a millisecond before each batch;
// its cache of translations is off.

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";

import { TranslatorBacking } from "@browsermt/bergamot-translator/translator.js";

const PAIR = { from: "en", to: "xx" };

/**
 * A Web Worker as Bergamot expects it. Its own for Node fails: it runs the worker's file, which calls
 * `require`, as an ES module.
 */
globalThis.Worker = class {
  #worker;

  constructor(url) {
    const path = fileURLToPath(url);
    const names = `__filename = ${JSON.stringify(path)}; __dirname = ${JSON.stringify(dirname(path))};`;
    this.#worker = new Worker(`${names}\n${readFileSync(path, "utf-8")}`, { eval: true });
  }

  addEventListener(kind, callback) {
    this.#worker.on(kind, (data) => callback({ data }));
  }

  postMessage(message) {
    this.#worker.postMessage(message);
  }
};

/** Looks up no model: they are given. */
class NoRegistry extends TranslatorBacking {
  async loadModelRegistery() {
    return [];
  }
}

async function load({ model, shortlist, vocabulary, workers }) {
  const backing = new NoRegistry({ cacheSize: 0 });
  const buffer = async (path) => Uint8Array.from(await readFile(path)).buffer;
  const start = async () => {
    const { exports } = await backing.loadWorker();
    await exports.loadTranslationModel(PAIR, {
      model: await buffer(model),
      shortlist: await buffer(shortlist),
      vocabs: [await buffer(vocabulary)],
      qualityModel: null,
      config: {},
    });
    return exports;
  };
  return Promise.all(Array.from({ length: workers }, start));
}

async function translate(workers, sentences, batch) {
  const texts = new Array(sentences.length);
  let next = 0;
  const work = async (worker) => {
    while (next < sentences.length) {
      const first = next;
      next += batch;
      const part = sentences.slice(first, first + batch);
      const found = await worker.translate({
        models: [PAIR],
        texts: part.map((text) => ({ text, html: false, qualityScores: false })),
      });
      found.forEach(({ target }, index) => (texts[first + index] = target.text));
    }
  };
  await Promise.all(workers.map(work));
  return texts;
}

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const workers = await load(JSON.parse(process.argv[2]));
answer({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const { sentences, batch } = JSON.parse(line);
  answer({ texts: await translate(workers, sentences, batch) });
}
process.exit(0);
