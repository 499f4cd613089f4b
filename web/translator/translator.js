/**
 * Translation in a page, without a server: a Quickstudy bundle in a Web Worker.
 *
 *     const translator = await Translator.load("model/");
 *     const { text } = await translator.translate("A man is riding a bicycle.");
 */

export class Translator {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #open = new Map();
  #last = 0;

  /**
   * @param {string | URL} base the bundle's folder, relative to the page
   * @param {{onProgress?: (progress: {loaded: number, total: number}) => void}} options bytes that
   *   have come, of all that are needed
   * @returns {Promise<Translator>} with `info`: name, source, target, parameters, licence,
   *   attribution, engine, formality (the form of address where one may be asked for, else null)
   * @throws {Error} saying what to do
   */
  static async load(base, { onProgress } = {}) {
    const translator = new Translator();
    const folder = new URL(base, document.baseURI);
    if (!folder.pathname.endsWith("/")) folder.pathname += "/";
    try {
      translator.info = await translator.#ask("load", { base: folder.href }, onProgress);
    } catch (error) {
      translator.close();
      throw error;
    }
    return translator;
  }

  constructor() {
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#failAll(event.message || "worker.js or a file it needs is not there: build the page again");
    };
  }

  /**
   * Translate a text of any length; its lines, spaces and blank lines are kept. Texts are
   * translated in the order of the calls.
   *
   * @param {string} text
   * @param {{signal?: AbortSignal, formality?: "formal" | "informal",
   *   onPart?: (part: {text: string, done: number, sentences: number}) => void}} options
   *   `signal` ends it after the sentence at hand, with what there is; `formality` is the form of
   *   address, the model's own if left out; `onPart` is given the translation as it grows
   * @returns {Promise<{text: string, sentences: number, tokens: number, truncated: boolean}>}
   * @throws {Error} saying what to do
   */
  translate(text, { signal, onPart, formality } = {}) {
    return this.#ask("translate", { text, formality }, onPart, signal);
  }

  /** Free the model. What was not translated fails. */
  close() {
    this.#worker.terminate();
    this.#failAll("the translator was closed");
  }

  #ask(task, given, onProgress = () => {}, signal = undefined) {
    const id = (this.#last += 1);
    const cancel = () => this.#open.has(id) && this.#worker.postMessage({ id, task: "cancel" });
    signal?.addEventListener("abort", cancel, { once: true });
    return new Promise((resolve, reject) => {
      this.#open.set(id, { resolve, reject, onProgress });
      if (signal?.aborted) cancel();
      this.#worker.postMessage({ id, task, ...given });
    });
  }

  #receive({ id, progress, result, error }) {
    const asked = this.#open.get(id);
    if (!asked) return;
    if (progress) {
      asked.onProgress(progress);
      return;
    }
    this.#open.delete(id);
    if (error === undefined) asked.resolve(result);
    else asked.reject(new Error(error));
  }

  #failAll(message) {
    for (const { reject } of this.#open.values()) reject(new Error(message));
    this.#open.clear();
  }
}
