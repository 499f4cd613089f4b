"""The student as two ONNX graphs, encoder and step, and a loop over steps in Python.

That is how ONNX Runtime is used where decoding is not part of the graph, as it is in our engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.systems.base import (
    BOS,
    EOS,
    NEVER,
    Subject,
    System,
    SystemInfo,
    Tokens,
    Unavailable,
    missing,
    padded,
)

NAME = "onnx-steps"
INSTALL = "pip install 'quickstudy[train]'"
PRECISIONS: tuple[Literal["float32", "int8"], ...] = ("float32", "int8")


def systems(subject: Subject) -> list[System]:
    """The student in float32 and in our exporter's int8."""
    if reason := missing(INSTALL, ("onnx", "onnxruntime", "torch")):
        raise Unavailable(reason)
    from benchmarks.systems.base import student_info, student_of
    from export.onnx import OnnxModelInfo, to_onnx

    student = student_of(subject)
    if student is None:
        return []
    made: list[System] = []
    about = OnnxModelInfo(NAME, subject.source, subject.target)
    for precision in PRECISIONS:
        folder = subject.folder / NAME / precision
        folder.parent.mkdir(parents=True, exist_ok=True)
        to_onnx(student.model, student.pieces, folder, precision, about, ("encoder", "step"))
        info = student_info(
            subject,
            student,
            folder,
            name=f"{NAME}-{precision}",
            engine="ONNX Runtime",
            precision=precision,
            packages=("onnxruntime", "numpy"),
            note=f"{student.weights}, decoded step by step in Python",
        )
        made.append(OnnxSteps(info, folder, student.tokenizer, student.model.max_length))
    return made


@dataclass
class OnnxSteps:
    """Greedy decoding with a past, by `encoder.onnx` and `step.onnx` of a folder."""

    info: SystemInfo
    folder: Path
    tokenizer: Path
    max_length: int
    _encoder: Any = field(default=None, init=False, repr=False)
    _step: Any = field(default=None, init=False, repr=False)
    _tokens: Tokens | None = field(default=None, init=False, repr=False)

    def load(self, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._tokens = Tokens(self.tokenizer, self.max_length)
        self._encoder, self._step = (
            onnxruntime.InferenceSession(
                self.folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
            )
            for name in ("encoder", "step")
        )

    def translate(self, sentences: Sequence[str], batch_size: int) -> list[str]:
        assert self._tokens is not None
        return self._tokens.translate(self._decode, sentences, batch_size)

    def _decode(self, sources: list[list[int]]) -> list[list[int]]:
        """Ids of sources [B, S], EOS last → ids of translations; ended rows leave the batch."""
        assert self._tokens is not None
        src = np.array(padded(sources), np.int64)
        state = self._begin(src)
        names = [one.name for one in self._step.get_outputs()]
        rows, last = np.arange(len(src)), np.full(len(src), BOS, np.int64)
        rows_out: list[list[int]] = [[] for _ in sources]
        for _ in range(self._tokens.output_limit(src.shape[1])):
            logits, *past = self._step.run(names, {"last": last, **state})
            logits[:, NEVER] = -np.inf
            last = logits.argmax(axis=1)
            state.update(zip((f"past_{name}" for name in names[1:]), past, strict=True))
            for row, token in zip(rows.tolist(), last.tolist(), strict=True):
                rows_out[row].append(token)
            going = np.flatnonzero(last != EOS)
            if not len(going):
                break
            if len(going) < len(rows):
                rows, last = rows[going], last[going]
                state = {name: value[going] for name, value in state.items()}
        return rows_out

    def _begin(self, src: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """What the first step takes: the encoder's outputs and an empty past."""
        outputs = [one.name for one in self._encoder.get_outputs()]
        state = dict(zip(outputs, self._encoder.run(outputs, {"src": src}), strict=True))
        for one in self._step.get_inputs():
            if one.name.startswith("past_"):
                shape = [size if isinstance(size, int) else 0 for size in one.shape]
                state[one.name] = np.zeros([len(src), *shape[1:]], np.float32)
        return state

    def close(self) -> None:
        self._encoder = self._step = None
