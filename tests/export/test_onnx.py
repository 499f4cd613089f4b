"""ONNX graphs against torch, for every option of a model; what a file says of itself."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from export.ctranslate2 import to_ctranslate2
from export.onnx import GRAPHS, OnnxModelInfo, to_onnx
from training.model.decoding import greedy
from training.model.transformer import (
    BOS,
    EOS,
    PAD,
    UNK,
    DecoderLayer,
    EncoderLayer,
    Transformer,
)

SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
VOCAB_SIZE = 60
PIECES = [*SPECIALS, *(f"▁w{index}" for index in range(VOCAB_SIZE - len(SPECIALS)))]
INFO = OnnxModelInfo("tiny", "en", "de")
TOLERANCE = 1e-4
OPTIONS = list(product(("relu", "gelu", "silu"), (1, 2, 4), (1, 3), (1, 2)))


def tiny_model(
    activation: str = "relu",
    heads: int = 4,
    encoder_layers: int = 2,
    decoder_layers: int = 2,
    vocab_size: int = VOCAB_SIZE,
    width: int = 24,
    eos: float = 1.5,
    seed: int = 7,
    **options: Any,
) -> Transformer:
    """Random weights, biases that are not zero; the larger `eos`, the earlier outputs end."""
    torch.manual_seed(seed)
    model = Transformer(
        vocab_size,
        width=width,
        heads=heads,
        ffn=40,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        activation=activation,
        max_length=48,
        **options,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        model.output_bias[EOS] = eos
        model.output_bias[[PAD, UNK, BOS]] += 1  # so that their ban matters
    return model.eval()


def sources(count: int, seed: int = 3) -> list[list[int]]:
    """Rows of different lengths, EOS last."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    rows = [torch.randint(4, VOCAB_SIZE, (n,), generator=generator).tolist() for n in lengths]
    return [[*row, EOS] for row in rows]


