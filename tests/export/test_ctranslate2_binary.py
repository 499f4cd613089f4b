"""model.bin: what is read, and what is refused before CTranslate2 sees it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from export.ctranslate2 import to_ctranslate2
from export.runtime.bundle import Bundle, BundleError
from export.runtime.ctranslate2_format import dequantized, read_table, read_variables
from tests.export import tiny


def string(text: bytes) -> bytes:
    return struct.pack("<H", len(text) + 1) + text + b"\0"


def variable(
    name: bytes, shape: tuple[int, ...], dtype: int, data: bytes, declared: int | None = None
) -> bytes:
    size = len(data) if declared is None else declared
    dims = struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    return string(name) + dims + struct.pack("<BI", dtype, size) + data


def model(
    *variables: bytes, aliases: tuple[tuple[bytes, bytes], ...] = (), version: int = 6
) -> bytes:
    head = struct.pack("<I", version) + string(b"Spec") + struct.pack("<I", 7)
    tail = b"".join(string(one) + string(other) for one, other in aliases)
    count = struct.pack("<I", len(variables))
    return head + count + b"".join(variables) + struct.pack("<I", len(aliases)) + tail


WEIGHT = variable(b"a/weight", (2, 3), 1, np.array([2, -4, 6, 8, 0, -63], np.int8).tobytes())
SCALE = variable(b"a/weight_scale", (2,), 0, np.array([2, 4], "<f4").tobytes())


def test_variables_by_hand(tmp_path: Path) -> None:
    half = np.array([0x3F80, 0xC020], "<u2").tobytes()  # 1.0 and -2.5: the upper half of a float32
    heads = variable(b"heads", (), 2, struct.pack("<h", -3))
    path = tmp_path / "model.bin"
    path.write_bytes(
        model(
            WEIGHT,
            SCALE,
            variable(b"brain", (2,), 5, half),
            heads,
            aliases=((b"b/weight", b"a/weight"),),
        )
    )
    table = read_table(path)
    assert (table.spec, table.revision, table.aliases) == ("Spec", 7, {"b/weight": "a/weight"})
    found = read_variables(path)
    assert found["a/weight"].tolist() == [[2, -4, 6], [8, 0, -63]]
    assert found["b/weight"] is found["a/weight"]
    assert found["b/weight_scale"].tolist() == [2.0, 4.0]
    assert found["brain"].tolist() == [1.0, -2.5]
    assert found["heads"] == -3
    floats = dequantized(found)
    assert floats["b/weight"].tolist() == [[1.0, -2.0, 3.0], [2.0, 0.0, -15.75]]
    assert set(floats) == {"a/weight", "b/weight", "brain", "heads"}


def test_an_exported_model_is_read_back(tmp_path: Path, tokenizer_path: Path) -> None:
    pieces = [str(index) for index in range(50)]
    pieces[:4] = ["<pad>", "<unk>", "<s>", "</s>"]
    torch_model = tiny.random_model(50)
    to_ctranslate2(torch_model, pieces, tmp_path / "model", "float32")
    found = read_variables(tmp_path / "model" / "model.bin")
    state = {name: value.numpy() for name, value in torch_model.state_dict().items()}
    for name, ours in (
        ("decoder/projection/weight", "embedding.weight"),
        ("encoder/embeddings_0/weight", "embedding.weight"),
        ("encoder/layer_1/ffn/linear_0/weight", "encoder.1.ffn.inner.weight"),
        ("decoder/layer_0/attention/linear_1/bias", "decoder.0.cross.kv.bias"),
    ):
        np.testing.assert_array_equal(found[name], state[ours])


def test_seven_bits_come_back_within_half_a_step(pristine_bundle: Bundle) -> None:
    folder = pristine_bundle.path / "engines"
    exact = read_variables(folder / "ctranslate2-float32/model.bin")
    seven_bit = read_variables(folder / "ctranslate2-int8/model.bin")
    floats = dequantized(seven_bit)
    assert set(floats) == set(exact)
    quantised = [name for name in floats if seven_bit[name].dtype == np.int8 and exact[name].ndim]
    assert len(quantised) == 3 + 2 * 4 + 1 * 7
    for name in quantised:
        step = 1 / seven_bit[name + "_scale"][:, None]
        assert (np.abs(floats[name] - exact[name]) <= step * 0.5001).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a CTranslate2 model"),
        (b"nothing at all", "binary version"),
        (model(version=5), "binary version 5, 6 is read"),
        (model(WEIGHT)[:-1], "buffer of 4 bytes"),
        (model(WEIGHT) + b"x", "1 bytes too many"),
        (model(WEIGHT, WEIGHT), "'a/weight' comes twice"),
        (model(variable(b"w", (2, 3), 1, b"x" * 6, declared=7)), "so 6 bytes, but declares 7"),
        (model(variable(b"w", (2, 3), 1, b"x" * 24)), "so 6 bytes, but declares 24"),
        (model(variable(b"w", (1 << 31, 4), 0, b"x" * 8, declared=1 << 31)), "declares 2147483648"),
        (model(variable(b"w", (1 << 31, 1 << 31), 1, b"", declared=0)), "declares 0"),
        (model(variable(b"w", (0,), 1, b"")), "declares 0"),
        (model(variable(b"w", (1 << 30,), 1, b"x", declared=1 << 30)), "'w' is cut off"),
        (model(variable(b"w", (1,) * 9, 1, b"x")), "9 dimensions"),
        (model(variable(b"w", (1,), 6, b"x")), "type 6, which is unknown"),
        (model(variable(b"w" * 300, (1,), 1, b"x")), "a name of 301 bytes"),
        (model(variable(b"", (1,), 1, b"x")), "a name of 1 bytes"),
        (model(variable("ä".encode(), (1,), 1, b"x")), "ascii"),
        (model(variable(b"a\0b", (1,), 1, b"x")), "does not end with its NUL"),
        (model(WEIGHT).replace(b"a/weight\0", b"a/weight."), "does not end with its NUL"),
        (model(WEIGHT, aliases=((b"b", b"c"),)), "stands for 'c', which is missing"),
        (model(WEIGHT, aliases=((b"a/weight", b"a/weight"),)), "comes twice"),
        (struct.pack("<I", 6) + string(b"S") + struct.pack("<II", 7, 1 << 31), "variables"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        read_table(tmp_path / "model.bin")
    with pytest.raises(BundleError, match=message):
        read_variables(tmp_path / "model.bin")


def test_a_scale_of_another_shape_is_refused() -> None:
    with pytest.raises(BundleError, match="one a row"):
        dequantized({"w": np.zeros((2, 3), np.int8), "w_scale": np.zeros(3, np.float32)})
