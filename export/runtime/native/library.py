"""The compiled engine by ctypes: what `src/engine.h` declares.

It is built when the package is installed where there is a C compiler, and is optional: without it
`library()` says why, and other engines serve.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_size_t, c_void_p
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.runtime.manifest import BundleError

VERSION = 5
"""Of the C interface: a library of another version is not used."""
ERROR_BYTES = 200
BAD_CALL, NO_MEMORY = 1, 2
MOST_BEAM = 32
"""Hypotheses that a beam may have."""

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class _Call(ctypes.Structure):
    _fields_ = (
        ("rows", c_int32),
        ("sources", c_void_p),
        ("lengths", c_void_p),
        ("limits", c_void_p),
        ("candidates", c_void_p),
        ("candidate_counts", c_void_p),
        ("scored", c_int32),
        ("repetition_penalty", c_float),
        ("no_repeat_ngram", c_int32),
        ("top_k", c_int32),
        ("beam_size", c_int32),
        ("n_best", c_int32),
        ("length_penalty", c_float),
        ("targets", c_void_p),
        ("target_lengths", c_void_p),
        ("ended", c_void_p),
        ("scores", c_void_p),
        ("top_ids", c_void_p),
        ("top_logp", c_void_p),
        ("tails", c_void_p),
    )


class NativeUnavailable(BundleError):
    """The compiled engine is not there, and why."""


def build_files() -> list[Path]:
    """Where the compiled library may lie: beside this file, as Python's own extensions are."""
    folder = Path(__file__).parent
    return [folder / f"_engine{suffix}" for suffix in EXTENSION_SUFFIXES]


@cache
def library() -> Any:
    """The loaded library. Raises NativeUnavailable where it was not built or is another version."""
    built = [path for path in build_files() if path.is_file()]
    path = max(built, key=lambda file: file.stat().st_mtime, default=None)
    if path is None:
        raise NativeUnavailable(
            "the compiled engine was not built: install a C compiler (Debian: apt install gcc) and "
            "run `pip install` again"
        )
    return open_library(path)


def open_library(path: Path) -> Any:
    """A library file. Raises NativeUnavailable where it does not load or is another version."""
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.qs_version.restype = c_int32
        version = loaded.qs_version()
    except (OSError, AttributeError) as error:
        raise NativeUnavailable(
            f"{path} does not load ({error}): run `pip install` again"
        ) from error
    if version != VERSION:
        raise NativeUnavailable(
            f"{path} is version {version}, {VERSION} is needed: run `pip install` again"
        )
    loaded.qs_kernels.restype = c_char_p
    loaded.qs_model_load.restype = c_void_p
    loaded.qs_model_load.argtypes = [c_void_p, c_size_t, c_char_p, c_char_p, c_size_t]
    loaded.qs_model_free.argtypes = [c_void_p]
    loaded.qs_model_free.restype = None
    loaded.qs_model_kernel.argtypes = [c_void_p]
    loaded.qs_model_kernel.restype = c_char_p
    loaded.qs_scratch_new.restype = c_void_p
    loaded.qs_scratch_free.argtypes = [c_void_p]
    loaded.qs_scratch_free.restype = None
    loaded.qs_translate.argtypes = [c_void_p, c_void_p, POINTER(_Call)]
    for attempt in (loaded.qs_try_product, loaded.qs_try_sparse):
        attempt.argtypes = [
            c_char_p, c_void_p, c_int32, c_void_p, c_int32, c_int32, c_void_p,
        ]  # fmt: skip
    return loaded


def is_built() -> bool:
    """Whether there is a library that loads."""
    try:
        library()
    except NativeUnavailable:
        return False
    return True


def kernels() -> list[str]:
    """Names of the kernels that this CPU can run, best first. Raises NativeUnavailable."""
    names: str = library().qs_kernels().decode("ascii")
    return names.split()


def product(
    kernel: str, rows: NDArray[np.uint8], weights: NDArray[np.int8], *, sparse: bool = False
) -> Ints:
    """rows [R, K] · weights [N, K]ᵀ → [R, N], as a kernel computes it, leaving out zeros where it
    is to be `sparse`; for tests.

    Raises ValueError for weights whose sums could overflow, for sizes that are not padded, and for
    a kernel that has no sparse product.
    """
    rows, weights = np.ascontiguousarray(rows), np.ascontiguousarray(weights)
    sums = np.empty((len(rows), len(weights)), np.int32)
    sizes = len(rows), weights.ctypes.data, len(weights), weights.shape[1]
    attempt = library().qs_try_sparse if sparse else library().qs_try_product
    fault = attempt(kernel.encode("ascii"), rows.ctypes.data, *sizes, sums.ctypes.data)
    if fault or rows.shape[1] != weights.shape[1]:
        raise ValueError(f"kernel {kernel} does not take {rows.shape} times {weights.shape}")
    return sums


