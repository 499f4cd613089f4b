"""The Python API: load a bundle and translate with it in this process.

    model = quickstudy.load("models/en-de")
    model.translate("Good morning.")

A model gives what the service answers, because it runs the service's own code: sentence splitting,
protected spans, inline markup, glossary, fallback decoding, cache and batches. That code is
asynchronous, so each model runs an event loop in a thread of its own, and callers wait for it. Any
number of threads may share a model, and a caller may itself run an event loop, as a notebook does.
"""

from __future__ import annotations

import asyncio
import operator
import os
import queue
import re
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar, get_args, overload

from export.runtime.manifest import BundleError, Formality
from quickstudy.errors import QuickstudyError
from quickstudy.event_loop import EventLoopThread
from service import models as served_models
from service.batching import ClosedError
from service.fair_queue import Priority
from service.fallback import TranslationWarning
from service.pivot import (
    SearchError,
    TranslatedText,
    TranslationRequest,
    check_search,
    translate_with_model,
)
from service.scheduler import Scheduler
from service.settings import Settings, find_bundle, usable_cores
from service.text.document import Format
from service.text.glossary import NO_GLOSSARY, Glossary, GlossaryError

__all__ = [
    "BundleError",
    "Model",
    "ModelClosedError",
    "OptionError",
    "SentencePair",
    "Translation",
    "TranslationWarning",
    "load",
]

WINDOW_CHARS = 100_000
"""Characters of a list that are cut into sentences at a time, and sorted by length to form batches;
a longer text is a window by itself."""
WINDOW_TEXTS = 1_000
"""Most texts of a window."""
WINDOWS_IN_FLIGHT = 3
"""Windows under way at once: one is prepared while others are translated."""
THREADS_PER_WINDOW = 4
"""Threads for which one more window is under way."""
MAX_BEAM_SIZE = 8
MAX_ALTERNATIVES = 5
MAX_THREADS = 256
SURROGATE = re.compile("[\ud800-\udfff]")
CLOSED = "the model is closed: load it again"
ENDING = "the interpreter is ending: translate before the main thread ends"
T = TypeVar("T")


class OptionError(QuickstudyError, ValueError):
    """An invalid text or option; the message says what to pass instead."""


class ModelClosedError(QuickstudyError, RuntimeError):
    """The model was closed, or the interpreter ended, before or during the call."""


class SentencePair(NamedTuple):
    """A source sentence and its translation, without markup."""

    source: str
    target: str


@dataclass(frozen=True)
class Translation:
    """A text's translation.

    `score`: mean log-probability of its tokens (nats), None if there was nothing to translate.
    `truncated`: whether the output limit cut a sentence off. `warnings`: what may be wrong.
    `alternatives`: other translations of the whole text, likeliest first.
    """

    text: str
    score: float | None
    truncated: bool
    warnings: tuple[TranslationWarning, ...]
    sentences: tuple[SentencePair, ...]
    alternatives: tuple[str, ...]


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    engine: str | None = None,
    threads: int | None = None,
    fallback_decoding: bool = True,
) -> Model:
    """Load a bundle; without a path, the one that ships with Quickstudy.

    `engine` names an engine of the bundle; None is its default one. `threads` is how many batches
    are translated at the same time; None is one per usable core. Without `fallback_decoding`, what
    looks wrong is not decoded again: quicker, and worse. The service's settings (`QUICKSTUDY_*`)
    have no effect. Raises BundleError if the bundle cannot be used, OptionError for an invalid
    option.
    """
    folder = None if path is None else _path(path)
    if engine is not None and not isinstance(engine, str):
        raise OptionError(f"engine is of type {type(engine).__name__}: pass a str or None")
    if threads is not None:
        threads = _integer("threads", threads, 1, MAX_THREADS)
    folder = folder or find_bundle()
    # `model_construct` does not read the environment. The queue has no limit: callers in the same
    # process wait rather than be refused.
    settings = Settings.model_construct(
        model=folder,
        engine=engine,
        inter_threads=threads or usable_cores(),
        queue_size=sys.maxsize,
        queue_tokens=sys.maxsize,
        fallback_decoding=fallback_decoding,
    )
    return Model(served_models.load_models([folder], settings).default, settings)


