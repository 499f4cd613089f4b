"""How the app starts."""

from __future__ import annotations

import logging

import pytest

from export.runtime.bundle import Bundle
from service.app import create_app, load
from service.settings import Settings


def test_former_names_of_settings_are_logged(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("QUICKSTUDY_GRACE_S", "7")
    app = create_app(Settings(model=tiny_bundle.path, inter_threads=1))
    caplog.set_level(logging.WARNING, "quickstudy.service")
    load(app)
    app.state.jobs.folder.close()
    [message] = caplog.messages
    assert message == (
        "QUICKSTUDY_GRACE_S is now called QUICKSTUDY_SHUTDOWN_GRACE_S; "
        "the next version drops the former name"
    )
