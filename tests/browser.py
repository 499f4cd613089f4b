"""A browser for the tests of pages: Chromium in Playwright's hands, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

sync_api: Any
try:
    from playwright import sync_api
except ImportError:
    sync_api = None

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
"""An installed one; without it, the one that Playwright has downloaded is taken."""

needs_playwright = pytest.mark.skipif(
    sync_api is None, reason="needs Playwright (pip install playwright)"
)


@contextmanager
def open_browser() -> Iterator[Any]:
    """A headless Chromium; skips the tests that ask for it where there is none.

    To be closed with its module: while Playwright is open, its event loop runs in this thread, and
    `asyncio.run` of other tests would be refused.
    """
    with sync_api.sync_playwright() as playwright:
        browser = _launched(playwright)
        yield browser
        browser.close()


def _launched(playwright: Any) -> Any:
    """With its sandbox, but for root, whom Chromium grants none, and where the kernel lets nobody
    make one, as in most containers."""
    try:
        sandboxed = os.geteuid() != 0
        try:
            return _launch(playwright, sandboxed)
        except sync_api.Error as error:
            if not sandboxed or "sandbox" not in str(error).lower():
                raise
            return _launch(playwright, False)
    except sync_api.Error as error:
        if CHROMIUM is not None or "Executable doesn't exist" not in str(error):
            raise
        pytest.skip(
            "needs Chromium: apt install chromium (Debian), or playwright install chromium in the "
            "virtual environment"
        )


def _launch(playwright: Any, sandboxed: bool) -> Any:
    return playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=sandboxed)
