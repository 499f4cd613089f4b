"""A request in the pipeline: what it asks for, and its sentences on their way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from export.engines import Engine, TranslateOptions, Translation
from service.cache import CacheKey
from service.fair_queue import Priority
from service.second_try import SentenceWarning, check_output


class ServedModel(Protocol):
    """A loaded model. Two are equal if and only if their identities are: the hash of the bundle's
    manifest with the engine's name."""

    @property
    def identity(self) -> str: ...

    @property
    def engine(self) -> Engine: ...


@dataclass(frozen=True)
class BatchKey:
    """What sentences of a batch have in common."""

    model: ServedModel
    options: TranslateOptions


@dataclass(frozen=True)
class CheckedTranslation:
    """A sentence's translation and what looks wrong with it."""

    translation: Translation
    warnings: tuple[SentenceWarning, ...] = ()

    def without_score(self) -> CheckedTranslation:
        """The same for who did not ask for a score."""
        one = self.translation
        if one.score is None:
            return self
        kept = Translation(one.text, one.tokens, None, one.truncated, one.alternatives)
        return CheckedTranslation(kept, self.warnings)


Outcome = CheckedTranslation | Exception
PendingOutcome = asyncio.Future[Outcome | None]
"""What will be known of a sentence; None: the request that translates it gave up."""


@dataclass(eq=False)
class SentenceTask:
    """A sentence that a request translates itself, its place in the cache; `best` of the tries so
    far, and what looks wrong with it."""

    text: str
    key: CacheKey
    tokens: int
    future: PendingOutcome
    best: Translation | None = None
    warnings: tuple[SentenceWarning, ...] = ()

    def keep(self, translation: Translation) -> None:
        """This is the best one so far."""
        self.best = translation
        self.warnings = check_output(self.text, self.tokens, translation)

    def answer(self, outcome: Outcome | None) -> None:
        """Say what came of it, if that is not said yet."""
        if not self.future.done():
            self.future.set_result(outcome)


@dataclass(eq=False)
class InFlightRequest:
    """A request on its way.

    `deadline`: by the event loop's clock; `own`: the sentences that it translates itself; `error`:
    what ended it before its time; `doubtful`: those that look wrong and are to be tried again.
    """

    kind: BatchKey
    priority: Priority
    second_tries: bool
    deadline: float | None
    own: list[SentenceTask] = field(default_factory=list)
    error: Exception | None = None
    doubtful: asyncio.Queue[SentenceTask] = field(default_factory=asyncio.Queue)

    @property
    def time_left(self) -> float | None:
        """Seconds until the deadline, None if there is none."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())
