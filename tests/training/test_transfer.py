"""Transfer from a pretrained model: what is copied, what is frozen and until when, whole runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from export.runtime.bundle import load_bundle
from export.runtime.engines import TranslateOptions, load_engine
from quickstudy.pipeline import build_stages
from tests.training.test_pipeline import small_run
from tests.training.test_trainer import losses, train_and_kill
from tests.training.tiny_pretrained import (
    DECODER,
    ENCODER,
    FFN,
    HEADS,
    WIDTH,
    firefox_folder,
    sentencepiece_model,
)
from training.checkpoint import CheckpointError, build_model, load_checkpoint
from training.config.io import dump_recipe
from training.config.model import FreezeConfig, ModelConfig
from training.config.recipe import RecipeError
from training.data.batching import map_table
from training.data.prepare import read_pairs
from training.data.tokenizer import Tokenizer, pieces_of
from training.distill.teachers.base import About
from training.distill.teachers.external import RetokenisedTeacher
from training.model.transformer import BOS, PAD, Transformer
from training.pretrained.reader import read_pretrained
from training.run import Run, public_recipe, recipe_students
from training.stage import fingerprint, run_stage
from training.trainer import Trainer, TrainingRun, Validator, train
from training.transfer import Freezing, copy_start, known_pieces, to_transformer, whole_pretrained
from training.warm_start import check_tokens

DIMENSIONS = {
    "width": WIDTH,
    "heads": HEADS,
    "ffn": FFN,
    "encoder_layers": ENCODER,
    "decoder_layers": DECODER,
    "norm": "post",
    "norm_epsilon": 1e-6,
    "decoder_cell": "ssru",
}
STEPS = 24
HALF_FROZEN = FreezeConfig(encoder=0.5, source_embedding=1.0, rate=0.5)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model as Firefox has them; its vocabulary reads the toy text."""
    folder = tmp_path_factory.mktemp("pretrained") / "enpt"
    firefox_folder(folder, sentencepiece_model(100, character_coverage=1.0))
    return folder


def transfer_run(folder: Path, pretrained: Path, *more: str) -> Run:
    recipe = [
        f"tokenizer={{kind: separate, source: {{pretrained: {pretrained}}}}}",
        "tokenizer.target.vocab_size=350",
        "teacher=null",
        "baselines={}",
        "student.objective={kind: nll, label_smoothing: 0.1}",
        f"student.start={{pretrained: {pretrained}}}",
        "student.freeze={encoder: 0.5, source_embedding: 1.0}",
        *(f"student.model.{name}={value}" for name, value in DIMENSIONS.items()),
        "export.engines=[onnx-float32]",
    ]
    without_teacher = [line for line in more if not line.startswith("teacher.")]
    return small_run(folder, *recipe, *without_teacher)


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Run:
    """A run whose text is prepared and encoded."""
    run = transfer_run(tmp_path_factory.mktemp("runs"), pretrained)
    stages = build_stages(run)
    for name in ("prepare", "tokenize"):
        run_stage(stages[name], stages)
    return run


def training_run(corpus: Run, folder: Path, pretrained: Path, **changes: object) -> TrainingRun:
    """A training of `STEPS` steps on the run's text that saves after every step."""
    (plan,) = recipe_students(corpus)
    settings = {"batch_tokens": 256, "learning_rate": 5e-3, "warmup_steps": 5, "log_every": 1}
    settings |= {"max_steps": STEPS, "validate_every": 10, "checkpoint_minutes": 1e-6}
    run = TrainingRun(
        name="test",
        folder=folder,
        model=plan.model.model_copy(update={"dropout": 0.2}),
        training=plan.training.model_copy(update={**settings, "precision": "32-true"}),
        objective=plan.objective,
        token_shards=corpus.token_shards,
        labels=None,
        tokenizer=corpus.tokenizer,
        validation=corpus.validation,
        seed=4,
        recipe_text="name: test\n",
        source_tokenizer=corpus.source_tokenizer,
        pretrained=pretrained,
        freeze=HALF_FROZEN,
    )
    return replace(run, **changes)  # type: ignore[arg-type]


def student_like(pretrained: Path, target: Path) -> Transformer:
    source = len(pieces_of(read_pretrained(pretrained).tokenizer))
    torch.manual_seed(1)
    return build_model(ModelConfig(**DIMENSIONS), len(Tokenizer(target)), source)  # type: ignore[arg-type]


def start(student: Transformer, pretrained: Path, target: Path, source: Path | None) -> None:
    copy_start(student, whole_pretrained(pretrained, target, source, seed=1))


# --- start -------------------------------------------------------------------------------------


