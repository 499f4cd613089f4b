"""`quickstudy serve --show-settings`: every setting as it is now, no password, faults in words."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from quickstudy import cli
from service.settings import Settings, SettingsError, hidden, read_settings, rows, unknown

SHOW = ["serve", "--show-settings"]
REDIS = "redis://someone:hunter2@cache:6379/0"


def test_json_has_every_setting_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_QUEUE_SIZE", "7")
    monkeypatch.setenv("QUICKSTUDY_CORS_ORIGINS", "https://a.test, https://b.test")
    found = CliRunner().invoke(cli.app, [*SHOW, "--json"])
    assert found.exit_code == 0
    table = {row["variable"]: row for row in json.loads(found.stdout)}
    assert len(table) == len(Settings.model_fields)
    assert table["QUICKSTUDY_QUEUE_SIZE"] == {
        "variable": "QUICKSTUDY_QUEUE_SIZE",
        "value": 7,
        "default": 512,
        "unit": "sentences",
        "bounds": "≥ 1, ≤ 100,000",
        "meaning": "Sentences that may wait; more get 503.",
    }
    assert table["QUICKSTUDY_CORS_ORIGINS"]["value"] == ["https://a.test", "https://b.test"]


def test_lines_can_be_assigned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_SECOND_TRIES", "0")
    lines = CliRunner().invoke(cli.app, SHOW).stdout.splitlines()
    assert any(line.startswith("QUICKSTUDY_SECOND_TRIES=false  (") for line in lines)
    assert any(line.startswith("QUICKSTUDY_CACHE_BYTES=16777216  (bytes; ≥ 0") for line in lines)


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_RATE_STORAGE", REDIS)
    assert "hunter2" not in repr(rows(read_settings()))
    for arguments in (SHOW, [*SHOW, "--json"]):
        shown = CliRunner().invoke(cli.app, arguments).stdout
        assert "redis://***@cache:6379/0" in shown
        assert "hunter2" not in shown
        assert "someone" not in shown


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("redis://:a/b@c@h:1", "redis://***@h:1"),
        ("redis://h:1/0?password=x&db=1", "redis://h:1/0?password=***&db=1"),
        ("memory://", "memory://"),
        ("user@host", "user@host"),
    ],
)
def test_what_is_hidden(given: str, kept: str) -> None:
    assert hidden(given) == kept


def test_all_faults_are_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUICKSTUDY_QUEUE_SIZE", "0")
    monkeypatch.setenv("QUICKSTUDY_LOG_LEVEL", "loud")
    monkeypatch.setenv("QUICKSTUDY_RATE_STORAGE", REDIS.replace("redis", "mongo", 1))
    monkeypatch.setattr("sys.argv", ["quickstudy", *SHOW])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "QUICKSTUDY_QUEUE_SIZE=0" in said
    assert "(sentences, ≥ 1, ≤ 100,000)" in said
    assert "QUICKSTUDY_LOG_LEVEL=loud" in said
    assert "mongo://***@cache:6379/0" in said
    assert "hunter2" not in said


def test_a_fault_of_two_settings_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_REQUIRE_KEY", "true")
    with pytest.raises(SettingsError, match="set keys_file too"):
        read_settings()


def test_a_misspelt_variable_is_told() -> None:
    assert unknown({"QUICKSTUDY_QUEU_SIZE": "1", "QUICKSTUDY_RUNS": "runs", "HOME": "/"}) == [
        "QUICKSTUDY_QUEU_SIZE is not a setting of the service: is QUICKSTUDY_QUEUE_SIZE meant?"
    ]
