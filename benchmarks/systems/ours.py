"""Our own systems: a bundle's engines, checkpoints in torch, the teacher as it labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from benchmarks.systems.base import (
    PLAIN_BATCH,
    Role,
    SystemInfo,
    batches,
    bytes_on_disk,
    side_by_side,
)
from export.runtime.bundle import Bundle, load_bundle
from export.runtime.manifest import EngineEntry, printable
from quickstudy.machine import versions_of

if TYPE_CHECKING:
    from export.runtime.engines import Engine, TranslateOptions
    from training.run import Run


# --- bundles --------------------------------------------------------------------------------------

SHIPPED = "as shipped"
"""Note of what the service translates with, where a request asks for nothing else."""
STOCK = "ctranslate2-stock-int8"
"""Not an engine of bundles: CTranslate2's own int8, made from the float32 weights on loading."""
KINDS = {"ctranslate2": "CTranslate2", "native": "Quickstudy native", "onnx": "ONNX Runtime"}
PACKAGES = {"ctranslate2": ("ctranslate2",), "native": ("quickstudy",), "onnx": ("onnxruntime",)}
MAX_BATCH_TOKENS = 4096


def with_stock(bundle: Bundle) -> Bundle:
    """The bundle with CTranslate2's own int8 as one more engine, if it has float32 weights."""
    for engine in bundle.manifest.engines:
        if engine.kind == "ctranslate2" and engine.precision == "float32":
            stock = EngineEntry(**{**engine.model_dump(), "name": STOCK, "compute": "int8"})
            engines = (*bundle.manifest.engines, stock)
            return Bundle(bundle.path, bundle.manifest.model_copy(update={"engines": engines}))
    return bundle


