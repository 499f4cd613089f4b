"""Own checkpoints, CTranslate2 folders and ensembles: the same answers by every way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.ctranslate2 import to_ctranslate2
from tests.training.distill.tiny_teachers import (
    MODEL,
    REFERENCES,
    TEXTS,
    make_checkpoint,
    our_tokenizer,
)
from tests.training.plain_beam import plain_beam
from training.config.model import (
    CheckpointTeacher,
    CTranslate2Folder,
    GivenTeacher,
    TeacherEnsemble,
)
from training.config.recipe import LabelsConfig, RecipeError
from training.data.batching import clipped
from training.data.tokenizer import Tokenizer
from training.distill.teachers import NativeTeacher, TeacherJob, build_teacher
from training.distill.teachers.base import NO_LOGP, Distributions, batches_by_length, top_k_of
from training.distill.teachers.ctranslate2_teacher import CTranslate2Teacher
from training.distill.teachers.external import PieceMap, RetokenisedTeacher
from training.distill.teachers.native import EnsembleTeacher
from training.model.transformer import EOS

LABELS = LabelsConfig(beam_size=3, n_best=2, batch_tokens=200, precision="float32")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a` and `b`, checkpoints of one tokenizer; `other` with its own; `ct2`, the model of `a`."""
    folder = tmp_path_factory.mktemp("teachers")
    tokenizer = our_tokenizer(folder / "spm.model")
    for seed, name in enumerate("ab"):
        make_checkpoint(folder / name, tokenizer, seed)
    make_checkpoint(folder / "other", our_tokenizer(folder / "other.model", 7), 3)
    model = NativeTeacher(folder / "a").model
    to_ctranslate2(model, Tokenizer(tokenizer).pieces, folder / "ct2", "float32")
    return folder


@pytest.fixture(scope="module")
def ids(place: Path) -> tuple[list[list[int]], list[list[int]]]:
    tokenizer = Tokenizer(place / "spm.model")
    return tokenizer.encode(TEXTS), tokenizer.encode(REFERENCES)


def ct2_config(place: Path, **more: object) -> CTranslate2Folder:
    return CTranslate2Folder.model_validate(
        {
            "kind": "ctranslate2",
            "path": str(place / "ct2"),
            "sentencepiece": str(place / "spm.model"),
            **more,
        }
    )


def build(place: Path, config: GivenTeacher, adopted: bool = True):  # type: ignore[no-untyped-def]
    tokenizer = place / "spm.model"
    job = TeacherJob(config, LABELS, tokenizer, adopted, MODEL.max_length, place / "none")
    return build_teacher(job, to_ctranslate2)


def checkpoint(place: Path, name: str) -> CheckpointTeacher:
    return CheckpointTeacher(kind="checkpoint", path=str(place / name))


def ensemble(*members: object, weights: list[float] | None = None) -> TeacherEnsemble:
    content = {"kind": "ensemble", "members": list(members), "weights": weights}
    return TeacherEnsemble.model_validate(content)


def assert_sums_to_one(found: list[Distributions], trg: list[list[int]], width: int) -> None:
    for one, target in zip(found, trg, strict=True):
        assert one.ids.shape == one.logp.shape == (len(target), width)
        assert np.exp(one.logp).sum(1) + one.tail == pytest.approx(np.ones(len(target)), abs=1e-5)


def test_own_and_ctranslate2_agree(place: Path, ids: tuple[list[list[int]], ...]) -> None:
    own, engine = build(place, checkpoint(place, "a")), build(place, ct2_config(place))
    width = len(Tokenizer(place / "spm.model"))
    whole = [teacher.distributions(*ids, 0) for teacher in (own, engine)]
    for one, other, src, trg in zip(*whole, *ids, strict=True):
        np.testing.assert_allclose(one.logp, other.logp, atol=1e-4)
        with torch.inference_mode():
            trg_in = torch.tensor([[2, *trg[:-1]]])
            exact = torch.log_softmax(own.model(torch.tensor([src]), trg_in)[0], -1)
        np.testing.assert_allclose(one.logp, exact, atol=1e-5)
    for teacher in (own, engine):
        assert_sums_to_one(teacher.distributions(*ids, 5), ids[1], 5)
        assert_sums_to_one(teacher.distributions(*ids, 0), ids[1], width)
    translations = [teacher.translate(ids[0], 3, 2, 1.0) for teacher in (own, engine)]
    for one, other in zip(*translations, strict=True):
        assert [hypothesis for hypothesis, _ in one] == [hypothesis for hypothesis, _ in other]
        assert [s for _, s in one] == pytest.approx([s for _, s in other], abs=1e-3)