@dataclass(frozen=True)
class TopK:
    """The K likeliest words of each of N positions, `</s>` counted, also of a translation that was
    cut before it: ids [N, K], log-probabilities [N, K] (nats), the probability of all others [N].

    They are over all words that may be written, or the sentence's candidates, before penalties.
    Where there are fewer than K, ids are 0 and log-probabilities minus infinity.
    """

    ids: Ints
    logp: Floats
    tail: Floats


@dataclass(frozen=True)
class Translated:
    """Ids of a translation without `</s>`, whether `</s>` came before the limit, and the sum of the
    log-probabilities (nats, `</s>` counted), 0 where no scores were asked for; the distributions
    along it where `top_k` was."""

    ids: list[int]
    ended: bool
    score: float
    top_k: TopK | None = field(default=None, compare=False)


class NativeModel:
    """A packed model with scratch memory for `threads` calls at a time.

    `data` is what `export.runtime.native.weights` writes. Raises NativeUnavailable without the
    library, BundleError for bytes that it refuses.
    """

    _model: Any = None

    def __init__(self, data: bytes, threads: int = 1, kernel: str | None = None) -> None:
        self._library = library()
        self._scratches: list[Any] = []
        error = ctypes.create_string_buffer(ERROR_BYTES)
        name = kernel.encode("ascii") if kernel is not None else None
        self._model = self._library.qs_model_load(data, len(data), name, error, ERROR_BYTES)
        if not self._model:
            reason = error.value.decode("ascii", "replace")
            raise BundleError(f"the compiled engine refuses the model: {reason}")
        self.kernel: str = self._library.qs_model_kernel(self._model).decode("ascii")
        self._running = BoundedSemaphore(threads)
        self._lock = Lock()

    def __del__(self) -> None:
        if self._model is None:
            return
        for scratch in self._scratches:
            self._library.qs_scratch_free(scratch)
        self._library.qs_model_free(self._model)

    def translate(
        self,
        sources: Sequence[Sequence[int]],
        limits: Sequence[int],
        *,
        candidates: Sequence[NDArray[np.integer]] | None = None,
        scored: bool = False,
        repetition_penalty: float = 1.0,
        no_repeat_ngram: int = 0,
        top_k: int = 0,
    ) -> list[Translated]:
        """Greedy translations of source ids, each with `</s>`, of at most so many ids each, and
        the `top_k` likeliest words of every position.

        Waits where `threads` calls run already. Raises ValueError for ids or lengths that the model
        does not have, MemoryError where the call needs more memory than there is.
        """
        arrays = _Arrays.of(sources, limits, candidates)
        call = arrays.call()
        call.scored = scored
        call.repetition_penalty, call.no_repeat_ngram = repetition_penalty, no_repeat_ngram
        best = _TopKArrays(arrays.limits, top_k)
        call.top_k = top_k
        call.top_ids, call.top_logp = best.ids.ctypes.data, best.logp.ctypes.data
        call.tails = best.tails.ctypes.data
        self._run(call)
        translated = [one for [one] in arrays.translated()]
        if not top_k:
            return translated
        starts = np.cumsum(arrays.limits + 1) - arrays.limits - 1
        return [
            replace(one, top_k=best.of(int(start), len(one.ids) + 1))
            for start, one in zip(starts, translated, strict=True)
        ]

    def search(
        self,
        sources: Sequence[Sequence[int]],
        limits: Sequence[int],
        *,
        beam_size: int,
        n_best: int = 1,
        length_penalty: float = 1.0,
        candidates: Sequence[NDArray[np.integer]] | None = None,
        repetition_penalty: float = 1.0,
        no_repeat_ngram: int = 0,
    ) -> list[list[Translated]]:
        """The `n_best` translations of each source that a beam of at most MOST_BEAM finds, best
        first by log-probability / (tokens, `</s>` counted) ^ `length_penalty`. The rest is as for
        `translate`.
        """
        arrays = _Arrays.of(sources, limits, candidates, n_best)
        call = arrays.call()
        call.scored = True
        call.repetition_penalty, call.no_repeat_ngram = repetition_penalty, no_repeat_ngram
        call.beam_size, call.length_penalty = beam_size, length_penalty
        self._run(call)
        return arrays.translated()

    def _run(self, call: _Call) -> None:
        with self._running:
            with self._lock:
                scratch = self._scratches.pop() if self._scratches else None
            scratch = scratch or self._library.qs_scratch_new()
            if not scratch:
                raise MemoryError("there is no memory for a call")
            try:
                status = self._library.qs_translate(self._model, scratch, byref(call))
            finally:
                with self._lock:
                    self._scratches.append(scratch)
        if status == NO_MEMORY:
            raise MemoryError("the call needs more memory than there is: send fewer sentences")
        if status:
            raise ValueError("the call has ids, lengths or options that the model does not have")


