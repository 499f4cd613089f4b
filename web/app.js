/** The page: loads the model, translates what is typed, tells how far it is. */

import { Translator } from "./translator/translator.js";

const byId = (id) => document.getElementById(id);
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

let translator = null;
let running = null;

function report(message, isError = false) {
  byId("status").textContent = message;
  byId("status").className = isError ? "error" : "";
}

function describe({ name, source, target, parameters, licence, attribution, engine }, bytes) {
  const languageNames = new Intl.DisplayNames("en", { type: "language" });
  for (const [side, code] of [["source", source], ["target", target]]) {
    byId(`${side}-name`).textContent = `(${languageNames.of(code)})`;
    byId(`${side}-text`).lang = code;
  }
  byId("about").textContent =
    `${languageNames.of(source)} → ${languageNames.of(target)} in this browser, by the model ` +
    `${name} (${engine}): ${parameters.toLocaleString("en")} parameters; ` +
    `${megabytes(bytes)} MB with the runtime.`;
  byId("licence").textContent = [licence, attribution].filter(Boolean).join(". ");
}

async function load() {
  report("Loading the model…");
  let bytes = 0;
  const onProgress = ({ loaded, total }) => {
    bytes = total;
    byId("progress").max = total;
    byId("progress").value = loaded;
    byId("progress-label").textContent =
      `Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB`;
  };
  try {
    translator = await Translator.load("model/", { onProgress });
    describe(translator.info, bytes);
    byId("form-of-address").hidden = !translator.info.formality;
    byId("translate").disabled = false;
    report("Ready: no server is needed from here on.");
  } catch (error) {
    report(`Not loaded: ${error.message}.`, true);
  } finally {
    byId("loading").hidden = true;
  }
}

async function translate(event) {
  event.preventDefault();
  if (!translator || running) return;
  running = new AbortController();
  setRunning(true);
  const started = performance.now();
  try {
    const result = await translator.translate(byId("source-text").value, {
      signal: running.signal,
      formality: byId("formality").value || undefined,
      onPart: ({ text, done, sentences }) => {
        byId("target-text").value = text;
        if (sentences > 1) byId("translate").textContent = `${done} of ${sentences}…`;
      },
    });
    byId("target-text").value = result.text;
    report(summary(result, performance.now() - started, running.signal.aborted));
  } catch (error) {
    report(`Not translated: ${error.message}.`, true);
  } finally {
    running = null;
    setRunning(false);
  }
}

function summary({ sentences, truncated }, milliseconds, stopped) {
  const count = `${sentences} ${sentences === 1 ? "sentence" : "sentences"}`;
  const notes = [
    stopped ? "Stopped." : "",
    truncated ? "A sentence was cut off by the output limit." : "",
  ];
  return [`${count} in ${Math.round(milliseconds)} ms.`, ...notes].filter(Boolean).join(" ");
}

function setRunning(isRunning) {
  byId("translate").setAttribute("aria-disabled", isRunning); // disabled, it would lose the focus
  byId("translate").textContent = isRunning ? "Translating…" : "Translate";
  byId("stop").hidden = !isRunning;
  if (isRunning) report("Translating…");
}

byId("form").addEventListener("submit", translate);
byId("stop").addEventListener("click", () => running?.abort());
byId("source-text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});
load();
