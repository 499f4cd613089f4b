"""The compiled engine on arm64: built by a cross compiler, run by an emulator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from export.runtime.native import build
from export.runtime.native.library import NativeModel
from export.runtime.native.weights import model_bytes
from tests.export.test_native_kernels import LIMIT, native_source, needs_library

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
ROWS, BEAM = 40, 3
PROGRAM = Path(__file__).with_name("native_arm.c")

pytestmark = [
    pytest.mark.slow,
    needs_library,
    pytest.mark.skipif(
        not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
        reason="needs a cross compiler and an emulator of arm64 (Debian: apt install "
        "gcc-aarch64-linux-gnu qemu-user)",
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("arm") / "native_arm"
    sources = [str(PROGRAM), *sorted(map(str, build.SOURCES.glob("*.c")))]
    include = f"-I{build.SOURCES}"
    command = [COMPILER, *build.FLAGS, "-static", include, *sources, "-lm", "-o", str(out)]
    subprocess.run(command, check=True)
    return out


@pytest.mark.parametrize("kernel", ["neon", "portable"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "post", "norm_epsilon": 1e-6, "decoder_cell": "ssru"},
        {"activation": "gelu", "width": 64},
    ],
    ids=["attention", "recurrent", "gelu"],
)
def test_it_writes_what_this_machine_writes(
    program: Path, tmp_path: Path, kernel: str, options: dict[str, Any]
) -> None:
    data = model_bytes(native_source(tmp_path / "model", **options))
    file = tmp_path / "model.bin"
    file.write_bytes(data)
    command = [EMULATOR, str(program), str(file), kernel, str(ROWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sources = [
        [*(4 + (7 * row + 3 * i) % 20 for i in range(1 + row % 8)), 3] for row in range(ROWS)
    ]
    model, limits = NativeModel(data, kernel="portable"), [LIMIT] * ROWS
    expected = model.translate(sources, limits, scored=True)
    assert len({tuple(one.ids) for one in expected}) > 3
    for found in model.search(sources, limits, beam_size=BEAM, n_best=BEAM):
        assert len(found) == BEAM
        expected += found
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [[int(token) for token in line[:-1]] for line in lines] == [one.ids for one in expected]
    assert [float.fromhex(line[-1]) for line in lines] == [one.score for one in expected]
