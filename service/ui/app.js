"use strict";

const byId = (id) => document.getElementById(id);

function report(message, isError = false) {
  byId("status").textContent = message;
  byId("status").className = isError ? "error" : "";
}

async function describeModel() {
  const answer = await fetch("v1/models");
  if (!answer.ok) return;
  const model = (await answer.json()).models[0];
  byId("source-name").textContent = `(${model.source})`;
  byId("target-name").textContent = `(${model.target})`;
  byId("source-text").lang = model.source;
  byId("target-text").lang = model.target;
  const size = (model.size_bytes / 1e6).toFixed(1);
  byId("about").textContent =
    `Machine translation ${model.source} → ${model.target} by the model ${model.name}: ` +
    `${model.parameters.toLocaleString("en")} parameters, ${size} MB.`;
}

async function translate(event) {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  report("Translating…");
  try {
    const answer = await fetch("v1/translate", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text: byId("source-text").value }),
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.error.message || body.error);
    byId("target-text").value = body.translations[0].text;
    report(body.translations[0].truncated ? "A sentence was cut off by the output limit." : "Done.");
  } catch (error) {
    report(`Not translated: ${error.message}`, true);
  } finally {
    button.disabled = false;
  }
}

byId("form").addEventListener("submit", translate);
describeModel().catch(() => report("The service does not answer.", true));
