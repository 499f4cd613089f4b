/** A bundle's source side: texts → ids, after the tag of a form of address where it has tags. */

import { Tokenizer } from "./tokenizer.js";

export class Source {
  /**
   * @param {object} manifest
   * @param {Uint8Array} bytes the source's SentencePiece model
   * @throws {Error} if it does not fit the manifest
   */
  constructor(manifest, bytes) {
    const { formality, source_vocab_size: ownSize, vocab_size: size } = manifest;
    const whole = new Tokenizer(bytes);
    const expected = ownSize ?? size;
    if (whole.size !== expected) {
      throw new Error(
        `the source's tokenizer has ${whole.size} pieces, the manifest says ${expected}: ` +
        "export the bundle again");
    }
    this.formality = formality?.default ?? null;
    this.tags = {};
    if (formality) {
      for (const form of ["formal", "informal"]) this.tags[form] = whole.encode(formality[form]);
    }
    // A text that holds a tag is read as the characters of it.
    this.tokenizer = formality ? new Tokenizer(bytes, [formality.formal, formality.informal]) : whole;
    this.maxTokens = manifest.decoding.max_input_tokens
      - Math.max(0, ...Object.values(this.tags).map((tag) => tag.length));
  }

  /** Tokens of a text, without those of a tag; at most `maxTokens` can be translated at once. */
  countTokens(text) {
    return this.tokenizer.encode(text).length;
  }

  /**
   * A sentence's ids; none for one without tokens.
   *
   * @param {string} sentence
   * @param {"formal" | "informal"} [form] of address; the bundle's own if left out
   * @throws {Error} for a form that the bundle cannot be asked for
   */
  encode(sentence, form = this.formality) {
    const tag = form ? this.tags[form] : [];
    if (!tag) {
      throw new Error(`the model cannot be asked for the form of address ${form}: leave it out`);
    }
    const ids = this.tokenizer.encode(sentence);
    return ids.length ? [...tag, ...ids] : [];
  }
}
