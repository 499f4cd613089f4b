"""What can be tried of downloads without a network."""

import sys

import pytest

from training.data.prepare import download, download_command
from training.data.readers import CorpusError

NAMES = ["Statmt-news_commentary-16-deu-eng", "OPUS-tatoeba-v2023-deu-eng"]


def test_command():
    assert download_command("en", "de", NAMES, "data") == [
        *(sys.executable, "-m", "mtdata", "get", "--langs", "en-de"),
        *("--train", *NAMES, "--merge", "--out", "data"),
    ]


def test_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CorpusError, match=r"pip install 'quickstudy\[download\]'"):
        download("en", "de", NAMES, "data")


def test_nothing_to_fetch():
    with pytest.raises(CorpusError, match="mtdata list --langs en-de"):
        download("en", "de", [], "data")


def test_failure_of_mtdata_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    fails = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr("training.data.prepare.download_command", lambda *_: fails)
    with pytest.raises(CorpusError, match="status 3"):
        download("en", "de", NAMES, "data")
