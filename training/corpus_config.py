"""Recipe sections of the text: where it is and how it is cleaned."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from training.distill.config import Section


class SourceConfig(Section):
    """One corpus: pairs, or source text alone (`trg: null` or `trg_field: null`)."""

    format: Literal["auto", "plain", "tsv", "jsonl", "tmx", "parquet"] = "auto"
    """File format; `auto` goes by the file name (a plain pair needs `src` and `trg`)."""
    src: str | None = None
    """Plain text: path of the source side, one sentence a line (.gz and .zst are read too)."""
    trg: str | None = None
    """Plain text: path of the target side, line n translating line n of `src`. A written-out
    null says that there is none: monolingual text, in corpus.train only."""
    path: str | None = None
    """TSV, JSONL, TMX or Parquet: path of the file."""
    src_field: str = Field("src", coerce_numbers_to_str=True)
    """JSONL key, Parquet column, or TSV column number from 0, of the source text."""
    trg_field: str | None = Field("trg", coerce_numbers_to_str=True)
    """JSONL key, Parquet column, or TSV column number from 0, of the target text; null reads the
    source text alone (TMX: every unit with the source language), in corpus.train only."""
    limit: int | None = Field(None, ge=1)
    """Read at most this many pairs."""

    @property
    def monolingual(self) -> bool:
        """Whether there is source text only."""
        return self.trg is None if self.path is None else self.trg_field is None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.path is None and (self.src is None or "trg" not in self.model_fields_set):
            raise ValueError(
                "give `src` and `trg` (plain text; `trg: null` where there is source text only) "
                "or `path` (other formats)"
            )
        if self.path is not None and (self.src is not None or self.trg is not None):
            raise ValueError("give either `path` or `src` and `trg`, not both")
        return self


class CleanConfig(Section):
    """Which pairs are dropped, and why; the report counts each rule."""

    max_chars: int = Field(1000, ge=1)
    """Longest side, in characters."""
    max_ratio: float = Field(4.0, ge=1)
    """Longest allowed ratio between the sides, in characters; short pairs are spared."""
    ratio_min_chars: int = Field(20, ge=0)
    """The ratio is checked only where the longer side has at least this many characters."""
    drop_duplicates: bool = True
    """Drop a pair that has been seen before (both sides, after normalisation)."""
    drop_overlap: bool = True
    """Drop training pairs of which either side stands in validation or test text."""
    drop_control: bool = True
    """Drop pairs with control characters."""
    check_language: bool = False
    """Drop pairs that a language identifier takes for another language."""
    language_min_chars: int = Field(30, ge=1)
    """Shorter sides are not judged by language, in characters."""


class CorpusConfig(Section):
    """Where the text is and how it is cleaned."""

    src_lang: str = Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$", max_length=16)
    """Source language, a BCP 47 code such as `en`."""
    trg_lang: str = Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$", max_length=16)
    """Target language, a BCP 47 code such as `de`."""
    root: str = "."
    """Folder that relative paths start from (`--data` on the command line); itself relative to
    the recipe's folder."""
    train: list[SourceConfig] = Field(min_length=1)
    """Training corpora, read one after another; monolingual ones are for labelled students."""
    validation: SourceConfig
    """Chooses checkpoints; never trained on."""
    test: dict[str, SourceConfig] = Field(default_factory=dict)
    """Test sets by name; only ever measured."""
    clean: CleanConfig = Field(default_factory=CleanConfig)
    """Cleaning rules of the training corpora."""
    noise: float = Field(0.0, ge=0, lt=1)
    """Share of the source words, of training and held-out text alike, that are dropped, exchanged
    or misspelt, for studies of text complexity; 0 to below 1."""
    shard_pairs: int = Field(20_000, ge=1)
    """Pairs in one shard of the prepared corpus and of the label store."""
    licence: str = Field("unknown", min_length=1)
    """Licence of the text, repeated in the model card."""
    attribution: str = ""
    """Whom the licence asks to be named, repeated in the model card."""

    @model_validator(mode="after")
    def _held_out_has_references(self) -> Self:
        held_out = {"validation": self.validation}
        held_out |= {f"test.{name}": source for name, source in self.test.items()}
        bare = [name for name, source in held_out.items() if source.monolingual]
        if bare:
            raise ValueError(f"{', '.join(bare)}: held-out text needs its target side")
        return self

    @property
    def has_monolingual(self) -> bool:
        """Whether some training text has no references."""
        return any(source.monolingual for source in self.train)
