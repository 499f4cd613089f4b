"""Hugging Face teachers: tiny random models, saved and loaded by the real code."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.distill.tiny_teachers import (
    REFERENCES,
    TEXTS,
    make_m2m100,
    make_marian,
    other_sentencepiece,
    our_tokenizer,
)
from training.config.model import HuggingFaceFolder
from training.config.recipe import LabelsConfig, RecipeError
from training.data.adopted_tokenizer import adopt
from training.data.tokenizer import Tokenizer
from training.distill.teachers import TeacherJob, build_teacher
from training.distill.teachers.base import NO_LOGP
from training.distill.teachers.huggingface import HuggingFaceTeacher
from training.distill.teachers.native import EnsembleTeacher
from training.model.transformer import BOS, EOS
from training.teacher_files import adopted_file, sentencepiece_files

transformers = pytest.importorskip("transformers")
LABELS = LabelsConfig(beam_size=3, n_best=2, batch_tokens=100)
LANGUAGES = {"src_lang": "en", "trg_lang": "de"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`m2m`; `marian` of two SentencePiece models, `joint` of one; `ours`, a tokenizer of ours."""
    folder = tmp_path_factory.mktemp("huggingface")
    one = other_sentencepiece(folder / "one.model")
    two = other_sentencepiece(folder / "two.model", vocab_size=180)
    make_m2m100(folder / "m2m", one)
    make_marian(folder / "marian", one, two)
    make_marian(folder / "joint", one, one)
    our_tokenizer(folder / "ours.model")
    return folder


def config(place: Path, name: str, **languages: str) -> HuggingFaceFolder:
    content = {"kind": "huggingface", "path": str(place / name), **languages}
    return HuggingFaceFolder.model_validate(content)


def build(place: Path, given: HuggingFaceFolder, adopted: bool):  # type: ignore[no-untyped-def]
    tokenizer = place / "ours.model"
    if adopted:
        tokenizer = Path(given.path) / "adopted"
        tokenizer.write_bytes(adopt(adopted_file(given)))
    return build_teacher(TeacherJob(given, LABELS, tokenizer, adopted, 64, place / "none"))


@pytest.fixture(scope="module")
def m2m(place: Path) -> HuggingFaceTeacher:
    teacher = build(place, config(place, "m2m", **LANGUAGES), adopted=True)
    assert isinstance(teacher, HuggingFaceTeacher)
    return teacher


@pytest.fixture(scope="module")
def joint(place: Path) -> HuggingFaceTeacher:
    teacher = build(place, config(place, "joint"), adopted=True)
    assert isinstance(teacher, HuggingFaceTeacher)
    return teacher


def student_ids(place: Path, name: str) -> tuple[list[list[int]], list[list[int]]]:
    tokenizer = Tokenizer(place / name / "adopted")
    return tokenizer.encode(TEXTS), tokenizer.encode(REFERENCES)


def test_m2m100_gives_its_own_distributions_by_our_ids(
    place: Path, m2m: HuggingFaceTeacher
) -> None:
    """Against the model called by hand with transformers' own tokenizer."""
    src, trg = student_ids(place, "m2m")
    folder = str(place / "m2m")
    tokenizer = transformers.M2M100Tokenizer.from_pretrained(folder, src_lang="en", tgt_lang="de")
    model = transformers.M2M100ForConditionalGeneration.from_pretrained(folder).eval()
    pieces = Tokenizer(place / "m2m" / "adopted").pieces
    columns = [tokenizer.get_vocab()[piece] for piece in pieces]
    whole, top = m2m.distributions(src, trg, 0), m2m.distributions(src, trg, 4)
    for row, (text, reference) in enumerate(zip(TEXTS, REFERENCES, strict=True)):
        inputs = tokenizer(text, text_target=reference, return_tensors="pt")
        decoder = torch.cat([torch.tensor([[2]]), inputs["labels"][:, :-1]], 1)
        with torch.inference_mode():
            logits = model(input_ids=inputs["input_ids"], decoder_input_ids=decoder).logits[0, 1:]
        exact = torch.log_softmax(logits, -1)
        np.testing.assert_allclose(whole[row].logp, exact[:, columns], atol=1e-4)
        mass = 1 - exact[:, columns].exp().sum(1)
        assert float(mass.min()) > 1e-4  # languages and made-up words have some
        np.testing.assert_allclose(whole[row].tail, mass, atol=1e-5)
        for found in (whole[row], top[row]):
            total = np.exp(found.logp).sum(1) + found.tail
            assert total == pytest.approx(np.ones(len(trg[row])), abs=1e-5)


