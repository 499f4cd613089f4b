/**
 * SentencePiece in JavaScript: text ↔ ids, the same ids as the C++ library gives. Unigram and BPE
 * models, with or without byte fallback and a character map; no sampling.
 */

import { Normalizer, SPACE, utf8Length } from "./normalizer.js";
import { ModelType, PieceType, readModel } from "./sentencepiece-model.js";

const UNKNOWN_PENALTY = 10;
const SMALLEST_FLOAT = 2 ** -126;
const encoder = new TextEncoder();
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class Tokenizer {
  /**
   * @param {Uint8Array} bytes a SentencePiece model file
   * @param {string[]} unused pieces that no text is cut to
   * @throws {Error} for other bytes, and for models of words or characters
   */
  constructor(bytes, unused = []) {
    const model = readModel(bytes);
    this.pieces = model.pieces.map((piece) => (
      unused.includes(piece.piece) ? { ...piece, type: PieceType.UNUSED } : piece));
    this.trainer = model.trainer;
    if (![ModelType.UNIGRAM, ModelType.BPE].includes(model.trainer.modelType)) {
      throw new Error("the tokenizer is neither a unigram nor a BPE model: train one of these");
    }
    this.unknown = this.pieces.findIndex((piece) => piece.type === PieceType.UNKNOWN);
    this.#readBytePieces();
    this.#readScores();
    const protectedPieces = this.#piecesOfType(PieceType.USER_DEFINED).map(({ piece }) => piece);
    this.protectedPieces = protectedPieces.sort((a, b) => b.length - a.length);
    this.normalizer = new Normalizer(
      model.normalizer, model.trainer.treatWhitespaceAsSuffix, protectedPieces);
    this.denormalizer = model.denormalizer.charsmap.length
      ? new Normalizer(model.denormalizer)
      : null;
  }

  /** Pieces in the vocabulary. */
  get size() {
    return this.pieces.length;
  }

  /** Text → ids, without `<s>` and `</s>`. */
  encode(text) {
    const normalized = this.normalizer.normalize(text);
    if (!normalized) return [];
    const unigram = this.trainer.modelType === ModelType.UNIGRAM;
    const found = unigram ? this.#viterbi(normalized) : this.#merge(normalized);
    const ids = [];
    let afterUnknown = false;
    for (const [id, piece] of found) {
      const unknown = id === this.unknown;
      if (unknown && this.trainer.byteFallback) {
        for (const byte of encoder.encode(piece)) ids.push(this.idOfByte[byte]);
      } else if (!(unknown && afterUnknown)) {
        ids.push(id);
      }
      afterUnknown = unknown;
    }
    return ids;
  }

  /**
   * Ids → text; `<s>`, `</s>` and `<pad>` are nothing, bytes that are no UTF-8 become U+FFFD.
   * @throws {RangeError} for an id that is none of the vocabulary's
   */
  decode(ids) {
    let text = "";
    let bytes = [];
    let atStart = true;
    let sawSpace = false;
    for (const id of ids) {
      const piece = this.pieces[id];
      if (piece === undefined) throw new RangeError(`the tokenizer has no piece ${id}`);
      if (piece.type === PieceType.BYTE) {
        bytes.push(this.byteOfId.get(id));
        continue;
      }
      text += textOfBytes(bytes);
      bytes = [];
      if (sawSpace || text) atStart = false;
      const [surface, space] = this.#surface(piece, atStart);
      text += surface;
      sawSpace = space;
    }
    text += textOfBytes(bytes);
    return this.denormalizer ? this.denormalizer.normalize(text) : text;
  }

  /** [what a piece stands for, whether it began with the dummy space]. */
  #surface({ piece, type }, atStart) {
    if (type === PieceType.CONTROL) return ["", false];
    if (type === PieceType.UNKNOWN) return [this.trainer.unkSurface, false];
    const { addDummyPrefix, removeExtraWhitespaces } = this.normalizer.spec;
    const strip = atStart && (addDummyPrefix || removeExtraWhitespaces) && piece.startsWith(SPACE);
    const surface = (strip ? piece.slice(1) : piece).replaceAll(SPACE, " ");
    return [surface, strip && !removeExtraWhitespaces];
  }

  /**
   * The best path as [id, piece] pairs, as `EncodeOptimized` of SentencePiece's unigram_model.cc
   * finds it: of equal paths the first, sums in single precision.
   */
  #viterbi(text) {
    const best = new Float32Array(text.length + 1);
    const from = new Int32Array(text.length + 1).fill(-1);
    const ids = new Int32Array(text.length + 1);
    const offer = (end, start, score, id) => {
      if (from[end] >= 0 && score <= best[end]) return;
      best[end] = score;
      from[end] = start;
      ids[end] = id;
    };
    let start = 0;
    while (start < text.length) {
      const length = text.codePointAt(start) > 0xffff ? 2 : 1;
      let single = false;
      let node = this.trie;
      for (let end = start; end < text.length;) {
        node = node.next.get(text.charCodeAt(end));
        if (!node) break;
        end += 1;
        if (node.id < 0) continue;
        offer(end, start, node.score + best[start], node.id);
        single ||= end - start === length;
      }
      if (!single) {
        const score = Math.fround(this.unknownScore + best[start]);
        offer(start + length, start, score, this.unknown);
      }
      start += length;
    }
    const path = [];
    for (let end = text.length; end > 0; end = from[end]) {
      path.push([ids[end], text.slice(from[end], end)]);
    }
    return path.reverse();
  }

  /**
   * Byte-pair merges as [id, piece] pairs, as in SentencePiece's bpe_model.cc: the best-scored pair
   * of neighbours first, the leftmost of equal ones; user-defined symbols stay whole.
   */
  #merge(text) {
    const symbols = this.#symbols(text);
    const mergedFrom = new Map();
    const idOfPair = (left, right) =>
      !left || !right || left.frozen || right.frozen
        ? undefined
        : this.idOfPiece.get(left.piece + right.piece);
    const pairs = symbols.map((symbol, index) => idOfPair(symbol, symbols[index + 1]));
    for (;;) {
      let chosen = -1;
      for (let index = 0; index < pairs.length; index += 1) {
        if (pairs[index] === undefined) continue;
        if (chosen < 0 || this.#score(pairs[index]) > this.#score(pairs[chosen])) chosen = index;
      }
      if (chosen < 0) break;
      const [left, right] = symbols.slice(chosen, chosen + 2);
      const merged = left.piece + right.piece;
      mergedFrom.set(merged, [left.piece, right.piece]);
      symbols.splice(chosen, 2, { piece: merged, frozen: false });
      pairs.splice(chosen, 1);
      pairs[chosen] = idOfPair(symbols[chosen], symbols[chosen + 1]);
      if (chosen) pairs[chosen - 1] = idOfPair(symbols[chosen - 1], symbols[chosen]);
    }
    const segment = (piece) => {
      const id = this.idOfPiece.get(piece) ?? this.unknown;
      const parts = mergedFrom.get(piece);
      if (this.pieces[id].type === PieceType.UNUSED && parts) return parts.flatMap(segment);
      return [[id, piece]];
    };
    return symbols.flatMap(({ piece }) => segment(piece));
  }

  /** Characters and user-defined symbols of a text. */
  #symbols(text) {
    const symbols = [];
    for (let start = 0; start < text.length;) {
      const whole = this.protectedPieces.find((piece) => text.startsWith(piece, start));
      const piece = whole ?? String.fromCodePoint(text.codePointAt(start));
      symbols.push({ piece, frozen: whole !== undefined });
      start += piece.length;
    }
    return symbols;
  }

  #score(id) {
    return this.pieces[id].score;
  }

  #piecesOfType(...types) {
    return this.pieces
      .map(({ piece, score, type }, id) => ({ piece, score, type, id }))
      .filter(({ type }) => types.includes(type));
  }

  #readBytePieces() {
    this.idOfByte = [];
    this.byteOfId = new Map();
    for (const { piece, id } of this.#piecesOfType(PieceType.BYTE)) {
      const byte = Number.parseInt(piece.slice(1, -1), 16);
      this.idOfByte[byte] = id;
      this.byteOfId.set(id, byte);
    }
    if (this.unknown < 0 || (this.trainer.byteFallback && this.byteOfId.size !== 256)) {
      throw new Error("the tokenizer lacks its unknown piece or some of its 256 byte pieces");
    }
  }

  /** A trie over UTF-16 code units for the search, and the scores that are not a piece's own. */
  #readScores() {
    const { NORMAL, USER_DEFINED, UNUSED } = PieceType;
    let lowest = Infinity;
    let highest = SMALLEST_FLOAT;
    for (const { score } of this.#piecesOfType(NORMAL)) {
      lowest = Math.min(lowest, score);
      highest = Math.max(highest, score);
    }
    this.unknownScore = Math.fround(lowest - UNKNOWN_PENALTY);
    this.trie = { next: new Map(), id: -1, score: 0 };
    this.idOfPiece = new Map();
    for (const { piece, score, type, id } of this.#piecesOfType(NORMAL, USER_DEFINED, UNUSED)) {
      this.idOfPiece.set(piece, id);
      if (type === UNUSED) continue;
      const bonus = Math.fround(encoder.encode(piece).length * highest) - 0.1;
      this.#insert(piece, id, type === USER_DEFINED ? bonus : score);
    }
  }

  #insert(piece, id, score) {
    let node = this.trie;
    for (let index = 0; index < piece.length; index += 1) {
      const unit = piece.charCodeAt(index);
      if (!node.next.has(unit)) node.next.set(unit, { next: new Map(), id: -1, score: 0 });
      node = node.next.get(unit);
    }
    node.id = id;
    node.score = score;
  }
}

/** Bytes → text; each byte that begins no valid UTF-8 character becomes U+FFFD. */
function textOfBytes(bytes) {
  let text = "";
  for (let start = 0; start < bytes.length;) {
    const length = utf8Length(bytes[start]);
    try {
      text += strictUtf8.decode(Uint8Array.from(bytes.slice(start, start + length)));
      start += length;
    } catch {
      text += "\ufffd";
      start += 1;
    }
  }
  return text;
}
