"""A folder of another toolkit's is opened only if every variable and token is known to fit."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.imported_ctranslate2 import import_ctranslate2
from export.runtime.bundle import Bundle, BundleError
from export.runtime.ctranslate2_format import read_variables
from export.runtime.foreign_ctranslate2 import ForeignModel, read_foreign_model
from tests.export import foreign, hostile
from tests.export.foreign import OPENNMT, Shape, make_folder
from tests.export.hostile import write_model

ROOT = Path(__file__).parents[2]
CASES = 90
Arrays = dict[str, Any]
LAYER = "encoder/layer_0"


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.train_sentencepiece(tmp_path_factory.mktemp("spm") / "en.model")


def read(folder: Path) -> ForeignModel:
    return read_foreign_model(folder, {path.name for path in folder.iterdir()})


def rewritten(folder: Path, change: Callable[[Arrays], object], **named: Any) -> Path:
    path = folder / "model.bin"
    arrays = {name: array.copy() for name, array in read_variables(path).items()}
    change(arrays)
    write_model(path, arrays, **named)
    return folder


def replace(name: str, make: Callable[[Any], Any]) -> Callable[[Arrays], object]:
    return lambda arrays: arrays.update({name: np.array(make(arrays[name]), order="C")})


def add(name: str, value: Any) -> Callable[[Arrays], object]:
    return lambda arrays: arrays.update({name: value})


def test_a_sound_folder_passes(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english, quantization="int8")
    model = read(rewritten(folder, lambda arrays: None))
    assert model.variables.precision == "int8"
    assert model.variables.positions == {"encoder": 64, "decoder": 64}
    vocabulary = len(model.target_vocabulary)
    arrays = {n: a for n, a in read_variables(folder / "model.bin").items() if a.shape}
    weights = sum(a.size for n, a in arrays.items() if not n.endswith("_scale"))
    assert model.variables.parameters == weights
    assert vocabulary * 16 * 3 < weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("decoder/layer_norm/gamma"), r"decoder/layer_norm/beta, which is not k"),
        (lambda a: a.pop("encoder/num_heads"), "encoder/num_heads is missing"),
        (lambda a: a.pop("decoder/embeddings/weight"), "no decoder/embeddings/weight of 2"),
        (lambda a: a.pop("encoder/embeddings_0/weight"), "no encoder/embeddings_0/weight of 2"),
        (lambda a: a.pop("decoder/embeddings/weight_scale"), "embeddings/weight_scale is missing"),
        (lambda a: a.pop("decoder/projection/weight"), "projection/weight_scale, which is not k"),
        (lambda a: a.pop(f"{LAYER}/ffn/layer_norm/gamma"), "layer_norm/gamma is missing"),
        (lambda a: a.pop("encoder/layer_1/ffn/linear_0/weight"), "which is not known"),
        (add("decoder/layer_7/ffn/linear_0/bias", np.zeros(4, np.float32)), "layer_7"),
        (add(f"{LAYER}/ffn/linear_0/weight_zero", np.zeros(24, np.int8)), "weight_zero, which"),
        (add(f"{LAYER}/ffn/linear_0/weight_packed", np.zeros(24, np.int8)), "weight_packed, wh"),
        (
            add(f"{LAYER}/ffn/linear_0/weight_compensation", np.zeros(24, np.float32)),
            "weight_compensation, which is not known",
        ),
        (add(f"{LAYER}/self_attention/rotary_dim", np.int8(4)), "rotary_dim, which is not known"),
        (add(f"{LAYER}/self_attention/num_heads_kv", np.int8(1)), "num_heads_kv, which is not"),
        (add("decoder/final_logit_softcapping", np.float32(1)), "softcapping, which is not"),
        (add("num_heads", np.int16(4)), "it holds num_heads, which is not known"),
        (replace("decoder/embeddings/weight", lambda w: w[:1]), "has 1 rows, its vocabulary"),
        (
            replace("encoder/embeddings_0/weight", lambda w: w[:-1]),
            "weight has 31 rows, its vocabulary",
        ),
        (replace("encoder/embeddings_0/weight", lambda w: w[:, :8]), "embeddings_0/weight is int8"),
        (replace("decoder/projection/weight", lambda w: w[:-1]), "is needed"),
        (replace("decoder/projection/bias", lambda b: b[:5]), r"bias is float32 \[5\]"),
        (replace(f"{LAYER}/ffn/linear_1/weight", lambda w: w.T), "linear_1/weight is int8"),
        (replace(f"{LAYER}/ffn/linear_0/bias", lambda b: b[:1]), "linear_0/bias is float32"),
        (replace(f"{LAYER}/ffn/linear_0/weight_scale", lambda s: s[:1]), "weight_scale is"),
        (replace(f"{LAYER}/ffn/linear_0/weight_scale", lambda s: s[0]), "weight_scale is"),
        (replace("decoder/layer_0/attention/linear_1/weight", lambda w: w[:16]), "linear_1/weigh"),
        (replace("encoder/layer_norm/beta", lambda b: b.astype(np.int8)), "beta is int8"),
        (replace("encoder/layer_norm/beta", lambda b: b * np.float32("nan")), "not finite"),
        (replace("decoder/projection/weight_scale", lambda s: s * 0), "not positive"),
        (replace("decoder/projection/weight", lambda w: w.astype(np.float32)), "and has a scale"),
        (replace("encoder/num_heads", lambda _: np.int16(5)), "5 heads for a width of 16"),
        (replace("decoder/num_heads", lambda _: np.int16(-4)), "num_heads is -4"),
        (replace("decoder/alibi", lambda _: np.int8(1)), "decoder/alibi is 1, 0 to 0 is read"),
        (replace("decoder/activation", lambda _: np.int8(99)), "activation is 99, 0 to 6"),
        (replace("encoder/pre_norm", lambda _: np.zeros(3, np.int8)), r"pre_norm is int8 \[3\]"),
        (replace("decoder/alignment_layer", lambda _: np.int16(1)), "alignment_layer is 1, -1 to"),
        (replace("decoder/alignment_heads", lambda _: np.int16(-1)), "alignment_heads is -1"),
        (replace("encoder/scale_embeddings", lambda _: np.float32("inf")), "scale_embeddings is"),
        (
            replace("decoder/position_encodings/encodings", lambda p: p[:, :4]),
            r"position_encodings/encodings is float32 \[64, 4\]",
        ),
    ],
)
def test_variables_that_do_not_fit_are_named(
    tmp_path: Path, english: Path, change: Callable[[Arrays], object], message: str
) -> None:
    folder = make_folder(tmp_path / "model", english, quantization="int8")
    with pytest.raises(BundleError, match=message):
        read(rewritten(folder, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: a.pop("encoder/layer_1/self_attention/relative_position_keys"),
            "no encoder/layer_1/self_attention/relative_position_keys",
        ),
        (
            replace(f"{LAYER}/self_attention/relative_position_values", lambda v: v[:3]),
            "relative_position_values is float32",
        ),
        (
            lambda a: a.update(
                {
                    f"{LAYER}/self_attention/relative_position_{kind}": np.zeros((8, 4), "float32")
                    for kind in ("keys", "values")
                }
            ),
            "has 8 rows, an odd number",
        ),
    ],
)
def test_relative_positions_that_do_not_fit(
    tmp_path: Path, english: Path, change: Callable[[Arrays], object], message: str
) -> None:
    shape = Shape(relative=True, stored_positions=False)
    folder = make_folder(tmp_path / "model", english, shape)
    with pytest.raises(BundleError, match=message):
        read(rewritten(folder, change))


def test_other_specs_and_versions_are_refused(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english)
    arrays = read_variables(folder / "model.bin")
    for named, message in (
        ({"spec": "WhisperSpec"}, "is a WhisperSpec of revision 7"),
        ({"spec": "TransformerDecoderSpec", "revision": 8}, "is a TransformerDecoderSpec"),
        ({"revision": 8}, "revision 8; TransformerSpec 3 to 7 is read"),
        ({"revision": 2}, "revision 2"),
        ({"version": 3}, "binary version 3, 4, 5, 6 is read"),
        ({"version": 7}, "binary version 7"),
    ):
        write_model(folder / "model.bin", arrays, **named)
        with pytest.raises(BundleError, match=message):
            read(folder)


def test_aliases_share_what_is_alike(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english, quantization="int8")
    data = (folder / "model.bin").read_bytes()
    name = b"encoder/embeddings_0/weight\0"
    assert name in data, "the two embeddings are one"
    swapped = data.replace(name, b"encoder/embeddings_0/weighs\0")
    (folder / "model.bin").write_bytes(swapped)
    with pytest.raises(BundleError, match=r"weighs stands for .*, which is of another kind"):
        read(folder)


def edited(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(value)))

    return edit


def without(token: str) -> Callable[[Any], object]:
    return lambda tokens: ["zzz" if other == token else other for other in tokens]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited("shared_vocabulary.json", lambda v: v[:-1]), r"has 32 rows, its .* 31 tokens"),
        (edited("shared_vocabulary.json", lambda v: [*v, "x"]), r"has 32 rows, .* 33 tokens"),
        (edited("shared_vocabulary.json", lambda v: {"a": v}), "is not a list of tokens"),
        (edited("shared_vocabulary.json", lambda v: [1] * len(v)), "is not a list of tokens"),
        (edited("shared_vocabulary.json", lambda v: v[:3]), "has 3 tokens, 5 to"),
        (edited("shared_vocabulary.json", without("<unk>")), "no '<unk>', which config.json names"),
        (edited("shared_vocabulary.json", without("</s>")), "no '</s>'"),
        (edited("shared_vocabulary.json", without("<s>")), "no '<s>'"),
        (edited("config.json", lambda c: [c]), "not a JSON object"),
        (edited("config.json", lambda c: {**c, "bos_token": None}), "bos_token is not a token"),
        (edited("config.json", lambda c: {**c, "unk_token": "x" * 101}), "unk_token is not"),
        (edited("config.json", lambda c: {**c, "decoder_start_token": 7}), "decoder_start_token"),
        (edited("config.json", lambda c: {**c, "add_source_eos": 1}), "neither true nor false"),
        (edited("config.json", lambda c: {**c, "quantization_type": 1}), "has quantization_type"),
        (edited("config.json", lambda c: {**c, "layer_norm_epsilon": 2}), "layer_norm_epsilon"),
        (edited("config.json", lambda c: {"unk_token": "<unk>"}), "has no bos_token"),
        (lambda f: (f / "config.json").write_bytes(b" " * 100_000), "larger than"),
        (lambda f: (f / "config.json").write_text('{"a": NaN}'), "NaN"),
    ],
)
def test_the_small_files_must_fit(
    tmp_path: Path, english: Path, change: Callable[[Path], object], message: str
) -> None:
    folder = make_folder(tmp_path / "model", english)
    change(folder)
    with pytest.raises(BundleError, match=message):
        read(folder)


def test_a_text_vocabulary_must_be_utf8(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english)
    (folder / "shared_vocabulary.json").unlink()
    (folder / "shared_vocabulary.txt").write_bytes(b"\xff\n" * 9)
    with pytest.raises(BundleError, match="is not UTF-8"):
        read(folder)


# --- harm --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, english: Path) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("imported")
    kinds = {
        "int8": (OPENNMT, "int8"),
        "relative": (Shape(relative=True, stored_positions=False), None),
        "marian": (Shape(pre_norm=False, layernorm_embedding=True), "float16"),
    }
    return [
        import_ctranslate2(
            make_folder(folder / name / "model", english, shape, quantization),
            folder / name / "out",
            source="en",
            target="de",
            licence="MIT",
        )
        for name, (shape, quantization) in kinds.items()
    ]


def change_shape(rng: random.Random, arrays: Arrays) -> None:
    """Give a variable another shape, in a file that is sound otherwise."""
    name = rng.choice(sorted(name for name, array in arrays.items() if array.size > 1))
    array = arrays[name]
    shapes = (array[:1], array.T, array[: len(array) // 2], np.concatenate([array] * 3))
    shapes = (*shapes, array[..., : array.shape[-1] // 2], array.ravel())
    others = [other for other in shapes if other.shape != array.shape]
    arrays[name] = np.ascontiguousarray(rng.choice(others))


def change_original(rng: random.Random, folder: Path) -> None:
    """Harm a file of the engine or a tokenizer, as a whole or where a variable is declared."""
    engine = next((folder / "engines").iterdir())
    path = rng.choice([*sorted(engine.iterdir()), engine / "model.bin", engine / "model.bin"])
    data = path.read_bytes()
    if path.name == "model.bin" and rng.random() < 0.6:
        changed = bytearray(data)
        names = [name.encode() for name in read_variables(path)]
        at = data.find(rng.choice(names) + b"\0")
        for _ in range(rng.randint(1, 3)):
            changed[max(at, 0) + rng.randrange(60)] = rng.choice((0, 1, 2, 4, 15, 64, 127, 255))
        data = bytes(changed)
    else:
        data = hostile.damaged(rng, data)
    path.write_bytes(data)
    hostile.list_again(folder)


def test_harmed_folders_load_or_are_refused(tmp_path: Path, imported: list[Bundle]) -> None:
    """In a process of its own: a crash would end it with a signal."""
    paths = [tmp_path / "cases" / str(seed) for seed in range(CASES)]
    for seed, path in enumerate(paths):
        shutil.copytree(imported[seed % len(imported)].path, path)
        if seed % 10 < 4:
            engine = next((path / "engines").iterdir())
            rewritten(engine, partial(change_shape, random.Random(seed)))
            hostile.list_again(path)
        else:
            change_original(random.Random(seed), path)
    out = tmp_path / "outcomes.txt"
    code = [sys.executable, "-m", "tests.export.load_hostile", str(out), *map(str, paths)]
    done = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, timeout=300)
    lines = out.read_text().splitlines()
    assert done.returncode == 0, f"{lines[-1]}\n{done.stderr[-2000:]}"
    assert len(lines) == sum(len(imported[seed % 3].manifest.engines) for seed in range(CASES))
    odd = [line for line in lines if line.split()[2] not in ("ok", "BundleError")]
    assert not odd, odd
    refused = sum(line.split()[2] == "BundleError" for line in lines)
    reshaped = [line for line in lines if int(Path(line.split()[0]).name) % 10 < 4]
    assert all(line.split()[2] == "BundleError" for line in reshaped), reshaped
    assert len(lines) / 2 < refused < len(lines), "harm is to be noticed"