def padded(rows: list[list[int]], width: int = 0) -> NDArray[np.int64]:
    width = max(width, *map(len, rows))
    return np.array([row + [PAD] * (width - len(row)) for row in rows], np.int64)


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(
    model: onnxruntime.InferenceSession,
    src: NDArray[np.int64],
    limit: int = 20,
    return_scores: bool = True,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    feeds = {"src": src, "limit": np.array(limit), "return_scores": np.array(return_scores)}
    trg, scores = model.run(["trg", "scores"], feeds)
    return trg, scores


def until_end(row: NDArray[np.int64]) -> list[int]:
    """The ids before EOS."""
    ids: list[int] = row.tolist()
    return ids[: ids.index(EOS)] if EOS in ids else ids


@torch.no_grad()
def torch_score(model: Transformer, source: list[int], target: list[int]) -> float:
    """Log-probability of a target, EOS included if it is there; EOS is banned at the first step."""
    logits = model(torch.tensor([source]), torch.tensor([[BOS, *target[:-1]]]))[0]
    logits[:, [PAD, UNK, BOS]] = float("-inf")
    logits[0, EOS] = float("-inf")
    log_probs = logits.log_softmax(-1)[range(len(target)), target]
    return float(log_probs.double().sum())


def check_parity(model: Transformer, engine: onnxruntime.InferenceSession) -> None:
    """The same tokens as `training.model.decoding.greedy`, and the log-probabilities of torch."""
    rows = sources(9)
    batches = [padded(rows), *(padded([row]) for row in rows[:3])]
    for src in batches:
        trg, scores = run(engine, src)
        expected = greedy(model, torch.from_numpy(src))
        for index, (ids, score, hypothesis) in enumerate(zip(trg, scores, expected, strict=True)):
            source = [token for token in src[index].tolist() if token != PAD]
            got, length = until_end(ids), min(20, 2 * len(source) + 10)
            where = f"sentence {index} of {len(src)}: {source}"
            if hypothesis.ids:  # an empty one is banned here
                assert got[:length] == hypothesis.ids[:20], where
            assert not ids[len(got) + 1 :].any(), f"{where}: not PAD after EOS"
            target = ids[: len(got) + 1].tolist()
            difference = abs(torch_score(model, source, target) - score)
            assert difference <= TOLERANCE * len(target), (
                f"{where}: score differs by {difference:.2e}, tolerance {TOLERANCE} a token"
            )


@pytest.mark.parametrize(("activation", "heads", "encoder_layers", "decoder_layers"), OPTIONS)
def test_float32_is_torch_for_every_option(
    activation: str, heads: int, encoder_layers: int, decoder_layers: int, tmp_path: Path
) -> None:
    model = tiny_model(activation, heads, encoder_layers, decoder_layers)
    to_onnx(model, PIECES, tmp_path / "engine", "float32", INFO)
    check_parity(model, session(tmp_path / "engine" / "greedy.onnx"))


FOREIGN = [
    {"norm": "post", "norm_epsilon": 1e-6},
    {"decoder_cell": "ssru"},
    {"norm": "post", "decoder_cell": "ssru", "sinusoids": "vaswani"},
    {"norm": "post", "source_vocab_size": VOCAB_SIZE + 3},
    {"sizes": {"encoder_heads": [1, 4], "decoder_heads": [3, 1], "decoder_cross_heads": [2, 4]}},
    {"sizes": {"encoder_ffn": [8, 40], "decoder_ffn": [16, 24]}, "decoder_cell": "ssru"},
]
"""Options of other people's models, and of cut ones."""


@pytest.mark.parametrize("options", FOREIGN, ids=str)
def test_float32_is_torch_for_models_of_others(options: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model(**options)
    to_onnx(model, PIECES, tmp_path / "engine", "float32", INFO)
    check_parity(model, session(tmp_path / "engine" / "greedy.onnx"))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_each_sentence_chooses_among_its_own_candidates(precision: Any, tmp_path: Path) -> None:
    model = tiny_model(norm="post", decoder_cell="ssru", eos=0.5)
    to_onnx(model, PIECES, tmp_path / "engine", precision, INFO, shortlist=True)
    engine = session(tmp_path / "engine" / "greedy.onnx")
    rows = sources(6)
    lists = [np.unique([EOS, *np.random.default_rng(i).integers(4, 60, 15)]) for i in range(6)]

    def run_shortlisted(chosen: list[int]) -> list[list[int]]:
        candidates = np.unique(np.concatenate([lists[row] for row in chosen]))
        hidden = np.array([np.where(np.isin(candidates, lists[row]), 0, -1e9) for row in chosen])
        feeds = {
            "src": padded([rows[row] for row in chosen], width=16),
            "limit": np.array(20),
            "return_scores": np.array(False),
            "candidates": candidates,
            "candidate_mask": hidden.astype(np.float32),
        }
        return [until_end(row) for row in engine.run(["trg"], feeds)[0]]

    together = run_shortlisted(list(range(6)))
    assert together == [run_shortlisted([row])[0] for row in range(6)]
    for row, ids in enumerate(together):
        assert set(ids) <= set(lists[row].tolist())
    assert len({tuple(ids) for ids in together}) > 1
    if precision == "float32":
        assert together == [_greedy_among(model, rows[i], lists[i]) for i in range(6)]


@torch.no_grad()
def _greedy_among(model: Transformer, source: list[int], allowed: NDArray[np.int64]) -> list[int]:
    """Greedy decoding in torch with all but some tokens banned, and EOS at the first step."""
    ids = [BOS]
    for step in range(20):
        logits = model(torch.tensor([source]), torch.tensor([ids]))[0, -1]
        choice = [token for token in allowed.tolist() if token != EOS or step]
        ids.append(max(choice, key=lambda token: float(logits[token])))
        if ids[-1] == EOS:
            return ids[1:-1]
    return ids[1:]


def test_the_options_end_and_run_on() -> None:
    """The models above write outputs of many lengths, so that parity means something."""
    src = torch.from_numpy(padded(sources(9)))
    lengths = [len(one.ids) for options in OPTIONS for one in greedy(tiny_model(*options), src)]
    assert len(set(lengths)) > 8
    assert 0.1 < sum(length < 10 for length in lengths) / len(lengths) < 0.9


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model()


@pytest.fixture(scope="module")
def folders(model: Transformer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All graphs of one model, by precision."""
    root = tmp_path_factory.mktemp("onnx")
    for precision in ("float32", "int8"):
        to_onnx(model, PIECES, root / precision, precision, INFO, tuple(GRAPHS))  # type: ignore
    return {precision: root / precision for precision in ("float32", "int8")}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_what_shares_a_batch_changes_nothing(folders: dict[str, Path], precision: str) -> None:
    engine = session(folders[precision] / "greedy.onnx")
    rows = sources(12)
    together, scores = run(engine, padded(rows, width=20))
    for row, ids, score in zip(rows, together, scores, strict=True):
        alone, alone_score = run(engine, padded([row]))
        assert until_end(alone[0]) == until_end(ids)
        assert alone_score[0] == pytest.approx(score, abs=TOLERANCE)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_limit_counts_eos(folders: dict[str, Path], precision: str) -> None:
    engine = session(folders[precision] / "greedy.onnx")
    src = padded(sources(9))
    whole, _ = run(engine, src, 40)
    for limit in (1, 2, 5):
        trg, _ = run(engine, src, limit)
        assert trg.shape == (9, limit)
        np.testing.assert_array_equal(trg, whole[:, :limit])


def test_it_stops_when_all_have_ended(tmp_path: Path) -> None:
    model = tiny_model(eos=50.0)
    to_onnx(model, PIECES, tmp_path / "engine", "float32", INFO)
    trg, _ = run(session(tmp_path / "engine" / "greedy.onnx"), padded(sources(4)), 30)
    assert trg.shape == (4, 2)  # EOS is banned at the first step, and wins at the second
    assert (trg[:, 0] > EOS).all()
    assert (trg[:, 1] == EOS).all()


def test_no_step_goes_past_the_positions(folders: dict[str, Path], model: Transformer) -> None:
    trg, _ = run(session(folders["float32"] / "greedy.onnx"), padded(sources(9)), 10_000)
    assert trg.shape[1] == model.max_length - 1


@pytest.mark.parametrize(("activation", "decoder_layers"), [("relu", 1), ("gelu", 2)])
def test_beam_search_is_as_in_ctranslate2(
    activation: str, decoder_layers: int, tmp_path: Path
) -> None:
    model = tiny_model(activation, decoder_layers=decoder_layers, eos=3.0)
    with torch.no_grad():  # CTranslate2 does not ban them
        model.output_bias[[PAD, BOS]] = -50
    to_onnx(model, PIECES, tmp_path / "onnx", "float32", INFO, ("beam",))
    to_ctranslate2(model, PIECES, tmp_path / "ctranslate2", "float32")
    engine = session(tmp_path / "onnx" / "beam.onnx")
    translator = ctranslate2.Translator(str(tmp_path / "ctranslate2"), intra_threads=1)
    rows = sources(12)
    feeds = {"src": padded(rows), "limit": np.array(16), "beam_size": np.array(3)}
    trg, scores = engine.run(["trg", "scores"], feeds)
    theirs = translator.translate_batch(
        [[PIECES[token] for token in row[:-1]] for row in rows],
        beam_size=3,
        max_decoding_length=16,
        return_scores=True,
        disable_unk=True,
    )
    same = []
    for row, ids, score, their in zip(rows, trg, scores, theirs, strict=True):
        found = [PIECES[token] for token in ids if token != PAD]
        if found == their.hypotheses[0]:
            same.append(len(found))
            mean = score if len(found) < 16 else score * 17 / 16  # it counts an end that never came
            assert mean == pytest.approx(their.scores[0], abs=1e-3), row
    assert len(same) >= 11, f"{len(same)} of {len(rows)} identical"
    assert len(set(same)) > 2, "outputs of these models should end at many lengths"


def test_scores_cost_nothing_unless_asked_for(folders: dict[str, Path]) -> None:
    engine = session(folders["float32"] / "greedy.onnx")
    src = padded(sources(5))
    scored, scores = run(engine, src)
    plain, zeros = run(engine, src, return_scores=False)
    np.testing.assert_array_equal(plain, scored)
    assert not zeros.any()
    assert (scores < 0).all()
    graph = onnx.load(folders["float32"] / "greedy.onnx").graph
    outside = {node.op_type for node in graph.node}
    body = next(a.g for node in graph.node if node.op_type == "Loop" for a in node.attribute)
    assert "ReduceLogSumExp" not in outside | {node.op_type for node in body.node}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_encoder_and_step_make_the_greedy_graph(folders: dict[str, Path], precision: str) -> None:
    encoder = session(folders[precision] / "encoder.onnx")
    step = session(folders[precision] / "step.onnx")
    src = padded(sources(5))
    expected, _ = run(session(folders[precision] / "greedy.onnx"), src, 8)
    memory = encoded(encoder, src)
    past = {
        one.name: np.zeros([len(src), *(0 if d == "T" else d for d in one.shape[1:])], np.float32)
        for one in step.get_inputs()
        if one.name.startswith("past_")
    }
    last = np.full(len(src), BOS)
    for column in range(8):
        values: list[Any] = step.run(None, {"last": last, **memory, **past})
        outputs = {
            output.name: value for output, value in zip(step.get_outputs(), values, strict=True)
        }
        logits = outputs.pop("logits")
        if column == 0:
            logits[:, EOS] = -np.inf
        past = {f"past_{name}": value for name, value in outputs.items()}
        going = expected[:, column] != PAD
        np.testing.assert_array_equal(logits.argmax(1)[going], expected[going, column])
        last = expected[:, column]


def encoded(encoder: onnxruntime.InferenceSession, src: NDArray[np.int64]) -> dict[str, Any]:
    names = [output.name for output in encoder.get_outputs()]
    return dict(zip(names, encoder.run(names, {"src": src}), strict=True))


def check_int8_logits(model: Transformer, folder: Path) -> None:
    """The first step's logits, near those of torch."""
    to_onnx(model, PIECES, folder, "int8", INFO, ("encoder", "step"))
    src = padded(sources(6))
    step = session(folder / "step.onnx")
    shapes = {"past_key": (6, 4, 6, 0), "past_value": (6, 4, 0, 6)}
    past = {
        f"{name}.{layer}": np.zeros(shape, np.float32)
        for name, shape in shapes.items()
        for layer in range(2)
    }
    memory = encoded(session(folder / "encoder.onnx"), src)
    logits = step.run(["logits"], {"last": np.full(6, BOS), **memory, **past})[0]
    with torch.no_grad():
        expected = model(torch.from_numpy(src), torch.full((6, 1), BOS))[:, 0].numpy()
    difference = np.abs(logits - expected)[:, EOS:]
    spread = expected.std()
    assert 0 < difference.max() < 0.15 * spread, f"{difference.max():.3f} of {spread:.3f}"


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_int8_logits_stay_near_torch(activation: str, tmp_path: Path) -> None:
    check_int8_logits(tiny_model(activation), tmp_path / "engine")


def test_int8_bears_activations_that_are_all_zero(tmp_path: Path) -> None:
    model = tiny_model("relu")
    with torch.no_grad():  # such a row has no largest value to scale by
        for layer in (model.encoder[0], model.decoder[0]):
            assert isinstance(layer, EncoderLayer | DecoderLayer)
            layer.ffn.inner.bias.fill_(-1000.0)
    check_int8_logits(model, tmp_path / "engine")


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("graph", list(GRAPHS))
def test_files_are_checked_and_say_what_they_are(
    folders: dict[str, Path], graph: str, precision: str
) -> None:
    path = folders[precision] / f"{graph}.onnx"
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    domains = {opset.domain for opset in proto.opset_import}
    assert domains == ({"", "com.microsoft"} if graph == "beam" else {""})
    stated = session(path).get_modelmeta().custom_metadata_map
    special = json.loads(stated.pop("special_tokens"))
    assert special == {
        name: {"id": index, "piece": SPECIALS[index]}
        for index, name in enumerate(("pad", "unk", "bos", "eos"))
    }
    assert stated == {
        "format": "quickstudy-onnx",
        "format_version": "1",
        "name": "tiny",
        "source_lang": "en",
        "target_lang": "de",
        "precision": precision,
        "vocab_size": "60",
        "max_source_length": "48",
        "max_target_length": "47",
    }


def test_the_same_model_gives_the_same_bytes(
    folders: dict[str, Path], model: Transformer, tmp_path: Path
) -> None:
    for precision, folder in folders.items():
        to_onnx(model, PIECES, tmp_path / precision, precision, INFO, tuple(GRAPHS))  # type: ignore
        for name in GRAPHS:
            again = (tmp_path / precision / f"{name}.onnx").read_bytes()
            assert again == (folder / f"{name}.onnx").read_bytes(), f"{precision} {name}"


def test_int8_is_small(tmp_path: Path) -> None:
    pieces = [*SPECIALS, *(f"▁w{index}" for index in range(3996))]
    model = tiny_model(vocab_size=len(pieces), width=128)
    sizes = {}
    for precision in ("int8", "float32"):
        to_onnx(model, pieces, tmp_path / precision, precision, INFO)
        sizes[precision] = (tmp_path / precision / "greedy.onnx").stat().st_size
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert sizes["int8"] < sizes["float32"] / 3
    assert sizes["float32"] < 4 * weights + 100_000  # the tied table is stored once
    assert sizes["int8"] < weights + 200_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pieces": PIECES[:-1]}, "59 pieces"),
        ({"precision": "int4"}, "precision is 'int4': choose from"),
        ({"graphs": ("greedy", "sampling")}, "choose from"),
        ({"graphs": ()}, "choose from"),
    ],
)
def test_mistakes_leave_the_former_folder(
    model: Transformer, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"pieces": PIECES, "precision": "int8", "graphs": ("greedy",)}
    former = tmp_path / "engine" / "greedy.onnx"
    former.parent.mkdir()
    former.write_text("the former one")
    with pytest.raises(ValueError, match=message):
        to_onnx(model, output_dir=tmp_path / "engine", info=INFO, **{**given, **arguments})
    assert former.read_text() == "the former one"


def test_a_failure_while_writing_leaves_the_former_folder(
    model: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_onnx(model, PIECES, tmp_path / "engine", "int8", INFO)
    before = (tmp_path / "engine" / "greedy.onnx").read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise onnx.checker.ValidationError("no")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(onnx.checker.ValidationError):
        to_onnx(model, PIECES, tmp_path / "engine", "float32", INFO)
    assert (tmp_path / "engine" / "greedy.onnx").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]
