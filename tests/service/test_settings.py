from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.observability import REGISTRY
from service.settings import Settings, as_markdown, find_bundle, unit_of


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
