"""Settings: read from the environment, checked, reported without passwords, documented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from quickstudy import cli
from service.observability import REGISTRY
from service.settings import (
    RENAMED,
    Settings,
    SettingsError,
    as_markdown,
    deprecated,
    find_bundle,
    hidden,
    read_settings,
    rows,
    unit_of,
    unknown,
    variable_of,
)

SHOW = ["serve", "--show-settings"]
REDIS = "redis://someone:hunter2@cache:6379/0"


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_MODEL", "/somewhere/bundle")
    monkeypatch.setenv("QUICKSTUDY_QUEUE_SIZE", "7")
    settings = Settings()
    assert settings.model == Path("/somewhere/bundle")
    assert settings.queue_size == 7
    assert settings.inter_threads >= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("QUEUE_SIZE", "0"), ("TIMEOUT_S", "11"), ("MAX_TEXTS", "many"), ("INTER_THREADS", "-1")],
)
def test_a_value_out_of_bounds_names_its_field(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"QUICKSTUDY_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_the_default_bundle_is_beside_the_code() -> None:
    assert find_bundle().parts[-2:] == ("models", "en-de")


def test_every_setting_has_a_unit_and_a_meaning() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert unit_of(field) != "–", f"{name}: json_schema_extra=_in(...)"


def test_the_settings_of_the_documentation_are_these() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text()
    assert as_markdown() in text, "python -m service.settings prints the table"


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text()
    for metric in REGISTRY.collect():
        total = "_total" if metric.type == "counter" else ""
        assert f"`{metric.name}{total}`" in text, metric.name


@pytest.mark.parametrize(
    ("former", "value", "parsed"),
    [
        ("QUICKSTUDY_SECOND_TRIES", "false", False),
        ("QUICKSTUDY_GRACE_S", "7.5", 7.5),
        ("QUICKSTUDY_JOBS_KEEP_S", "60", 60.0),
    ],
)
def test_former_names_are_accepted(
    monkeypatch: pytest.MonkeyPatch, former: str, value: str, parsed: object
) -> None:
    name = RENAMED[former]
    monkeypatch.setenv(former, value)
    assert getattr(read_settings(), name) == parsed
    [sentence] = deprecated()
    assert sentence.startswith(f"{former} is now called {variable_of(name)};")
    assert unknown({former: value}) == []
    monkeypatch.setenv(variable_of(name), "1")
    assert getattr(read_settings(), name) == 1


def test_a_fault_names_the_variable_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_GRACE_S", "-1")
    with pytest.raises(SettingsError, match="QUICKSTUDY_GRACE_S=-1: "):
        read_settings()


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
    monkeypatch.setenv("QUICKSTUDY_FALLBACK_DECODING", "0")
    lines = CliRunner().invoke(cli.app, SHOW).stdout.splitlines()
    assert any(line.startswith("QUICKSTUDY_FALLBACK_DECODING=false  (") for line in lines)
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
    with pytest.raises(SettingsError, match="set QUICKSTUDY_KEYS_FILE too"):
        read_settings()


def test_a_misspelt_variable_is_told() -> None:
    assert unknown({"QUICKSTUDY_QUEU_SIZE": "1", "QUICKSTUDY_RUNS": "runs", "HOME": "/"}) == [
        "QUICKSTUDY_QUEU_SIZE is not a setting of the service: is QUICKSTUDY_QUEUE_SIZE meant?"
    ]
