"""Marian's models as teachers: labels in one pass, each sentence's own words, added pieces."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from quickstudy.pipeline import build_stages
from tests.training.distill.store import write_shards
from tests.training.distill.tiny_teachers import make_checkpoint, our_tokenizer
from tests.training.tiny_pretrained import (
    bin_items,
    firefox_folder,
    marian_settings,
    sentencepiece_model,
    write_bin,
)
from training.checkpoint import build_model
from training.config.losses import TokenObjective
from training.config.model import (
    AdoptedTokenizer,
    CheckpointTeacher,
    GivenTeacher,
    MarianFolder,
    ModelConfig,
    TeacherEnsemble,
)
from training.config.recipe import LabelsConfig, RecipeError
from training.data.batching import pad_rows
from training.data.dataset import ParallelDataset
from training.data.tokenizer import Tokenizer
from training.data.toy import make_toy
from training.distill.label_store import LabelStore
from training.distill.labelling import label_corpus, label_rows
from training.distill.losses import build_loss
from training.distill.teachers import NativeTeacher, Teacher, TeacherJob, build_teacher
from training.distill.teachers.base import NO_LOGP
from training.distill.teachers.external import ExtendedTeacher, RetokenisedTeacher
from training.distill.teachers.marian import MarianTeacher
from training.model.decoding import NEVER, greedy, output_limit
from training.model.transformer import BOS, EOS, UNK
from training.run import Run, teacher_identity
from training.stage import is_done, run_stage
from training.teacher_files import adopted_tokenizer

TEXTS = [src for src, _ in make_toy(40, 3)]
MAX_LENGTH = 64
GREEDY = LabelsConfig(beam_size=1, top_k=4, batch_tokens=64)
BEAM = LabelsConfig(beam_size=3, n_best=2, top_k=4, batch_tokens=64)
ADD = AdoptedTokenizer(add=["€", "…"], byte_fallback=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, a folder as Firefox has it; `own.model`, its vocabulary with our ids;
    `more.model`, the same with pieces added."""
    folder = tmp_path_factory.mktemp("marian")
    arrays = firefox_folder(folder / "model", sentencepiece_model(), None)
    arrays["decoder_ff_logit_out_b"][0, 0] += 2.0  # so that some translations end
    items = bin_items(arrays, marian_settings(), "i1")
    (folder / "model" / "model.enpt.intgemm.alphas.bin").write_bytes(write_bin(items))
    (folder / "own.model").write_bytes(adopted_tokenizer(config(folder)))
    (folder / "more.model").write_bytes(adopted_tokenizer(config(folder), ADD))
    our_tokenizer(folder / "other.model", 7)
    return folder


@pytest.fixture(scope="module")
def src(place: Path) -> list[list[int]]:
    return Tokenizer(place / "own.model").encode(TEXTS)


def config(place: Path) -> MarianFolder:
    return MarianFolder(path=str(place / "model"))


def build(
    place: Path,
    labels: LabelsConfig = GREEDY,
    tokenizer: str = "own.model",
    adopted: bool = True,
    given: GivenTeacher | None = None,
) -> Teacher:
    job = TeacherJob(
        given or config(place), labels, place / tokenizer, adopted, MAX_LENGTH, place / "none"
    )
    return build_teacher(job)


def marian(place: Path, shortlist: bool = True) -> MarianTeacher:
    teacher = build(place, GREEDY.model_copy(update={"shortlist": shortlist}))
    assert isinstance(teacher, MarianTeacher)
    return teacher


@torch.inference_mode()
def logp_along(teacher: MarianTeacher, src: list[int], trg: list[int]) -> torch.Tensor:
    """Log-probabilities [T, V] of the model in torch over the source's own words alone."""
    assert teacher.pretrained.lexicon is not None
    words = [w for w in teacher.pretrained.lexicon.candidates(src) if w not in NEVER]
    trg_in = torch.tensor([[BOS, *trg[:-1]]])
    logits = teacher.model(torch.tensor([src]), trg_in)[0]
    masked = torch.full_like(logits, float("-inf"))
    masked[:, words] = logits[:, words]
    return masked.log_softmax(1)


