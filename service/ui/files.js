/** Files: dropped or chosen, translated with progress, downloaded. */

import { detect, translate } from "./api.js";
import { asBlob, openDocument, readFile, translatedName } from "./documents.js";
import { Job } from "./job.js";
import { AUTO } from "./languages.js";

const SAMPLE_CHARS = 1000;
const byId = (id) => document.getElementById(id);

export class Files {
  /** `report(message, isError)` tells why a file is not taken. */
  constructor({ languages, glossary, maxChars, report }) {
    Object.assign(this, { languages, glossary, maxChars, report });
    this.running = null;
    this.job = null;
    const chooser = byId("file");
    byId("open-file").addEventListener("click", () => chooser.click());
    chooser.addEventListener("change", () => {
      if (chooser.files.length) this.take(chooser.files[0]);
      chooser.value = "";
    });
    byId("file-stop").addEventListener("click", () => this.stop());
    byId("file-go-on").addEventListener("click", () => this.goOn());
    byId("file-close").addEventListener("click", () => this.close());
    this.watchDrops();
  }

  watchDrops() {
    let depth = 0;
    const isFile = (event) => event.dataTransfer?.types.includes("Files");
    const mark = (change) => {
      depth = Math.max(0, depth + change);
      document.body.classList.toggle("dropping", depth > 0);
    };
    addEventListener("dragenter", (event) => isFile(event) && mark(1));
    addEventListener("dragleave", (event) => isFile(event) && mark(-1));
    addEventListener("dragover", (event) => isFile(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!isFile(event)) return;
      event.preventDefault();
      mark(-depth);
      this.take(event.dataTransfer.files[0]);
    });
  }

  /** Read a file and start to translate it, in place of a former one. */
  async take(file) {
    this.close();
    const { source, target } = this.languages;
    try {
      const text = await readFile(file);
      this.opened = openDocument(file.name, text, this.maxChars);
      this.source = source;
      this.target = target;
      this.name = file.name;
      this.terms = this.glossary.terms;
      this.sample = this.opened.units.join("\n").slice(0, SAMPLE_CHARS);
    } catch (error) {
      this.report(error.message, true);
      return;
    }
    this.job = new Job({
      units: this.opened.units,
      formatOf: this.opened.formatOf,
      maxChars: this.maxChars,
      send: (texts, format, signal) => this.send(texts, format, signal),
      onProgress: (share) => this.showProgress(share),
      tell: (message) => this.say(message),
    });
    byId("file-panel").hidden = false;
    byId("file-name").textContent = file.name;
    this.showProgress(0);
    byId("file-stop").focus();
    await this.goOn();
  }

  async send(texts, format, signal) {
    if (this.source === AUTO) this.source = await this.detectOnce(signal);
    const body = { text: texts, source: this.source, target: this.target, format };
    if (Object.keys(this.terms).length) body.glossary = this.terms;
    const answer = await translate(body, signal);
    return answer.translations.map(({ text }) => text);
  }

  /** One language for the whole file: the likeliest that is translated to the target. */
  async detectOnce(signal) {
    const { targets } = this.languages;
    const fits = (code) => targets.get(code)?.includes(this.target);
    const found = (await detect(this.sample, signal)).find(({ language }) => fits(language));
    return found?.language ?? [...targets.keys()].find(fits);
  }

  async goOn() {
    const mine = new AbortController();
    this.running = mine;
    this.showButtons("file-stop");
    this.say(`Translating to ${this.languages.name(this.target)}…`);
    try {
      const translations = await this.job.run(mine.signal);
      this.offer(this.opened.rebuild(translations));
    } catch (error) {
      if (this.running !== mine) return;
      this.running = null;
      this.showButtons("file-go-on");
      this.say(mine.signal.aborted ? "Stopped." : error.message, !mine.signal.aborted);
    }
  }

  offer(text) {
    this.running = null;
    const link = byId("file-download");
    const name = translatedName(this.name, this.target);
    this.address = URL.createObjectURL(asBlob(name, text));
    link.href = this.address;
    link.download = name;
    link.textContent = `Download ${name}`;
    this.showButtons("file-download");
    this.say("Translated.");
  }

  /** Stop translating; true if something was to be stopped. */
  stop() {
    const wasRunning = this.running !== null;
    this.running?.abort();
    return wasRunning;
  }

  close() {
    const { running } = this;
    this.running = null;
    running?.abort();
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = null;
    byId("file-panel").hidden = true;
  }

  showButtons(shown) {
    const hadFocus = byId("file-panel").contains(document.activeElement);
    for (const id of ["file-stop", "file-go-on", "file-download"]) byId(id).hidden = id !== shown;
    if (hadFocus) byId(shown).focus();
  }

  showProgress(share) {
    byId("file-progress").value = share;
    byId("file-share").textContent = `${Math.floor(100 * share)} %`;
  }

  say(message, isError = false) {
    byId("file-status").textContent = message;
    byId("file-status").classList.toggle("error", isError);
  }
}