class Model:
    """A loaded bundle; get one from `quickstudy.load`.

    Any number of threads may call it. Its memory and threads are freed by `close`, at the end of a
    `with` block, or with the last reference to it.
    """

    def __init__(self, served: served_models.Model, settings: Settings) -> None:
        self._manifest = served.manifest
        self._scheduler = Scheduler(settings)
        self._in_flight = WINDOWS_IN_FLIGHT + settings.inter_threads // THREADS_PER_WINDOW
        self._served: served_models.Model | None = served
        self._thread = EventLoopThread(lambda: ModelClosedError(CLOSED))
        # Runs once: by `close`, when the model is garbage, or when the interpreter ends.
        self._finalizer = weakref.finalize(self, self._thread.stop, self._scheduler.close)

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self._manifest.name

    @property
    def source(self) -> str:
        """The source language's code."""
        return self._manifest.source_lang

    @property
    def target(self) -> str:
        """The target language's code."""
        return self._manifest.target_lang

    @property
    def identity(self) -> str:
        """What every translation depends on: the hash of the manifest, hence of all the bundle's
        files, and the engine's name. Raises ModelClosedError."""
        return self._open().identity

    @overload
    def translate(  # type: ignore[overload-overlap]  # a str is a Sequence[str] too
        self,
        text: str,
        *,
        format: Format = "text",
        beam_size: int | None = None,
        glossary: Mapping[str, str] | None = None,
        formality: Formality | None = None,
        translate_attributes: bool = False,
    ) -> str: ...

    @overload
    def translate(
        self,
        text: Sequence[str],
        *,
        format: Format = "text",
        beam_size: int | None = None,
        glossary: Mapping[str, str] | None = None,
        formality: Formality | None = None,
        translate_attributes: bool = False,
    ) -> list[str]: ...

    def translate(
        self,
        text: str | Sequence[str],
        *,
        format: Format = "text",
        beam_size: int | None = None,
        glossary: Mapping[str, str] | None = None,
        formality: Formality | None = None,
        translate_attributes: bool = False,
    ) -> str | list[str]:
        """Translate a text, or a list of texts in order; lines, spaces and markup are kept.

        A list is faster than one call per text. `beam_size` 1 is greedy, up to 8 is slower and
        slightly better; None is the bundle's own. `glossary` maps source terms to their required
        translations. `formality` is the form of address, where the model has a choice; None is its
        own. With `translate_attributes`, so are the attributes of HTML that a reader sees (`alt`,
        `title`, a page's description). Raises OptionError for invalid texts and options,
        ModelClosedError after `close`.
        """
        results = self._run(
            _request(text, format, beam_size, glossary, formality, translate_attributes)
        )
        texts = [result.text for result in results]
        return texts[0] if isinstance(text, str) else texts

    @overload
    def translate_with_details(  # type: ignore[overload-overlap]
        self,
        text: str,
        *,
        format: Format = "text",
        beam_size: int | None = None,
        glossary: Mapping[str, str] | None = None,
        formality: Formality | None = None,
        translate_attributes: bool = False,
        alternatives: int = 0,
    ) -> Translation: ...

    @overload
    def translate_with_details(
        self,
        text: Sequence[str],
        *,
        format: Format = "text",
        beam_size: int | None = None,
        glossary: Mapping[str, str] | None = None,
        formality: Formality | None = None,
        translate_attributes: bool = False,
        alternatives: int = 0,
    ) -> list[Translation]: ...

    def translate_with_details(
        self,
        text: str | Sequence[str],
        *,
        format: Format = "text",
        beam_size: int | None = None,
        glossary: Mapping[str, str] | None = None,
        formality: Formality | None = None,
        translate_attributes: bool = False,
        alternatives: int = 0,
    ) -> Translation | list[Translation]:
        """Translate as `translate` does; return scores, warnings and sentence pairs, too.

        `alternatives` asks for up to 5 other translations, found by a beam search that is at least
        one wider.
        """
        request = _request(
            text,
            format,
            beam_size,
            glossary,
            formality,
            translate_attributes,
            alternatives=alternatives,
            scores=True,
        )
        translations = [_translation(result) for result in self._run(request)]
        return translations[0] if isinstance(text, str) else translations

    def translate_batches(
        self,
        batches: Iterable[Sequence[str]],
        *,
        format: Format = "text",
        beam_size: int | None = None,
        glossary: Mapping[str, str] | None = None,
        formality: Formality | None = None,
        translate_attributes: bool = False,
    ) -> Iterator[list[Translation]]:
        """Translate lists of texts as they come, however many: each list's translations, in order.

        A list is answered once it and those before it are ready. The next few are taken meanwhile,
        in a thread, and translated together with it, so memory does not grow with their number. A
        list of a thousand texts is as fast as any. Raises as `translate`, and what `batches`
        raises.
        """
        options = _request(
            [], format, beam_size, glossary, formality, translate_attributes, scores=True
        )
        self._check(options)
        return self._in_order(batches, options)

    def close(self) -> None:
        """Free the model; pending calls in other threads raise ModelClosedError."""
        self._finalizer()
        self._served = None

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<quickstudy.Model {self.name!r}: {self.source} → {self.target}>"

    def _open(self) -> served_models.Model:
        """The loaded bundle. Raises ModelClosedError."""
        if self._served is None:
            raise ModelClosedError(CLOSED)
        return self._served

    def _check(self, request: TranslationRequest) -> None:
        """Raises OptionError for a search that the engine does not support."""
        try:
            check_search((self._open(),), request)
        except SearchError as error:
            raise OptionError(str(error)) from None

    def _run(self, request: TranslationRequest) -> list[TranslatedText]:
        """Translate in the model's own thread, and wait for it."""
        self._check(request)
        with _errors_in_words():
            return self._thread.run(self._translate(request))

    async def _translate(self, request: TranslationRequest) -> list[TranslatedText]:
        return await _translate(self._scheduler, self._open(), request, self._in_flight)

    def _in_order(
        self, batches: Iterable[Sequence[str]], options: TranslationRequest
    ) -> Iterator[list[Translation]]:
        """Take batches in a thread, a few ahead of the one whose translations are awaited here."""
        pending: queue.SimpleQueue[Future[list[TranslatedText]] | BaseException | None]
        pending = queue.SimpleQueue()
        room = threading.Semaphore(self._in_flight)
        stopped = threading.Event()

        def submit_all() -> None:
            try:
                for batch in batches:
                    room.acquire()
                    if stopped.is_set():
                        return
                    request = replace(options, texts=_texts(batch))
                    with _errors_in_words():
                        pending.put(self._thread.submit(self._translate(request)))
                pending.put(None)
            except BaseException as error:  # raised where the translations are awaited
                pending.put(error)

        threading.Thread(target=submit_all, name="quickstudy-batches", daemon=True).start()
        future: Future[list[TranslatedText]] | BaseException | None = None
        try:
            while (future := pending.get()) is not None:
                if isinstance(future, BaseException):
                    raise future
                with _errors_in_words():
                    translated = future.result()
                room.release()
                yield [_translation(text) for text in translated]
        finally:
            stopped.set()
            room.release()
            while isinstance(future, Future):
                future.cancel()
                future = None if pending.empty() else pending.get()


