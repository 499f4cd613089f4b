/**
 * A SentencePiece model file (protobuf, `sentencepiece_model.proto`) → the fields that encoding and
 * decoding need. Everything else in the file is skipped.
 */

export const PieceType = Object.freeze({
  NORMAL: 1, UNKNOWN: 2, CONTROL: 3, USER_DEFINED: 4, UNUSED: 5, BYTE: 6,
});
export const ModelType = Object.freeze({ UNIGRAM: 1, BPE: 2, WORD: 3, CHAR: 4 });

const WireType = Object.freeze({ VARINT: 0, FIXED64: 1, BYTES: 2, FIXED32: 5 });
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * @param {Uint8Array} bytes the file
 * @returns {{pieces: {piece: string, score: number, type: number}[], trainer: object,
 *   normalizer: object, denormalizer: object}}
 * @throws {Error} if the bytes are not a SentencePiece model
 */
export function readModel(bytes) {
  const model = {
    pieces: [],
    trainer: readTrainer(new Uint8Array()),
    normalizer: readNormalizer(new Uint8Array()),
    denormalizer: readNormalizer(new Uint8Array()),
  };
  try {
    for (const [field, value] of fields(bytes)) {
      if (field === 1) model.pieces.push(readPiece(value));
      else if (field === 2) model.trainer = readTrainer(value);
      else if (field === 3) model.normalizer = readNormalizer(value);
      else if (field === 5) model.denormalizer = readNormalizer(value);
    }
  } catch (error) {
    throw new Error(`the tokenizer is not a SentencePiece model (${error.message})`);
  }
  if (!model.pieces.length) throw new Error("the tokenizer is not a SentencePiece model (no pieces)");
  return model;
}

function readPiece(bytes) {
  const piece = { piece: "", score: 0, type: PieceType.NORMAL };
  for (const [field, value] of fields(bytes)) {
    if (field === 1) piece.piece = utf8.decode(value);
    else if (field === 2) piece.score = value;
    else if (field === 3) piece.type = value;
  }
  return piece;
}

function readTrainer(bytes) {
  const trainer = {
    modelType: ModelType.UNIGRAM,
    treatWhitespaceAsSuffix: false,
    byteFallback: false,
    unkSurface: " \u2047 ",
  };
  for (const [field, value] of fields(bytes)) {
    if (field === 3) trainer.modelType = value;
    else if (field === 24) trainer.treatWhitespaceAsSuffix = Boolean(value);
    else if (field === 35) trainer.byteFallback = Boolean(value);
    else if (field === 44) trainer.unkSurface = utf8.decode(value);
  }
  return trainer;
}

function readNormalizer(bytes) {
  const normalizer = {
    charsmap: new Uint8Array(),
    addDummyPrefix: true,
    removeExtraWhitespaces: true,
    escapeWhitespaces: true,
  };
  for (const [field, value] of fields(bytes)) {
    if (field === 2) normalizer.charsmap = value;
    else if (field === 3) normalizer.addDummyPrefix = Boolean(value);
    else if (field === 4) normalizer.removeExtraWhitespaces = Boolean(value);
    else if (field === 5) normalizer.escapeWhitespaces = Boolean(value);
  }
  return normalizer;
}

/** Yields [field number, value] of a message: a number, or bytes of a string or message. */
function* fields(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let position = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = view.getUint8(position++);
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  const advance = (count) => {
    if (position + count > bytes.length) throw new RangeError("it ends in the middle of a field");
    position += count;
    return position - count;
  };
  while (position < bytes.length) {
    const key = varint();
    const field = Math.floor(key / 8);
    switch (key % 8) {
      case WireType.VARINT: yield [field, varint()]; break;
      case WireType.FIXED64: yield [field, view.getFloat64(advance(8), true)]; break;
      case WireType.BYTES: {
        const length = varint();
        const start = advance(length);
        yield [field, bytes.subarray(start, start + length)];
        break;
      }
      case WireType.FIXED32: yield [field, view.getFloat32(advance(4), true)]; break;
      default: throw new RangeError(`wire type ${key % 8}`);
    }
  }
}