def test_a_student_of_another_target_vocabulary_takes_all_but_its_words(
    tokenized: Run, pretrained: Path
) -> None:
    student, model = student_like(pretrained, tokenized.tokenizer), read_pretrained(pretrained)
    start(student, pretrained, tokenized.tokenizer, tokenized.source_tokenizer)
    state, theirs = student.state_dict(), to_transformer(model).state_dict()
    assert torch.equal(state["source_embedding.weight"], theirs["embedding.weight"])
    layers = [name for name in state if name.startswith(("encoder", "decoder"))]
    assert len(layers) > 40
    assert all(torch.equal(state[name], theirs[name]) for name in layers)
    assert not state["output_bias"].any()


def test_pieces_of_both_vocabularies_keep_their_embeddings(
    tokenized: Run, pretrained: Path
) -> None:
    student, model = student_like(pretrained, tokenized.tokenizer), read_pretrained(pretrained)
    start(student, pretrained, tokenized.tokenizer, tokenized.source_tokenizer)
    mine, theirs = student.embedding.weight, torch.from_numpy(model.state["embedding.weight"])
    ids = {piece: index for index, piece in enumerate(pieces_of(model.tokenizer))}
    ours = pieces_of(tokenized.tokenizer.read_bytes())
    shared = [piece for piece in ours if piece in ids and piece not in ("<pad>", "<s>")]
    assert len(shared) > 20
    for index, piece in enumerate(ours):
        same = any(torch.equal(mine[index], row) for row in theirs)
        assert same == (piece in ids), piece
        if piece in ids:
            assert torch.equal(mine[index], theirs[ids[piece]])
    assert not mine[[PAD, BOS]].any()
    fresh = mine[[index for index, piece in enumerate(ours) if piece not in ids]]
    assert 0.9 < fresh.std() / theirs.std() < 1.1


def test_with_the_same_vocabulary_it_starts_as_the_pretrained_model(
    pretrained: Path, tmp_path: Path
) -> None:
    model = read_pretrained(pretrained)
    target = tmp_path / "tokenizer.model"
    target.write_bytes(model.tokenizer)
    student, whole = student_like(pretrained, target).eval(), to_transformer(model)
    start(student, pretrained, target, target)
    src, trg = torch.randint(4, 90, (3, 7)), torch.randint(4, 90, (3, 5))
    assert torch.equal(student(src, trg), whole(src, trg))


def test_another_source_vocabulary_is_refused(tokenized: Run, pretrained: Path) -> None:
    student = build_model(ModelConfig(**DIMENSIONS), len(Tokenizer(tokenized.tokenizer)), 77)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="cannot start from that model"):
        start(student, pretrained, tokenized.tokenizer, tokenized.source_tokenizer)


def test_pieces_that_a_model_has_learnt(tmp_path: Path) -> None:
    small, large = sentencepiece_model(80), sentencepiece_model(100, character_coverage=1.0)
    path = tmp_path / "large.model"
    path.write_bytes(large)
    source, target = known_pieces((small, None), path, None)
    assert torch.equal(source, target)
    held = set(pieces_of(small))
    assert target.tolist() == [piece in held for piece in pieces_of(large)]
    assert 0 < int(target.sum()) < len(target)


# --- freezing ----------------------------------------------------------------------------------


def test_parts_learn_from_their_share_on() -> None:
    model = build_model(ModelConfig(**DIMENSIONS), 50, 60)  # type: ignore[arg-type]
    freezing = Freezing(model, FreezeConfig(encoder=0.25, source_embedding=1.0))

    def learning() -> set[str]:
        return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}

    assert freezing.apply(0.0)
    assert learning() == {"embedding", "decoder", "output_bias"}
    assert not freezing.apply(0.2499)
    assert freezing.apply(0.25)
    assert learning() == {"embedding", "decoder", "output_bias", "encoder"}
    assert not freezing.apply(0.99)
    assert freezing.apply(1.0)
    assert "source_embedding" in learning()


def test_what_was_frozen_learns_at_a_lower_rate() -> None:
    model = build_model(ModelConfig(**DIMENSIONS), 50, 60)  # type: ignore[arg-type]
    rest, encoder = Freezing(model, FreezeConfig(encoder=0.25, rate=0.1)).groups([model])
    assert (rest["rate"], encoder["rate"]) == (1.0, 0.1)
    assert {id(p) for p in encoder["params"]} == {id(p) for p in model.encoder.parameters()}
    counted = sum(p.numel() for group in (rest, encoder) for p in group["params"])
    assert counted == sum(p.numel() for p in model.parameters())
    assert len(Freezing(model, None).groups([model])) == 1


def test_embeddings_that_the_target_shares_cannot_be_frozen() -> None:
    model = build_model(ModelConfig(**DIMENSIONS), 50)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="no table of its own"):
        Freezing(model, FreezeConfig(source_embedding=0.5))


