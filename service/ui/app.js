/** The page: what is typed is translated. Joins the parts; each has a module of its own. */

import { Alternatives } from "./alternatives.js";
import { describe, patiently, translate } from "./api.js";
import { copyText } from "./clipboard.js";
import { Files } from "./files.js";
import { Glossary } from "./glossary.js";
import { watchKey } from "./key.js";
import { AUTO, Languages } from "./languages.js";
import { latest } from "./latest.js";
import { readLink, writeLink } from "./link.js";
import { Panes, replaceSentences } from "./sentences.js";

const PAUSE_MS = 350;
const PAUSE_OF_LONG_MS = 800;
const LONG_CHARS = 2000;
const LINK_MS = 500;
const SPEAK_MS = 1000;
const ALTERNATIVES = 4;

const byId = (id) => document.getElementById(id);
const textField = byId("text");
const result = byId("result");
const chosen = new Map(); // What someone chose for a sentence, by languages, form of address and sentence.
let shown = { text: "", pairs: [], source: null, target: null };
let maxChars = Infinity;
let languages = null;
let files = null;
let linkTimer = 0;
let speakTimer = 0;

function report(message, isError = false, canTryAgain = false) {
  byId("status").textContent = message;
  byId("status").classList.toggle("error", isError);
  byId("again").hidden = !canTryAgain;
}

function setBusy(isBusy) {
  byId("busy").hidden = !isBusy;
  result.setAttribute("aria-busy", isBusy);
}

function body(text) {
  const { source, target, formality } = languages;
  const request = { text, source, target, formality };
  const { terms } = glossary;
  if (Object.keys(terms).length) request.glossary = terms;
  return request;
}

const translation = latest(async (signal) => {
  const text = textField.value;
  if (!languages || !text.trim()) return showNothing();
  const length = showCount();
  if (length > maxChars) {
    setBusy(false);
    report(`The text has ${(length - maxChars).toLocaleString("en")} characters too many: take a part of it, or open it as a file.`, true);
    return undefined;
  }
  setBusy(true);
  const tell = (message) => report(message);
  try {
    const request = { ...body(text), return: ["sentences"] };
    const answer = await patiently(() => translate(request, signal), signal, tell);
    showTranslation(text, answer);
    report("");
  } catch (error) {
    if (!signal.aborted) report(error.message, true, true);
  }
  if (!signal.aborted) setBusy(false);
  return undefined;
});

function showTranslation(text, { target, translations: [item] }) {
  const source = item.detected?.language ?? languages.source;
  languages.setDetected(item.detected?.confidence > 0 ? source : null);
  if (source !== AUTO) textField.lang = source;
  result.lang = target;
  const { formality } = languages;
  shown = { text: item.text, pairs: item.sentences ?? [], source, target, formality, original: text };
  applyChoices();
  const warnings = item.warnings.map(({ message }) => message);
  if (item.detected && source === target) warnings.push(`this is ${languages.name(target)} already`);
  byId("warnings").replaceChildren(...warnings.map((message) => {
    const entry = document.createElement("li");
    entry.textContent = `${message.charAt(0).toUpperCase()}${message.slice(1).replace(/\.$/, "")}.`;
    return entry;
  }));
  clearTimeout(speakTimer);
  speakTimer = setTimeout(() => {
    byId("spoken").lang = target;
    byId("spoken").textContent = shown.text;
  }, SPEAK_MS);
}

const choiceKey = (sentence) => `${shown.source} ${shown.target} ${shown.formality} ${sentence}`;

/** Show the translation, with what was chosen before in the place of the sentences it is for. */
function applyChoices() {
  shown = { ...shown, ...replaceSentences(shown.text, shown.pairs, (one) => chosen.get(choiceKey(one))) };
  const canChoose = languages.hasAlternatives(shown.source, shown.target);
  panes.show(shown.original, shown.text, shown.pairs, canChoose);
  byId("copy").disabled = byId("copy-link").disabled = false;
}

