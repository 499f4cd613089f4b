"""The compiled engine: kernels against NumPy, models of every kind against a reference in NumPy."""

from __future__ import annotations

import json
import subprocess
from itertools import product as combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.native import to_native
from export.runtime.manifest import NATIVE_FILE, BundleError
from export.runtime.native import build, library
from export.runtime.native.library import NativeModel, NativeUnavailable
from export.runtime.native.safetensors import read_native
from export.runtime.native.weights import HEAD, MAGIC, SIZES, NativeSource, model_bytes
from tests.export.native_reference import EOS, Reference
from tests.export.test_onnx import PIECES, VOCAB_SIZE, sources, tiny_model


def kernels() -> list[str]:
    try:
        return library.kernels()
    except NativeUnavailable:
        return []


needs_library = pytest.mark.skipif(not kernels(), reason="the native engine was not built")
KERNELS = kernels() or ["portable"]
LIMIT = 14


def native_source(folder: Path, shortlisted: bool = False, **options: Any) -> NativeSource:
    """A random model whose blocks weigh enough that its outputs differ and end."""
    model = tiny_model(**{"width": 32, **options})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and name.startswith(("encoder.", "decoder.")):
                parameter.mul_(5)
    to_native(model, PIECES, folder)
    return read_native(folder / NATIVE_FILE, shortlisted=shortlisted)


# --- kernels ---------------------------------------------------------------------------------


@needs_library
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("inputs", [8, 24, 256, 1032])
@pytest.mark.parametrize("largest", [12, 32, 40, 64])
def test_products_are_exact(kernel: str, inputs: int, largest: int) -> None:
    """The smaller the weights, the more groups AVX2 sums in 16 bits in pairs."""
    rng = np.random.default_rng(inputs)
    weights = rng.integers(-largest, largest + 1, (48, inputs)).astype(np.int8)
    for rows in (1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 25, 64):
        bytes_ = rng.integers(0, 256, (rows, inputs)).astype(np.uint8)
        expected = bytes_.astype(np.int64) @ weights.astype(np.int64).T
        assert np.array_equal(library.product(kernel, bytes_, weights), expected)


