"""The ONNX engine of a bundle: as CTranslate2 translates, whoever calls; files it refuses."""

from __future__ import annotations

import gzip
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper

from export.runtime.bundle import Bundle, BundleError, load_bundle
from export.runtime.engines import Engine, TranslateOptions, load_engine
from export.runtime.engines.base import Decoded
from export.runtime.engines.onnx_engine import PAD, _beam_decoded, batches_of
from export.runtime.onnx_format import read_onnx
from export.verify import check_translates
from tests.export import tiny

GREEDY = TranslateOptions()
SCORED = TranslateOptions(return_scores=True)
ENGINES = [
    "onnx-int8",
    "onnx-float32",
    "onnx-int8-beam",
    "ctranslate2-float32",
    "ctranslate2-int8",
]


@pytest.fixture(scope="module")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Bundle:
    """A bundle with both kinds of engines, that tests only read."""
    out = tmp_path_factory.mktemp("bundles") / "both"
    return tiny.make_bundle(out, tokenizer_path, engines=ENGINES)


@pytest.fixture(scope="module", params=["onnx-int8", "onnx-float32"])
def engine(onnx_bundle: Bundle, request: pytest.FixtureRequest) -> Engine:
    return load_engine(onnx_bundle, request.param)


@pytest.fixture
def own_bundle(onnx_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy whose files a test may change."""
    shutil.copytree(onnx_bundle.path, tmp_path / "both")
    bundle = load_bundle(tmp_path / "both")
    tiny.unpacked(bundle.engine_path())
    return bundle


def test_float32_translates_and_scores_as_ctranslate2(onnx_bundle: Bundle) -> None:
    sentences = [*tiny.sentences()[:30], "old", "x", "qqqq zz"]
    ours = load_engine(onnx_bundle, "onnx-float32").translate_batch(sentences, SCORED)
    theirs = load_engine(onnx_bundle, "ctranslate2-float32").translate_batch(sentences, SCORED)
    for sentence, our, their in zip(sentences, ours, theirs, strict=True):
        assert (our.text, our.tokens, our.truncated) == (their.text, their.tokens, their.truncated)
        assert our.score == pytest.approx(their.score, abs=1e-3), sentence
    assert len({one.text for one in ours}) > 10
    assert {one.truncated for one in ours} == {True, False}


def test_int8_translates_mostly_as_float32(onnx_bundle: Bundle) -> None:
    sentences = tiny.sentences()
    exact = load_engine(onnx_bundle, "onnx-float32").translate_batch(sentences, GREEDY)
    small = load_engine(onnx_bundle, "onnx-int8").translate_batch(sentences, GREEDY)
    same = sum(left == right for left, right in zip(exact, small, strict=True))
    assert same >= 0.8 * len(sentences), f"{same} of {len(sentences)} identical"


def test_what_shares_a_batch_changes_nothing(engine: Engine) -> None:
    sentences = [*tiny.sentences()[:10], "old", "x"]
    alone = [engine.translate_batch([sentence], SCORED)[0] for sentence in sentences]
    together = engine.translate_batch(sentences, SCORED)
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.score for one in together] == pytest.approx([one.score for one in alone], abs=1e-4)


def test_batches_and_threads_change_nothing(onnx_bundle: Bundle) -> None:
    sentences = tiny.sentences()[:12]
    whole = load_engine(onnx_bundle).translate_batch(sentences, GREEDY)
    small = load_engine(onnx_bundle, max_batch_tokens=64, inter_threads=2, intra_threads=2)
    with ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(small.translate_batch, sentences, GREEDY) for _ in range(8)]
        assert all(call.result() == whole for call in calls)


def test_scores_only_when_asked(engine: Engine) -> None:
    assert engine.translate_batch(["old cat."], GREEDY)[0].score is None
    assert engine.translate_batch([], GREEDY) == []
    assert engine.translate_batch([""], GREEDY)[0].text == ""


COMPILED = ", or build the compiled engine, which has it$"


def test_beam_search_is_refused(engine: Engine, request: pytest.FixtureRequest) -> None:
    assert engine.supported_options == frozenset()
    others = "use the bundle's engine onnx-int8-beam or ctranslate2-float32 or ctranslate2-int8"
    others += COMPILED if "onnx-int8" in request.node.name else "$"
    with pytest.raises(ValueError, match=f"only decodes greedily: leave it out, or {others}"):
        engine.translate_batch(["old cat."], TranslateOptions(beam_size=2))


def test_a_beam_is_not_alternatives(onnx_bundle: Bundle) -> None:
    engine = load_engine(onnx_bundle, "onnx-int8-beam")
    assert engine.supported_options == {"beam_size"}
    others = f"use the bundle's engine ctranslate2-float32 or ctranslate2-int8{COMPILED}"
    with pytest.raises(ValueError, match=f"gives no alternatives: leave it out, or {others}"):
        engine.translate_batch(["old cat."], TranslateOptions(alternatives=2))


def test_no_engine_is_named_where_none_can(tmp_path: Path, tokenizer_path: Path) -> None:
    bundle = tiny.make_bundle(tmp_path / "greedy", tokenizer_path, engines=["onnx-float32"])
    with pytest.raises(ValueError, match=r"of \S+ only decodes greedily: leave it out$"):
        load_engine(bundle).translate_batch(["old cat."], TranslateOptions(beam_size=2))


def test_beam_search_where_it_was_exported(onnx_bundle: Bundle) -> None:
    sentences = [*tiny.sentences()[:20], "old", "x", "qqqq zz"]
    options = TranslateOptions(beam_size=3, return_scores=True)
    engine = load_engine(onnx_bundle, "onnx-int8-beam", inter_threads=2, max_batch_tokens=100)
    ours = engine.translate_batch(sentences, options)
    exact = load_engine(onnx_bundle, "ctranslate2-float32").translate_batch(sentences, options)
    same = 0
    for our, their in zip(ours, exact, strict=True):
        if our.text == their.text:
            same += 1
            assert (our.tokens, our.truncated) == (their.tokens, their.truncated)
            assert our.score == pytest.approx(their.score, abs=0.05)
    assert same >= 0.8 * len(sentences)
    alone = [engine.translate_batch([sentence], options)[0] for sentence in sentences]
    assert [one.text for one in alone] == [one.text for one in ours]
    unscored = engine.translate_batch(sentences, TranslateOptions(beam_size=3))
    assert [(one.text, one.score) for one in unscored] == [(one.text, None) for one in ours]


def test_a_beam_that_is_cut_off_counts_its_tokens() -> None:
    cut = _beam_decoded(np.array([7, 8, 9]), np.float32(-1.5), limit=3)
    assert cut == Decoded([7, 8, 9], -2.0, truncated=True)  # -6 in all, of which there are 3
    ended = _beam_decoded(np.array([7, 8, PAD]), np.float32(-1.5), limit=3)
    assert ended == Decoded([7, 8], -1.5, truncated=False)


def test_batches_are_of_like_lengths_and_few_tokens() -> None:
    lengths = [3, 9, 1, 3, 20, 1]
    batches = batches_of([[5] * length for length in lengths], max_batch_tokens=12)
    assert batches == [[2, 5, 0], [3], [1], [4]]  # 3 · 4, 4, 10 and 21 tokens with EOS
    assert batches_of([], 12) == []


def test_the_manifest_knows_the_engines(onnx_bundle: Bundle) -> None:
    entry = onnx_bundle.engine()
    assert (entry.name, entry.kind, entry.precision) == ("onnx-int8", "onnx", "int8")
    assert onnx_bundle.engine("onnx-float32").exact
    names = [path for path in onnx_bundle.manifest.files if path.startswith(f"{entry.path}/")]
    assert names == ["engines/onnx-int8/greedy.onnx.gz"]


def test_without_onnx_runtime_it_says_what_to_install(
    onnx_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "export.runtime.engines.onnx_engine")
    assert load_engine(onnx_bundle, "ctranslate2-int8").translate_batch(["old cat."], GREEDY)
    with pytest.raises(BundleError, match=r"engine onnx-int8 of .*: run `pip install onnxruntime`"):
        load_engine(onnx_bundle)


def test_the_example_of_the_documentation_runs(
    onnx_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(onnx_bundle.path)
    exec(compile(example, "docs/bundle.md", "exec"), {})
    sentences = ["A man is riding a bicycle.", "Two dogs play."]
    expected = load_engine(onnx_bundle).translate_batch(sentences, GREEDY)
    printed = capsys.readouterr().out
    assert all(repr(one.text)[1:-1] in printed for one in expected), printed


def external(tensor: TensorProto) -> None:
    """Make a tensor name a file instead of holding its values."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def a_weight(model: ModelProto) -> None:
    external(model.graph.initializer[0])


def one_in_a_loop(model: ModelProto) -> None:
    body = next(
        attribute.g
        for node in model.graph.node
        if node.op_type == "Loop"
        for attribute in node.attribute
        if attribute.type == AttributeProto.GRAPH
    )
    external(body.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2]))


