"""Faulty labels: what counts as one, what takes its place, and that no student sees the rest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.distill.store import write_shards, write_teacher
from training.config.labels import LabelFilterConfig, LabelsConfig
from training.config.recipe import RecipeError
from training.data.dataset import ParallelDataset, translated_pairs
from training.data.tokenizer import Tokenizer
from training.distill.label_filter import (
    FAULTS,
    Labelled,
    choose,
    fault_of,
    render,
    repeats,
    report,
)
from training.distill.label_store import LabelStore
from training.distill.labelling import label_corpus
from training.distill.teachers.base import Hypotheses
from training.model.transformer import EOS

CONFIG = LabelFilterConfig(least_score=-2.0)


def labelled(source: str, text: str, src: int, trg: int, score: float = -1.0) -> Labelled:
    """Of so many tokens on either side, EOS not counted."""
    return Labelled(source, text, [5] * src + [EOS], [6] * trg + [EOS], score)


@pytest.mark.parametrize(
    ("one", "fault"),
    [
        (labelled("A good day", "Ein guter Tag", 3, 4), None),
        (labelled("A good day", "Ein guter Tag", 3, 18), "cut"),
        (labelled("A good day", "Ein guter Tag", 3, 17), "length"),
        (labelled("A good day it is", "ja ja ja ja", 5, 4), "repeats"),
        (labelled("no no no no", "nein nein nein nein", 4, 4), None),
        (labelled("so it was here", "so it was here", 4, 4), "copy"),
        (labelled("Anna and Tom", "Anna and Tom", 3, 3), None),
        (labelled("A long day of many words", "Tag", 40, 1), "length"),
        (labelled("A good day", "Ein guter Tag", 3, 4, -10.1), "score"),
        (labelled("A good day", "Ein guter Tag", 3, 4, -10.0), None),
    ],
)
def test_faults_by_hand(one: Labelled, fault: str | None) -> None:
    assert fault_of(one, CONFIG, 128) == fault


def test_a_translation_at_the_teachers_own_limit_was_cut() -> None:
    """A teacher of 40 positions writes 38 tokens at most, BOS and EOS beside them."""
    one = labelled("A long one", "Eine lange", 30, 38)
    assert fault_of(one, CONFIG, 40) == "cut"
    assert fault_of(one, CONFIG, 128) is None
    assert fault_of(one, CONFIG, None) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a a a a", True),
        ("a a a", False),
        ("x a b a b a b a b y", True),
        ("a b a b a b", False),
        ("a b c d a b c d a b c d a b c d", True),
        ("a b c d e a b c d e a b c d e a b c d e", False),
        ("a a b a a b a b", False),
    ],
)
def test_phrases_that_repeat(text: str, found: bool) -> None:
    assert repeats(text, 4) == found


def test_the_best_sound_one_takes_a_faulty_ones_place() -> None:
    cut = FAULTS.index("cut") + 1
    assert choose([None, "copy", None]) == ([0, 2], 0)
    assert choose(["cut", None, "copy", None]) == ([1, 3], -cut)
    assert choose(["cut", "copy"]) == ([0, 1], cut)
    found = report(np.array([0, cut, cut, -cut, 2, 0], dtype=np.int8))
    assert found["cut"] == {"dropped": 2, "mended": 1}
    assert found["repeats"] == {"dropped": 1, "mended": 0}
    shown = render(found, 6)
    assert "cut                2         1" in shown
    assert "3 of 6 pairs are taught" in shown


class Faulty:
    """Copies every third source, and has a second translation for every sixth."""

    max_length = 128

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.sound = tokenizer.encode(["quite another thing altogether"])[0]

    def translate(self, src: list[list[int]], *_: object) -> list[Hypotheses]:
        told: list[Hypotheses] = []
        for number, ids in enumerate(src):
            best = ids if number % 3 == 0 else self.sound
            other = self.sound if number % 6 == 0 else ids
            told.append([(best, -1.0), (other, -2.0)])
        return told


def test_students_are_taught_by_sound_labels_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer(write_teacher(tmp_path) / "tokenizer.model")
    shards = write_shards(tmp_path / "tokens", tokenizer, 2)
    config = LabelsConfig(
        beam_size=2, n_best=2, filter=LabelFilterConfig(copied_words=1, length_ratio=9)
    ).model_copy(update={"paths": []})
    teacher = Faulty(tokenizer)
    label_corpus(shards, tmp_path / "labels", lambda: teacher, config, tokenizer)  # type: ignore[arg-type, return-value]
    told = json.loads((tmp_path / "labels" / "filter.json").read_text())
    # Of ten rows a shard 0, 3, 6, 9 are copies; 0 and 6 have a second.
    assert told["copy"] == {"dropped": 4, "mended": 4}
    assert "16 of 20 pairs are taught" in capsys.readouterr().err
    data = ParallelDataset(shards, LabelStore(tmp_path / "labels"))
    dropped = {3, 9, 13, 19}
    assert len(data) == 16
    taught = {
        int(number)
        for batch in data.epoch(0, 1, 200, ("hypothesis",), (), 0, 1)
        for number in batch.ids
    }
    assert taught == set(range(20)) - dropped
    assert data.hypotheses[0].tolist() == teacher.sound
    assert len(list(translated_pairs(shards, tmp_path / "labels"))) == 16


def test_labels_that_are_all_faulty_are_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_teacher(tmp_path) / "tokenizer.model")
    shards = write_shards(tmp_path / "tokens", tokenizer, 1)
    config = LabelsConfig(filter=LabelFilterConfig(least_score=-0.01, length_ratio=9))
    config = config.model_copy(update={"paths": []})
    label_corpus(shards, tmp_path / "labels", lambda: Faulty(tokenizer), config, tokenizer)  # type: ignore[arg-type, return-value]
    with pytest.raises(RecipeError, match="every label has a fault"):
        ParallelDataset(shards, LabelStore(tmp_path / "labels"))