@contextmanager
def _errors_in_words() -> Iterator[None]:
    """Let what a stopped event loop raises be a ModelClosedError."""
    try:
        yield
    except (ClosedError, CancelledError):
        raise ModelClosedError(CLOSED) from None
    except RuntimeError as error:
        # When the main thread has ended, Python lets no executor take work any more.
        if threading.main_thread().is_alive():
            raise
        raise ModelClosedError(ENDING) from error


def _request(
    text: str | Sequence[str],
    format: Format,
    beam_size: int | None,
    glossary: Mapping[str, str] | None,
    formality: Formality | None,
    translate_attributes: bool = False,
    alternatives: int = 0,
    scores: bool = False,
) -> TranslationRequest:
    """Check texts and options. Raises OptionError where the service would answer 422."""
    texts = _texts(text)
    if format not in get_args(Format):
        raise OptionError(f"format is {format!r}: pass {' or '.join(map(repr, get_args(Format)))}")
    if formality is not None and formality not in get_args(Formality):
        forms = ", ".join(map(repr, get_args(Formality)))
        raise OptionError(f"formality is {formality!r}: pass {forms} or None")
    if not isinstance(translate_attributes, bool):
        raise OptionError(f"translate_attributes is {translate_attributes!r}: pass True or False")
    return TranslationRequest(
        texts,
        format=format,
        beam_size=(
            None if beam_size is None else _integer("beam_size", beam_size, 1, MAX_BEAM_SIZE)
        ),
        alternatives=_integer("alternatives", alternatives, 0, MAX_ALTERNATIVES),
        scores=scores,
        glossary=NO_GLOSSARY if glossary is None else _glossary(glossary),
        formality=formality,
        translate_attributes=translate_attributes,
        priority=Priority.INTERACTIVE if isinstance(text, str) else Priority.BULK,
    )


