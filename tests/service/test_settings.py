from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings, find_bundle


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


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"| `QUICKSTUDY_{name.upper()}` |" in text, name
        assert field.description
        assert field.description in text, name
