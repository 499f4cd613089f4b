/**
 * Text and languages in the fragment of the address, `#s=en&t=de&q=…`, so that a link can be shared.
 * Browsers never send a fragment to a server.
 */

/** `{source, target, text}`; what the address does not name is null. */
export function readLink() {
  const fields = new URLSearchParams(location.hash.slice(1));
  return { source: fields.get("s"), target: fields.get("t"), text: fields.get("q") };
}

/** Put these in the address, in place of the former ones in the browser's history. */
export function writeLink({ source, target, text }) {
  const fields = new URLSearchParams({ s: source, t: target });
  if (text) fields.set("q", text);
  try {
    history.replaceState(null, "", `#${fields}`);
  } catch { /* Browsers bound how often and how long; the next change comes. */ }
}