def changed_parts(run: TrainingRun, pretrained: Path) -> set[str]:
    """Parts of the finished model that are not as the pretrained one has them."""
    after = load_checkpoint(run.checkpoint).model.state_dict()
    before = to_transformer(read_pretrained(pretrained)).state_dict()
    before["source_embedding.weight"] = before["embedding.weight"]
    names = [name for name in after if not name.startswith(("embedding", "output_bias"))]
    return {name.split(".")[0] for name in names if not torch.equal(after[name], before[name])}


def test_training_changes_what_is_not_frozen(
    tokenized: Run, pretrained: Path, tmp_path: Path
) -> None:
    half = training_run(tokenized, tmp_path / "half", pretrained)
    train(half)
    assert changed_parts(half, pretrained) == {"decoder", "encoder"}
    found = losses(half.folder)
    assert found[STEPS] < found[1] - 0.5
    whole = replace(half, folder=tmp_path / "whole", freeze=FreezeConfig(encoder=1.0))
    train(whole)
    assert changed_parts(whole, pretrained) == {"decoder", "source_embedding"}


def test_the_encoder_learns_from_its_step_on_at_its_rate(
    tokenized: Run, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[bool] = []
    original = Trainer._step

    def watched(self: Trainer, batches: list) -> None:
        before = self.model.encoder[0].ffn.inner.weight.detach().clone()
        original(self, batches)
        changes.append(not torch.equal(before, self.model.encoder[0].ffn.inner.weight))
        rates = [group["lr"] for group in self.optimizer.param_groups]
        assert rates == [rates[0], rates[0] * 0.5, rates[0] * 0.5]

        assert self.validator.rows[0] == sources[0]

    assert tokenized.source_tokenizer is not None
    first, _ = next(read_pairs(tokenized.validation))
    sources = Tokenizer(tokenized.source_tokenizer).encode([first])
    monkeypatch.setattr(Trainer, "_step", watched)
    train(training_run(tokenized, tmp_path / "run", pretrained))
    assert changes == [False] * (STEPS // 2) + [True] * (STEPS // 2)


@pytest.mark.slow
def test_killed_before_unfreezing_it_resumes_to_the_same_weights(
    tokenized: Run, pretrained: Path, tmp_path: Path
) -> None:
    whole, broken = (
        training_run(tokenized, tmp_path / name, pretrained) for name in ("whole", "broken")
    )
    train(whole)
    train_and_kill(broken, STEPS // 2 - 4)
    assert not broken.checkpoint.exists(), "it was killed too late to show anything"
    train(broken)
    assert losses(broken.folder) == losses(whole.folder)
    left, right = (load_checkpoint(run.checkpoint).model.state_dict() for run in (whole, broken))
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.thorough
@pytest.mark.slow
def test_several_processes_unfreeze_together(
    tokenized: Run, pretrained: Path, tmp_path: Path
) -> None:
    run = training_run(tokenized, tmp_path / "run", pretrained)
    run = replace(run, training=run.training.model_copy(update={"processes": 2}))
    train(run)
    assert changed_parts(run, pretrained) == {"decoder", "encoder"}


# --- recipes -----------------------------------------------------------------------------------


def test_a_pretrained_model_that_does_not_fit_is_refused(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"student\.model\.ffn to be that model's, 32"):
        transfer_run(tmp_path, pretrained, "student.model.ffn=64")
    other = tmp_path / "other"
    firefox_folder(other, sentencepiece_model(90))
    with pytest.raises(RecipeError, match="different source tokenizers: name the same model"):
        transfer_run(tmp_path, pretrained, f"student.start={{pretrained: {other}}}")
    (other / "vocab.enpt.spm").unlink()
    with pytest.raises(RecipeError, match=r"student\.start\.pretrained: .*vocabular"):
        transfer_run(tmp_path, pretrained, f"student.start={{pretrained: {other}}}")


def test_content_of_the_pretrained_model_and_freezing_count(
    pretrained: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(pretrained, copied)

    def prints(folder: Path, *more: str) -> tuple[str, str]:
        stages = build_stages(transfer_run(tmp_path, folder, *more))
        return fingerprint(stages["tokenize"], stages), fingerprint(stages["student"], stages)

    before = prints(pretrained)
    assert prints(copied) == before
    tokens, student = prints(pretrained, "student.freeze.encoder=0.25")
    assert tokens == before[0]
    assert student != before[1]
    shutil.rmtree(copied)
    firefox_folder(copied, sentencepiece_model(90, character_coverage=1.0))
    tokens, student = prints(copied)
    assert tokens != before[0]
    assert student != before[1]


def test_a_bundle_shows_no_folders(pretrained: Path, tmp_path: Path) -> None:
    shown = yaml.safe_load(public_recipe(dump_recipe(transfer_run(tmp_path, pretrained).recipe)))
    assert shown["tokenizer"]["source"] == {"pretrained": "enpt"}
    assert shown["student"]["start"]["pretrained"] == "enpt"


def test_going_on_needs_both_tokenizers(tokenized: Run, tmp_path: Path) -> None:
    source = tokenized.source_tokenizer
    assert source is not None
    start = tmp_path / "start"
    start.mkdir()
    shutil.copy(tokenized.tokenizer, start / "tokenizer.model")
    with pytest.raises(RecipeError, match="another tokenizer"):
        check_tokens(start, tokenized.tokenizer, source)
    check_tokens(start, tokenized.tokenizer, None)
    shutil.copy(source, start / "source_tokenizer.model")
    check_tokens(start, tokenized.tokenizer, source)
    with pytest.raises(RecipeError, match="another tokenizer"):
        check_tokens(start, tokenized.tokenizer, None)


# --- labelling ---------------------------------------------------------------------------------


class ShoutingTeacher:
    """A teacher that is asked by text."""

    about = About("none", "none", None)

    def translate_texts(
        self, texts: list[str], beam_size: int, n_best: int, length_penalty: float
    ) -> list[list[tuple[str, float]]]:
        return [[(text.upper(), -1.0)] for text in texts]


def test_a_teacher_reads_sources_of_their_own_tokenizer(tokenized: Run) -> None:
    assert tokenized.source_tokenizer is not None
    source, target = Tokenizer(tokenized.source_tokenizer), Tokenizer(tokenized.tokenizer)
    teacher = RetokenisedTeacher(
        ShoutingTeacher(), tokenized.tokenizer, 200, tokenized.source_tokenizer
    )
    ((ids, _),) = teacher.translate(source.encode(["the red car."]), 1, 1, 1.0)[0]
    assert target.decode([ids]) == ["THE RED CAR."]


# --- whole runs --------------------------------------------------------------------------------


def test_sources_are_cut_by_the_pretrained_model_and_targets_by_their_own(
    tokenized: Run, pretrained: Path
) -> None:
    assert tokenized.source_tokenizer is not None
    source, target = Tokenizer(tokenized.source_tokenizer), Tokenizer(tokenized.tokenizer)
    assert tokenized.source_tokenizer.read_bytes() == read_pretrained(pretrained).tokenizer
    first = tokenized.folder / "corpus" / "train" / "00000.arrow"
    text = {row["id"]: row for row in map_table(first).to_pylist()}
    rows = map_table(tokenized.token_shards[0]).slice(0, 20).to_pylist()
    assert len(rows) == 20
    for row in rows:
        assert row["src"] == source.encode([text[row["id"]]["src"]])[0]
        assert row["trg"] == target.encode([text[row["id"]]["trg"]])[0]
    assert len(target) == 350
    assert any("ü" in piece for piece in target.pieces)


def test_validation_sources_are_cut_by_their_own_tokenizer(tokenized: Run) -> None:
    assert tokenized.source_tokenizer is not None
    source, target = Tokenizer(tokenized.source_tokenizer), Tokenizer(tokenized.tokenizer)
    pairs = list(read_pairs(tokenized.validation))[:5]
    texts = [src for src, _ in pairs]
    assert Validator(pairs, target, 200, source).rows == source.encode(texts)
    assert Validator(pairs, target, 200).rows == target.encode(texts)


@pytest.mark.slow
def test_a_transferred_student_becomes_a_bundle_that_reads_both_tokenizers(
    tokenized: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.evaluate.ROUNDS", 1)
    monkeypatch.setattr("benchmarks.evaluate.SPEED_SENTENCES", 4)
    stages = build_stages(tokenized)
    assert not {"teacher", "label"} & set(stages)
    for name in ("student", "export"):
        run_stage(stages[name], stages)
    checkpoint = load_checkpoint(tokenized.student_folder("student") / "checkpoint")
    source = tokenized.source_tokenizer
    assert checkpoint.source_tokenizer is not None
    assert source is not None
    assert checkpoint.source_tokenizer.read_bytes() == source.read_bytes()
    bundle = load_bundle(tokenized.bundle)
    assert bundle.source_tokenizer_path.read_bytes() == source.read_bytes()
    assert bundle.manifest.source_vocab_size == len(Tokenizer(source))
    assert "{" in bundle.manifest.missing_characters
    assert bundle.manifest.gate is not None
    assert len(load_engine(bundle).translate_batch(["the red car."], TranslateOptions())) == 1
    run_stage(stages["evaluate"], stages)
    report = json.loads((tokenized.folder / "evaluation" / "evaluation.json").read_text())
    assert {(row["name"], row["engine"]) for row in report["scores"]} == {
        ("student", "torch"),
        ("student", "ONNX Runtime"),
    }
    assert not report["speed"]["times_the_teacher"]