@dataclass(frozen=True)
class _Arrays:
    """What every call reads, and where its translations go: `n_best` of each of R sources."""

    sources: Ints
    lengths: Ints
    limits: Ints
    candidates: Ints | None
    counts: Ints | None
    targets: Ints
    target_lengths: Ints
    """[R, n_best]"""
    ended: Ints
    scores: Floats

    @staticmethod
    def of(
        sources: Sequence[Sequence[int]],
        limits: Sequence[int],
        candidates: Sequence[NDArray[np.integer]] | None,
        n_best: int = 1,
    ) -> _Arrays:
        """Raises ValueError where there is not a limit, and candidates if any, for each source."""
        count = len(sources)
        lengths = np.fromiter(map(len, sources), np.int32, count)
        most = np.asarray(limits, np.int32)
        if len(most) != count or (count and most.min() < 1):
            raise ValueError("each source needs a limit of 1 or more")
        shape = count, max(n_best, 0)
        return _Arrays(
            np.fromiter((one for source in sources for one in source), np.int32, lengths.sum()),
            lengths,
            most,
            *_candidates(candidates, count),
            np.empty(int(most.sum()) * shape[1], np.int32),
            np.empty(shape, np.int32),
            np.empty(shape, np.int32),
            np.zeros(shape, np.float32),
        )

    def call(self) -> _Call:
        """A call that decodes greedily. It refers to the arrays, which must outlive it."""
        words, counts = self.candidates, self.counts
        return _Call(
            rows=len(self.lengths),
            sources=self.sources.ctypes.data,
            lengths=self.lengths.ctypes.data,
            limits=self.limits.ctypes.data,
            candidates=None if words is None else words.ctypes.data,
            candidate_counts=None if counts is None else counts.ctypes.data,
            repetition_penalty=1.0,
            beam_size=1,
            n_best=self.target_lengths.shape[1],
            length_penalty=1.0,
            targets=self.targets.ctypes.data,
            target_lengths=self.target_lengths.ctypes.data,
            ended=self.ended.ctypes.data,
            scores=self.scores.ctypes.data,
        )

    def translated(self) -> list[list[Translated]]:
        """The translations of each source, of which a beam may find fewer than `n_best`."""
        n_best = self.target_lengths.shape[1]
        limits = np.repeat(self.limits, n_best)
        rows = zip(
            (np.cumsum(limits) - limits).tolist(),
            self.target_lengths.ravel().tolist(),
            self.ended.ravel().tolist(),
            self.scores.ravel().tolist(),
            strict=True,
        )
        found = [
            Translated(self.targets[at : at + length].tolist(), bool(ended), score)
            if length >= 0
            else None
            for at, length, ended, score in rows
        ]
        return [
            [one for one in found[row : row + n_best] if one is not None]
            for row in range(0, len(found), n_best)
        ]


class _TopKArrays:
    """Where a call's distributions go: a sentence has a position more than its limit."""

    def __init__(self, limits: Ints, top_k: int) -> None:
        positions = int(limits.sum()) + len(limits) if top_k > 0 else 0
        self.ids = np.empty((positions, top_k if positions else 0), np.int32)
        self.logp = np.empty(self.ids.shape, np.float32)
        self.tails = np.empty(positions, np.float32)

    def of(self, first: int, count: int) -> TopK:
        """Copies of these positions, which do not hold the whole call's."""
        own = slice(first, first + count)
        return TopK(self.ids[own].copy(), self.logp[own].copy(), self.tails[own].copy())


def _candidates(
    candidates: Sequence[NDArray[np.integer]] | None, count: int
) -> tuple[Ints | None, Ints | None]:
    """Candidates of all rows one after the other, and how many each has."""
    if candidates is None:
        return None, None
    if len(candidates) != count:
        raise ValueError("each source needs candidates")
    counts = np.fromiter(map(len, candidates), np.int32, count)
    return np.concatenate([*candidates, []]).astype(np.int32), counts
