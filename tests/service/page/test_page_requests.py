"""What the page asks for and when: stale work, keys, limits, errors, waiting."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.service.page.page import (
    API,
    MAX_CHARS,
    OpenPage,
    answer_with,
    needs_browser,
    says,
    shows,
    sync_api,
)

pytestmark = needs_browser


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
