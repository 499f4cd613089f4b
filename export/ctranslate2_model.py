"""Whether a CTranslate2 folder is a model that our export writes; no torch.

CTranslate2 4.8 checks that each variable is as long as its shape, but not that shapes fit each
other: an embedding of one row ends the process, a matrix of another shape is read beyond its end.
So a folder is loaded only if it holds the variables that `export/to_ctranslate2.py` writes, each
of the shape that vocabulary, width and layers ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.ctranslate2_file import SCALE, VariableEntry, read_table, read_variables
from export.errors import BundleError
from export.files import list_files, read_small
from export.limits import MAX_TOKENIZER_BYTES
from export.manifest import SpecialTokens
from export.strict_json import strict_json

MODEL_FILE, CONFIG_FILE, VOCABULARY_FILE = "model.bin", "config.json", "shared_vocabulary.json"
SHORTLIST_FILE = "vmap.txt"
SPEC, REVISION = "TransformerSpec", 7
MAX_LAYERS = 256
SIDES = ("encoder", "decoder")
ACTIVATIONS = {0: "relu", 2: "silu", 3: "gelu"}
"""By their number in the file (`ActivationType` of CTranslate2)."""
FIXED = {
    "decoder/alibi": 0,
    "decoder/alibi_use_positive_positions": 0,
    "decoder/alignment_heads": 1,
    "decoder/alignment_layer": -1,
    "decoder/pre_norm": 1,
    "decoder/scale_alibi": 0,
    "decoder/scale_embeddings": 1,
    "decoder/start_from_zero_embedding": 0,
    "encoder/embeddings_merge": 0,
    "encoder/multi_query_attention": 0,
    "encoder/pre_norm": 1,
    "encoder/scale_embeddings": 1,
}
"""Scalars that are the same in all our models."""
SCALARS = {*FIXED, *(f"{s}/{name}" for s in SIDES for name in ("activation", "num_heads"))}

Shape = tuple[int, ...]


def check_ctranslate2(
    folder: Path, pieces: Sequence[str], tokens: SpecialTokens, positions: int
) -> None:
    """Raise BundleError unless CTranslate2 can load `folder` without surprises.

    `pieces` are the tokenizer's, in the order of their ids; the model must have room for
    `positions` tokens, `</s>` counted.
    """
    try:
        files = set(list_files(folder))
        _check_files(files)
        _check_config(strict_json(read_small(folder / CONFIG_FILE, 1 << 16)), tokens)
        data = read_small(folder / VOCABULARY_FILE, MAX_TOKENIZER_BYTES)
        _check_vocabulary(strict_json(data), pieces)
        _check_variables(folder / MODEL_FILE, len(pieces), positions)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{folder} is not a model of this bundle ({error}): export the bundle again"
        ) from error


def _check_files(found: set[str]) -> None:
    needed = {MODEL_FILE, CONFIG_FILE, VOCABULARY_FILE}
    if missing := sorted(needed - found):
        raise ValueError(f"it lacks {', '.join(missing)}")
    if extra := sorted(found - needed - {SHORTLIST_FILE}):
        raise ValueError(f"it holds {', '.join(extra[:5])}, which no export writes")


def _check_config(config: Any, tokens: SpecialTokens) -> None:
    wanted = {
        "add_source_bos": False,
        "add_source_eos": True,
        "bos_token": tokens.bos,
        "decoder_start_token": tokens.bos,
        "eos_token": tokens.eos,
        "multi_query_attention": False,
        "unk_token": tokens.unk,
    }
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG_FILE} is not a JSON object")
    epsilon = config.get("layer_norm_epsilon")
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise ValueError(f"{CONFIG_FILE}: layer_norm_epsilon must be between 0 and 1")
    if {key: value for key, value in config.items() if key != "layer_norm_epsilon"} != wanted:
        raise ValueError(f"{CONFIG_FILE} must say {wanted} and layer_norm_epsilon, no more")


def _check_vocabulary(found: Any, pieces: Sequence[str]) -> None:
    if not isinstance(found, list) or len(found) != len(pieces):
        size = len(found) if isinstance(found, list) else "no list of"
        raise ValueError(
            f"{VOCABULARY_FILE} has {size} pieces, the tokenizer and manifest {len(pieces)}"
        )
    for index, (one, piece) in enumerate(zip(found, pieces, strict=True)):
        if one != piece:
            raise ValueError(
                f"{VOCABULARY_FILE}: piece {index} is {str(one)[:100]!r}, "
                f"the tokenizer's {piece[:100]!r}"
            )


def _check_variables(path: Path, vocab_size: int, positions: int) -> None:
    table = read_table(path)
    if (table.spec, table.revision) != (SPEC, REVISION):
        raise ValueError(f"{MODEL_FILE} is a {table.spec} {table.revision}, not {SPEC} {REVISION}")
    entries = table.resolved()
    expected = dict(_expected(entries, vocab_size, positions))
    if missing := sorted((set(expected) | SCALARS) - set(entries)):
        raise ValueError(f"{MODEL_FILE} lacks {', '.join(missing[:3])}")
    for name, entry in entries.items():
        _check_entry(name, entry, entries, expected)
    variables = read_variables(path)
    _check_scalars(variables, expected["decoder/layer_norm/gamma"][0])
    _check_values(variables)


def _check_entry(
    name: str, entry: VariableEntry, entries: dict[str, VariableEntry], expected: dict[str, Shape]
) -> None:
    """One variable has the shape and type that it must have."""
    owner = name.removesuffix(SCALE)
    if name in SCALARS:
        fits = entry.shape == () and entry.dtype in ("int8", "int16")
    elif name in expected:
        quantised = name.endswith("weight") and name + SCALE in entries
        dtype = "int8" if quantised else "float32"
        fits = entry.shape == expected[name] and entry.dtype == dtype
    elif name != owner and owner.endswith("weight") and owner in expected:
        fits = entry.shape == expected[owner][:1] and entry.dtype == "float32"
    else:
        raise ValueError(f"{MODEL_FILE} holds {name}, which no export writes")
    if not fits:
        wanted = expected.get(name, ())
        raise ValueError(
            f"{MODEL_FILE}: {name} is {entry.dtype} {list(entry.shape)}"
            + (f", the shape must be {list(wanted)}" if wanted else "")
        )


def _check_scalars(variables: dict[str, NDArray[Any]], width: int) -> None:
    for name, value in FIXED.items():
        if variables[name] != value:
            raise ValueError(f"{MODEL_FILE}: {name} is {variables[name]}, it must be {value}")
    for side in SIDES:
        heads = int(variables[f"{side}/num_heads"])
        if heads < 1 or width % heads:
            raise ValueError(f"{MODEL_FILE}: the {side} has {heads} heads for a width of {width}")
        if int(variables[f"{side}/activation"]) not in ACTIVATIONS:
            raise ValueError(f"{MODEL_FILE}: {side}/activation is none of {ACTIVATIONS}")


def _check_values(variables: dict[str, NDArray[Any]]) -> None:
    for name, array in variables.items():
        if array.dtype == np.float32:
            if not np.isfinite(array).all():
                raise ValueError(f"{MODEL_FILE}: {name} holds values that are not finite")
            if name.endswith("weight" + SCALE) and not (array > 0).all():
                raise ValueError(f"{MODEL_FILE}: {name} holds scales that are not positive")


def _expected(
    entries: dict[str, VariableEntry], vocab_size: int, positions: int
) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of all arrays of a model with the width and layers that it has."""
    embedding = _shape(entries, "decoder/embeddings/weight", 2)
    width = embedding[1]
    for name in ("decoder/embeddings", "decoder/projection", "encoder/embeddings_0"):
        yield f"{name}/weight", (vocab_size, width)
    yield "decoder/projection/bias", (vocab_size,)
    for side in SIDES:
        encodings = f"{side}/position_encodings/encodings"
        room = _shape(entries, encodings, 2)[0]
        if room < positions:
            raise ValueError(f"{encodings} has room for {room} tokens, {positions} are needed")
        yield encodings, (room, width)
        yield from _norm(f"{side}/layer_norm", width)
        for layer in range(_layers(entries, side)):
            yield from _layer(entries, f"{side}/layer_{layer}", side, width)


