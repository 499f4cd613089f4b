/** The service's API, its errors in plain words, and patience where they pass. */

import { askForKey, keyHeaders } from "./key.js";

const MAX_WAIT_S = 120;
const MAX_TRIES = 8;

/** What went wrong, for people. `status` is 0 where no answer came; `waitS` is set if it passes. */
export class ServiceError extends Error {
  constructor(message, { status = 0, waitS = null } = {}) {
    super(message);
    this.status = status;
    this.waitS = waitS;
  }
}

/** Translations of texts: `{model, source, target, translations}`. */
export const translate = (body, signal) => ask("v1/translate", { body, signal });

/** The languages that a text may be in, likeliest first: `[{language, confidence}]`. */
export async function detect(text, signal) {
  return (await ask("v1/detect", { body: { text }, signal })).detections[0];
}

/** Send a file to be translated, as a form; the others are about the job that it becomes. */
export const sendFile = (form, signal) => ask("v1/translate/file", { form, signal });
export const fileStatus = (id, signal) => ask(`v1/files/${id}`, { signal });
export const fetchFile = (id, signal) => ask(`v1/files/${id}/result`, { signal, read: "blob" });

/** Delete a file; also when the page is left. Whatever goes wrong, it expires. */
export function deleteFile(id) {
  const options = { method: "DELETE", headers: keyHeaders(), keepalive: true };
  fetch(`v1/files/${id}`, options).catch(() => {});
}

/**
 * What is served: `{languages: [{code, name, targets, alternatives, formality}], first: {source, target},
 * maxChars, files: {extensions, maxBytes}}`.
 */
export async function describe() {
  const [{ languages }, settings] = await Promise.all([ask("v1/languages"), ask("frontend/settings")]);
  const { source, target } = settings.language;
  const names = new Map([[target.code, target.name], ...languages.map((one) => [one.code, one.name])]);
  return {
    languages,
    names,
    first: { source: source.code, target: target.code },
    maxChars: settings.charLimit,
    files: { extensions: settings.supportedFilesFormat, maxBytes: settings.fileBytesLimit },
  };
}

async function ask(path, { body, form, signal, read = "json" } = {}) {
  const options = { signal, headers: keyHeaders() };
  if (form) Object.assign(options, { method: "POST", body: form });
  if (body) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (signal?.aborted) throw error;
    const message = navigator.onLine ? "The service cannot be reached." : "There is no connection.";
    throw new ServiceError(message, { waitS: 2 });
  }
  if (response.ok && read === "blob") return response.blob();
  const answer = await response.json().catch(() => ({}));
  signal?.throwIfAborted();
  if (!response.ok) throw inWords(response, answer.error);
  return answer;
}

function inWords(response, error) {
  const { status } = response;
  askForKey(status);
  const said = error?.message ?? `answer ${status}`;
  const announced = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const waitS = Number.isFinite(announced) ? announced : 5;
  switch (status) {
    case 401:
      return new ServiceError("This service wants an API key.", { status });
    case 403:
      return new ServiceError("The service does not take this API key.", { status });
    case 404:
      return new ServiceError("The service does not have this file any more: try again.", { status });
    case 413:
      return new ServiceError("The text is too long for the service: take a part of it.", { status });
    case 429: {
      const messages = { quota: "This month's quota is used up.", too_many_files: "Your other files wait." };
      const message = messages[error?.code] ?? "Too many requests.";
      return new ServiceError(message, { status, waitS });
    }
    case 503: {
      const message = error?.code === "overloaded" ? "The service is busy." : "The service is not ready.";
      return new ServiceError(message, { status, waitS });
    }
    case 408:
    case 504:
      return new ServiceError("The service took too long: take less text, or try again.", { status });
    case 400:
    case 422:
      return new ServiceError(`The service cannot translate this: ${said}.`, { status });
    default:
      return new ServiceError("The service failed on this text: try again, or change the text.", { status });
  }
}

/**
 * Do some work, and again after errors that pass, as late as the service asks for. `tell` gets a
 * sentence before each wait. Throws what does not pass, and the signal's reason.
 */
export async function patiently(work, signal, tell) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof ServiceError) || error.waitS === null || tries === MAX_TRIES) throw error;
      if (error.waitS > MAX_WAIT_S) {
        throw new ServiceError(`${error.message} Come back in ${inLargeUnits(error.waitS)}.`, error);
      }
      const seconds = error.status ? Math.max(1, error.waitS) : Math.min(30, error.waitS ** tries);
      tell(`${error.message} Trying again in ${seconds} s.`);
      await pause(seconds, signal);
    }
  }
}

function inLargeUnits(seconds) {
  const hours = Math.ceil(seconds / 3600);
  if (hours > 48) return `${Math.ceil(hours / 24)} days`;
  return hours > 2 ? `${hours} hours` : `${Math.ceil(seconds / 60)} minutes`;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(done, seconds * 1000);
    function done() {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    }
    addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}
