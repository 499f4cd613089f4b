/** Files: dropped or chosen, translated by the service as jobs with progress, downloaded. */

import { deleteFile, fetchFile, fileStatus, patiently, sendFile } from "./api.js";

const POLL_MS = 400;
const byId = (id) => document.getElementById(id);

export class Files {
  /** `accepts`: `{extensions, maxBytes}`; `report(message, isError)` tells why a file is not taken. */
  constructor({ languages, glossary, accepts, report }) {
    Object.assign(this, { languages, glossary, accepts, report });
    this.running = null;
    this.job = null; // What the service has of the file.
    byId("open-file").hidden = !accepts.extensions.length;
    if (!accepts.extensions.length) return;
    const chooser = byId("file");
    chooser.accept = accepts.extensions.join(",");
    byId("open-file").addEventListener("click", () => chooser.click());
    chooser.addEventListener("change", () => {
      if (chooser.files.length) this.take(chooser.files[0]);
      chooser.value = "";
    });
    byId("file-stop").addEventListener("click", () => this.stop());
    byId("file-again").addEventListener("click", () => this.run());
    byId("file-close").addEventListener("click", () => this.close());
    addEventListener("pagehide", () => this.forget());
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

  /** Translate a file, in place of a former one. */
  async take(file) {
    this.close();
    const { extensions, maxBytes } = this.accepts;
    const extension = file.name.slice(file.name.lastIndexOf(".")).toLowerCase();
    if (!extensions.includes(extension)) {
      const known = extensions.map((one) => one.slice(1)).join(", ");
      this.report(`${file.name} is not a file for this page: it takes ${known}.`, true);
      return;
    }
    if (file.size > maxBytes) {
      this.report(`${file.name} is larger than ${maxBytes / 1e6} MB.`, true);
      return;
    }
    this.report("");
    this.form = new FormData();
    this.form.set("file", file);
    this.form.set("source", this.languages.source);
    this.form.set("target", this.languages.target);
    if (this.languages.formality) this.form.set("formality", this.languages.formality);
    this.form.set("glossary", JSON.stringify(this.glossary.terms));
    byId("file-panel").hidden = false;
    byId("file-name").textContent = file.name;
    byId("file-stop").focus();
    await this.run();
  }

  /** Send the file and wait for its translation. */
  async run() {
    const mine = new AbortController();
    const { signal } = mine;
    const again = (work) => patiently(work, signal, (message) => this.say(message));
    this.running = mine;
    this.showButtons("file-stop");
    this.showProgress(0);
    try {
      this.say("Sending…");
      this.job = await again(() => sendFile(this.form, signal));
      while (this.job.status !== "done") {
        if (this.job.status === "failed") throw new Error(`This failed: ${this.job.error.message}.`);
        this.showProgress(this.job.progress);
        this.say(`Translating to ${this.languages.name(this.job.target)}…${timeLeft(this.job.eta_s)}`);
        await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
        this.job = await again(() => fileStatus(this.job.id, signal));
      }
      this.offer(await again(() => fetchFile(this.job.id, signal)));
    } catch (error) {
      this.forget();
      if (this.running !== mine) return;
      this.running = null;
      this.showButtons("file-again");
      this.say(signal.aborted ? "Stopped." : error.message, !signal.aborted);
    }
  }

  offer(blob) {
    this.running = null;
    const link = byId("file-download");
    const name = translatedName(this.job);
    this.address = URL.createObjectURL(blob);
    link.href = this.address;
    link.download = name;
    link.textContent = `Download ${name}`;
    const count = Object.values(this.job.warnings).reduce((sum, one) => sum + one, 0);
    this.showProgress(1);
    this.showButtons("file-download");
    this.say(count ? `Translated. Warnings: ${count}.` : "Translated.");
    this.forget();
  }

  /** Have the service delete what it has of the file. */
  forget() {
    if (this.job) deleteFile(this.job.id);
    this.job = null;
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
    this.forget();
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = null;
    byId("file-panel").hidden = true;
  }

  showButtons(shown) {
    const hadFocus = byId("file-panel").contains(document.activeElement);
    for (const id of ["file-stop", "file-again", "file-download"]) byId(id).hidden = id !== shown;
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

/** `notes.md` translated to German: `notes.de.md`. */
function translatedName({ name, target }) {
  const dot = name.lastIndexOf(".");
  return `${name.slice(0, dot)}.${target}${name.slice(dot)}`;
}

function timeLeft(seconds) {
  if (!seconds || seconds < 10) return "";
  return seconds < 90 ? ` ${Math.round(seconds / 10) * 10} s left` : ` ${Math.round(seconds / 60)} minutes left`;
}