def test_one_pass_is_greedy_decoding_over_each_sentence_s_own_words(
    place: Path, src: list[list[int]]
) -> None:
    teacher = marian(place)
    labels = teacher.greedy_labels(src, 4)
    ended = 0
    for source, ([(ids, score)], distributions) in zip(src, labels, strict=True):
        logp = logp_along(teacher, source, ids)
        limit = output_limit(len(source), MAX_LENGTH)
        cut = len(ids) > limit
        ended += not cut
        best = logp.argmax(1).tolist()
        assert ids == ([*best[:limit], EOS] if cut else best)
        along = logp.max(1).values[:limit]
        assert score == pytest.approx(float(along.sum()), abs=1e-3)
        values, places = logp.topk(4, dim=1)
        np.testing.assert_array_equal(distributions.ids, places)
        np.testing.assert_allclose(distributions.logp, values, atol=1e-4)
        np.testing.assert_allclose(distributions.tail, 1 - values.exp().sum(1), atol=1e-5)
    assert 0 < ended < len(src), "both ways to end are tested"


def test_without_a_shortlist_it_is_greedy_decoding(place: Path, src: list[list[int]]) -> None:
    teacher = marian(place, shortlist=False)
    padded = pad_rows([np.array(ids) for ids in src])
    expected = greedy(teacher.model, padded, lambda length: output_limit(length, MAX_LENGTH))
    labels = teacher.greedy_labels(src, 6)
    hypotheses = [found[0][0] for found, _ in labels]
    forced = teacher.distributions(src, hypotheses, 6)
    for one, (found, distributions), other in zip(expected, labels, forced, strict=True):
        assert found[0][0] == [*one.ids, EOS]
        assert found[0][1] == pytest.approx(one.score, abs=1e-3)
        np.testing.assert_array_equal(distributions.ids, other.ids)
        np.testing.assert_allclose(distributions.logp, other.logp, atol=1e-4)
        np.testing.assert_allclose(distributions.tail, other.tail, atol=1e-5)


class TwoPasses:
    """A teacher without its one pass."""

    def __init__(self, teacher: Teacher) -> None:
        self.about = teacher.about
        self.translate, self.distributions = teacher.translate, teacher.distributions


@pytest.mark.parametrize("shortlist", [True, False])
def test_one_pass_and_two_leave_the_same_columns(
    place: Path, src: list[list[int]], shortlist: bool
) -> None:
    teacher = marian(place, shortlist)
    tokenizer = Tokenizer(place / "own.model")
    once, twice = (
        label_rows(asked, src, src, GREEDY, tokenizer) for asked in (teacher, TwoPasses(teacher))
    )
    assert set(once) == set(twice)
    for name, column in once.items():
        for value, other in zip(column, twice[name], strict=True):
            np.testing.assert_allclose(value, other, atol=2e-2 if name.endswith("logp") else 1e-3)  # type: ignore[call-overload]


def test_a_sentence_s_labels_do_not_depend_on_its_batch(place: Path, src: list[list[int]]) -> None:
    teacher = marian(place)
    together = teacher.greedy_labels(src, 4)
    for source, ([(ids, _)], distributions) in zip(src, together, strict=True):
        [([(alone, _)], other)] = teacher.greedy_labels([source], 4)
        assert alone == ids
        np.testing.assert_allclose(distributions.logp, other.logp, atol=1e-4)


def test_a_beam_writes_a_sentence_s_own_words(place: Path, src: list[list[int]]) -> None:
    teacher = marian(place)
    assert teacher.pretrained.lexicon is not None
    for source, hypotheses in zip(src, teacher.translate(src, 3, 2, 1.0), strict=True):
        words = set(teacher.pretrained.lexicon.candidates(source).tolist())
        assert len(hypotheses) == 2
        for ids, score in hypotheses:
            assert set(ids) <= words
            logp = logp_along(teacher, source, ids)[range(len(ids)), ids]
            counted = logp[: output_limit(len(source), MAX_LENGTH)]
            assert score == pytest.approx(float(counted.sum()), abs=1e-3)


def test_a_model_twice_is_that_model(place: Path, src: list[list[int]]) -> None:
    twice = build(place, BEAM, given=TeacherEnsemble(kind="ensemble", members=[config(place)] * 2))
    alone = marian(place)
    for one, other in zip(
        twice.translate(src[:6], 3, 2, 1.0), alone.translate(src[:6], 3, 2, 1.0), strict=True
    ):
        assert [ids for ids, _ in one] == [ids for ids, _ in other]
    trg = src[6:12]
    for left, right in zip(
        twice.distributions(src[:6], trg, 4), alone.distributions(src[:6], trg, 4), strict=True
    ):
        np.testing.assert_allclose(left.logp, right.logp, atol=1e-4)


