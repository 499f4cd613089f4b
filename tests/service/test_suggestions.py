"""Suggested translations: kept, bounded, and exported to train on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from service.api_keys import KeyStore
from service.suggestions import Suggestion, SuggestionFileError, SuggestionStore, suggestions_app
from tests.service.stub import StubEngine
from training.config.recipe import CorpusConfig, SourceConfig
from training.data.readers import read_source

MakeClient = Callable[..., TestClient]
SUGGESTED = {"q": "the old cat", "s": "die alte Katze", "source": "en", "target": "de"}


def kept(file: Path) -> list[tuple[str, str]]:
    return [(one.text, one.suggestion) for one in SuggestionStore(file).all()]


def test_a_suggestion_is_kept_with_its_key(make_client: MakeClient, tmp_path: Path) -> None:
    file, keys = tmp_path / "suggestions.db", KeyStore(tmp_path / "keys.db")
    key = keys.add("somebody")
    client = make_client(StubEngine(), suggestions_file=file, keys_file=tmp_path / "keys.db")
    assert client.get("/frontend/settings").json()["suggestions"] is True
    for answer in (
        client.post("/suggest", json={**SUGGESTED, "api_key": key}),
        client.post("/suggest", data={**SUGGESTED, "s": "die greise Katze"}),
        client.post(
            "/suggest", params={**SUGGESTED, "source": "auto", "q": "The weather is fine."}
        ),
    ):
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    first, second, third = SuggestionStore(file).all()
    assert (first.client, first.key, first.source, first.target) == ("key:1", 1, "en", "de")
    assert (second.key, second.suggestion) == (None, "die greise Katze")
    assert second.client.startswith("address:")
    assert third.source == "en"
    assert file.stat().st_mode & 0o077 == 0


def test_a_client_that_corrects_itself_is_taken_at_its_last_word(
    make_client: MakeClient, tmp_path: Path
) -> None:
    file = tmp_path / "suggestions.db"
    client = make_client(StubEngine(), suggestions_file=file)
    for suggestion in ("Kater", "Katze"):
        client.post("/suggest", json={**SUGGESTED, "s": suggestion})
    assert kept(file) == [("the old cat", "Katze")]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"q": None}, 400, "`q`"),
        ({"s": " \n"}, 400, "`s`"),
        ({"s": "a" * 2001}, 400, "`s`"),
        ({"source": "ja"}, 400, "`source` is 'ja'"),
        ({"target": "ja"}, 400, "`target` is 'ja'"),
        ({"source": "auto", "target": "ja"}, 400, "`target` is 'ja'"),
        ({"api_key": "qs_wrong"}, 403, "not valid"),
    ],
)
def test_a_wrong_suggestion(
    make_client: MakeClient, tmp_path: Path, change: dict[str, Any], status: int, words: str
) -> None:
    file = tmp_path / "suggestions.db"
    client = make_client(StubEngine(), suggestions_file=file, keys_file=tmp_path / "keys.db")
    answer = client.post("/suggest", json={**SUGGESTED, **change})
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert kept(file) == []


def test_no_client_fills_the_file_and_all_together_do_not_either(
    make_client: MakeClient, tmp_path: Path
) -> None:
    file = tmp_path / "suggestions.db"
    client = make_client(StubEngine(), suggestions_file=file, max_suggestions=20)
    statuses = [
        client.post("/suggest", json={**SUGGESTED, "q": f"cat {number}"}).status_code
        for number in range(3)
    ]
    assert statuses == [200, 200, 429]
    again = client.post("/suggest", json={**SUGGESTED, "q": "cat 0", "s": "Kater 0"})
    assert again.status_code == 200
    store = SuggestionStore(file, 20)
    for number in range(18):
        store.add(Suggestion(f"key:{number}", number, "en", "de", "cat", "Katze"))
    full = make_client(StubEngine(), suggestions_file=file, max_suggestions=20, trusted_proxies=1)
    answer = full.post("/suggest", json=SUGGESTED, headers={"X-Forwarded-For": "192.0.2.1"})
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert len(kept(file)) == 20


def test_what_is_no_such_file(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    file.write_text("not a database, but long enough to be taken for one" * 10)
    with pytest.raises(SuggestionFileError, match=r"notes\.db cannot be used"):
        SuggestionStore(file).open()
    with pytest.raises(SuggestionFileError, match=r"cannot be used"):
        SuggestionStore(tmp_path / "nowhere" / "suggestions.db").open()


def command(*words: str) -> Result:
    return CliRunner().invoke(suggestions_app, words)


def test_an_export_is_what_training_reads(tmp_path: Path) -> None:
    file, output = tmp_path / "suggestions.db", tmp_path / "corrections.tsv"
    store = SuggestionStore(file, 100)
    store.add(Suggestion("key:1", 1, "en", "de", "A cat.\nA\tdog.", "Eine Katze.\r\nEin  Hund."))
    store.add(Suggestion("key:2", 2, "en", "de", "A cat.", "Eine Katze."))
    store.add(Suggestion("address:1", None, "en", "de", "One.\nTwo.", "Eins, zwei."))
    store.add(Suggestion("key:1", 1, "fr", "de", "Un chat.", "Eine Katze."))
    languages = ("--source", "en", "--target", "de")
    done = command("export", "--file", str(file), *languages, "--output", str(output))
    assert done.exit_code == 0, done.exception
    assert "3 pairs" in done.stderr
    source = SourceConfig(path=output.name, format="tsv")
    corpus = CorpusConfig(
        src_lang="en", trg_lang="de", root=str(tmp_path), train=[source], validation=source
    )
    assert [(one.src, one.trg) for one in read_source(source, corpus)] == [
        ("A cat.", "Eine Katze."),
        ("A dog.", "Ein Hund."),
        ("One. Two.", "Eins, zwei."),
    ]
    keyed = command("export", "--file", str(file), *languages, "--keyed").stdout
    assert keyed == "A cat.\tEine Katze.\nA dog.\tEin Hund.\n"


def test_the_command_line_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "suggestions.db"
    missing = command("export", "--file", str(file))
    assert "is not there" in str(missing.exception)
    assert not file.exists()
    store = SuggestionStore(file, 100)
    store.add(Suggestion("key:1", 1, "en", "de", "cat", "Katze"))
    store.add(Suggestion("key:2", 2, "fr", "de", "chat", "Katze"))
    several = command("export", "--file", str(file))
    assert "en → de, fr → de" in str(several.exception)
    assert "key:2\tfr\tde\t1" in command("list", "--file", str(file)).stdout
    assert command("delete", "--file", str(file)).exit_code == 1
    assert command("delete", "--file", str(file), "--client", "key:2").exit_code == 0
    assert [one.key for one in store.all()] == [1]
    assert command("delete", "--file", str(file), "--all").exit_code == 0
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT count(*) FROM suggestions").fetchone() == (0,)
