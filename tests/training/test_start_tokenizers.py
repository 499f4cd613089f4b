"""Students that start with a part of a model: fewer pieces, fewer layers, fewer inner units."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece as spm
import torch

from export.runtime.bundle import load_bundle
from export.runtime.engines import TranslateOptions, load_engine
from export.runtime.manifest import FormalityTags
from quickstudy.pipeline import build_stages
from tests.training.test_transfer import DIMENSIONS, transfer_run
from tests.training.tiny_pretrained import firefox_folder, sentencepiece_model
from training.checkpoint import (
    CheckpointError,
    LayerChoice,
    build_model,
    copy_layers,
    load_checkpoint,
)
from training.config.model import ModelConfig
from training.config.recipe import RecipeError
from training.data.prepare import read_rows, train_shards
from training.data.tokenizer import pieces_of
from training.pretrained.coverage import extend
from training.pretrained.files import PretrainedError
from training.pretrained.reader import read_pretrained
from training.pretrained.trimmed import piece_counts, trim
from training.pretrained.vocabulary import renumbered
from training.run import Run
from training.stage import run_stage
from training.transfer import Pieces, copy_words, to_transformer

PIECES = 350
KEPT = 500


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained") / "enpt"
    firefox_folder(folder, sentencepiece_model(PIECES, character_coverage=1.0))
    return folder


def trimmed_run(folder: Path, pretrained: Path, *more: str) -> Run:
    kind = f"tokenizer={{kind: start, size: {KEPT}, add: [“, <formal>], byte_fallback: true}}"
    return transfer_run(
        folder,
        pretrained,
        "tokenizer=null",
        kind,
        "student.freeze=null",
        "student.training.max_steps=2",
        "student.training.learning_rate=1e-6",
        *more,
    )


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Run:
    run = trimmed_run(tmp_path_factory.mktemp("runs"), pretrained)
    tokenize(run)
    return run


def text_of(run: Run) -> list[str]:
    rows = [row for shard in train_shards(run.folder / "corpus") for row in read_rows(shard)]
    return [text for row in rows for text in row if text is not None]


# --- vocabularies ------------------------------------------------------------------------------


def test_the_pieces_stay_that_the_text_needs_most(started: Run, pretrained: Path) -> None:
    whole = read_pretrained(pretrained).tokenizer
    theirs, ours = pieces_of(whole), pieces_of(started.tokenizer.read_bytes())
    counts = piece_counts(whole, text_of(started))
    longer = [
        index for index, piece in enumerate(theirs) if index > 3 and len(piece.lstrip("▁")) > 1
    ]
    gone = [index for index in longer if theirs[index] not in ours]
    stayed = [index for index in longer if theirs[index] in ours]
    assert gone
    # Nothing that is gone is commoner than what stayed both in this text and in the model's own.
    processor = spm.SentencePieceProcessor(model_proto=whole)
    score = processor.get_score
    assert not [
        (theirs[lost], theirs[kept])
        for lost in gone
        for kept in stayed
        if counts[lost] > counts[kept] and score(lost) > score(kept)
    ]
    assert max(map(score, gone)) > min(map(score, stayed)), "the text counts"
    assert max(counts[i] for i in gone) > min(counts[i] for i in stayed), "so does the model"


def test_a_trimmed_vocabulary_writes_what_the_whole_one_wrote(
    started: Run, pretrained: Path
) -> None:
    processor = spm.SentencePieceProcessor(model_file=str(started.tokenizer))
    whole = spm.SentencePieceProcessor(model_proto=read_pretrained(pretrained).tokenizer)
    for text in text_of(started)[:200]:
        assert processor.decode(processor.encode(text)) == whole.decode(whole.encode(text))
    ids = processor.encode("“<formal> 漢”")
    assert processor.unk_id() not in ids
    assert processor.decode(ids) == "“<formal> 漢”"


def test_small_pieces_bytes_and_added_ones_always_stay() -> None:
    model = extend(read_model(), ["€", "<formal>"], byte_fallback=True)
    pieces = pieces_of(trim(model, [], 360, ["€"]))
    assert len(pieces) == 360
    single = {piece for piece in pieces_of(model) if len(piece.lstrip("▁")) == 1}
    assert single <= set(pieces)
    assert {"€", "<formal>", "<0x00>", "<0xFF>"} <= set(pieces)


def test_the_order_of_the_pieces_and_their_scores_stay() -> None:
    model = read_model()
    small = trim(model, ["der Hund schläft"], 90)
    place = {piece: index for index, piece in enumerate(pieces_of(model))}
    order = [place[piece] for piece in pieces_of(small)]
    assert order == sorted(order)
    before, after = (spm.SentencePieceProcessor(model_proto=m) for m in (model, small))
    for piece in pieces_of(small)[4:]:
        assert after.get_score(after.piece_to_id(piece)) == before.get_score(
            before.piece_to_id(piece)
        )


def test_what_the_text_lacks_stays_by_its_frequency_in_the_models_own_text() -> None:
    """A piece that this text never has stays before rarer ones of the model's, and gives way to
    those that the text has."""
    model = read_model()
    processor = spm.SentencePieceProcessor(model_proto=model)
    long = [p for p in pieces_of(model)[4:] if len(p.removeprefix("▁")) > 1]
    by_score = sorted(long, key=lambda p: -processor.get_score(processor.piece_to_id(p)))
    rarest = by_score[-1].removeprefix("▁")
    size = len(pieces_of(model)) - len(long) + 3
    kept = set(pieces_of(trim(model, [], size))) & set(long)
    assert kept == set(by_score[:3])
    assert by_score[-1] in pieces_of(trim(model, [f"{rarest} " * 50], size))


def test_a_size_that_does_not_suffice_is_refused() -> None:
    with pytest.raises(PretrainedError, match="5 pieces are too few"):
        trim(read_model(), [], 5)


def read_model() -> bytes:
    return renumbered(sentencepiece_model(120, character_coverage=1.0), "test").model


def tokenize(run: Run) -> None:
    stages = build_stages(run)
    for name in ("prepare", "tokenize"):
        run_stage(stages[name], stages)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("student.start=random", "tokenizer.kind start needs student.start.pretrained"),
        ("corpus.formality=true", "corpus.formality needs <informal> in tokenizer.add"),
        ("student.start.encoder_layers=[1]", "chooses 1 layers, student.model.encoder_layers is"),
    ],
)
def test_faults_of_such_a_recipe(change: str, fault: str, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=fault):
        trimmed_run(tmp_path, pretrained, change)


def test_a_source_size_needs_a_source_vocabulary(pretrained: Path, tmp_path: Path) -> None:
    run = trimmed_run(tmp_path, pretrained, "tokenizer.source_size=310")
    with pytest.raises(RecipeError, match="one model is of both sides"):
        tokenize(run)


def test_tags_that_the_tokenizer_cuts_are_told_before_training(tmp_path: Path) -> None:
    """A vocabulary that falls back to bytes can write them, so none becomes a piece of its own."""
    folder = tmp_path / "enpt"
    firefox_folder(folder, sentencepiece_model(PIECES, character_coverage=1.0, byte_fallback=True))
    tags = "tokenizer.add=[<formal>, <informal>]"
    run = trimmed_run(tmp_path, folder, tags, "corpus.formality=true")
    with pytest.raises(RecipeError, match="tokenizer cuts <formal> and <informal>"):
        tokenize(run)


@pytest.mark.slow
def test_a_student_of_tagged_text_becomes_a_bundle_that_can_be_asked(
    pretrained: Path, tmp_path: Path
) -> None:
    tags = "tokenizer.add=[<formal>, <informal>]"
    run = trimmed_run(tmp_path, pretrained, tags, "corpus.formality=true")
    stages = build_stages(run)
    for name in ("prepare", "tokenize", "student", "export"):
        run_stage(stages[name], stages)
    bundle = load_bundle(run.bundle)
    assert bundle.manifest.formality == FormalityTags(formal="<formal>", informal="<informal>")
    options = TranslateOptions(formality="informal")
    assert len(load_engine(bundle).translate_batch(["the red car."], options)) == 1


@pytest.mark.slow
def test_a_student_of_a_checkpoint_has_teacher_and_lexicon_of_the_model_it_was_cut_out_of(
    pretrained: Path, tmp_path: Path
) -> None:
    first = trimmed_run(tmp_path / "first", pretrained)
    stages = build_stages(first)
    for name in ("prepare", "tokenize", "student"):
        run_stage(stages[name], stages)
    start = first.student_folder("student") / "checkpoint"

    def shortlist(folder: str, whole: str) -> bytes:
        run = trimmed_run(
            *(tmp_path / folder, pretrained, "export.engines=[onnx-int8-shortlist]"),
            *("export.gate={int8_identical: 0, bleu_loss: 100}", "tokenizer={kind: start}"),
            *(f"student.start={{checkpoint: {start}{whole}}}", "student.model.ffn=16"),
            "student.objective={kind: start-token}" if whole else "seed=1",
        )
        stages = build_stages(run)
        for name in ("prepare", "tokenize", "student", "export"):
            run_stage(stages[name], stages)
        return (run.bundle / "engines" / "onnx-int8-shortlist" / "shortlist.bin").read_bytes()

    # Beside a lexicon fewer words of the text are listed.
    assert len(shortlist("with", f", whole: {pretrained}")) < len(shortlist("without", ""))


# --- weights -----------------------------------------------------------------------------------


def test_embeddings_follow_their_pieces(started: Run, pretrained: Path) -> None:
    """The student's first step is so small that its weights are still those it started with."""
    stages = build_stages(started)
    run_stage(stages["student"], stages)
    student = load_checkpoint(started.student_folder("student") / "checkpoint").model
    model = read_pretrained(pretrained)
    theirs = to_transformer(model)
    place = {piece: index for index, piece in enumerate(pieces_of(model.tokenizer))}
    words = pieces_of(started.tokenizer.read_bytes())
    shared = [(index, place[piece]) for index, piece in enumerate(words) if piece in place]
    mine, other = (list(side) for side in zip(*shared, strict=True))
    for ours, lent in (
        (student.embedding.weight, theirs.embedding.weight),
        (student.output_bias, theirs.output_bias),
    ):
        torch.testing.assert_close(ours[mine], lent[other], rtol=0, atol=1e-3)
    assert student.source_embedding is None