def _path(path: object) -> Path:
    """A bundle's folder. Raises OptionError for what is neither a str nor a path of str."""
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str):
        raise OptionError(f"path is of type {type(path).__name__}: pass a str or a pathlib.Path")
    return Path(name)


def _integer(name: str, value: Any, least: int, most: int) -> int:
    """An option's value as an int; numpy's integers count, bools do not. Raises OptionError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if isinstance(value, bool) or number is None:
        raise OptionError(f"{name} is {value!r}: set it to an int, {least} up to {most}")
    if not least <= number <= most:
        raise OptionError(f"{name} is {number}: set it to {least} up to {most}")
    return number


def _glossary(glossary: object) -> Glossary:
    """Check a glossary. Raises OptionError unless it maps str to str that it can use."""
    if not isinstance(glossary, Mapping):
        kind = type(glossary).__name__
        raise OptionError(f"glossary is of type {kind}: pass a dict of str to str")
    terms = dict(glossary)
    for source, target in terms.items():
        _check_text(source, f"the term {source!r} of the glossary")
        _check_text(target, f"glossary[{source!r}]")
    try:
        return Glossary(terms) if terms else NO_GLOSSARY
    except GlossaryError as error:
        raise OptionError(f"glossary: {error}") from None


def _texts(text: object) -> list[str]:
    """The texts as a list. Raises OptionError for anything that is not text."""
    if isinstance(text, bytes | bytearray | memoryview) or not isinstance(text, Iterable):
        raise OptionError(f"text is of type {type(text).__name__}: pass a str or a list of str")
    texts = [text] if isinstance(text, str) else list(text)
    for row, item in enumerate(texts):
        _check_text(item, "text" if isinstance(text, str) else f"text[{row}]")
    return texts


def _check_text(text: object, name: str) -> None:
    """Raises OptionError unless it is a str that UTF-8 can encode."""
    if not isinstance(text, str):
        raise OptionError(f"{name} is of type {type(text).__name__}: pass a str")
    if not text.isascii() and SURROGATE.search(text):
        raise OptionError(f"{name} contains half of a surrogate pair: decode it as UTF-8")


async def _translate(
    scheduler: Scheduler,
    served: served_models.Model,
    request: TranslationRequest,
    in_flight: int,
) -> list[TranslatedText]:
    """Translate texts, in order, in windows whose sentences are sorted by length."""
    windows = list(windows_of(request.texts))
    if len(windows) <= 1:
        return await translate_with_model(scheduler, served, request.texts, request)
    done: list[list[TranslatedText]] = [[] for _ in windows]
    waiting = iter(enumerate(windows))

    async def translate_windows() -> None:
        for place, texts in waiting:
            done[place] = await translate_with_model(scheduler, served, texts, request)

    tasks = [asyncio.create_task(translate_windows()) for _ in range(in_flight)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return [text for window in done for text in window]


def windows_of(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in order, in lists of at most WINDOW_TEXTS and, but for one long text, WINDOW_CHARS."""
    window: list[str] = []
    chars = 0
    for text in texts:
        if window and (len(window) == WINDOW_TEXTS or chars + len(text) > WINDOW_CHARS):
            yield window
            window, chars = [], 0
        window.append(text)
        chars += len(text)
    if window:
        yield window


def _translation(text: TranslatedText) -> Translation:
    return Translation(
        text=text.text,
        score=text.score,
        truncated=text.truncated,
        warnings=tuple(text.warnings),
        sentences=tuple(SentencePair(source, target) for source, target in text.sentences),
        alternatives=tuple(text.alternatives),
    )