@needs_library
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pair", [(64, 64), (127, 1), (-128, 0), (-64, -64), (128 - 256, 0)])
def test_the_largest_sums_do_not_overflow(kernel: str, pair: tuple[int, int]) -> None:
    inputs = 16384
    weights = np.tile(np.array(pair, np.int8), (16, inputs // 2))
    bytes_ = np.full((7, inputs), 255, np.uint8)
    expected = 255 * sum(map(int, weights[0]))
    assert (library.product(kernel, bytes_, weights) == expected).all()
    weights[:, ::8] = 0  # now some groups fit together, exactly
    weights[:, 1::8] = 0
    weights[:, 2::8] = 0
    weights[:, 3::8] = 0
    expected = 255 * sum(map(int, weights[0]))
    assert (library.product(kernel, bytes_, weights) == expected).all()


@needs_library
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("signs", [(1, 1, 1, 1), (-1, -1, -1, -1), (1, -1, -1, 1)])
def test_the_largest_sums_of_four_groups_do_not_overflow(
    kernel: str, signs: tuple[int, ...]
) -> None:
    """AVX2 sums four groups in 16 bits where neighbours have 255 together."""
    inputs = 1600
    weights = np.zeros((16, inputs), np.int8)
    weights[:, ::2] = np.tile(np.repeat((64, 64, 64, 63), 2) * np.repeat(signs, 2), inputs // 16)
    rows = np.full((6, inputs), 255, np.uint8)
    rows[1] = 0
    rows[2] = 128
    rows[3] = np.where(weights[0] > 0, 255, 0)
    rows[4] = np.where(weights[0] > 0, 0, 255)
    rows[5, ::16] = 0
    expected = rows.astype(np.int64) @ weights.astype(np.int64).T
    assert np.array_equal(library.product(kernel, rows, weights), expected)


def sparse_kernels() -> dict[str, int]:
    """Kernels that have a sparse product, and what their outputs are a multiple of."""

    def takes(kernel: str, outputs: int) -> bool:
        row, weights = np.zeros((1, 8), np.uint8), np.zeros((outputs, 8), np.int8)
        try:
            library.product(kernel, row, weights, sparse=True)
        except ValueError:
            return False
        return True

    units = {kernel: [unit for unit in (32, 64) if takes(kernel, unit)] for kernel in kernels()}
    return {kernel: taken[0] for kernel, taken in units.items() if taken}


@needs_library
@pytest.mark.parametrize("inputs", [8, 24, 1536, 16384])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_sparse_products_are_exact(inputs: int, share: float) -> None:
    """Of few and of many bytes that are not 0, small and large."""
    rng = np.random.default_rng(inputs)
    for (kernel, unit), (units, most) in combinations(
        sparse_kernels().items(), [(1, 255), (3, 40), (4, 255), (9, 255)]
    ):
        rows = rng.integers(0, most + 1, (4, inputs)) * (rng.random((4, inputs)) < share)
        weights = rng.integers(-128, 128, (units * unit, inputs))
        for bytes_, matrix in [
            (rows, weights),
            (rows, np.full_like(weights, -128)),
            (np.where(rows > 0, 255, 0), np.full_like(weights, 127)),
        ]:
            found = library.product(
                kernel, bytes_.astype(np.uint8), matrix.astype(np.int8), sparse=True
            )
            assert np.array_equal(found, bytes_ @ matrix.T), kernel


@needs_library
def test_weights_whose_sums_could_overflow_are_refused() -> None:
    weights = np.zeros((16, 16), np.int8)
    weights[3, 4:6] = 65, 64
    with pytest.raises(ValueError, match="does not take"):
        library.product("portable", np.zeros((1, 16), np.uint8), weights)


# --- models ----------------------------------------------------------------------------------


OPTIONS: list[dict[str, Any]] = [
    {"activation": activation, "heads": heads, "norm": norm, "decoder_cell": cell}
    for (activation, heads), (norm, cell) in combinations(
        [("relu", 4), ("gelu", 2), ("silu", 1)],
        [("pre", "attention"), ("post", "attention"), ("pre", "ssru"), ("post", "ssru")],
    )
]
OPTIONS.append({"source_vocab_size": 71})
OPTIONS.append({"width": 80, "heads": 1, "encoder_layers": 3, "decoder_layers": 1})
CUT = {
    "encoder_heads": [1, 3],
    "encoder_ffn": [24, 8],
    "decoder_cross_heads": [4, 2],
    "decoder_ffn": [8, 40],
}
"""Sizes of single layers, of which the widest has what the others lack."""
OPTIONS.append({"sizes": {**CUT, "decoder_heads": [2, 1]}})
OPTIONS.append({"norm": "post", "decoder_cell": "ssru", "seed": 11, "sizes": CUT})


@needs_library
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_kind_of_model_translates_as_in_numpy(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    source = native_source(tmp_path / "model", **options)
    reference, rows = Reference(source), sources(9)
    expected = [reference.translate(row, LIMIT) for row in rows]
    assert len({tuple(ids) for ids, _, _ in expected}) > 3
    assert any(ended for *_, ended in expected)
    for kernel in KERNELS:
        model = NativeModel(model_bytes(source), kernel=kernel)
        found = model.translate(rows, [LIMIT] * len(rows), scored=True)
        # A value that lies half-way between two bytes may be rounded either way.
        pairs = list(zip(found, expected, strict=True))
        same = [
            (one, score)
            for one, (ids, score, ended) in pairs
            if (one.ids, one.ended) == (ids, ended)
        ]
        assert len(same) >= len(rows) - 1
        assert sum(abs(one.score - score) < 0.05 for one, score in same) >= len(rows) - 2


@needs_library
def test_a_sentence_chooses_among_its_own_candidates(tmp_path: Path) -> None:
    source = native_source(tmp_path / "model", shortlisted=True, norm="post", decoder_cell="ssru")
    rng = np.random.default_rng(5)
    rows = sources(9)
    candidates = [
        np.union1d(rng.choice(np.arange(4, VOCAB_SIZE), 5 + row, replace=False), [EOS])
        for row in range(len(rows))
    ]
    reference = Reference(source)
    pairs = list(zip(rows, candidates, strict=True))
    expected = [reference.translate(row, LIMIT, words)[0] for row, words in pairs]
    for kernel in KERNELS:
        model = NativeModel(model_bytes(source), kernel=kernel)
        limits = [LIMIT] * len(rows)
        for scored in (False, True):
            found = model.translate(rows, limits, candidates=candidates, scored=scored)
            assert [one.ids for one in found] == expected


@needs_library
@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_kernels_and_batches_give_the_same_bytes(tmp_path: Path, options: dict[str, Any]) -> None:
    data = model_bytes(native_source(tmp_path / "model", **options))
    rows = sources(40)
    limits = [4 + len(row) for row in rows]
    models = [NativeModel(data, kernel=kernel) for kernel in KERNELS]
    whole = models[0].translate(rows, limits, scored=True)
    for model in models:
        alone = [
            model.translate([row], [limit], scored=True)[0]
            for row, limit in zip(rows, limits, strict=True)
        ]
        assert model.translate(rows, limits, scored=True) == whole
        assert alone == whole
        plain = model.translate(rows, limits)
        assert [one.ids for one in plain] == [one.ids for one in whole]


@needs_library
def test_no_ngram_comes_twice_and_repetition_costs(tmp_path: Path) -> None:
    model = NativeModel(model_bytes(native_source(tmp_path / "model", eos=-9.0)))
    rows = sources(12)
    limits = [30] * len(rows)

    def repeats(ids: list[int], n: int) -> int:
        grams = [tuple(ids[at : at + n]) for at in range(len(ids) - n + 1)]
        return len(grams) - len(set(grams))

    plain = model.translate(rows, limits)
    assert sum(repeats(one.ids, 2) for one in plain) > 0
    for n in (1, 2, 3):
        found = model.translate(rows, limits, no_repeat_ngram=n)
        assert not any(repeats(one.ids, n) for one in found)
    penalised = model.translate(rows, limits, repetition_penalty=5.0)
    assert sum(repeats(one.ids, 1) for one in penalised) < sum(repeats(one.ids, 1) for one in plain)


@needs_library
@pytest.mark.parametrize(
    ("rows", "limits", "options"),
    [
        ([[4, VOCAB_SIZE]], [5], {}),
        ([[4, -1]], [5], {}),
        ([[]], [5], {}),
        ([[4] * 49], [5], {}),
        ([[4, 3]], [49], {}),
        ([[4, 3]], [0], {}),
        ([[4, 3]], [5, 5], {}),
        ([[4, 3]], [5], {"repetition_penalty": 0.5}),
        ([[4, 3]], [5], {"repetition_penalty": float("nan")}),
        ([[4, 3]], [5], {"no_repeat_ngram": -1}),
        ([[4, 3]], [5], {"candidates": [np.array([3, 5])]}),
    ],
)
def test_impossible_calls_are_refused(
    tmp_path: Path, rows: list[list[int]], limits: list[int], options: dict[str, Any]
) -> None:
    model = NativeModel(model_bytes(native_source(tmp_path / "model")))
    assert model.translate([[4, 3]], [5])
    with pytest.raises(ValueError, match=r"that the model does not have|needs a limit"):
        model.translate(rows, limits, **options)


# --- damaged models --------------------------------------------------------------------------


NO_ENCODER_LAYERS = [(0, 0, 64), (1, 1, 64), (1 << 20, 0, 64), (2, 0, 12), (2, 0, 1 << 20)]
NO_DECODER_LAYERS = [(2, 0, 64), (2, -1, 64), (2, 2, 0), (0, 2, 64)]
"""Heads, heads for the source and units that the bytes of a model must not have."""


@needs_library
def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    source = native_source(tmp_path / "model")
    data = model_bytes(source)
    sizes = len(MAGIC) + HEAD.size
    arrays = sizes + SIZES.size * len(source.dims.layers)
    last = arrays - SIZES.size
    not_finite = data[:arrays] + np.float32("nan").tobytes() + data[arrays + 4 :]

    def sized(at: int, *layer: int) -> bytes:
        return data[:at] + SIZES.pack(*layer) + data[at + SIZES.size :]

    wide = data[: len(MAGIC)] + (64).to_bytes(4, "little") + data[len(MAGIC) + 4 :]
    odd = data[: len(MAGIC)] + (12).to_bytes(4, "little") + data[len(MAGIC) + 4 :]
    for damaged, reason in [
        (b"", "end too early"),
        (b"x" + data[1:], "no bytes of a model"),
        (data[:-1], "bytes and needs"),
        (data + b"\0", "bytes and needs"),
        (wide, "bytes and needs"),
        (odd, "out of its range"),
        (not_finite, "is not finite"),
        (data[: arrays - 4], "end too early"),
        *((sized(sizes, *layer), "size is out of its range") for layer in NO_ENCODER_LAYERS),
        *((sized(last, *layer), "size is out of its range") for layer in NO_DECODER_LAYERS),
        (sized(sizes, 1, 0, 8), "bytes and needs"),
    ]:
        with pytest.raises(BundleError, match=reason):
            NativeModel(damaged)
    with pytest.raises(BundleError, match="no kernel of that name"):
        NativeModel(data, kernel="abacus")


def with_sizes(data: bytes, sizes: object, **more: object) -> bytes:
    """A file whose metadata says so."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= {"format": "quickstudy-native-2", "sizes": sizes, **more}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d[:4], "empty"),
        (lambda d: b"\xff" * 8 + d[8:], "its header has"),
        (lambda d: d[:-8], "cut off"),
        (lambda d: d.replace(b"quickstudy-native-1", b"quickstudy-native-9"), "is none of quick"),
        (lambda d: d.replace(b'"F32"', b'"F99"', 1), "not described as an array"),
        (lambda d: d.replace(b'"shape":[48,32]', b'"shape":[32,48]', 1), "is needed"),
        (lambda d: d.replace(b'"shape":[60,32]', b'"shape":[60,31]', 1), "than its shape"),
        (lambda d: d.replace(b'"heads":"4"', b'"heads":"x"'), "JSON|heads|Expecting"),
        (lambda d: d.replace(b'"output_bias"', b'"output_bi4s"'), "lacks output_bias"),
        (lambda d: with_sizes(d, 5), "its sizes are '5'"),
        (lambda d: with_sizes(d, "[[1, 2]]"), "its sizes are"),
        (lambda d: with_sizes(d, "[]", format="quickstudy-native-1"), "native-1 and has sizes"),
        (lambda d: d.replace(b"quickstudy-native-1", b"quickstudy-native-2"), "and has no sizes"),
        (lambda d: with_sizes(d, f"[{'[4, 0, 40], ' * 3}[4, 4, 99999]]"), "does not do a layer"),
        (lambda d: with_sizes(d, "[[4, 0, 40]]"), "sizes of 1 layers are given"),
        (lambda d: with_sizes(d, "[]", encoder_layers="1000000000"), "does not do 1000000000"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change: Any, reason: str) -> None:
    native_source(tmp_path / "model")
    path = tmp_path / "model" / NATIVE_FILE
    data = path.read_bytes()
    damaged = change(data)
    assert damaged != data
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=reason):
        model_bytes(read_native(path, shortlisted=False))


SANITIZERS = ("-g", "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine with the program that damages models, under AddressSanitizer and UBSan."""
    program = tmp_path_factory.mktemp("fuzz") / "native_fuzz"
    sources_ = [Path(__file__).with_name("native_fuzz.c"), *sorted(build.SOURCES.glob("*.c"))]
    flags = [f"-I{build.SOURCES}", "-std=c11", "-ffp-contract=off", *SANITIZERS]
    command = ["cc", *flags, *map(str, sources_), "-lm", "-o", str(program)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no C compiler")
    if "sanitize" in done.stderr or "asan" in done.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert not done.returncode, done.stderr
    return program


@pytest.mark.parametrize("shortlisted", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_damage_is_never_read_or_written_out_of_bounds(
    fuzzer: Path, tmp_path: Path, kernel: str, shortlisted: bool
) -> None:
    options: dict[str, Any] = {"heads": 2}
    if shortlisted:
        options = {"norm": "post", "decoder_cell": "ssru", "sizes": CUT}
    source = native_source(tmp_path / "model", shortlisted=shortlisted, **options)
    assert len(source.dims.layers) == 4, "as many as native_fuzz.c takes for a part of the head"
    path = tmp_path / "model.bytes"
    path.write_bytes(model_bytes(source))
    done = subprocess.run(
        [fuzzer, path, kernel, "400"], capture_output=True, text=True, timeout=120
    )
    assert not done.returncode, done.stderr[-3000:]
    loaded, answered = map(int, done.stdout.split())
    assert 40 < loaded < 400
    assert answered > 40
