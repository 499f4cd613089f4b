"""What `labels inspect` says of a store, held to what the store and the tokens hold."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from export.ctranslate2 import to_ctranslate2
from tests.test_cli import run as run_command
from tests.training.distill.store import write_shards, write_teacher
from training.config.recipe import LabelsConfig
from training.data.batching import map_table
from training.data.tokenizer import TOKEN_SCHEMA, Tokenizer, write_tokens
from training.distill.label_report import _cut_share, as_json, inspect_labels, render
from training.distill.label_store import LabelError, LabelStore
from training.distill.labelling import label_corpus
from training.distill.teachers import NativeTeacher

CONFIG = LabelsConfig(beam_size=2, top_k=4, paths=["hypothesis", "reference"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: tokens (the first pair without a reference), teacher, labels."""
    folder = tmp_path_factory.mktemp("run")
    checkpoint = write_teacher(folder / "teacher")
    tokens = folder / "tokens"
    tokens.mkdir()
    shutil.copyfile(checkpoint / "tokenizer.model", tokens / "tokenizer.model")
    tokenizer = Tokenizer(tokens / "tokenizer.model")
    shards = write_shards(tokens / "train", tokenizer)
    columns = map_table(shards[0]).to_pydict()
    columns["trg"][0] = []
    write_tokens(shards[0], pa.table(columns, schema=TOKEN_SCHEMA))
    teacher = partial(NativeTeacher, checkpoint, 256, converter=to_ctranslate2)
    label_corpus(shards, folder / "labels", teacher, CONFIG, tokenizer)
    return folder


def test_counts_lengths_and_tail_are_those_of_the_store(run: Path) -> None:
    found = inspect_labels(run)
    store = LabelStore(run / "labels")
    assert (found.pairs, found.without_reference, found.shards, found.top_k) == (30, 1, 3, 4)
    assert found.bytes == sum(path.stat().st_size for path in (run / "labels").iterdir())
    lengths = [len(store.hypotheses[row]) - 1 for row in range(30)]
    assert found.mean_hypothesis_length == pytest.approx(np.mean(lengths))
    shards = sorted((run / "tokens" / "train").iterdir())
    references = [len(row) - 1 for path in shards for row in map_table(path)["trg"].to_pylist()]
    assert found.mean_reference_length == pytest.approx(np.mean(references[1:]))
    assert found.length_ratio == pytest.approx(np.sum(lengths[1:]) / np.sum(references[1:]))
    path = found.paths["hypothesis"]
    assert path.positions == sum(lengths) + 30
    tails = store.distributions("hypothesis", np.arange(30))[2]
    assert path.mean_tail == pytest.approx(float(tails.mean()), rel=1e-5)
    assert found.paths["reference"].positions == sum(references[1:]) + 29


def test_bleu_has_its_size_and_signature(run: Path) -> None:
    found = inspect_labels(run / "labels", bleu_pairs=7)
    assert found.bleu is not None
    assert found.bleu.pairs == 7
    assert "version:" in found.bleu.signature
    assert 0 <= found.bleu.score <= 100


def test_a_hypothesis_at_its_limit_is_counted() -> None:
    src, lengths = np.array([3, 3, 3, 30]), np.array([15, 16, 20, 62])
    assert _cut_share(src, lengths, 256) == 0.5
    assert _cut_share(src, lengths, 64) == 0.75
    assert _cut_share(src, lengths, None) is None


def test_text_and_json_say_the_same(run: Path) -> None:
    found = inspect_labels(run, samples=2)
    text, tree = render(found), json.loads(as_json(found))
    assert "30, 1 without a reference" in text
    assert "(none)" in text
    assert tree["samples"][0]["reference"] is None
    assert tree["samples"][1]["source"] in text
    assert tree["bleu"]["signature"] in text
    assert f"{tree['cut_share']:.2%} of hypotheses" in text


def test_the_command(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("labels", "inspect", str(run), "--json", "--samples", "0")
    assert run_command(*arguments, monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 30
    assert run_command("labels", "inspect", str(run / "tokens"), monkeypatch=monkeypatch) == 1
    assert "run the `label` stage" in capsys.readouterr().err


def test_a_store_without_its_text(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "labels", tmp_path / "labels")
    with pytest.raises(LabelError, match="no token shards"):
        inspect_labels(tmp_path)
