"""The page in a real browser, served with an engine that upper-cases."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.api.app import create_app, guarded
from service.models import Model, ModelSet
from service.settings import Settings
from service.translator import Translator
from tests.service.conftest import MakePair
from tests.service.stub import StubEngine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
API = "**/v1/translate"
MAX_CHARS = 3000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)"),
]
sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs Playwright (pip install playwright)"
)
uvicorn = pytest.importorskip("uvicorn")
OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def engine() -> StubEngine:
    return StubEngine()


@pytest.fixture(scope="module")
def address(make_pair: MakePair, engine: StubEngine) -> Iterator[str]:
    """A service that translates English to German and French, and German to English."""
    pairs = [("en", "de"), ("de", "en"), ("en", "fr")]
    settings = Settings(inter_threads=1, max_text_chars=MAX_CHARS)
    models = ModelSet([Model.of(make_pair(*pair), engine, settings) for pair in pairs])
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
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, Chromium also starts as root and in containers.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


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


def shows(page: Any, text: str) -> None:
    sync_api.expect(page.locator("#result")).to_have_text(text, timeout=30_000)


def says(page: Any, words: str, box: str = "#status") -> None:
    sync_api.expect(page.locator(box)).to_contain_text(words, timeout=30_000)


def answer_with(status: int, code: str, **headers: str) -> Callable[[Any], None]:
    body = json.dumps({"error": {"code": code, "message": "the reason", "field": None}})
    return lambda route: route.fulfill(
        status=status, headers={**headers, "Content-Type": "application/json"}, body=body
    )


def test_it_translates_what_is_typed_and_asks_nobody_else(
    open_page: OpenPage, address: str
) -> None:
    page = open_page()
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    field = page.get_by_label("Text to translate")
    assert page.evaluate("document.activeElement.id") == "text"
    field.press_sequentially("The weather is nice. Where is it?")
    shows(page, "THE WEATHER IS NICE. WHERE IS IT?")
    says(page, "English (detected)", "#source option:checked")
    sync_api.expect(page.locator("#text")).to_have_attribute("lang", "en")
    sync_api.expect(page.locator("#result")).to_have_attribute("lang", "de")
    says(page, "THE WEATHER IS NICE. WHERE IS IT?", "#spoken")
    sync_api.expect(page).to_have_url(re.compile("q=The.weather"))
    page.reload()
    shows(page, "THE WEATHER IS NICE. WHERE IS IT?")
    assert all(url.startswith(address) and "weather" not in url for url in asked)


def test_a_sentence_lights_up_on_both_sides(open_page: OpenPage) -> None:
    page = open_page("#s=en&t=de&q=" + "One cat.%0A%0ATwo  dogs. Three birds.")
    shows(page, "ONE CAT.\n\nTWO  DOGS. THREE BIRDS.")
    lit = page.locator(".lit")
    page.locator("#result span").nth(1).hover()
    sync_api.expect(lit).to_have_text(["Two  dogs.", "TWO  DOGS."])
    box = page.locator("#mirror span").nth(2).bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    sync_api.expect(lit).to_have_text(["Three birds.", "THREE BIRDS."])
    page.locator("#text").press("Control+Home")
    sync_api.expect(lit).to_have_text(["One cat.", "ONE CAT."])
    same = "(a, b) => a.offsetHeight === b.offsetHeight && a.offsetWidth === b.offsetWidth"
    assert page.evaluate(f"({same})(document.querySelector('#text'), mirror)")


def test_what_is_stale_is_cancelled(open_page: OpenPage) -> None:
    page = open_page()
    cancelled: list[str] = []
    page.on("requestfailed", lambda request: cancelled.append(request.post_data))
    held: list[Any] = []
    page.route(API, lambda route: held.append(route), times=1)
    field = page.locator("#text")
    field.fill("first")
    while not held:
        page.wait_for_timeout(20)
    field.fill("second")
    shows(page, "SECOND")
    assert ["first" in body for body in cancelled] == [True]


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (413, "too_large", "too long for the service"),
        (422, "invalid_request", "cannot translate this: the reason"),
        (504, "timeout", "took too long"),
        (500, "internal", "failed on this text"),
        (429, "quota", "quota is used up. Come back in 117 minutes"),
    ],
)
def test_errors_in_plain_words(open_page: OpenPage, status: int, code: str, words: str) -> None:
    page = open_page()
    page.route(API, answer_with(status, code, **{"Retry-After": "7000"}), times=1)
    page.locator("#text").fill("my text")
    says(page, words)
    assert page.locator("#text").input_value() == "my text"
    page.get_by_role("button", name="Try again").click()
    shows(page, "MY TEXT")
    sync_api.expect(page.locator("#status")).to_have_text("")


@pytest.mark.parametrize(("status", "code"), [(429, "rate"), (503, "overloaded")])
def test_it_waits_as_long_as_it_is_told(open_page: OpenPage, status: int, code: str) -> None:
    page = open_page()
    times: list[float] = []

    def note(request: Any) -> None:
        if "translate" in request.url:
            times.append(time.monotonic())

    page.on("request", note)
    page.route(API, answer_with(status, code, **{"Retry-After": "2"}), times=1)
    page.locator("#text").fill("patience")
    says(page, "Trying again in 2 s.")
    shows(page, "PATIENCE")
    assert times[1] - times[0] >= 1.9


def test_it_goes_on_when_the_connection_is_back(open_page: OpenPage) -> None:
    page = open_page()
    page.context.set_offline(True)
    page.locator("#text").fill("hello")
    says(page, "There is no connection. Trying again")
    page.context.set_offline(False)
    shows(page, "HELLO")


def test_a_text_over_the_limit_is_neither_cut_nor_sent(open_page: OpenPage) -> None:
    page = open_page()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    text = "😀" * (MAX_CHARS - 1) + "abc"
    page.locator("#text").fill(text)
    says(page, "2 characters too many")
    says(page, "3,002 of 3,000", "#count")
    assert page.locator("#text").input_value() == text
    assert sent == []


def test_keys_translate_and_stop(open_page: OpenPage) -> None:
    page = open_page()
    page.route(API, lambda route: None, times=1)
    field = page.locator("#text")
    field.fill("now")
    field.press("Control+Enter")
    sync_api.expect(page.locator("#busy")).to_be_visible()
    field.press("Escape")
    says(page, "Stopped.")
    sync_api.expect(page.locator("#busy")).to_be_hidden()
    assert field.input_value() == "now"
    field.press("Control+Enter")
    shows(page, "NOW")


def test_all_is_reached_by_tab_and_has_a_name(open_page: OpenPage) -> None:
    page = open_page("#s=en&t=de&q=A cat.")
    shows(page, "A CAT.")
    page.locator("#theme").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    reached = []
    for _ in range(13):
        focused = page.evaluate(
            "(() => { const one = document.activeElement; return [one.id || one.className || "
            "one.tagName, getComputedStyle(one).outlineStyle, one.matches(':focus-visible')]; })()"
        )
        reached.append(focused[0])
        assert focused[2], reached
        assert focused[1] == "solid" or focused[0] == "text"
        page.keyboard.press("Tab")
    wanted = ["theme", "source", "swap", "text", "open-file", "clear", "target", "lit"]
    assert reached[:8] == wanted
    assert reached[8:12] == ["copy", "copy-link", "SUMMARY", "A"]
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, select, textarea, input:not([type=file])')]"
        ".filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length))"
        ".map((one) => one.id)"
    )
    assert nameless == []


def test_another_translation_is_chosen_and_kept(open_page: OpenPage) -> None:
    page = open_page("#s=en&t=de&q=A cat. A dog.")
    shows(page, "A CAT. A DOG.")

    def offer(route: Any) -> None:
        asked = route.request.post_data_json
        if not asked.get("alternatives"):
            route.fallback()
            return
        assert (asked["text"], asked["source"]) == ("A dog.", "en")
        item = {"text": "A DOG.", "truncated": False, "warnings": [], "alternatives": ["Ein Hund."]}
        route.fulfill(json={"source": "en", "target": "de", "translations": [item]})

    page.route(API, offer)
    page.locator("#result span").nth(1).click()
    other = page.get_by_role("button", name="Ein Hund.")
    sync_api.expect(other).to_be_focused()
    page.keyboard.press("Escape")
    sync_api.expect(other).to_be_hidden()
    sync_api.expect(page.locator("#result span").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    sync_api.expect(other).to_be_focused()
    page.keyboard.press("Enter")
    shows(page, "A CAT. Ein Hund.")
    page.locator("#text").press("Control+End")
    page.keyboard.type(" A bird.")
    shows(page, "A CAT. Ein Hund. A BIRD.")


def test_languages_are_swapped_only_where_both_ways_are_served(open_page: OpenPage) -> None:
    page = open_page("#s=en&t=fr&q=The house is old and small.")
    shows(page, "THE HOUSE IS OLD AND SMALL.")
    swap = page.get_by_role("button", name="Swap languages")
    sync_api.expect(swap).to_be_hidden()
    page.get_by_label("To", exact=True).select_option("de")
    swap.click()
    sync_api.expect(page.locator("#source")).to_have_value("de")
    sync_api.expect(page.locator("#target")).to_have_value("en")
    sync_api.expect(page.locator("#text")).to_have_value("THE HOUSE IS OLD AND SMALL.")
    sync_api.expect(page).to_have_url(re.compile("#s=de&t=en&q=THE"))


def test_the_glossary_is_sent_and_remembered(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("summary").click()
    page.get_by_role("button", name="Add a term").click()
    page.get_by_label("Term", exact=True).fill("cat")
    page.get_by_label("Its translation").fill("Katze")
    page.locator("#text").fill("A cat.")
    with page.expect_request(API) as asked:
        shows(page, "A Katze.")
    assert asked.value.post_data_json["glossary"] == {"cat": "Katze"}
    page.reload()
    says(page, "(1)", "#term-count")


def test_warnings_are_shown_quietly(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#text").fill("Das Wetter ist heute schön.")
    shows(page, "Das Wetter ist heute schön.")
    says(page, "This is German already.", "#warnings")
    page.route(API, warn)
    page.locator("#text").fill("Go. Go.")
    says(page, "It repeats itself.", "#warnings")
    sync_api.expect(page.locator("#status")).to_have_text("")


def warn(route: Any) -> None:
    warning = {"code": "repetition", "message": "it repeats itself"}
    item = {"text": "Los. Los.", "truncated": False, "warnings": [warning]}
    route.fulfill(json={"source": "en", "target": "de", "translations": [item]})


def test_a_key_is_asked_for_and_sent(open_page: OpenPage) -> None:
    page = open_page()
    page.route(API, answer_with(401, "key_missing"), times=1)
    page.locator("#text").fill("secret")
    says(page, "wants an API key")
    page.get_by_label("API key").fill("abc")
    with page.expect_request(API) as asked:
        page.get_by_label("API key").press("Enter")
    assert asked.value.headers["authorization"] == "Bearer abc"
    shows(page, "SECRET")


def test_dark_mode_follows_the_system_or_the_choice(open_page: OpenPage) -> None:
    page = open_page(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    assert dark != light
    button = page.get_by_role("button", name="Dark")
    button.click()
    sync_api.expect(button).to_have_attribute("aria-pressed", "true")
    page.reload()
    assert page.evaluate(background) == dark
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(background) == light


def test_it_fits_a_phone(open_page: OpenPage) -> None:
    word = "Donaudampfschifffahrtsgesellschaft" * 3
    page = open_page(f"#s=en&t=de&q={word}", viewport={"width": 320, "height": 600})
    shows(page, word.upper())
    page.locator("summary").click()
    page.get_by_role("button", name="Add a term").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 320


FILES = {
    "a.txt": ("\ufeffOne cat.\r\n\r\n  Two dogs.\r\n", "\ufeffONE CAT.\r\n\r\n  TWO DOGS.\r\n"),
    "a.html": (
        "<p class=x>One <b>cat</b>.</p>\n<p>Two.</p>",
        "<p class=x>ONE <b>CAT</b>.</p>\n<p>TWO.</p>",
    ),
    "a.md": ("# A title\n\n```\ncode\n```\n\n- item\n", "# A TITLE\n\n```\ncode\n```\n\n- ITEM\n"),
    "a.srt": (
        "1\n00:00:01,000 --> 00:00:02,000\n<i>Where is\nmy cat?</i>\n\n"
        "2\n00:00:03,000 --> 00:00:04,000\n- Here.\n- There.\n",
        "1\n00:00:01,000 --> 00:00:02,000\n<i>WHERE IS\nMY CAT?</i>\n\n"
        "2\n00:00:03,000 --> 00:00:04,000\n- HERE.\n- THERE.\n",
    ),
    "a.vtt": (
        "WEBVTT\n\nNOTE one cat\n\nintro\n00:01.000 --> 00:02.000 align:start\n<v Bob>One cat.\n",
        "WEBVTT\n\nNOTE one cat\n\nintro\n00:01.000 --> 00:02.000 align:start\n<v Bob>ONE CAT.\n",
    ),
}  # fmt: skip


def give(page: Any, name: str, content: str) -> None:
    file = {"name": name, "mimeType": "text/plain", "buffer": content.encode()}
    page.locator("#file").set_input_files(file)


def test_files_come_back_with_their_structure(open_page: OpenPage) -> None:
    page = open_page("#s=en&t=de")
    for name, (content, expected) in FILES.items():
        give(page, name, content)
        says(page, "Translated.", "#file-status")
        says(page, "100 %", "#file-share")
        with page.expect_download() as download:
            page.locator("#file-download").click()
        assert download.value.suggested_filename == name.replace(".", ".de.")
        assert Path(download.value.path()).read_bytes().decode() == expected
    give(page, "a.pdf", "x")
    says(page, "takes txt, ")
    give(page, "a.docx", "x")
    says(page, "cannot translate this", "#file-status")


CATS = "".join(f"The cat number {index} sleeps.\n\n" for index in range(600))


def drop(page: Any, name: str, text: str) -> None:
    page.evaluate(
        """([text, name]) => {
          const data = new DataTransfer();
          data.items.add(new File([text], name));
          const options = { dataTransfer: data, bubbles: true, cancelable: true };
          dispatchEvent(new DragEvent("drop", options));
        }""",
        [text, name],
    )


def test_a_file_is_dropped_stopped_and_started_again(
    open_page: OpenPage, address: str, engine: StubEngine
) -> None:
    page = open_page("#s=en&t=de")
    asked: list[tuple[str, str]] = []
    page.on("request", lambda request: asked.append((request.method, request.url)))
    engine.seconds = 0.3
    drop(page, "cats.txt", CATS)
    says(page, "Translating to German", "#file-status")
    sync_api.expect(page.locator("#file-share")).not_to_have_text("0 %", timeout=30_000)
    assert 0 < int(page.locator("#file-share").inner_text().split()[0]) < 100
    page.get_by_role("button", name="Stop").click()
    says(page, "Stopped.", "#file-status")
    sync_api.expect(page.get_by_role("button", name="Start again")).to_be_focused()
    engine.seconds = 0.0
    page.keyboard.press("Enter")
    says(page, "Translated.", "#file-status")
    with page.expect_download() as download:
        page.locator("#file-download").click()
    assert Path(download.value.path()).read_text() == CATS.upper()
    deleted = [url for method, url in asked if method == "DELETE"]
    assert len(set(deleted)) == 2
    for url in deleted:
        assert page.request.get(url).status == 404


def test_a_page_that_is_left_takes_its_file_along(open_page: OpenPage, engine: StubEngine) -> None:
    page = open_page("#s=en&t=de")
    engine.seconds = 0.5
    with page.expect_response("**/v1/translate/file") as sent:
        drop(page, "cats.txt", CATS)
    says(page, "Translating", "#file-status")
    page.goto("about:blank")
    engine.seconds = 0.0
    other = open_page()
    path = sent.value.headers["location"]
    deadline = time.monotonic() + 10
    while other.evaluate(f"fetch('{path}').then((one) => one.status)") != 404:
        assert time.monotonic() < deadline
