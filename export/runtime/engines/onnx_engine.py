"""A bundle's ONNX engine: greedy decoding, or beam search, as one graph on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from export.runtime.bundle import Bundle, BundleError
from export.runtime.engines.base import (
    Decoded,
    SentenceEngine,
    TranslateOptions,
    source_prefix_ids,
)
from export.runtime.manifest import BEAM_FILE
from export.runtime.onnx_format import (
    CANDIDATES,
    FORMAT,
    FORMAT_VERSION,
    GREEDY_FILE,
    GREEDY_INPUTS,
    read_onnx,
)
from export.runtime.shortlist import SHORTLIST_FILE, read_shortlist

SHORTLIST_BATCH_TOKENS = 128
"""Most padded source tokens of a batch with a shortlist.

Every sentence pays for the candidates of all. Firefox's English → Portuguese translated 500 lines
of web text at 130 lines a second of processor time in batches of 1,024, at 158 in batches of 256,
180 of 128 and 161 of 64 (AMD EPYC, one thread, a busy machine).
"""


PAD, EOS = 0, 3
OUTPUTS = {"trg": "tensor(int64)", "scores": "tensor(float)"}
INPUTS = {
    GREEDY_FILE: GREEDY_INPUTS,
    BEAM_FILE: {"src": "tensor(int64)", "limit": "tensor(int64)", "beam_size": "tensor(int64)"},
}


class OnnxEngine(SentenceEngine):
    """The ONNX models of a bundle's engine: `greedy.onnx` and, if it is there, `beam.onnx`. With a
    shortlist, greedy decoding chooses among each sentence's own candidates.

    Up to `inter_threads` batches run at the same time, each with `intra_threads`; a batch has at
    most `max_batch_tokens` padded source tokens, and with a shortlist SHORTLIST_BATCH_TOKENS.
    Raises BundleError if the bundle has no such engine, or for a model that does not keep to the
    contract of docs/bundle.md.
    """

    token_type = int
    runtime = "ONNX Runtime"

    def __init__(
        self,
        bundle: Bundle,
        name: str | None = None,
        *,
        inter_threads: int = 1,
        intra_threads: int = 1,
        max_batch_tokens: int = 1024,
    ) -> None:
        super().__init__(bundle, name)
        self._max_batch_tokens = max_batch_tokens
        self._vocab_size = bundle.manifest.vocab_size
        self._prefix = source_prefix_ids(bundle, self._source_tokenizer)
        self._added_tokens = 1 + len(self._prefix)
        self._running = BoundedSemaphore(inter_threads)
        self._threads = ThreadPoolExecutor(inter_threads)
        folder = bundle.engine_path(name)
        has_beam = "beam_size" in self.supported_options
        files = [GREEDY_FILE, *([BEAM_FILE] if has_beam else [])]
        source_vocab_size = self._source_tokenizer.get_piece_size()
        self._shortlist = (
            read_shortlist(folder / SHORTLIST_FILE, source_vocab_size, self._vocab_size)
            if self._entry.shortlist
            else None
        )
        inputs = {**INPUTS}
        if self._shortlist is not None:
            self._max_batch_tokens = min(max_batch_tokens, SHORTLIST_BATCH_TOKENS)
            inputs[GREEDY_FILE] = {**INPUTS[GREEDY_FILE], **CANDIDATES}
        self._sessions = {
            file: _load(folder / file, intra_threads, self._vocab_size, inputs[file])
            for file in files
        }

    def decode(
        self, sources: list[list[int]], limit: int, options: TranslateOptions
    ) -> list[Decoded]:
        if self._prefix:
            sources = [[*self._prefix, *source] for source in sources]
        batches = batches_of(sources, self._max_batch_tokens)
        decoded: list[Decoded] = [Decoded([])] * len(sources)

        def run(rows: list[int]) -> list[Decoded]:
            return self._run([sources[row] for row in rows], limit, options)

        apply = self._threads.map if len(batches) > 1 else map  # one needs no other thread
        for rows, batch in zip(batches, apply(run, batches), strict=True):
            for row, sentence in zip(rows, batch, strict=True):
                decoded[row] = sentence
        return decoded

    def _run(
        self, sources: list[list[int]], limit: int, options: TranslateOptions
    ) -> list[Decoded]:
        """Decode one batch."""
        src = np.full((len(sources), max(map(len, sources)) + 1), PAD, np.int64)
        for row, source in enumerate(sources):
            src[row, : len(source)] = source
            src[row, len(source)] = EOS
        feeds: dict[str, NDArray[Any]] = {"src": src, "limit": np.array(limit)}
        if beam := options.beam_size > 1:
            feeds["beam_size"] = np.array(options.beam_size)
        else:
            feeds["return_scores"] = np.array(options.return_scores)
            if self._shortlist is not None:
                ended = [[*source, EOS] for source in sources]
                chosen = self._shortlist.of_batch(ended, self._vocab_size)
                feeds |= zip(CANDIDATES, chosen, strict=True)
        with self._running:
            session = self._sessions[BEAM_FILE if beam else GREEDY_FILE]
            trg, scores = session.run(["trg", "scores"], feeds)
        if len(trg) != len(src) or trg.min() < 0 or trg.max() >= self._vocab_size:
            raise ValueError("the model wrote ids out of its vocabulary: export the bundle again")
        read_row = _beam_decoded if beam else _greedy_decoded
        decoded = [read_row(ids, score, limit) for ids, score in zip(trg, scores, strict=True)]
        if not options.return_scores:
            decoded = [replace(sentence, score=None) for sentence in decoded]
        return decoded


def _load(
    path: Path, intra_threads: int, vocab_size: int, inputs: dict[str, str]
) -> onnxruntime.InferenceSession:
    """A session for a file that takes these inputs. Raises BundleError if it cannot be used."""
    content = read_onnx(path)
    try:
        session = onnxruntime.InferenceSession(
            content, _session_options(intra_threads), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's errors share no other base
        # It quotes names of the file, which a stranger may have broken into lines.
        said = " ".join(str(error).split())
        raise BundleError(
            f"{path} does not load in ONNX Runtime {onnxruntime.__version__} ({said}): "
            "export the bundle again, or install a newer onnxruntime"
        ) from error
    if fault := contract_fault(session, inputs, vocab_size):
        raise BundleError(f"{path} {fault}: export the bundle again with this version")
    return session


def contract_fault(session: Any, expected: dict[str, str], vocab_size: int) -> str | None:
    """What keeps a loaded model from being used, if anything does."""
    inputs = {one.name: one.type for one in session.get_inputs()}
    outputs = {one.name: one.type for one in session.get_outputs()}
    if inputs != expected or outputs != OUTPUTS:
        return f"takes {inputs} and gives {outputs}, not {expected} and {OUTPUTS}"
    metadata = session.get_modelmeta().custom_metadata_map
    stated_format = (metadata.get("format"), metadata.get("format_version"))
    if stated_format != (FORMAT, FORMAT_VERSION):
        return f"has format and version {stated_format}, not {(FORMAT, FORMAT_VERSION)}"
    if metadata.get("vocab_size") != str(vocab_size):
        return f"has vocab_size {metadata.get('vocab_size')}, its manifest says {vocab_size}"
    return None


def batches_of(sources: Sequence[Sequence[int]], max_batch_tokens: int) -> list[list[int]]:
    """Rows in batches of like lengths, each of at most so many padded tokens, or of one row."""
    batches: list[list[int]] = []
    for row in sorted(range(len(sources)), key=lambda row: len(sources[row])):
        width = len(sources[row]) + 1  # EOS; rows come by length, so this is the batch's width
        if not batches or (len(batches[-1]) + 1) * width > max_batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def _greedy_decoded(ids: NDArray[np.int64], score: np.float32, limit: int) -> Decoded:
    """Ids [T] with EOS, if it came, and the sum of their log-probabilities; as in CTranslate2 the
    score is their mean, EOS counted."""
    tokens = ids.tolist()
    ended = EOS in tokens
    length = tokens.index(EOS) if ended else len(tokens)
    return Decoded(tokens[:length], float(score) / (length + ended), truncated=not ended)


def _beam_decoded(ids: NDArray[np.int64], score: np.float32, limit: int) -> Decoded:
    """Ids [T] without EOS, and the mean of their log-probabilities as if it had come."""
    tokens = [token for token in ids.tolist() if token != PAD]
    truncated = len(tokens) >= limit
    mean = float(score) * (len(tokens) + 1) / len(tokens) if truncated else float(score)
    return Decoded(tokens, mean, truncated)


def _session_options(intra_threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # one pattern would be kept for every shape ever seen
    options.log_severity_level = 3
    return options