def test_the_search_of_a_gpu_finds_what_ctranslate2_finds(
    place: Path, ids: tuple[list[list[int]], ...]
) -> None:
    """Here on a CPU: only the device differs."""
    own = NativeTeacher(place / "a", batch_tokens=200, converter=to_ctranslate2)
    searched, translated = own.search(ids[0], 3, 2, 1.0), own.translate(ids[0], 3, 2, 1.0)
    for one, other in zip(searched, translated, strict=True):
        assert [hypothesis for hypothesis, _ in one] == [hypothesis for hypothesis, _ in other]
        # Ours also bans padding and begin, to which this random model gives two words' share.
        share = 3 * max(len(hypothesis) for hypothesis, _ in one) / len(own.pieces)
        assert [s for _, s in one] == pytest.approx([s for _, s in other], abs=share)


def test_prefixes_of_ctranslate2_stand_before_both_sides(
    place: Path, ids: tuple[list[list[int]], ...]
) -> None:
    """A source piece and a target piece in front equal the same pieces written out."""
    pieces = Tokenizer(place / "spm.model").pieces
    first, second = 300, 301
    told = build(
        place, ct2_config(place, source_prefix=[pieces[first]], target_prefix=[pieces[second]])
    )
    plain = build(place, ct2_config(place))
    src, trg = ids[0][:2], ids[1][:2]
    expected = plain.distributions(
        [[first, *row] for row in src], [[second, *row] for row in trg], 4
    )
    for one, other in zip(told.distributions(src, trg, 4), expected, strict=True):
        np.testing.assert_allclose(one.logp, other.logp[1:], atol=1e-4)
    for source, ((best, score), *_) in zip(src, told.translate(src, 3, 2, 1.0), strict=True):
        logp = told.distributions([source], [best], 0)[0].logp
        cut_short = len(best) == MODEL.max_length - 1
        counted = best[:-1] if cut_short else best
        expected_score = float(logp[range(len(counted)), counted].sum())
        # The engine bans the unknown token, which leaves more for the others.
        assert score == pytest.approx(expected_score, abs=0.02)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_ensemble_of_one_twice_is_beam_search_of_it(
    place: Path, ids: tuple[list[list[int]], ...], length_penalty: float
) -> None:
    own = build(place, checkpoint(place, "a"))
    twice = build(place, ensemble(*[{"kind": "checkpoint", "path": str(place / "a")}] * 2))
    found = twice.translate(ids[0], 3, 3, length_penalty)
    for src, hypotheses in zip(ids[0], found, strict=True):
        expected = plain_beam(own.model, src, 3, length_penalty)
        assert [one for one, _ in hypotheses] == [[*one.ids, EOS] for one in expected]
        scores = [one.score for one in expected]
        assert [score for _, score in hypotheses] == pytest.approx(scores, abs=1e-3)
    for one, other in zip(twice.distributions(*ids, 0), own.distributions(*ids, 0), strict=True):
        np.testing.assert_allclose(one.logp, other.logp, atol=1e-5)


def test_ensemble_averages_probabilities_by_weight(
    place: Path, ids: tuple[list[list[int]], ...]
) -> None:
    a, b = (build(place, checkpoint(place, name)) for name in "ab")
    both = EnsembleTeacher([a, b], [3.0, 1.0])
    parts = [teacher.log_probs(*ids).exp() for teacher in (a, b)]
    expected = 0.75 * parts[0] + 0.25 * parts[1]
    torch.testing.assert_close(both.log_probs(*ids).exp(), expected, atol=1e-6, rtol=1e-4)
    assert_sums_to_one(both.distributions(*ids, 5), ids[1], 5)
    assert both.about.parameters == 2 * a.about.parameters


