/**
 * SentencePiece's text normalisation, as in its `normalizer.cc`: the model's own character map,
 * spaces as U+2581, no doubled spaces. Works on UTF-8, since the character map does.
 */

export const SPACE = "\u2581";

const SPACE_BYTES = [0xe2, 0x96, 0x81];
const BLANK = 0x20;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

export class Normalizer {
  /**
   * @param {object} spec of `readModel`: `charsmap` and three flags
   * @param {boolean} spaceAsSuffix the dummy space follows the text
   * @param {string[]} protectedPieces user-defined symbols: the character map skips them
   */
  constructor(spec, spaceAsSuffix = false, protectedPieces = []) {
    this.spec = spec;
    this.spaceAsSuffix = spaceAsSuffix;
    this.charsmap = spec.charsmap.length ? new CharacterMap(spec.charsmap) : null;
    this.protectedPieces = protectedPieces
      .map((piece) => encoder.encode(piece))
      .sort((a, b) => b.length - a.length);
  }

  /** Text → normalised text; the empty string where only spaces are left. */
  normalize(text) {
    const input = encoder.encode(text);
    const { addDummyPrefix, removeExtraWhitespaces } = this.spec;
    let position = removeExtraWhitespaces ? this.#skipBlanks(input) : 0;
    if (position >= input.length) return "";

    const output = [];
    if (addDummyPrefix && !this.spaceAsSuffix) this.#push(output, BLANK);
    let afterBlank = removeExtraWhitespaces;
    while (position < input.length) {
      const [bytes, length] = this.#prefix(input, position);
      position += length;
      let start = 0;
      while (afterBlank && bytes[start] === BLANK) start += 1;
      if (start < bytes.length) {
        for (let index = start; index < bytes.length; index += 1) this.#push(output, bytes[index]);
        afterBlank = bytes[bytes.length - 1] === BLANK;
      }
      afterBlank = afterBlank && removeExtraWhitespaces;
    }
    if (removeExtraWhitespaces) this.#dropTrailingSpaces(output);
    if (addDummyPrefix && this.spaceAsSuffix) this.#push(output, BLANK);
    return decoder.decode(Uint8Array.from(output));
  }

  #skipBlanks(input) {
    let position = 0;
    while (position < input.length) {
      const [bytes, length] = this.#prefix(input, position);
      if (bytes.length !== 1 || bytes[0] !== BLANK) break;
      position += length;
    }
    return position;
  }

  #push(output, byte) {
    if (byte === BLANK && this.spec.escapeWhitespaces) output.push(...SPACE_BYTES);
    else output.push(byte);
  }

  #dropTrailingSpaces(output) {
    const space = this.spec.escapeWhitespaces ? SPACE_BYTES : [BLANK];
    const endsInSpace = () =>
      output.length >= space.length &&
      space.every((byte, index) => output[output.length - space.length + index] === byte);
    while (endsInSpace()) output.length -= space.length;
  }

  /** The next character or rule at `position`: [its normalised bytes, bytes of input it takes]. */
  #prefix(input, position) {
    for (const piece of this.protectedPieces) {
      if (piece.every((byte, index) => input[position + index] === byte)) {
        return [piece, piece.length];
      }
    }
    const rule = this.charsmap?.longestMatch(input, position);
    if (rule) return rule;
    const length = utf8Length(input[position]);
    return [input.subarray(position, position + length), length];
  }
}

/** Bytes of the UTF-8 character that begins with this byte. */
export function utf8Length(lead) {
  if (lead < 0xc0) return 1;
  return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/**
 * The precompiled character map: the size of a double array (32 bits, little endian), the array in
 * the format of darts-clone, and the texts that its values point to, each with a NUL at its end.
 */
class CharacterMap {
  constructor(blob) {
    const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
    const size = blob.length > 4 ? view.getUint32(0, true) : Infinity;
    if (4 + size > blob.length) throw new Error("the tokenizer's character map is damaged");
    this.units = new Uint32Array(size >>> 2);
    for (let index = 0; index < this.units.length; index += 1) {
      this.units[index] = view.getUint32(4 + 4 * index, true);
    }
    this.texts = blob.subarray(4 + size);
  }

  /** The longest rule that the input matches at `position`, as in `Normalizer`, or null. */
  longestMatch(input, position) {
    let node = offset(this.units[0]);
    let best = null;
    for (let index = position; index < input.length; index += 1) {
      node ^= input[index];
      const unit = this.units[node];
      if (unit === undefined || (unit & 0x800000ff) >>> 0 !== input[index]) break;
      node ^= offset(unit);
      if ((unit >>> 8) & 1) best = [this.units[node] & 0x7fffffff, index + 1 - position];
    }
    return best && [this.texts.subarray(best[0], this.texts.indexOf(0, best[0])), best[1]];
  }
}

function offset(unit) {
  return ((unit >>> 10) << ((unit & 0x200) >>> 6)) >>> 0;
}
