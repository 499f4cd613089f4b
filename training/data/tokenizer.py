"""The joint SentencePiece model, and the corpus as token ids.

Byte fallback means that no input has an unknown piece; the special ids are those of
`training.model.transformer`. Text is NFC already (see `training.data.cleaning`), so SentencePiece
normalises nothing but spaces.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import sentencepiece as spm

from quickstudy.atomic import atomic_write
from training.config.recipe import RecipeError, TokenizerConfig
from training.model.transformer import BOS, EOS, PAD, UNK

TOKEN_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("src", pa.list_(pa.int32())),
        ("trg", pa.list_(pa.int32())),
    ]
)


TextPairs = Iterable[tuple[str | None, str | None]]


def sample_lines(pairs: TextPairs, limit: int, seed: int) -> list[str]:
    """At most `limit` lines of both sides, a uniform sample (reservoir, Vitter 1985).

    A missing side is no line.
    """
    chosen: list[str] = []
    generator = random.Random(seed)
    lines = (line for pair in pairs for line in pair if line is not None)
    for count, line in enumerate(lines):
        if count < limit:
            chosen.append(line)
        elif (slot := generator.randrange(count + 1)) < limit:
            chosen[slot] = line
    return chosen


def train_tokenizer(pairs: TextPairs, config: TokenizerConfig, path: Path, seed: int = 0) -> None:
    """Write a SentencePiece model trained on both sides of `pairs`, as far as they are there.

    Raises RecipeError where the text is too small for the vocabulary.
    """
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.Train(
            sentence_iterator=iter(sample_lines(pairs, config.sample_lines, seed)),
            model_writer=model,
            vocab_size=config.vocab_size,
            model_type=config.type,
            character_coverage=config.character_coverage,
            byte_fallback=True,
            normalization_rule_name="identity",
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            pad_piece="<pad>",
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise RecipeError(
            f"tokenizer.vocab_size {config.vocab_size} does not fit the text: {error}"
        ) from None
    atomic_write(path, model.getvalue())


def pieces_of(model: bytes) -> list[str]:
    """The vocabulary of a SentencePiece model in the order of its ids."""
    processor = spm.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


class Tokenizer:
    """Text ↔ token ids."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise RecipeError(f"{path}: no tokenizer there; run the `tokenize` stage")
        self.path = path
        self._processor = spm.SentencePieceProcessor(model_file=str(path))

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    @property
    def pieces(self) -> list[str]:
        """The vocabulary in the order of its ids."""
        return [self._processor.id_to_piece(index) for index in range(len(self))]

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, EOS last."""
        return self._processor.encode(texts, out_type=int, add_eos=True)

    def decode(self, ids: list[list[int]]) -> list[str]:
        """Text of each list of ids; special ids are left out."""
        return self._processor.decode([[i for i in row if i > EOS] for row in ids])


class Encoded(NamedTuple):
    """A table of token ids, and how many rows were left out: those of too many tokens, and those
    whose source has characters that its tokenizer lacks."""

    table: pa.Table
    too_long: int
    unread: int


def encode_rows(
    table: pa.Table, tokenizer: Tokenizer, max_length: int, source: Tokenizer | None = None
) -> Encoded:
    """A table of text (`id`, `src`, `trg`) → one of token ids (EOS last; an empty list where the
    target is missing).

    Left out are rows of which a side has `max_length` tokens or more (BOS counted) and, with
    `source`, a tokenizer of the sources' own, those that it has an unknown piece in.
    """
    src = (source or tokenizer).encode(table["src"].to_pylist())
    texts = table["trg"].to_pylist()
    encoded = iter(tokenizer.encode([text for text in texts if text is not None]))
    trg: list[list[int]] = [[] if text is None else next(encoded) for text in texts]
    ids = table["id"].to_pylist()
    short = [i for i in range(len(ids)) if len(src[i]) < max_length and len(trg[i]) < max_length]
    kept = short if source is None else [i for i in short if UNK not in src[i]]
    columns = {
        name: [values[i] for i in kept]
        for name, values in (("id", ids), ("src", src), ("trg", trg))
    }
    return Encoded(
        pa.table(columns, schema=TOKEN_SCHEMA),
        too_long=len(ids) - len(short),
        unread=len(short) - len(kept),
    )


def write_tokens(path: Path, table: pa.Table) -> None:
    """Write one shard as an Arrow IPC file of a single record batch."""
    with pa.ipc.new_file(pa.OSFile(str(path), "wb"), table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(len(table), 1))


"""Our special pieces in the order of their ids, which `training.model.transformer` names."""