def test_a_student_of_other_tokens_asks_by_text(place: Path, src: list[list[int]]) -> None:
    teacher = build(place, tokenizer="other.model", adopted=False)
    assert isinstance(teacher, RetokenisedTeacher)
    ours, own = Tokenizer(place / "other.model"), Tokenizer(place / "own.model")
    texts = own.decode([found[0][0] for found, _ in marian(place).greedy_labels(src, 0)])
    found = teacher.translate(ours.encode(TEXTS), 1, 1, 1.0)
    fits = [len(ids) < MAX_LENGTH for ids in ours.encode(texts)]
    assert any(fits)
    for hypotheses, text, whole in zip(found, texts, fits, strict=True):
        if whole:
            assert ours.decode([hypotheses[0][0]]) == [text]


def test_ctranslate2_is_not_asked_for_what_it_lacks(place: Path, tmp_path: Path) -> None:
    cell = ModelConfig(
        width=16, heads=2, ffn=32, encoder_layers=1, decoder_layers=1, decoder_cell="ssru"
    )
    folder = make_checkpoint(tmp_path / "ssru", place / "other.model", config=cell)

    def refuse(*_: object) -> None:
        raise AssertionError("the converter was called")

    teacher = NativeTeacher(folder, converter=refuse)
    assert teacher.about.engine == "torch"
    assert teacher.translate([[5, 6, EOS]], 1, 1, 1.0)


# --- added pieces ------------------------------------------------------------------------------

PRICES = ["the cat has 5 €", "the € and the … and the dog"]


def test_added_pieces_are_read_as_the_teacher_reads_their_text(place: Path) -> None:
    teacher, alone = build(place, tokenizer="more.model"), marian(place)
    assert isinstance(teacher, ExtendedTeacher)
    own, more = Tokenizer(place / "own.model"), Tokenizer(place / "more.model")
    src = more.encode([*PRICES, *TEXTS[:3]])
    assert max(map(max, src[:2])) >= len(own)
    assert src[2:] == own.encode(TEXTS[:3])
    read = own.encode([*PRICES, *TEXTS[:3]])
    assert UNK in read[0]
    for labels in ((1, 1), (3, 2)):
        assert teacher.translate(src, *labels, 1.0) == alone.translate(read, *labels, 1.0)
    for one, other in zip(teacher.greedy_labels(src, 4), alone.greedy_labels(read, 4), strict=True):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1].ids, other[1].ids)


def test_the_teacher_never_writes_an_added_piece(place: Path) -> None:
    teacher = build(place, tokenizer="more.model")
    own, more = Tokenizer(place / "own.model"), Tokenizer(place / "more.model")
    src = more.encode(PRICES)
    for trg, found in zip(src, teacher.distributions(src, src, 0), strict=True):
        assert found.logp.shape == (len(trg), len(more))
        assert (found.logp[:, len(own) :] == NO_LOGP).all()
        assert np.exp(found.logp).sum(1) == pytest.approx(np.ones(len(trg)), abs=1e-5)
    read = own.encode(PRICES)
    fed = [[token if token < len(own) else UNK for token in ids] for ids in src]
    given = marian(place).distributions(read, fed, 4)
    for found, other in zip(teacher.distributions(src, src, 4), given, strict=True):
        assert found.ids.max() < len(own)
        np.testing.assert_allclose(found.logp, other.logp, atol=1e-4)


@pytest.mark.parametrize("labels", [GREEDY, BEAM, BEAM.model_copy(update={"top_k": 0})])
def test_a_student_with_added_pieces_learns_from_the_store(
    place: Path, tmp_path: Path, labels: LabelsConfig
) -> None:
    more = Tokenizer(place / "more.model")
    shards = write_shards(tmp_path / "tokens", more)
    label_corpus(
        shards, tmp_path / "labels", lambda: build(place, labels, "more.model"), labels, more
    )
    data = ParallelDataset(shards, LabelStore(tmp_path / "labels"))
    batch = data.batch(np.arange(6), ("hypothesis",), ("hypothesis",))
    torch.manual_seed(1)
    student = build_model(ModelConfig(width=16, heads=2, ffn=32, dropout=0.0), len(more))
    loss = build_loss(TokenObjective(path="hypothesis"), 16)
    before = loss(student, batch).loss
    before.backward()
    assert torch.isfinite(before)
    gradient = student.embedding.weight.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert gradient[len(Tokenizer(place / "own.model")) :].abs().sum() > 0