@dataclass
class BundleEngine:
    """An engine of a bundle at one beam size, run as the service does. Sentences longer than the
    model takes are split as the service splits them."""

    info: SystemInfo
    bundle: Path
    engine: str
    compiled: bool = False
    """Whether the compiled engine computes it, not the library that the engine is made for."""
    _loaded: Engine | None = None
    _threads: int = 1

    def load(self, threads: int) -> None:
        from export.runtime.engines import load_engine

        self._loaded = load_engine(
            with_stock(load_bundle(self.bundle)),
            self.engine,
            inter_threads=threads,
            max_batch_tokens=MAX_BATCH_TOKENS,
            prefer_native=self.compiled,
        )
        self._threads = threads

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        """Threads have a call each, as in the service. A whole file goes in a call a thread, which
        the engine sorts by length and batches by tokens."""
        size = batch_size or max(1, -(-len(sentences) // self._threads))
        threads = 1 if batch_size == 1 else self._threads
        return side_by_side(batches(sentences, size), self._call, threads)

    def close(self) -> None:
        self._loaded = None

    def _call(self, sentences: Sequence[str]) -> list[str]:
        from export.runtime.engines import TranslateOptions

        assert self._loaded is not None, "load() comes first"
        options = TranslateOptions(beam_size=self.info.beam_size)
        try:
            return [one.text for one in self._loaded.translate_batch(sentences, options)]
        except ValueError:  # one is too long; to count first would cost the others time
            return self._in_parts(sentences, options)

    def _in_parts(self, sentences: Sequence[str], options: TranslateOptions) -> list[str]:
        from service.text.sentences import join_parts, split_text

        engine = self._loaded
        assert engine is not None
        split = [
            split_text(text, self.info.source, engine.count_tokens, engine.max_input_tokens)
            for text in sentences
        ]
        pieces = [part.text for parts in split for part in parts if part.translate]
        translations = iter(engine.translate_batch(pieces, options))
        return [
            join_parts(parts, [next(translations).text for part in parts if part.translate])
            for parts in split
        ]


def bundle_systems(
    bundle: Bundle,
    beams: Sequence[int] = (1,),
    role: Role = "student",
    prefix: str = "student",
    stock: bool = False,
    compiled: bool = False,
) -> list[BundleEngine]:
    """Every engine of a bundle with every beam size, greedy ones first; with `compiled` also each
    that the compiled engine computes in place of its library, as it does in the service, and a
    student's default one has the note `SHIPPED`, with the bundle's own beam where that is among
    the beams and the engine has it, else greedy."""
    from export.runtime.engines import compiled_engine

    systems: list[BundleEngine] = []
    shipped: BundleEngine | None = None
    own_beam = bundle.manifest.decoding.beam_size
    opened = with_stock(bundle) if stock else bundle
    engines = opened.manifest.engines
    also = {one.name for one in engines if compiled and compiled_engine(opened, one) is not None}
    for beam in beams:
        for engine in engines:
            info = _info(opened, engine, beam, role, prefix)
            served = []
            if beam == 1 or _has_beam(opened, engine):
                served.append(BundleEngine(info, bundle.path, engine.name))
            if engine.name in also:
                own = _compiled_info(info)
                served.append(BundleEngine(own, bundle.path, engine.name, compiled=True))
            default = engine.name == opened.manifest.default_engine
            may_ship = compiled and role == "student" and default and served
            if may_ship and (beam == own_beam or (beam == 1 and shipped is None)):
                shipped = served[-1]
            systems += served
    if shipped is not None:
        shipped.info = replace(shipped.info, note=SHIPPED)
    return systems


def _compiled_info(info: SystemInfo) -> SystemInfo:
    return replace(
        info,
        name=f"{info.name} compiled",
        engine=KINDS["native"],
        versions=versions_of(*PACKAGES["native"], "sentencepiece"),
        note="the engine of its own, from the same file",
    )


def _has_beam(bundle: Bundle, engine: EngineEntry) -> bool:
    """Whether an engine has a beam search by its library. CTranslate2's shortlists are made for
    greedy decoding."""
    if engine.kind == "onnx":
        return any((bundle.path / engine.path).glob("beam.onnx*"))
    return engine.kind == "native" or not engine.shortlist


def _info(bundle: Bundle, engine: EngineEntry, beam: int, role: Role, prefix: str) -> SystemInfo:
    manifest = bundle.manifest
    info = SystemInfo(
        name=f"{prefix} {engine.name}" + (f" beam {beam}" if beam > 1 else ""),
        role=role,
        engine=KINDS[engine.kind],
        precision="int8 (stock)" if engine.name == STOCK else engine.precision_label,
        beam_size=beam,
        source=manifest.source_lang,
        target=manifest.target_lang,
        parameters=manifest.parameters,
        bytes=bytes_on_disk(bundle.path / engine.path, bundle.tokenizer_path),
        versions=versions_of(*PACKAGES[engine.kind], "sentencepiece"),
    )
    if role == "baseline":
        return replace(info, note=_about(bundle))
    return info


def _about(bundle: Bundle) -> str:
    """Which bundle another system is, since its name is the user's."""
    manifest = bundle.manifest
    known = f"{manifest.name}, version {manifest.version}"
    if manifest.origin is None:
        return known
    return f"{known}, imported ({printable(manifest.origin.name)})"


# --- checkpoints in torch -------------------------------------------------------------------------

WEIGHTS = ("model.safetensors", "tokenizer.model")


@dataclass
class TorchCheckpoint:
    """A checkpoint decoded in torch (eager, float32, cached), the reference for engines.
    Sources longer than the model takes are cut; EOS is kept."""

    info: SystemInfo
    checkpoint: Path
    _model: Any = field(default=None, repr=False)
    _tokenizer: Any = field(default=None, repr=False)
    _source_tokenizer: Any = field(default=None, repr=False)

    def load(self, threads: int) -> None:
        import torch

        from training.checkpoint import load_checkpoint
        from training.data.tokenizer import Tokenizer

        torch.set_num_threads(threads)
        loaded = load_checkpoint(self.checkpoint)
        self._model = loaded.model.eval()
        self._tokenizer = Tokenizer(loaded.tokenizer)
        self._source_tokenizer = Tokenizer(loaded.source_tokenizer or loaded.tokenizer)

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        """Whole files are sorted by length and cut into batches of PLAIN_BATCH sentences."""
        calls = batches(sentences, batch_size or max(len(sentences), 1))
        return [text for call in calls for text in self._batch(list(call), batch_size)]

    def close(self) -> None:
        self._model = self._tokenizer = self._source_tokenizer = None

    def _batch(self, sentences: list[str], batch_size: int) -> list[str]:
        from training.data.batching import clipped
        from training.model.decoding import beam_corpus, greedy_corpus

        rows = clipped(self._source_tokenizer.encode(sentences), self._model.max_length - 1)
        size = batch_size or PLAIN_BATCH
        if self.info.beam_size == 1:
            hypotheses = greedy_corpus(self._model, rows, size)
        else:
            hypotheses = beam_corpus(self._model, rows, self.info.beam_size, size)
        texts: list[str] = self._tokenizer.decode([hypothesis.ids for hypothesis in hypotheses])
        return texts


def torch_systems(
    checkpoint: Path, name: str, role: Role, source: str, target: str, beams: Sequence[int] = (1,)
) -> list[TorchCheckpoint]:
    """A checkpoint with every beam size."""
    parameters = count_parameters(checkpoint)
    size = bytes_on_disk(*(checkpoint / one for one in WEIGHTS))
    versions = versions_of("torch", "sentencepiece")
    return [
        TorchCheckpoint(
            SystemInfo(
                name=f"{name} torch" + (f" beam {beam}" if beam > 1 else ""),
                role=role,
                engine="torch",
                precision="float32",
                beam_size=beam,
                source=source,
                target=target,
                parameters=parameters,
                bytes=size,
                versions=versions,
            ),
            checkpoint,
        )
        for beam in beams
    ]


def count_parameters(checkpoint: Path) -> int:
    """Parameters of a checkpoint, from its weights' shapes alone."""
    from math import prod

    from safetensors import safe_open

    with safe_open(checkpoint / WEIGHTS[0], framework="np") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


# --- teachers -------------------------------------------------------------------------------------


@dataclass
class LabellingTeacher:
    """A teacher in the student's tokens, with the beam and length penalty of the labels. A folder
    of CTranslate2 that is made from a checkpoint when it is first asked counts as loading.
    `job` is a `TeacherJob` as plain data."""

    info: SystemInfo
    job: dict[str, Any]
    longest: int
    _teacher: Any = field(default=None, repr=False)
    _tokenizer: Any = field(default=None, repr=False)

    def load(self, threads: int) -> None:
        import torch

        from export.ctranslate2 import to_ctranslate2
        from training.data.tokenizer import Tokenizer
        from training.distill.teachers import TeacherJob, build_teacher

        torch.set_num_threads(threads)
        job = TypeAdapter(TeacherJob).validate_python(self.job)
        self._teacher = build_teacher(job, to_ctranslate2, label_engine())
        self._tokenizer = Tokenizer(job.tokenizer)

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        from training.data.batching import clipped

        texts: list[str] = []
        for call in batches(sentences, batch_size or max(len(sentences), 1)):
            rows = clipped(self._tokenizer.encode(list(call)), self.longest)
            penalty = self.job["labels"]["length_penalty"]
            n_best = self._teacher.translate(rows, self.info.beam_size, 1, penalty)
            texts += self._tokenizer.decode([hypotheses[0][0] for hypotheses in n_best])
        return texts

    def close(self) -> None:
        self._teacher = self._tokenizer = None


def label_engine() -> Any:
    """What opens the compiled engine for a teacher's int8 labels; None where it is not built."""
    from export.native import open_engine
    from export.runtime.native.library import is_built

    return open_engine if is_built() else None


def labelling_teacher(run: Run) -> LabellingTeacher:
    """The teacher of a run, as it labels."""
    from export.ctranslate2 import to_ctranslate2
    from training.config.model import TrainedTeacher
    from training.distill.teachers import TeacherJob, build_teacher
    from training.run import max_pair_length
    from training.teacher_files import teacher_files

    labels, job = run.recipe.labels, run.teacher_job
    given = job.config
    about = build_teacher(job, to_ctranslate2, label_engine()).about
    files = (
        [run.teacher / "model.safetensors", run.teacher / "tokenizer.model"]
        if isinstance(given, TrainedTeacher)
        else list(teacher_files(given))
    )
    info = SystemInfo(
        name=f"teacher {about.engine} {about.precision} beam {labels.beam_size}",
        role="teacher",
        engine=about.engine,
        precision=about.precision,
        beam_size=labels.beam_size,
        source=run.recipe.corpus.src_lang,
        target=run.recipe.corpus.trg_lang,
        parameters=about.parameters,
        bytes=bytes_on_disk(*files),
        versions=versions_of("torch", "ctranslate2", "transformers", "sentencepiece"),
        note="as it labelled the text",
    )
    plain = TypeAdapter(TeacherJob).dump_python(job, mode="json")
    return LabellingTeacher(info, plain, max_pair_length(run.recipe) - 1)