def _layer(
    entries: dict[str, VariableEntry], scope: str, side: str, width: int
) -> Iterator[tuple[str, Shape]]:
    hidden = _shape(entries, f"{scope}/ffn/linear_0/weight", 2)[0]
    linears = {
        "self_attention/linear_0": (3 * width, width),
        "self_attention/linear_1": (width, width),
        "ffn/linear_0": (hidden, width),
        "ffn/linear_1": (width, hidden),
    }
    norms = ["self_attention", "ffn"]
    if side == "decoder":
        norms.append("attention")
        linears["attention/linear_0"] = (width, width)
        linears["attention/linear_1"] = (2 * width, width)
        linears["attention/linear_2"] = (width, width)
    for name, shape in linears.items():
        yield f"{scope}/{name}/weight", shape
        yield f"{scope}/{name}/bias", shape[:1]
    for name in norms:
        yield from _norm(f"{scope}/{name}/layer_norm", width)


def _norm(scope: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{scope}/gamma", (width,)
    yield f"{scope}/beta", (width,)


def _layers(entries: dict[str, VariableEntry], side: str) -> int:
    count = 0
    while f"{side}/layer_{count}/ffn/linear_0/weight" in entries:
        count += 1
    if not 1 <= count <= MAX_LAYERS:
        raise ValueError(f"{MODEL_FILE}: the {side} has {count} layers, 1 to {MAX_LAYERS} are read")
    return count


def _shape(entries: dict[str, VariableEntry], name: str, rank: int) -> Shape:
    entry = entries.get(name)
    if entry is None or len(entry.shape) != rank:
        raise ValueError(f"{MODEL_FILE} has no {name} of {rank} dimensions")
    return entry.shape