# --- in a run ----------------------------------------------------------------------------------


def recipe_of(place: Path, root: Path, **more: object) -> Path:
    for side in (0, 1):
        lines = [pair[side] for pair in make_toy(60, 5)]
        (root / f"text.{'ab'[side]}").write_text("\n".join(lines) + "\n")
    text = {"src": "text.a", "trg": "text.b"}
    tree = {
        "name": "marian",
        "corpus": {
            "src_lang": "en",
            "trg_lang": "de",
            "train": [text],
            "validation": text,
            "shard_pairs": 20,
            "clean": {"drop_overlap": False},
        },
        "tokenizer": {"kind": "teacher", "add": ["€"], "byte_fallback": True},
        "teacher": {"kind": "marian", "path": str(place / "model")},
        "labels": {"beam_size": 1},
        "student": {
            "model": {"width": 16, "heads": 2, "ffn": 32, "max_length": MAX_LENGTH},
            "training": {"max_steps": 2},
            "objective": {"kind": "token", "path": "hypothesis"},
        },
        "export": {"max_input_tokens": 32},
        **more,
    }
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_killed_label_stage_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.config.io import load_recipe

    run = Run(load_recipe(recipe_of(place, tmp_path)), tmp_path / "run")
    stages = build_stages(run)
    for name in ("prepare", "tokenize"):
        run_stage(stages[name], stages)
    assert len(run.token_shards) == 3
    calls = []
    labels = MarianTeacher.greedy_labels

    def dies(self: MarianTeacher, src: list[list[int]], top_k: int):  # type: ignore[no-untyped-def]
        calls.append(len(src))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return labels(self, src, top_k)

    monkeypatch.setattr(MarianTeacher, "greedy_labels", dies)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stages["label"], stages)
    assert len(list(run.labels.glob("*.arrow"))) == 2
    run_stage(stages["label"], stages)
    assert len(calls) == 4, "the finished shards were kept"
    assert len(LabelStore(run.labels)) == sum(calls[:2]) + calls[3]
    assert is_done(stages["label"], stages)


@pytest.mark.parametrize("name", ["model.enpt.intgemm.alphas.bin", "lex.50.50.enpt.s2t.bin"])
def test_labels_depend_on_every_file(place: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(place / "model", tmp_path / "model")
    given = config(tmp_path)
    before = teacher_identity(given)
    assert before == teacher_identity(config(place)), "wherever it lies"
    file = tmp_path / "model" / name
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert teacher_identity(given) != before


def test_faults_name_the_field(place: Path, tmp_path: Path) -> None:
    from training.config.io import load_recipe

    (tmp_path / "empty").mkdir()
    for path, fault in (
        (tmp_path / "none", "is no folder"),
        (tmp_path / "empty", "no model of Firefox"),
    ):
        recipe = recipe_of(place, tmp_path, teacher={"kind": "marian", "path": str(path)})
        with pytest.raises(RecipeError, match=rf"teacher\.path: .*{fault}"):
            load_recipe(recipe)
    recipe = recipe_of(place, tmp_path, tokenizer={"kind": "teacher", "add": ["a b"]})
    with pytest.raises(RecipeError, match=r"tokenizer\.add: 'a b' cannot be a piece"):
        load_recipe(recipe)
    own = make_checkpoint(tmp_path / "own", place / "other.model")
    given = CheckpointTeacher(path=str(own)).model_dump()
    model = {"width": 16, "heads": 2, "ffn": 32, "max_length": 64}
    student = {"model": model, "training": {"max_steps": 2}, "start": "teacher"}
    recipe = recipe_of(place, tmp_path, teacher=given, student=student)
    with pytest.raises(RecipeError, match=r"leave out tokenizer\.add"):
        load_recipe(recipe)
