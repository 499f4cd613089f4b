"""The compiled engine on `greedy.onnx`: the weights that it finds there, what it writes with them,
files that it refuses, and who answers when."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper

from export.native import to_native
from export.onnx import OnnxModelInfo, to_onnx
from export.runtime import engines, onnx_format
from export.runtime.bundle import Bundle, load_bundle
from export.runtime.engines import TranslateOptions, expected_runtime, load_engine
from export.runtime.engines.native_engine import NativeEngine
from export.runtime.engines.onnx_engine import OnnxEngine
from export.runtime.manifest import FORMALITY, NATIVE_FILE, SEARCH_OPTIONS, BundleError
from export.runtime.native.library import NativeModel
from export.runtime.native.onnx_weights import read_onnx_weights
from export.runtime.native.safetensors import read_native
from export.runtime.native.weights import NativeSource, model_bytes
from export.runtime.onnx_format import parse_onnx
from export.runtime.protobuf import nested
from export.runtime.shortlist import EXCLUDED
from tests.export import tiny
from tests.export.test_native_engine import (
    check_alone_and_in_batches,
    not_built,  # noqa: F401
    thousand_sentences,
)
from tests.export.test_native_kernels import KERNELS, OPTIONS, needs_library
from tests.export.test_onnx import (
    PIECES,
    VOCAB_SIZE,
    padded,
    session,
    sources,
    tiny_model,
    until_end,
)
from training.model.transformer import Transformer

MODELS = Path(__file__).parents[2] / "models"
GREEDY, SCORED = TranslateOptions(), TranslateOptions(return_scores=True)
LIMIT = 14


def heavy_model(**options: Any) -> Transformer:
    """A random model whose blocks weigh enough that its outputs differ and end. Square roots of its
    widths are powers of two, so that scales which are folded into weights round nothing."""
    heads = 1 if options.get("heads") == 1 else 4
    model = tiny_model(**{**options, "width": 64, "heads": heads})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and name.startswith(("encoder.", "decoder.")):
                parameter.mul_(5)
    return model


def written(model: Transformer, folder: Path, shortlist: bool = False) -> Path:
    info = OnnxModelInfo("tiny", "en", "de")
    to_onnx(model, PIECES, folder, "int8", info, shortlist=shortlist)
    return folder / "greedy.onnx"


def arrays_of(source: NativeSource) -> list[Any]:
    """All that the engine is given, without the bias of pieces that no translation has and the
    steps of zeros."""
    names = ["positions", "output_bias"]
    quantised = ["embedding"] + ["source_embedding"] * bool(source.dims.source_vocab_size)
    for side, layers in (
        ("encoder", source.dims.encoder_layers),
        ("decoder", source.dims.decoder_layers),
    ):
        for layer in range(layers):
            name = f"{side}.{layer}"
            names += [f"{name}.{norm}_norm.{p}" for norm in ("attention", "ffn") for p in WB]
            quantised += [f"{name}.ffn.inner", f"{name}.ffn.outer"]
            recurrent = source.dims.recurrent and side == "decoder"
            cell = ["unit"] if recurrent else ["qkv", "out"]
            quantised += [f"{name}.attention.{part}" for part in cell]
            if side == "decoder":
                names += [f"{name}.cross_norm.{part}" for part in WB]
                quantised += [f"{name}.cross.{part}" for part in ("query", "kv", "out")]
    if not source.dims.post_norm:
        names += [f"{side}_norm.{part}" for side in ("encoder", "decoder") for part in WB]
    names += [f"{name}.bias" for name in quantised if not name.endswith("embedding")]
    arrays = [source.floats(name) for name in names]
    arrays[1] = arrays[1][4:]
    for name in quantised:
        weight = source.quantised(name)
        arrays += [weight.rows, np.where(weight.rows.any(axis=1), weight.steps, 1)]
    return arrays


WB = ("weight", "bias")

# --- the weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("shortlisted", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_both_files_of_a_model_hold_the_same_weights(
    tmp_path: Path, options: dict[str, Any], shortlisted: bool
) -> None:
    model = heavy_model(**options)
    to_native(model, PIECES, tmp_path / "own")
    own = read_native(tmp_path / "own" / NATIVE_FILE, shortlisted=shortlisted)
    path = written(model, tmp_path / "onnx", shortlisted)
    ours = read_onnx_weights(path, shortlisted=shortlisted)
    assert ours.dims.to_bytes() == own.dims.to_bytes()
    for found, expected in zip(arrays_of(ours), arrays_of(own), strict=True):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


@needs_library
def test_both_files_give_the_same_bytes(tmp_path: Path) -> None:
    model, rows = heavy_model(norm="post", decoder_cell="ssru"), sources(20)
    to_native(model, PIECES, tmp_path / "own")
    own = read_native(tmp_path / "own" / NATIVE_FILE, shortlisted=False)
    ours = read_onnx_weights(written(model, tmp_path / "onnx"), shortlisted=False)
    limits = [LIMIT] * len(rows)
    expected = NativeModel(model_bytes(own)).translate(rows, limits, scored=True)
    assert len({tuple(one.ids) for one in expected}) > 5
    for kernel in KERNELS:
        found = NativeModel(model_bytes(ours), kernel=kernel)
        assert found.translate(rows, limits, scored=True) == expected
        alone = [found.translate([row], [LIMIT], scored=True)[0] for row in rows]
        assert alone == expected


@needs_library
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_kind_of_model_translates_as_onnx_runtime_does(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = written(heavy_model(**options), tmp_path / "model")
    model = NativeModel(model_bytes(read_onnx_weights(path, shortlisted=False)))
    rows = sources(30)
    found = model.translate(rows, [LIMIT] * len(rows), scored=True)
    feeds = {"src": padded(rows), "limit": np.array(LIMIT), "return_scores": np.array(True)}
    ids, scores = session(path).run(["trg", "scores"], feeds)
    same = [
        one.score - score
        for one, row, score in zip(found, ids, scores, strict=True)
        if one.ids == until_end(row)
    ]
    # Weights are random, and the outputs of ReLU have twice as many steps here as there.
    assert len(same) >= 0.5 * len(rows)
    assert np.median(np.abs(same)) < 0.4


@needs_library
def test_a_sentence_chooses_among_its_own_candidates(tmp_path: Path) -> None:
    path = written(heavy_model(decoder_cell="ssru"), tmp_path / "model", shortlist=True)
    model = NativeModel(model_bytes(read_onnx_weights(path, shortlisted=True)))
    rows, rng = sources(20), np.random.default_rng(5)
    words = [np.union1d(rng.choice(np.arange(4, VOCAB_SIZE), 9, replace=False), [3]) for _ in rows]
    found = model.translate(rows, [LIMIT] * len(rows), candidates=words)
    everything = np.arange(VOCAB_SIZE)
    feeds = {
        "src": padded(rows),
        "limit": np.array(LIMIT),
        "return_scores": np.array(False),
        "candidates": everything,
        "candidate_mask": np.stack(
            [np.where(np.isin(everything, own), np.float32(0), EXCLUDED) for own in words]
        ),
    }
    ids = session(path).run(["trg"], feeds)[0]
    same = [one.ids == until_end(row) for one, row in zip(found, ids, strict=True)]
    assert sum(same) >= 0.7 * len(rows)
    assert all(set(one.ids) <= set(own) for one, own in zip(found, words, strict=True))


def test_graphs_that_store_their_positions_are_read(sound: Path, tmp_path: Path) -> None:
    """As those of bundles of 0.1 do."""
    model = onnx.load(sound)
    nodes = {op: node(model, op) for op in ("Sin", "Cast")}
    table = read_onnx_weights(sound, shortlisted=False).floats("positions")
    for name in ("places", "place_rates", "place_phases"):
        model.graph.initializer.remove(tensor(model, name))
    for one in [n for n in model.graph.node if n.input and n.input[0] == "places"]:
        (following,) = [n for n in model.graph.node if one.output[0] in n.input]
        model.graph.node.remove(one)
        model.graph.node.remove(following)
    model.graph.node.remove(nodes["Sin"])
    model.graph.node.remove(nodes["Cast"])
    nodes["Cast"].ClearField("input")
    model.graph.initializer.append(numpy_helper.from_array(table, "positions"))
    for one in model.graph.node:
        for at, name in enumerate(one.input):
            if name == nodes["Cast"].output[0]:
                one.input[at] = "positions"
    path = tmp_path / "greedy.onnx"
    path.write_bytes(model.SerializeToString())
    former, now = (read_onnx_weights(one, shortlisted=False) for one in (path, sound))
    assert model_bytes(former) == model_bytes(now)


def test_positions_are_those_of_the_model(sound: Path) -> None:
    expected = heavy_model().positions.numpy()
    np.testing.assert_array_equal(
        read_onnx_weights(sound, shortlisted=False).floats("positions"), expected
    )


# --- files that are refused --------------------------------------------------------------------


def tensor(model: ModelProto, name: str) -> Any:
    return next(one for one in model.graph.initializer if one.name == name)


def edited(model: ModelProto, name: str, edit: Callable[[Any], Any]) -> None:
    """Change a weight's array."""
    found = tensor(model, name)
    array = edit(numpy_helper.to_array(found).copy())
    found.CopyFrom(numpy_helper.from_array(array, name))


