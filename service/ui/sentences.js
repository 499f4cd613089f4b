/** The sentences of the two panes: shown side by side, lit up together. */

/**
 * Cut a text at its sentences: `[{text, index}]`, which joined give the text. `index` is the
 * sentence's place in the list, or null for what is between sentences.
 */
export function cutAtSentences(text, sentences) {
  const parts = [];
  let at = 0;
  sentences.forEach((sentence, index) => {
    const start = sentence ? text.indexOf(sentence, at) : -1;
    if (start < 0) return;
    if (start > at) parts.push({ text: text.slice(at, start), index: null });
    parts.push({ text: sentence, index });
    at = start + sentence.length;
  });
  if (at < text.length) parts.push({ text: text.slice(at), index: null });
  return parts;
}

/**
 * Put other translations in the place of some: `choose(sentence)` gives one for a source sentence,
 * or undefined. Returns the text with them and its pairs.
 */
export function replaceSentences(text, pairs, choose) {
  let at = 0;
  let changed = "";
  const changedPairs = pairs.map(({ source, target }) => {
    const start = text.indexOf(target, at);
    if (start < 0) return { source, target };
    const choice = choose(source) ?? target;
    changed += text.slice(at, start) + choice;
    at = start + target.length;
    return { source, target: choice };
  });
  return { text: changed + text.slice(at), pairs: changedPairs };
}

export class Panes {
  /** `onChoose(index, element)` is called when someone clicks a sentence that is a button. */
  constructor(onChoose) {
    this.textField = document.getElementById("text");
    this.mirror = document.getElementById("mirror");
    this.result = document.getElementById("result");
    this.lit = null;
    const atPointer = (event) => this.light(this.indexAt(event.clientX, event.clientY));
    this.textField.addEventListener("pointermove", atPointer);
    this.result.addEventListener("pointermove", atPointer);
    for (const field of [this.textField, this.result]) {
      field.addEventListener("pointerleave", () => this.light(null));
    }
    document.addEventListener("selectionchange", () => {
      if (document.activeElement === this.textField) this.light(this.indexAtCaret());
    });
    this.result.addEventListener("focusin", ({ target }) => this.light(indexOf(target)));
    const choose = ({ target }) => {
      if (target.role === "button" && getSelection().isCollapsed) onChoose(indexOf(target), target);
    };
    this.result.addEventListener("click", choose);
    this.result.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      if (event.ctrlKey || event.metaKey || indexOf(event.target) === null) return;
      event.preventDefault();
      choose(event);
    });
  }

  /** Keep the layer behind the text field the same as the text, so that the field has its height. */
  mirrorText() {
    this.mirror.replaceChildren(`${this.textField.value}\n`);
  }

  /**
   * Show a translation; `pairs` are `{source, target}`, in order. With `canChoose`, its sentences
   * are buttons.
   */
  show(sourceText, targetText, pairs, canChoose) {
    this.fill(this.mirror, `${sourceText.normalize("NFC")}\n`, pairs.map((pair) => pair.source), false);
    this.fill(this.result, targetText, pairs.map((pair) => pair.target), canChoose);
    this.light(null);
  }

  fill(box, text, sentences, canChoose) {
    box.replaceChildren(...cutAtSentences(text, sentences).map((part) => {
      if (part.index === null) return part.text;
      const span = document.createElement("span");
      span.textContent = part.text;
      span.dataset.index = part.index;
      if (canChoose) {
        span.role = "button";
        span.tabIndex = 0;
        span.setAttribute("aria-haspopup", "true");
      }
      return span;
    }));
  }

  light(index) {
    if (index === this.lit) return;
    this.lit = index;
    for (const span of document.querySelectorAll("#mirror span, #result span")) {
      span.classList.toggle("lit", indexOf(span) === index);
    }
  }

  indexAt(x, y) {
    for (const element of document.elementsFromPoint(x, y)) {
      const index = indexOf(element);
      if (index !== null) return index;
    }
    return null;
  }

  indexAtCaret() {
    const { value, selectionStart } = this.textField;
    const caret = value.slice(0, selectionStart).normalize("NFC").length;
    let at = 0;
    for (const node of this.mirror.childNodes) {
      at += node.textContent.length;
      if (caret <= at) return node instanceof HTMLElement ? indexOf(node) : null;
    }
    return null;
  }
}

function indexOf(element) {
  const index = element.dataset?.index;
  return index === undefined ? null : Number(index);
}
