"""The answer names the texts of a file that the model has not translated whole, in every kind of
file, and no state of the file says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from export.runtime.engines import TranslateOptions, Translation
from tests.service.documents.document_samples import word_document
from tests.service.stub import StubEngine
from tests.service.test_job_api import ended, send
from tests.service.text.test_kept import FILES

MakeClient = Callable[..., TestClient]
GOOD, ECHOED, EMPTY, CUT = (
    "We saw the dog.",
    "They keep it as it is.",
    "Nothing comes of this.",
    "This is cut off.",
)
TEXTS = (GOOD, ECHOED, EMPTY, CUT)


class LazyEngine(StubEngine):
    """Gives one text back as it was, nothing for another, and half of a third."""

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        given = {
            ECHOED: Translation(ECHOED, 6, -1.0),
            EMPTY: Translation("", 0, -1.0),
            CUT: Translation("THIS IS", 9, -1.0, truncated=True),
        }
        return [given.get(one, Translation("Wir sahen den Hund.", 4, -1.0)) for one in sentences]


def translated(make_client: MakeClient, data: bytes, name: str) -> tuple[dict[str, Any], bytes]:
    client = make_client(LazyEngine())
    sent = send(client, data, name)
    status = ended(client, sent)
    assert status["status"] == "done", status
    return status, client.get(f"{sent.headers['Location']}/result").content


PLACES = {
    "txt": ["lines 1–4"],
    "md": ["lines 1–7"],
    "html": ["lines 1–4"],
    "srt": ["line 7", "line 11", "line 15"],
    "vtt": ["line 7", "line 10", "line 13"],
    "po": ["line 7", "line 10", "line 13"],
    "xliff": ["1", "2", "3"],
    "tmx": ["unit 2", "unit 3", "unit 4"],
    "docx": [f"“{text}”" for text in TEXTS[1:]],
    "odt": [f"“{text}”" for text in TEXTS[1:]],
}


@pytest.mark.parametrize("extension", PLACES)
def test_texts_that_are_not_translated_whole_are_named(
    make_client: MakeClient, extension: str
) -> None:
    status, _ = translated(make_client, FILES[extension](TEXTS), f"a.{extension}")
    found = {(one["place"], one["code"]) for one in status["unit_warnings"]}
    places = PLACES[extension]
    echoed, empty, cut = places if len(places) > 1 else places * 3
    assert {(echoed, "echo"), (empty, "echo"), (cut, "truncated")} <= found
    assert {place for place, _ in found} == set(places)
    assert sum(status["warnings"].values()) >= len(found)


def test_states_of_xliff_do_not_claim_more(make_client: MakeClient) -> None:
    _, out = translated(make_client, FILES["xliff"](TEXTS), "a.xliff")
    states = [part.split(b">")[0] for part in out.split(b"<target ")[1:]]
    assert states == [
        b'state="needs-review-translation" state-qualifier="leveraged-mt"',
        *[b'state="needs-translation"'] * 3,
    ]
    segments = "".join(f"<segment><source>{text}</source></segment>" for text in TEXTS)
    xliff = (
        '<xliff version="2.0" xmlns="urn:oasis:names:tc:xliff:document:2.0" srcLang="en" '
        f'trgLang="de"><file id="f"><unit id="u">{segments}</unit></file></xliff>'
    )
    _, out = translated(make_client, xliff.encode(), "a.xlf")
    assert [part.split(b'"')[0] for part in out.split(b'<segment state="')[1:]] == [
        b"translated",
        *[b"initial"] * 3,
    ]


def test_a_long_paragraph_is_named_by_its_beginning(
    make_client: MakeClient, tmp_path: Path
) -> None:
    text = "This long sentence begins here and goes on for a while"
    data = word_document(f"<w:p {{ns}}><w:r><w:t>{text}. {ECHOED}</w:t></w:r></w:p>")
    status, _ = translated(make_client, data, "a.docx")
    (warning,) = status["unit_warnings"]
    assert warning["place"] == "“This long sentence begins here and goes…”"
    assert "part of the translation" in warning["message"]
