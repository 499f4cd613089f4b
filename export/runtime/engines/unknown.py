"""What a tokenizer cannot read: text that becomes its unknown piece.

A SentencePiece model with byte fallback reads every text. One without it, as the vocabularies of
Marian and Firefox are, turns each character that it lacks into `<unk>`, and the translation loses
it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

import sentencepiece as spm

WINDOW_CHARS = 4096
"""Characters that are segmented at once, so that the offsets of a long text need little memory."""
PRIVATE_USE = "\U0010fffd"
"""A character that no vocabulary has: a model with byte fallback reads it all the same."""
ASCII = [chr(code) for code in range(128)]


def learnt_pieces(tokenizer: spm.SentencePieceProcessor, missing: str) -> set[str] | None:
    """The pieces that a model knows which learnt nothing of some characters: not those characters,
    and no bytes. None where all its pieces are known."""
    if not missing:
        return None
    pieces = {
        tokenizer.id_to_piece(index)
        for index in range(tokenizer.get_piece_size())
        if not tokenizer.is_byte(index)
    }
    return pieces.difference(missing, (f"▁{character}" for character in missing))


class UnknownFinder:
    """Finds the stretches of a text that a SentencePiece model reads as unknown."""

    def __init__(
        self, tokenizer: spm.SentencePieceProcessor, vocabulary: Container[str] | None = None
    ) -> None:
        """`vocabulary`: the pieces that the model has, where they may not be all of the
        tokenizer's."""
        self._tokenizer = tokenizer
        self._unknown_ids = {tokenizer.unk_id()}
        if vocabulary is not None:
            self._unknown_ids |= {
                piece
                for piece in range(tokenizer.get_piece_size())
                if tokenizer.id_to_piece(piece) not in vocabulary
            }
        self.reads_all_text = self._has_bytes() and not self._spans(PRIVATE_USE)
        # With pieces missing, what is read letter by letter may be unknown as a word.
        readable = (c for c in ASCII if len(self._unknown_ids) == 1 and not self._spans(c))
        self._readable_ascii = frozenset(readable)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each unknown stretch, in characters of the text as given, in order.

        What the model's normalisation turns into something readable is not unknown. Linear time.
        """
        if self.reads_all_text or (text.isascii() and self._readable_ascii.issuperset(text)):
            return []
        return [
            (offset + start, offset + end)
            for offset, window in _windows(text)
            for start, end in self._spans(window)
        ]

    def _has_bytes(self) -> bool:
        return all(
            self._tokenizer.piece_to_id(f"<0x{byte:02X}>") not in self._unknown_ids
            for byte in range(256)
        )

    def _spans(self, text: str) -> list[tuple[int, int]]:
        encoded = self._tokenizer.encode(text, return_type="offset_mapping")
        spans: list[tuple[int, int]] = []
        for token, (start, end) in zip(encoded["ids"], encoded["offsets"], strict=True):
            if token not in self._unknown_ids:
                continue
            # A part of what one character is normalised to (`½` → `1⁄2`) may have no width.
            end = max(end, start + 1)
            if spans and start <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((start, end))
        return spans


def _windows(text: str) -> Iterator[tuple[int, str]]:
    """Stretches of a text that add up to it, each with its offset, cut at spaces if there are."""
    start = 0
    while len(text) - start > WINDOW_CHARS:
        space = text.rfind(" ", start + 1, start + WINDOW_CHARS)
        end = space if space > start else start + WINDOW_CHARS
        yield start, text[start:end]
        start = end
    yield start, text[start:]