function showNothing() {
  setBusy(false);
  clearTimeout(speakTimer);
  shown = { text: "", pairs: [], source: null, target: null };
  result.replaceChildren();
  panes.mirrorText();
  byId("warnings").replaceChildren();
  byId("spoken").textContent = "";
  byId("copy").disabled = byId("copy-link").disabled = true;
  languages?.setDetected(null);
  report("");
}

function showCount() {
  const length = [...textField.value].length;
  const count = byId("count");
  const limit = Number.isFinite(maxChars) ? ` of ${maxChars.toLocaleString("en")}` : "";
  count.firstChild.textContent = `${length.toLocaleString("en")}${limit}`;
  count.classList.toggle("error", length > maxChars);
  byId("clear").hidden = !length;
  return length;
}

function changed(pauseMs) {
  alternatives.close();
  panes.mirrorText();
  showCount();
  clearTimeout(linkTimer);
  linkTimer = setTimeout(saveLink, LINK_MS);
  translation.soon(pauseMs ?? (textField.value.length > LONG_CHARS ? PAUSE_OF_LONG_MS : PAUSE_MS));
}

function saveLink() {
  clearTimeout(linkTimer);
  if (!languages) return;
  writeLink({ source: languages.source, target: languages.target, text: textField.value });
}

function languagesChanged() {
  textField.lang = languages.spoken ?? "";
  result.lang = languages.target;
  glossary.open(languages.target);
  changed(0);
}

/** Take languages from the address, and the text unless `keepText`. */
function followLink(keepText) {
  const { source, target, text } = readLink();
  if (source || target) languages.choose(source ?? AUTO, target);
  if (text !== null && !keepText) textField.value = text;
  languagesChanged();
}

const panes = new Panes((index, element) => alternatives.open(index, element));
const glossary = new Glossary(() => changed(0));
const alternatives = new Alternatives(
  async (index) => {
    const { source, target } = shown.pairs[index];
    const request = { ...body(source), source: shown.source, alternatives: ALTERNATIVES };
    const [item] = (await translate(request)).translations;
    const texts = new Set([item.text, ...(item.alternatives ?? [])]);
    texts.delete(target);
    return [...texts];
  },
  (index, text) => {
    chosen.set(choiceKey(shown.pairs[index].source), text);
    applyChoices();
    result.querySelector(`[data-index="${index}"]`)?.focus();
  },
);

textField.addEventListener("input", () => changed());
const tryAgain = () => (languages ? translation.now() : start());
byId("again").addEventListener("click", tryAgain);
watchKey(tryAgain);
byId("copy").addEventListener("click", async () => {
  await copyText(shown.text);
  report("Translation copied.");
});
byId("copy-link").addEventListener("click", async () => {
  saveLink();
  await copyText(location.href);
  report("Link copied: it holds the text.");
});
byId("clear").addEventListener("click", () => {
  textField.value = "";
  textField.focus();
  changed(0);
});
byId("swap").addEventListener("click", () => {
  languages.swap();
  if (shown.text) textField.value = shown.text;
  languagesChanged();
});
addEventListener("hashchange", () => languages && followLink(false));
addEventListener("pagehide", saveLink);
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    translation.now();
  } else if (event.key === "Escape") {
    if (alternatives.close()) return;
    if (translation.stop()) {
      setBusy(false);
      report("Stopped.");
    } else files?.stop();
  }
});

async function start() {
  const never = new AbortController().signal;
  try {
    const served = await patiently(describe, never, (message) => report(message));
    maxChars = served.maxChars;
    languages = new Languages(served, languagesChanged);
    files = new Files({ languages, glossary, accepts: served.files, report });
    report("");
    followLink(true);
  } catch (error) {
    report(error.message, true, true);
  }
}

textField.value ||= readLink().text ?? "";
panes.mirrorText();
start();
