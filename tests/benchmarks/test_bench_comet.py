"""COMET, as its documentation describes it: with a package in its place, and without."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.cli import bench_app
from benchmarks.plan import make_text
from benchmarks.quality import Comet, CometFailed, quality_rows, score, with_comet
from benchmarks.systems.base import Unavailable
from tests.export import tiny

PACKAGE = """
import os
from types import SimpleNamespace

print("COMET prints")

class Model:
    def predict(self, samples, batch_size=16, gpus=1, progress_bar=True):
        assert gpus == 0
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        if samples[0]["src"] == "bad":
            raise ValueError("too long")
        scores = [1.0 if one["mt"] == one["ref"] else 0.25 for one in samples]
        return SimpleNamespace(scores=scores, system_score=sum(scores) / len(scores))

def load_from_checkpoint(path, reload_hparams=False, strict=False, local_files_only=False):
    assert local_files_only and path.endswith("model.ckpt")
    return Model()
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "wmt22" / "checkpoints" / "model.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    (folder / "unbabel_comet-2.2.9.dist-info").mkdir(parents=True)
    (folder / "unbabel_comet-2.2.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: unbabel-comet\nVersion: 2.2.9\n"
    )
    (folder / "comet").mkdir()
    (folder / "comet" / "__init__.py").write_text(PACKAGE)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.usefixtures("package")
def test_every_text_has_a_mean_with_its_interval_and_signature(checkpoint: Path) -> None:
    src, ref = ["a", "b", "c", "ü"], ["A", "B", "C", "Ü"]
    texts = [(src, ref, ref), (src, ["A", "x", "x", "Ü"], ref)]
    perfect, half = Comet(checkpoint).scores(texts)
    assert (perfect.metric, perfect.score, perfect.low, perfect.high) == ("COMET", 100, 100, 100)
    assert half.score == 62.5
    assert 25 <= half.low < half.score < half.high <= 100
    assert half.signature.startswith("unbabel-comet:2.2.9|model:wmt22|sha256:")


@pytest.mark.usefixtures("package")
def test_it_stands_beside_the_other_scores(checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer_of(tiny.train_tokenizer(tmp_path / "tokenizer.model"))
    lines = tiny.sentences()[:6]
    text = make_text("toy", [(line, line) for line in lines], tokenizer, np.ones(len(tokenizer)))
    scored = [score("good", text, lines), score("bad", text, ["a dog."] * 6)]
    rows = quality_rows(with_comet(scored, Comet(checkpoint)), "good", "bad")
    assert [one.metric for one in rows[0].scores] == ["BLEU", "chrF2", "TER", "COMET"]
    assert [row.scores[-1].score for row in rows] == [100, 25]


@pytest.mark.usefixtures("package")
def test_what_goes_wrong_is_told(checkpoint: Path) -> None:
    with pytest.raises(CometFailed, match="ValueError: too long"):
        Comet(checkpoint).scores([(["bad"], ["x"], ["x"])])


def test_without_the_package_the_command_that_installs_it_is_told(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(checkpoint.parent))
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    (checkpoint.parent / "comet.py").write_text("raise ModuleNotFoundError('No module comet')")
    with pytest.raises(Unavailable, match=r"No module comet.*pip install 'unbabel-comet"):
        Comet(checkpoint, sys.executable).scores([(["a"], ["a"], ["a"])])


def test_a_checkpoint_that_is_not_there_is_refused_before_anything_is_measured() -> None:
    found = CliRunner().invoke(bench_app, ["run", "no.yaml", "--comet", "no-such.ckpt"])
    assert found.exit_code == 2
    assert "no-such.ckpt" in found.output


def test_a_load_run_that_is_none_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "load.json").write_text("[]")
    found = CliRunner().invoke(
        bench_app, ["run", "no.yaml", "--service", str(tmp_path / "load.json")]
    )
    assert found.exit_code == 2
    assert "benchmarks.service_load" in found.output
