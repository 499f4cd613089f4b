"""What is ordered of the translator, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.fair_queue import Priority
from service.languages import Detection
from service.text import NO_GLOSSARY, Format, Glossary


@dataclass(frozen=True)
class TranslationWarning:
    """Something that may be wrong with a translation: a fixed word, and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True)
class TranslationRequest:
    """What a client wants translated. A source or target of None is the first model's; a source
    of `auto` is detected for each text. Bulk orders, of files, leave room for others. Sentences of
    `wrapped` plain text go on over line breaks; without `split`, a paragraph is only cut where it
    is too long."""

    texts: Sequence[str]
    source: str | None = None
    target: str | None = None
    format: Format = "text"
    beam_size: int | None = None
    alternatives: int = 0
    scores: bool = False
    glossary: Glossary = NO_GLOSSARY
    priority: Priority = Priority.INTERACTIVE
    wrapped: bool = False
    split: bool = True


@dataclass(frozen=True)
class TranslatedText:
    """A text's translation.

    `score` is the mean log-probability of its `tokens` (nats), None where there are none or it was
    not asked for. `truncated` says that the output limit cut a sentence off. `sentences`: pairs of
    a source sentence and its translation. `detected` only where the source was to be detected.
    """

    text: str
    source: str = ""
    detected: Detection | None = None
    score: float | None = None
    truncated: bool = False
    tokens: int = 0
    sentences: Sequence[tuple[str, str]] = ()
    alternatives: Sequence[str] = ()
    warnings: Sequence[TranslationWarning] = ()


@dataclass(frozen=True)
class TranslatedSentence:
    """The sentence number `index` of `count` of a text, as a reader sees it."""

    index: int
    count: int
    source: str
    target: str


@dataclass(frozen=True)
class TranslationResult:
    """Translated texts in the order of the texts, and what made them. Times are in seconds."""

    texts: Sequence[TranslatedText]
    source: str
    target: str
    models: Sequence[str]
    seconds: Mapping[str, float]