def metadata(key: str, value: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        next(one for one in model.metadata_props if one.key == key).value = value

    return change


def node(model: ModelProto, op: str) -> Any:
    return next(one for one in model.graph.node if one.op_type == op)


CHANGES: dict[str, tuple[Callable[[ModelProto], Any], str]] = {
    "another precision": (metadata("precision", "float32"), "not ours in int8"),
    "another format": (metadata("format_version", "2"), "not ours in int8"),
    "another input": (lambda m: m.graph.input.pop(), "it takes"),
    "another zero point": (lambda m: edited(m, "zero_point", lambda a: a - 1), "zero_point is not"),
    "no table": (lambda m: m.graph.initializer.remove(tensor(m, "embedding")), "lacks embedding"),
    "no bias": (
        lambda m: m.graph.initializer.remove(tensor(m, "encoder.1.ffn.outer.bias")),
        "encoder.1.ffn.outer.bias is read by",
    ),
    "a further weight": (
        lambda m: m.graph.initializer.append(numpy_helper.from_array(np.ones(9), "extra")),
        "is of a kind|not known",
    ),
    "a further weight of a kind that is read": (
        lambda m: m.graph.initializer.append(
            numpy_helper.from_array(np.ones(9, np.float32), "extra")
        ),
        "not known",
    ),
    "a layer's scale left out": (
        lambda m: m.graph.node.remove(
            next(n for n in m.graph.node if "encoder.1.attention.out.scale" in n.input)
        ),
        "encoder.1.attention.out.scale is read by",
    ),
    "another activation": (lambda m: setattr(node(m, "Relu"), "op_type", "Tanh"), "activation"),
    "norms that differ": (
        lambda m: setattr(node(m, "LayerNormalization").attribute[1], "f", 0.5),
        "epsilon",
    ),
    "no heads": (lambda m: edited(m, "ints_3_4_16", lambda a: a * 0), "heads"),
    "too many heads": (lambda m: edited(m, "ints_3_4_16", lambda a: a * [1, 2**60, 0]), "heads"),
    "a weight of another shape": (
        lambda m: edited(m, "encoder.0.ffn.inner", lambda a: a.T),
        "is needed|hidden",
    ),
    "steps that are no vector": (
        lambda m: edited(m, "encoder.0.ffn.inner.scale", lambda a: a.sum()),
        "no vector",
    ),
    "positions made otherwise": (
        lambda m: setattr(node(m, "Sin"), "op_type", "Cos"),
        "positions are not made by one Sin",
    ),
    "positions read otherwise": (
        lambda m: m.graph.node.append(helper.make_node("Neg", node(m, "Sin").output, ["more"])),
        "positions are not made by one Cast",
    ),
    "rates of another width": (
        lambda m: edited(m, "place_rates", lambda a: a[1:]),
        "rates of its positions do not fit",
    ),
    "more positions than memory": (
        lambda m: edited(m, "places", lambda a: np.zeros((1 << 19, 1))),
        "too many",
    ),
    "a name twice": (lambda m: m.graph.initializer.append(m.graph.initializer[5]), "comes twice"),
    "a shape that lies": (
        lambda m: tensor(m, "embedding").dims.__setitem__(0, 2**40),
        "not those of its shape",
    ),
    "a negative shape": (
        lambda m: tensor(m, "embedding").dims.__setitem__(0, -60),
        "not those of its shape",
    ),
    "a weight in another file": (
        lambda m: tensor(m, "embedding").external_data.add(key="location", value="/etc/passwd"),
        "in other files",
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(heavy_model(), tmp_path_factory.mktemp("sound") / "model")


@pytest.mark.parametrize("name", CHANGES)
def test_graphs_that_are_not_ours_are_refused(sound: Path, tmp_path: Path, name: str) -> None:
    model_bytes(read_onnx_weights(sound, shortlisted=False))
    change, message = CHANGES[name]
    model = onnx.load(sound)
    change(model)
    path = tmp_path / "greedy.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=message):
        model_bytes(read_onnx_weights(path, shortlisted=False))


def test_a_graph_without_candidates_is_none_with_a_shortlist(sound: Path) -> None:
    with pytest.raises(ValueError, match="it takes"):
        read_onnx_weights(sound, shortlisted=True)


@needs_library
def test_weights_whose_sums_could_overflow_are_refused(sound: Path, tmp_path: Path) -> None:
    """The largest that two neighbours may have together is 128; every kernel computes that."""
    rows = sources(9)
    for pair, refused in [((127, 1), False), ((-128, 0), False), ((127, 2), True)]:
        model = onnx.load(sound)

        def fill(array: Any, pair: tuple[int, int] = pair) -> Any:
            return np.tile(np.array(pair, np.int8), (len(array), array.shape[1] // 2))

        edited(model, "encoder.0.ffn.outer", fill)
        path = tmp_path / "greedy.onnx"
        path.write_bytes(model.SerializeToString())
        data = model_bytes(read_onnx_weights(path, shortlisted=False))
        if refused:
            with pytest.raises(BundleError, match="two neighbouring weights exceed 128"):
                NativeModel(data)
            continue
        found = [NativeModel(data, kernel=kernel) for kernel in KERNELS]
        outputs = [model.translate(rows, [LIMIT] * 9, scored=True) for model in found]
        assert all(output == outputs[0] for output in outputs)


@needs_library
def test_damaged_files_are_refused_or_read_within_their_bounds(sound: Path, tmp_path: Path) -> None:
    """Bytes changed at random, most often outside of the large weights, and files cut off."""
    whole, rng = sound.read_bytes(), random.Random(3)
    names = [at for at in range(len(whole)) if whole.startswith((b"encoder.", b"decoder."), at)]
    path, rows = tmp_path / "greedy.onnx", sources(3)
    refused = loaded = 0
    for round_ in range(150):
        damaged = bytearray(whole)
        for _ in range(1 + round_ % 4):
            near = rng.choice(names) + rng.randrange(-12, 12)
            at = near if rng.random() < 0.5 else rng.randrange(len(damaged))
            damaged[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        if round_ % 5 == 0:
            del damaged[rng.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            data = model_bytes(read_onnx_weights(path, shortlisted=False))
            model = NativeModel(data)
        except ValueError:
            refused += 1
            continue
        loaded += 1
        assert all(len(one.ids) <= 5 for one in model.translate(rows, [5] * 3))
    assert refused > 30
    assert loaded > 10


def test_a_file_of_endless_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_format, "MAX_FIELDS", 1000)
    graph = b"\x0a\x00" * 1000  # nodes without anything
    with pytest.raises(ValueError, match="fields"):
        parse_onnx(nested(7, graph))
    deep = b""
    for _ in range(110):
        deep = nested(1, nested(5, nested(6, deep)))
    with pytest.raises(ValueError, match="too deep"):
        parse_onnx(nested(7, deep))


# --- who answers -------------------------------------------------------------------------------


NAMES = ["onnx-int8", "onnx-int8-shortlist", "onnx-int8-beam", "onnx-float32"]


@pytest.fixture(scope="module")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Bundle:
    encode = tiny.tokenizer_of(tokenizer_path).encode
    rows = [(np.array(encode(text)), np.array(encode(text))) for text in tiny.sentences()]
    out = tmp_path_factory.mktemp("bundles") / "onnx"
    return tiny.make_bundle(out, tokenizer_path, engines=NAMES, translated_text=lambda: rows)


@needs_library
@pytest.mark.parametrize("name", NAMES[:3])
def test_it_is_preferred_for_graphs_in_int8(onnx_bundle: Bundle, name: str) -> None:
    engine, plain = (load_engine(onnx_bundle, name, prefer_native=native) for native in (1, 0))
    assert engine.runtime == expected_runtime(onnx_bundle, onnx_bundle.engine(name))
    assert engine.runtime == f"native ({KERNELS[0]})"
    assert plain.runtime == "ONNX Runtime"
    sentences = tiny.sentences()[:30]
    ours, theirs = (one.translate_batch(sentences, SCORED) for one in (engine, plain))
    same = [a.score - b.score for a, b in zip(ours, theirs, strict=True) if a.text == b.text]
    assert len(same) >= 24
    assert max(map(abs, same)) < 0.1
    alone = [engine.translate_batch([sentence], SCORED)[0] for sentence in sentences]
    assert alone == ours


def test_graphs_in_float32_are_onnx_runtimes(onnx_bundle: Bundle) -> None:
    entry = onnx_bundle.engine("onnx-float32")
    engine = load_engine(onnx_bundle, entry.name, prefer_native=True)
    assert engine.runtime == expected_runtime(onnx_bundle, entry) == "ONNX Runtime"


@needs_library
def test_searches_are_like_those_of_onnx_runtime(onnx_bundle: Bundle) -> None:
    sentences = tiny.sentences()[:30]
    beam = TranslateOptions(beam_size=3, return_scores=True)
    theirs = OnnxEngine(onnx_bundle, "onnx-int8-beam").translate_batch(sentences, beam)
    for name in ("onnx-int8-beam", "onnx-int8"):
        engine = load_engine(onnx_bundle, name, prefer_native=True)
        assert engine.supported_options == SEARCH_OPTIONS
        ours = engine.translate_batch(sentences, beam)
        same = [a.score - b.score for a, b in zip(ours, theirs, strict=True) if a.text == b.text]
        assert len(same) >= 24
        assert max(map(abs, same)) < 0.1
    for width in (1, 3):
        penalised = TranslateOptions(width, repetition_penalty=5.0, no_repeat_ngram_size=1)
        for one in engine.translate_batch(sentences, penalised):
            assert len(set(one.text.split())) == len(one.text.split())


def test_without_the_library_onnx_runtime_answers_and_it_is_said_once(
    onnx_bundle: Bundle,
    not_built: None,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded = [load_engine(onnx_bundle, "onnx-int8", prefer_native=True) for _ in range(2)]
    assert [engine.runtime for engine in loaded] == ["ONNX Runtime"] * 2
    assert caplog.text.count("ONNX Runtime translates instead of the faster native engine") == 1
    assert expected_runtime(onnx_bundle, onnx_bundle.engine("onnx-int8")) == "ONNX Runtime"


@needs_library
def test_a_graph_that_it_does_not_compute_is_onnx_runtimes(
    onnx_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as one whose bytes could overflow, which older versions imported."""
    shutil.copytree(onnx_bundle.path, tmp_path / "old")
    path = tiny.unpacked(tmp_path / "old/engines/onnx-int8")
    model = onnx.load(path)
    edited(model, "encoder.0.ffn.outer", lambda array: np.full_like(array, 100))
    path.write_bytes(model.SerializeToString())
    old = Bundle(tmp_path / "old", onnx_bundle.manifest)
    engines._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        engine = load_engine(old, "onnx-int8", prefer_native=True)
    assert engine.runtime == expected_runtime(old, old.engine("onnx-int8")) == "ONNX Runtime"
    assert "ONNX Runtime translates instead" in caplog.text
    with pytest.raises(BundleError):
        NativeEngine(old, "onnx-int8")


@needs_library
def test_a_graph_that_does_not_fit_the_manifest_is_refused(onnx_bundle: Bundle) -> None:
    long = onnx_bundle.manifest.decoding.model_copy(update={"max_output_tokens": 4000})
    manifest = onnx_bundle.manifest.model_copy(update={"decoding": long})
    with pytest.raises(BundleError, match="room for"):
        NativeEngine(Bundle(onnx_bundle.path, manifest), "onnx-int8")


@needs_library
def test_forms_of_address_are_asked_for(tmp_path: Path) -> None:
    path = tiny.train_tokenizer(tmp_path / "tagged.model", whole=tiny.TAGS.by_form.values())
    model = tiny.tagged_model(path)
    bundle = tiny.make_bundle(
        tmp_path / "b", path, model=model, engines=["onnx-int8"], formality=tiny.TAGS
    )
    engine = load_engine(bundle, prefer_native=True)
    assert engine.runtime.startswith("native")
    assert FORMALITY in engine.supported_options
    for form, text in (("formal", tiny.FORMAL), ("informal", tiny.INFORMAL)):
        options = TranslateOptions(formality=form)  # type: ignore[arg-type]
        assert engine.translate_batch(["old cat."], options)[0].text == text


# --- the shipped bundles -----------------------------------------------------------------------


@needs_library
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["en-de", "en-pt"])
def test_shipped_models_alone_and_in_batches(name: str, kernel: str) -> None:
    """Byte for byte, with a shortlist and without, scores included."""
    sentences = thousand_sentences()[:: 100 if kernel == "portable" else 8]
    check_alone_and_in_batches(load_bundle(MODELS / name), kernel, sentences)