def one_in_an_attribute(model: ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant", output=["w"])
    external(node.attribute.add(name="value", type=AttributeProto.TENSOR).t)


def one_in_a_function(model: ModelProto) -> None:
    node = model.functions.add(name="f", domain="d").node.add(op_type="Constant", output=["w"])
    external(node.attribute.add(name="value", type=AttributeProto.TENSOR).t)


def a_sparse_one(model: ModelProto) -> None:
    external(model.graph.sparse_initializer.add().values)


@pytest.mark.parametrize(
    "change", [a_weight, one_in_a_loop, one_in_an_attribute, one_in_a_function, a_sparse_one]
)
def test_weights_in_other_files_are_refused(
    own_bundle: Bundle, change: Callable[[ModelProto], None]
) -> None:
    path = own_bundle.engine_path() / "greedy.onnx"
    assert read_onnx(path) == path.read_bytes()
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="keeps weights in other files"):
        load_engine(own_bundle)


def a_graph(inputs: list[str], metadata: dict[str, str]) -> bytes:
    """A model that loads but is none of ours."""
    types = {
        "src": TensorProto.INT64,
        "limit": TensorProto.INT64,
        "return_scores": TensorProto.BOOL,
    }
    dims = {"src": ["B", "S"]}
    values = [helper.make_tensor_value_info(n, types[n], dims.get(n, [])) for n in inputs]
    scores = helper.make_node("ReduceMax", ["floats"], ["scores"], keepdims=0)
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["src"], ["trg"]),
            helper.make_node("Cast", ["src"], ["floats"], to=TensorProto.FLOAT),
            scores,
        ],
        "other",
        values,
        [
            helper.make_tensor_value_info("trg", TensorProto.INT64, ["B", "S"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, []),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, metadata)
    return model.SerializeToString()


OURS = ["src", "limit", "return_scores"]
FORMAT = {"format": "quickstudy-onnx", "format_version": "1"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not load in ONNX Runtime"),
        (b"nothing at all", "is not an ONNX model"),
        (b"\x3a\xff\xff\xff\xff\x0f", "is not an ONNX model"),
        (a_graph(["src"], FORMAT), r"takes \{'src': 'tensor\(int64\)'\} and gives"),
        (a_graph(OURS, {}), "has format and version"),
        (a_graph(OURS, {**FORMAT, "format_version": "2"}), "has format and version"),
        (a_graph(OURS, {**FORMAT, "vocab_size": "7"}), "has vocab_size 7, its manifest says"),
    ],
)
def test_files_that_are_no_engine_are_refused(
    own_bundle: Bundle, content: bytes, message: str
) -> None:
    (own_bundle.engine_path() / "greedy.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        load_engine(own_bundle)
    with pytest.raises(BundleError, match="onnx-int8 does not translate"):
        check_translates(own_bundle)


def test_a_packed_graph_is_the_plain_one(onnx_bundle: Bundle, own_bundle: Bundle) -> None:
    plain = own_bundle.engine_path() / "greedy.onnx"
    assert read_onnx(onnx_bundle.engine_path() / "greedy.onnx") == plain.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-9], "ends too soon"),
        (lambda data: data + b"\0", "ends too soon"),
        (lambda data: b"", "ends too soon"),
        (lambda data: b"no gzip at all", "is damaged"),
        (lambda data: data[:-8] + bytes(8), "is damaged"),
        (lambda data: gzip.compress(bytes(1 << 20)), "more than 64 times its size"),
        (lambda data: gzip.compress(b"no graph"), "is not an ONNX model"),
    ],
)
def test_damaged_packed_graphs_are_refused(
    onnx_bundle: Bundle, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    packed = onnx_bundle.engine_path() / "greedy.onnx.gz"
    (tmp_path / packed.name).write_bytes(change(packed.read_bytes()))
    with pytest.raises(BundleError, match=message):
        read_onnx(tmp_path / "greedy.onnx")


def test_a_file_that_is_cut_is_refused(own_bundle: Bundle) -> None:
    path = own_bundle.engine_path() / "greedy.onnx"
    whole = path.read_bytes()
    for length in range(1, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(BundleError):
            load_engine(own_bundle)


def test_ids_out_of_the_vocabulary_are_refused(own_bundle: Bundle) -> None:
    path = own_bundle.engine_path() / "greedy.onnx"
    model = onnx.load(path)
    for output in model.graph.node:
        if output.output[0] == "trg":
            output.op_type = "Neg"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="ids out of its vocabulary"):
        load_engine(own_bundle).translate_batch(["old cat."], GREEDY)
