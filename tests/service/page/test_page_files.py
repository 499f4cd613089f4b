"""Files on the page: given, dropped, stopped, left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.service.page.page import OpenPage, needs_browser, says, sync_api
from tests.service.stub import StubEngine

pytestmark = needs_browser

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
