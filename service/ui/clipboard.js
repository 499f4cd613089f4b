/** Text into the clipboard. */

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const former = document.activeElement;
    const box = document.createElement("textarea"); // Pages without HTTPS have no clipboard.
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
    former?.focus();
  }
}