def test_engines_of_two_kinds_search_together(
    place: Path, ids: tuple[list[list[int]], ...]
) -> None:
    """Torch step by step and CTranslate2 by prefixes: the same model twice is that model."""
    mixed = build(
        place, ensemble(checkpoint(place, "a").model_dump(), ct2_config(place).model_dump())
    )
    own = build(place, checkpoint(place, "a"))
    for src, hypotheses in zip(ids[0][:2], mixed.translate(ids[0][:2], 2, 1, 1.0), strict=True):
        expected = plain_beam(own.model, src, 2)[0]
        assert hypotheses[0][0] == [*expected.ids, EOS]


@pytest.mark.parametrize("kind", ["checkpoint", "ctranslate2", "ensemble"])
def test_other_tokens_go_through_text(place: Path, kind: str) -> None:
    """The student's tokens are `other`'s; the teachers are of the first tokenizer."""
    configs: dict[str, GivenTeacher] = {
        "checkpoint": checkpoint(place, "a"),
        "ctranslate2": ct2_config(place),
        "ensemble": ensemble(*[checkpoint(place, "a").model_dump()] * 2),
    }
    student = Tokenizer(place / "other.model")
    job = TeacherJob(configs[kind], LABELS, place / "other.model", False, 64, place / "none")
    teacher = build_teacher(job, to_ctranslate2)
    assert isinstance(teacher, RetokenisedTeacher)
    native = Tokenizer(place / "spm.model")
    direct = build(place, configs[kind]).translate(native.encode(TEXTS[:3]), 3, 2, 1.0)
    found = teacher.translate(student.encode(TEXTS[:3]), 3, 2, 1.0)
    for one, other in zip(found, direct, strict=True):
        texts = native.decode([ids for ids, _ in other])
        assert [ids for ids, _ in one] == clipped(student.encode(texts), 63)
        assert [score for _, score in one] == pytest.approx([s for _, s in other], abs=1e-3)
    with pytest.raises(RecipeError, match=r"tokenizer\.kind teacher"):
        teacher.distributions(student.encode(TEXTS[:1]), student.encode(TEXTS[:1]), 4)


def test_pieces_map_both_ways_and_keep_the_mass() -> None:
    """Student: 4 special pieces, a, b, c. Teacher: eos 0, unk 1, b 2, a 3, a language 4."""
    teacher_ids = {"</s>": 0, "<unk>": 1, "b": 2, "a": 3, "__de__": 4}
    pieces = PieceMap(
        ["<pad>", "<unk>", "<s>", "</s>", "a", "b", "c"], teacher_ids, "<unk>", "</s>"
    )
    assert pieces.to_teacher([4, 5, 6, 1, 3]) == [3, 2, 1, 1, 0]
    assert pieces.to_student([3, 4, 1, 2]) == [4, 5, EOS]
    logp = torch.tensor([[0.1, 0.2, 0.3, 0.25, 0.15]]).log()
    found = pieces.gather(logp)
    expected = torch.tensor([[0.0, 0.2, 0.0, 0.1, 0.25, 0.3, 0.0]])
    torch.testing.assert_close(found.exp(), expected)
    assert found[0, 6] == NO_LOGP
    for top_k in (2, 0):
        _, top, tail = top_k_of(found, top_k)
        assert float(top.exp().sum() + tail) == pytest.approx(1.0, abs=1e-6)
    assert float(tail) == pytest.approx(0.15, abs=1e-6)


def test_batches_hold_like_rows_within_the_budget() -> None:
    rows = [[1] * length for length in (3, 9, 2, 3, 20)]
    assert list(batches_by_length(rows, rows, 9)) == [[2, 0, 3], [1], [4]]


def test_a_teacher_of_pieces_is_what_adoption_builds(place: Path) -> None:
    assert isinstance(build(place, ct2_config(place)), CTranslate2Teacher)
    assert isinstance(build(place, checkpoint(place, "b")), NativeTeacher)