def test_m2m100_translates_in_our_ids_with_its_log_probabilities(
    place: Path, m2m: HuggingFaceTeacher
) -> None:
    src, _ = student_ids(place, "m2m")
    for hypotheses in m2m.translate(src, 3, 2, 1.0):
        assert len(hypotheses) == 2
        for ids, _ in hypotheses:
            assert ids[-1] == EOS
            assert min([9, *ids[:-1]]) > EOS
    assert m2m.translate(src, 1, 1, 1.0)[0][0][0]


def test_generate_and_our_search_agree(place: Path, joint: HuggingFaceTeacher) -> None:
    """One Marian twice as an ensemble, step by step with a cache, is that Marian."""
    src, trg = student_ids(place, "joint")
    twice = EnsembleTeacher([joint, joint])
    ours, theirs = twice.translate(src, 1, 1, 1.0), joint.translate(src, 1, 1, 1.0)
    assert [found[0][0] for found in ours] == [found[0][0] for found in theirs]
    for source, ((ids, score),) in zip(src, theirs, strict=True):
        logp = joint.log_probs([source], [ids])
        assert score == pytest.approx(float(logp[range(len(ids)), ids].sum()), abs=1e-3)
    for one, other in zip(
        twice.distributions(src, trg, 5), joint.distributions(src, trg, 5), strict=True
    ):
        np.testing.assert_allclose(one.logp, other.logp, atol=1e-4)


def test_m2m100_steps_follow_its_distributions(place: Path, m2m: HuggingFaceTeacher) -> None:
    src, trg = student_ids(place, "m2m")
    expected = m2m.log_probs(src[:1], trg[:1]).exp()
    steps = m2m.steps(src[:1], 2)
    for position, token in enumerate([BOS, *trg[0][:2]]):
        found = steps.next_probabilities(torch.tensor([token, token]))
        torch.testing.assert_close(found, expected[position].expand(2, -1), atol=1e-5, rtol=1e-4)
        steps.select(torch.tensor([1, 0]))


def test_marian_of_two_tokenizers_translates_text(place: Path) -> None:
    given = config(place, "marian", trg_lang="deu")
    assert [path.name for path in sentencepiece_files(given)] == ["source.spm", "target.spm"]
    teacher = build(place, given, adopted=False)
    ours = Tokenizer(place / "ours.model")
    found = teacher.translate(ours.encode(TEXTS), 3, 2, 1.0)
    tokenizer = transformers.MarianTokenizer.from_pretrained(given.path)
    model = transformers.MarianMTModel.from_pretrained(given.path).eval()
    for text, hypotheses in zip(TEXTS[:3], found, strict=False):
        inputs = tokenizer(f">>deu<< {text}", return_tensors="pt")
        output = model.generate(**inputs, num_beams=3, early_stopping=True, max_new_tokens=63)
        expected = tokenizer.decode(output[0], skip_special_tokens=True)
        assert ours.decode([hypotheses[0][0]]) == [expected]
    with pytest.raises(RecipeError, match="sentence-level"):
        teacher.distributions(ours.encode(TEXTS[:1]), ours.encode(TEXTS[:1]), 4)


def test_what_a_teacher_lacks_has_no_probability(place: Path, m2m: HuggingFaceTeacher) -> None:
    assert m2m.log_probs([[5, EOS]], [[6, EOS]])[:, BOS].min() > NO_LOGP  # <s> is theirs too
    assert m2m.about.engine == "transformers"
    assert m2m.about.parameters


def test_faults_name_what_to_mend(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for languages, message in [
        ({"src_lang": "xx", "trg_lang": "de"}, r"teacher\.path: .* cannot be loaded: KeyError"),
        ({"src_lang": "en", "trg_lang": "xx"}, r"teacher\.trg_lang: .* no token 'xx'"),
    ]:
        with pytest.raises(RecipeError, match=message):
            build(place, config(place, "m2m", **languages), adopted=True)
    with pytest.raises(RecipeError, match=r"teacher\.trg_lang: .* no token '>>fra<<'"):
        build(place, config(place, "marian", trg_lang="fra"), adopted=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RecipeError, match=r"quickstudy\[hf\]"):
        build(place, config(place, "marian"), adopted=False)
