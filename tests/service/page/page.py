"""What tests of the page share: what must be on it, and answers made up for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser import needs_playwright, sync_api

API = "**/v1/translate"
MAX_CHARS = 3000
OpenPage = Callable[..., Any]

needs_browser = [pytest.mark.slow, needs_playwright]


def shows(page: Any, text: str) -> None:
    sync_api.expect(page.locator("#result")).to_have_text(text, timeout=30_000)


def says(page: Any, words: str, box: str = "#status") -> None:
    sync_api.expect(page.locator(box)).to_contain_text(words, timeout=30_000)


def answer_with(status: int, code: str, **headers: str) -> Callable[[Any], None]:
    body = json.dumps({"error": {"code": code, "message": "the reason", "field": None}})
    return lambda route: route.fulfill(
        status=status, headers={**headers, "Content-Type": "application/json"}, body=body
    )
