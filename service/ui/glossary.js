/** Terms with the translation they must get, by target language, kept in this browser only. */

export class Glossary {
  /** `onChange` is called when the terms have changed. */
  constructor(onChange) {
    this.onChange = onChange;
    this.target = "";
    this.rows = document.getElementById("terms");
    this.count = document.getElementById("term-count");
    this.template = document.getElementById("term");
    document.getElementById("add-term").addEventListener("click", () => {
      this.add("", "").querySelector("input").focus();
    });
    this.rows.addEventListener("change", () => this.changed());
    this.rows.addEventListener("click", (event) => {
      if (!event.target.closest("button")) return;
      event.target.closest("li").remove();
      document.getElementById("add-term").focus();
      this.changed();
    });
  }

  /** The terms as the service takes them. */
  get terms() {
    const terms = {};
    for (const row of this.rows.children) {
      const [term, translation] = [...row.querySelectorAll("input")].map((field) => field.value.trim());
      if (term && translation) terms[term] = translation;
    }
    return terms;
  }

  /** Show the terms of a target language. */
  open(target) {
    if (target === this.target) return;
    this.target = target;
    this.rows.replaceChildren();
    for (const [term, translation] of Object.entries(this.load())) this.add(term, translation);
    this.show();
  }

  add(term, translation) {
    const row = this.template.content.firstElementChild.cloneNode(true);
    const [left, right] = row.querySelectorAll("input");
    left.value = term;
    right.value = translation;
    right.lang = this.target;
    this.rows.append(row);
    return row;
  }

  changed() {
    try {
      localStorage.setItem(`glossary:${this.target}`, JSON.stringify(this.terms));
    } catch { /* Without storage, they last as long as the page. */ }
    this.show();
    this.onChange();
  }

  show() {
    const count = Object.keys(this.terms).length;
    this.count.textContent = count ? `(${count})` : "";
  }

  load() {
    try {
      const kept = JSON.parse(localStorage.getItem(`glossary:${this.target}`) ?? "{}");
      return Object.fromEntries(Object.entries(kept).filter((entry) => typeof entry[1] === "string"));
    } catch {
      return {};
    }
  }
}
