"""How far a system is from what the machine can do: its roofline, and where the time goes.

Operations are those of matrix products only, a multiplication and an addition counted as two; the
backward pass costs twice the forward one. Peaks are those of square products of 1,024 in the
libraries that are installed, on as many threads; the best library counts. One sentence at a time, a
decoder multiplies matrices by single vectors, which no library does near that peak: the share says
how much of the machine is left unused, not how much faster a better program would be.

A profile samples a system's process with Linux's `perf`. It tells libraries apart and, in those
that keep their symbols, functions. Kernels that oneDNN makes while running have no name: perf calls
them JIT, and they are matrix products.

Shapes: S source length, T target length, V vocabulary, D width, F inner width.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml

from benchmarks.plan import BenchPlan
from benchmarks.results import Peak, Profile, ReportPart, Share, Speed
from benchmarks.speed import figure, tidy
from benchmarks.systems.base import Unavailable
from benchmarks.systems.process import SystemProcess
from benchmarks.trainers import in_fresh_process, use_cores
from training.checkpoint import build_model
from training.config.model import ModelConfig
from training.model.transformer import parameter_count

Precision = Literal["float32", "bfloat16"]


# --- operations -----------------------------------------------------------------------------------


def flops_per_target_token(
    model: ModelConfig, vocab_size: int, src: np.ndarray, trg: np.ndarray
) -> float:
    """Mean over a corpus whose sentences have `src` and `trg` tokens (EOS counted), no padding.

    Attention is counted in full, as it is computed where the kernel masks: 4 · L · D a token.
    """
    width, ffn = model.width, model.ffn
    square, inner = 2 * width * width, 2 * 2 * width * ffn
    s, t = src.astype(np.float64), trg.astype(np.float64)
    encoder = s * (4 * square + inner + 4 * s * width)
    cross = t * 2 * square + s * 2 * square + 4 * t * s * width
    decoder = t * (4 * square + inner + 4 * t * width) + cross
    output = t * 2 * width * vocab_size
    forward = model.encoder_layers * encoder + model.decoder_layers * decoder + output
    return float(3 * forward.sum() / t.sum())


def flops_per_sentence(
    model: ModelConfig, vocab_size: int, src: np.ndarray, trg: np.ndarray, beam_size: int = 1
) -> float:
    """Mean over translations with `src` source and `trg` target tokens (EOS counted), decoded step
    by step with a cache: a step attends to the steps before it only. Every hypothesis of a beam is
    taken to be as long as the one that wins."""
    width, ffn = model.width, model.ffn
    square, inner = 2 * width * width, 2 * 2 * width * ffn
    s, t = src.astype(np.float64), trg.astype(np.float64)
    encoder = s * (4 * square + inner + 4 * s * width)
    keys_and_values = s * 2 * square
    steps = t * (6 * square + inner + 4 * s * width) + 2 * t * (t + 1) * width
    output = t * 2 * width * vocab_size
    decoder = model.decoder_layers * (keys_and_values + beam_size * steps) + beam_size * output
    return float((model.encoder_layers * encoder + decoder).mean())


# --- peaks ----------------------------------------------------------------------------------------

Product = Callable[[], Any]
SIZE = 1024


def gemm_gflops(precision: Precision, threads: int | None, seconds: float = 1.0) -> float:
    """10⁹ operations a second of square matrix products of 1,024, on so many threads (all if
    None). Run it in a process of its own: it sets the number of threads."""
    product = _torch_float(threads, precision)
    _gops(product, seconds / 10)  # warms up
    return _gops(product, seconds)


def kernel_rounds(threads: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """10⁹ operations a second of square products of 1,024, a value a round, by the libraries of
    KERNELS that are there and can do them. Run it in a process of its own: it sets the number of
    threads."""
    products: dict[str, Product] = {}
    for name, make in _MAKERS.items():
        try:
            products[name] = make(threads)
            _gops(products[name], seconds / 4)
        except (ImportError, RuntimeError, NotImplementedError, AttributeError):
            products.pop(name, None)
    rates: dict[str, list[float]] = {name: [] for name in products}
    for _ in range(rounds):
        for name, product in products.items():
            rates[name].append(_gops(product, seconds))
    return rates


def _gops(product: Product, seconds: float) -> float:
    started, count = time.perf_counter(), 0
    while not count or time.perf_counter() - started < seconds:
        product()
        count += 1
    return 2 * SIZE**3 * count / (time.perf_counter() - started) / 1e9


def _torch_float(threads: int | None, precision: Precision = "float32") -> Product:
    use_cores(threads)
    left, right = torch.randn(2, SIZE, SIZE).to(getattr(torch, precision))
    return lambda: left @ right


def _onnxruntime_int8(threads: int) -> Product:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    weight = generator.integers(-64, 64, (SIZE, SIZE), dtype=np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [SIZE, SIZE])],
        [numpy_helper.from_array(weight, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = {"a": generator.integers(0, 128, (SIZE, SIZE), dtype=np.uint8)}
    return lambda: session.run(None, given)


_MAKERS: dict[str, Callable[[int], Product]] = {
    "torch float32": _torch_float,
    "ONNX Runtime int8": _onnxruntime_int8,
}
KERNELS: dict[Literal["float32", "int8"], tuple[str, ...]] = {
    "float32": ("torch float32",),
    "int8": ("ONNX Runtime int8",),
}
"""Libraries that multiply matrices, by precision."""


def measure_peaks(threads: Sequence[int], rounds: int, seconds: float) -> list[Peak]:
    """The best kernel of each precision, for every number of threads; kernels take turns."""
    peaks = []
    for count in threads:
        measured = in_fresh_process(kernel_rounds, count, rounds, seconds)
        for precision, kernels in KERNELS.items():
            rates = {name: measured[name] for name in kernels if name in measured}
            if not rates:
                continue
            best = max(rates, key=lambda name: float(np.median(rates[name])))
            gops = figure(rates[best])
            peaks.append(Peak(precision=precision, threads=count, gops=gops, kernel=best))
    return peaks


# --- shares of the peaks --------------------------------------------------------------------------


def dimensions(plan: BenchPlan) -> dict[int, ModelConfig]:
    """The models that the bundle's recipe describes, by their number of parameters; an imported
    bundle has none."""
    manifest = plan.bundle.manifest
    if manifest.recipe is None:
        return {}
    text = plan.bundle.recipe_text()
    configs = {}
    tree = yaml.safe_load(text)
    for side in ("student", "teacher"):
        try:
            config = ModelConfig.model_validate(tree[side]["model"])
        except (KeyError, TypeError, ValueError):
            continue  # a given teacher has no dimensions here
        configs[parameter_count(build_model(config, manifest.vocab_size))] = config
    return configs


def shares(
    plan: BenchPlan,
    speed: Sequence[Speed],
    peaks: Sequence[Peak],
    lengths: dict[str, tuple[np.ndarray, np.ndarray]],
) -> list[Share]:
    """Shares of the peaks of every system whose dimensions are known; `lengths` are the source and
    target tokens of its sentences, end of sentence counted."""
    models = dimensions(plan)
    vocab_size = plan.bundle.manifest.vocab_size
    best = {(peak.precision, peak.threads): peak.gops.median for peak in peaks}
    infos = {one.info.name: one.info for one in plan.systems}
    rows = []
    for row in speed:
        info = infos[row.system]
        config = models.get(info.parameters or -1)
        if config is None or row.system not in lengths:
            continue
        src, trg = lengths[row.system]
        operations = flops_per_sentence(config, vocab_size, src, trg, info.beam_size)
        gops = operations * row.sentences_per_second.median / 1e9
        rows.append(
            Share(
                system=row.system,
                threads=row.threads,
                batch_size=row.batch_size,
                operations_per_sentence=tidy(operations),
                gops=tidy(gops),
                share_of_float32=_share(gops, best.get(("float32", row.threads))),
                share_of_int8=_share(gops, best.get(("int8", row.threads))),
            )
        )
    return rows


def _share(gops: float, peak: float | None) -> float | None:
    return tidy(gops / peak) if peak else None


# --- profiles -------------------------------------------------------------------------------------

INSTALL = "apt install linux-perf (or your system's package of perf)"
HERTZ = 999
START_SECONDS = 0.5
STOP_TRIES = 20
METHOD = f"perf, {HERTZ} samples a second of processor time, by library and function"

RULES: tuple[tuple[str, str, str], ...] = (
    ("matrix products", r"JIT|anon", r""),
    ("matrix products", r"", r"gemm_(?!output)|Gemm|sgemm|cblas|mkl_blas|MlasGemm|dnnl::.*gemm"),
    ("quantising", r"", r"quantize"),
    ("softmax and choosing words", r"", r"[Ss]oft[Mm]ax|TopK|topk|argmax|vec_log_softmax"),
    ("attention", r"", r"[Aa]ttention|sdp"),
    ("layer norm", r"", r"layer_norm|LayerNorm"),
    ("tokenising", r"sentencepiece|tokenizers", r""),
    ("Python", r"libpython|^python|_ext\.|multiarray|pybind11", r""),
    ("system calls", r"kernel|vdso", r""),
    ("memory", r"libc[.-]|malloc", r"malloc|free|mem(cpy|move|set)"),
    ("C library", r"^lib(c|m|stdc\+\+|gcc|pthread)[.-_]|^ld-", r""),
)
"""Part, pattern of the library, pattern of the function; the first that fits counts. An empty
pattern fits all."""
OTHER = "rest of {library}"
ENGINE = re.compile(r"onnxruntime_pybind11")
LINE = re.compile(r"^\s*+([\d.]+)%\s++(\S+(?:\s\S+)*)\s++\[[.kguHx]\]\s++(.*)$")
"""perf pads lines to the longest C++ name, thousands of characters: nothing here looks back."""


def profile(
    running: SystemProcess, sentences: Sequence[str], batch_size: int, seconds: float
) -> Profile:
    """Sample a warm system for at least so many seconds. Raises Unavailable without perf."""
    if shutil.which("perf") is None:
        raise Unavailable(f"perf is not installed: {INSTALL}")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        command = ["perf", "record", "-q", "-F", str(HERTZ), "-o", str(data)]
        recorder = subprocess.Popen(
            [*command, "-p", str(running.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        time.sleep(START_SECONDS)
        end = time.monotonic() + seconds
        while time.monotonic() < end and recorder.poll() is None:
            running.time(sentences, batch_size)
        said = stop(recorder)
        if not data.exists() or not data.stat().st_size:
            words = " ".join(said.decode(errors="replace").split()[:30])
            raise Unavailable(f"perf recorded nothing ({words}): see kernel.perf_event_paranoid")
        samples, lines = _report(data)
    return Profile(
        system=running.info.name,
        threads=running.threads,
        batch_size=batch_size,
        method=METHOD,
        samples=samples,
        parts=tuple(parts_of(lines)),
    )


def stop(recorder: subprocess.Popen[bytes]) -> bytes:
    """End perf as Ctrl+C does, and what it said. A signal that comes just before perf goes to sleep
    is forgotten until the next, so it is sent until perf ends."""
    for _ in range(STOP_TRIES):
        recorder.send_signal(signal.SIGINT)
        try:
            return recorder.communicate(timeout=1)[1]
        except subprocess.TimeoutExpired:
            continue
    recorder.kill()
    return recorder.communicate()[1]


def _report(data: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        ["perf", "report", "-i", str(data), "--stdio", "--no-children", "--sort", "dso,symbol"],
        capture_output=True,
        text=True,
        errors="replace",
    )
    lines = done.stdout.splitlines()
    counted = next((line for line in lines if line.startswith("# Samples:")), "# Samples: 0")
    number = re.search(r"([\d.]+)([KM]?)", counted.partition(":")[2])
    scale = {"": 1, "K": 1000, "M": 1_000_000}
    samples = int(float(number.group(1)) * scale[number.group(2)]) if number else 0
    return samples, [line for line in lines if line.strip() and not line.startswith("#")]


def parts_of(lines: Sequence[str]) -> list[ReportPart]:
    """Lines of perf's report by library and function → parts, the largest first."""
    shares: dict[str, float] = defaultdict(float)
    for line in lines:
        if match := LINE.match(line):
            shares[part_of(match.group(2), match.group(3))] += float(match.group(1))
    total = sum(shares.values())
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return [
        ReportPart(name=name, share=round(share / total, 4)) for name, share in ordered if share
    ]


def part_of(library: str, function: str) -> str:
    """The part that a function of a library belongs to."""
    if ENGINE.search(library):  # it has no symbols
        return "ONNX Runtime, not told apart"
    for name, of_library, of_function in RULES:
        if re.search(of_library, library) and re.search(of_function, function):
            return name
    return OTHER.format(library=re.split(r"[.-]", library)[0])
