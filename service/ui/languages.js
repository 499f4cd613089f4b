/** The choice of languages: source or detection, target, and swapping them. */

export const AUTO = "auto";
const NAMES = new Intl.DisplayNames("en", { type: "language" });

export class Languages {
  /** `served` as `describe()` gives it; `onChange` is called when someone has chosen. */
  constructor(served, onChange) {
    this.served = served;
    this.detected = null;
    this.sourceField = document.getElementById("source");
    this.targetField = document.getElementById("target");
    this.formalityField = document.getElementById("formality");
    this.swapButton = document.getElementById("swap");
    this.chooseNote = document.getElementById("choose-note");
    this.autoOption = new Option("Detect language", AUTO);
    this.sourceField.replaceChildren(
      this.autoOption, ...served.languages.map(({ code, name }) => new Option(name, code)),
    );
    this.targets = new Map(served.languages.map(({ code, targets }) => [code, targets]));
    this.choose(AUTO, served.first.target);
    this.sourceField.addEventListener("change", () => {
      this.choose(this.source, this.target);
      onChange();
    });
    this.targetField.addEventListener("change", () => {
      this.choose(this.source, this.target);
      onChange();
    });
    this.formalityField.addEventListener("change", onChange);
  }

  get source() { return this.sourceField.value; }

  get target() { return this.targetField.value; }

  /** The form of address that is asked for: formal or informal; undefined for the model's own. */
  get formality() { return (this.hasFormality && this.formalityField.value) || undefined; }

  /** Whether a form of address may be asked for, whatever language is detected. */
  get hasFormality() {
    const { source, target } = this;
    return this.served.languages
      .filter(({ code, targets }) => (source === AUTO || code === source) && targets.includes(target))
      .every(({ formality }) => formality.includes(target));
  }

  /** The source language as far as it is known; null before it is detected. */
  get spoken() { return this.source === AUTO ? this.detected : this.source; }

  name(code) { return this.served.names.get(code) ?? NAMES.of(code); }

  /** Choose languages; what is not served becomes what is. */
  choose(source, target) {
    this.sourceField.value = this.targets.has(source) ? source : AUTO;
    if (this.source !== AUTO) this.detected = null;
    const known = this.source === AUTO
      ? [...new Set([...this.targets.values()].flat())]
      : this.targets.get(this.source);
    this.targetField.replaceChildren(...known.map((code) => new Option(this.name(code), code)));
    const { first } = this.served;
    this.targetField.value = [target, first.target].find((code) => known.includes(code)) ?? known[0];
    this.show();
  }

  /** Show the language that was detected; null for none. */
  setDetected(code) {
    this.detected = this.source === AUTO ? code : null;
    this.show();
  }

  /** Whether sentences have other translations; a source of null is any. */
  hasAlternatives(source, target) {
    return this.served.languages.some(({ code, alternatives }) => (
      (source === null || code === source) && alternatives.includes(target)
    ));
  }

  /** Whether the other direction is served. */
  get canSwap() {
    return this.spoken !== this.target && (this.targets.get(this.target) ?? []).includes(this.spoken);
  }

  swap() {
    this.choose(this.target, this.spoken);
  }

  show() {
    this.autoOption.textContent = this.detected
      ? `${this.name(this.detected)} (detected)` : "Detect language";
    this.chooseNote.hidden = !this.hasAlternatives(this.spoken, this.target);
    this.formalityField.hidden = !this.hasFormality;
    this.swapButton.hidden = !this.canSwap;
    if (this.canSwap) {
      this.swapButton.title = `Swap: ${this.name(this.target)} to ${this.name(this.spoken)}`;
    }
  }
}
