/** The API key that a service may want: asked for when it does, kept until the tab is closed. */

const NAME = "api-key";
let key = "";
try { key = sessionStorage.getItem(NAME) ?? ""; } catch { /* Without storage, asked for again. */ }

/** Headers that carry the key; none without one. */
export const keyHeaders = () => (key ? { Authorization: `Bearer ${key}` } : {});

/** Show the field for the key if a service's answer asks for one. */
export function askForKey(status) {
  const form = document.getElementById("key-form");
  if (status !== 401 && status !== 403) return;
  form.hidden = false;
}

/** `onKey` is called when someone has given a key. */
export function watchKey(onKey) {
  const form = document.getElementById("key-form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key = form.querySelector("input").value.trim();
    try { sessionStorage.setItem(NAME, key); } catch { /* It lasts as long as the page. */ }
    form.hidden = true;
    onKey();
  });
}
