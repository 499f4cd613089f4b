/** Other translations of a sentence, below it. */

export class Alternatives {
  /** `find(index)` resolves to a list of texts; `use(index, text)` takes one. */
  constructor(find, use) {
    this.find = find;
    this.use = use;
    this.box = document.getElementById("alternatives");
    this.list = this.box.querySelector("ul");
    this.note = this.box.querySelector("p");
    this.anchor = null;
    document.addEventListener("pointerdown", (event) => {
      if (!this.box.contains(event.target) && event.target !== this.anchor) this.close();
    });
    this.box.addEventListener("focusout", ({ relatedTarget }) => {
      if (relatedTarget && !this.box.contains(relatedTarget)) this.close();
    });
    this.box.addEventListener("keydown", (event) => this.move(event));
  }

  get isOpen() { return this.anchor !== null; }

  async open(index, anchor) {
    this.close();
    this.anchor = anchor;
    anchor.setAttribute("aria-expanded", "true");
    this.note.textContent = "Looking for other translations…";
    this.list.replaceChildren();
    this.box.hidden = false;
    this.place();
    let texts = [];
    let fault = "";
    try {
      texts = await this.find(index);
    } catch (error) {
      fault = error.message;
    }
    if (this.anchor !== anchor) return;
    this.note.textContent = fault || (texts.length
      ? "Other translations" : "There is no other translation of this sentence.");
    this.list.replaceChildren(...texts.map((text) => this.item(index, text)));
    this.place();
    (this.list.querySelector("button") ?? this.note).focus();
  }

  item(index, text) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.lang = document.getElementById("result").lang;
    button.dir = "auto";
    button.addEventListener("click", () => {
      this.close();
      this.use(index, text);
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  place() {
    const rects = this.anchor.getClientRects();
    const last = rects[rects.length - 1];
    const around = this.box.offsetParent.getBoundingClientRect();
    const left = Math.min(last.left - around.left, around.width - this.box.offsetWidth - 8);
    this.box.style.left = `${Math.max(8, left)}px`;
    this.box.style.top = `${last.bottom - around.top + 4}px`;
  }

  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.list.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    buttons[(at + step + buttons.length) % buttons.length]?.focus();
  }

  /** Close it; the focus goes back to the sentence if it was in here. True if it was open. */
  close() {
    if (!this.anchor) return false;
    const { anchor } = this;
    const hadFocus = this.box.contains(document.activeElement);
    this.anchor = null;
    this.box.hidden = true;
    anchor.removeAttribute("aria-expanded");
    if (hadFocus) anchor.focus();
    return true;
  }
}
