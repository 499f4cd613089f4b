"""Where a system's processor time goes, by sampling its process with Linux's `perf`.

What is told apart are libraries and, in those that keep their symbols, functions. Kernels that
oneDNN makes while running have no name: perf calls them JIT, and they are matrix products.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench.results import Profile, ReportPart
from benchmarks.systems.base import Unavailable
from benchmarks.systems.process import Running

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


def profile(running: Running, sentences: Sequence[str], batch_size: int, seconds: float) -> Profile:
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
        if found := LINE.match(line):
            shares[part_of(found.group(2), found.group(3))] += float(found.group(1))
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