def test_a_typographic_sign_starts_as_its_plain_form() -> None:
    other, student = build_model(small(), 6, None), build_model(small(), 8, None)
    theirs = ["<pad>", "<unk>", "<s>", "</s>", '"', "-"]
    ours = ["<pad>", "<unk>", "<s>", "</s>", "“", "-", "—", "€"]
    copy_words(student, other, Pieces(theirs, theirs), Pieces(ours, ours))
    mine, lent = student.embedding.weight, other.embedding.weight
    assert torch.equal(mine[[4, 5, 6]], lent[[4, 5, 5]])
    assert not any(torch.equal(mine[7], row) for row in lent)


def small(**changes: int) -> ModelConfig:
    return ModelConfig(**{**DIMENSIONS, "dropout": 0.0, **changes})


def test_the_layers_are_those_that_the_recipe_names() -> None:
    torch.manual_seed(0)
    other = build_model(small(encoder_layers=4, decoder_layers=2), 50, None)
    student = build_model(small(encoder_layers=2, decoder_layers=1), 50, None)
    copy_layers(student, other, LayerChoice(encoder=(2, 3), decoder=(2,)))
    for mine, theirs in (
        (student.encoder[0], other.encoder[1]),
        (student.encoder[1], other.encoder[2]),
        (student.decoder[0], other.decoder[1]),
    ):
        for name, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name])


def test_a_layer_that_is_not_there_is_refused() -> None:
    other, student = (build_model(small(), 50, None) for _ in range(2))
    layers = tuple(range(2, len(student.encoder) + 2))
    with pytest.raises(CheckpointError, match="chooses layer"):
        copy_layers(student, other, LayerChoice(encoder=layers))
