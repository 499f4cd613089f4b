"""The page in a real browser, served with an engine that upper-cases."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from service.app import create_app, guarded
from service.models import Model, ModelSet
from service.settings import Settings
from service.translator import Translator
from tests.browser import open_browser, sync_api
from tests.service.conftest import MakePair
from tests.service.page.page import MAX_CHARS, OpenPage
from tests.service.stub import PoliteEngine, StubEngine


@pytest.fixture(scope="package")
def engine() -> StubEngine:
    return StubEngine()


@pytest.fixture(scope="package")
def address(make_pair: MakePair, engine: StubEngine) -> Iterator[str]:
    """A service that translates English to German and French, the latter greedily, and German to
    English, in a form of address that may be asked for."""
    pairs = [("en", "de"), ("de", "en"), ("en", "fr")]
    settings = Settings(inter_threads=1, max_text_chars=MAX_CHARS)
    greedy, polite = StubEngine(supported_options=frozenset()), PoliteEngine()
    models = ModelSet(
        [
            Model.of(make_pair(*pair), {"fr": greedy, "en": polite}.get(pair[1], engine), settings)
            for pair in pairs
        ]
    )
    translator = Translator(models, settings)
    translator.detector.load()
    app = guarded(create_app(settings, translator), settings)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[OpenPage]:
    """Opens the page, ready; at the end of a test nothing must have gone wrong in it."""
    contexts = []
    faults: list[str] = []

    def opened(fragment: str = "", **options: Any) -> Any:
        context = browser.new_context(**options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))
        page.goto(address + fragment)
        sync_api.expect(page.locator("#source option")).to_have_count(3, timeout=30_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [fault for fault in faults if "Failed to load resource" not in fault] == []
