"""Files as jobs over HTTP, in process, with an engine that upper-cases."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from export.runtime.engines import TranslateOptions, Translation
from service.api.documents import attachment, clean_name
from service.api_keys import KeyStore
from service.jobs import queue
from service.jobs.reader import digest, open_again
from service.jobs.storage import Job, JobStore
from service.models import Model, ModelSet
from tests.service.stub import StubEngine

MakeClient = Callable[..., TestClient]
URL = "/v1/translate/file"
LONG = "".join(f"The cat number {index} sleeps in the old house.\n\n" for index in range(400))
"""Some ten units, in several groups."""
HELD = LONG + "Please hold here.\n"


class HoldingEngine(StubEngine):
    """Stops at the sentence that says so, until `release`."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        if any("hold" in sentence for sentence in sentences):
            self.reached.set()
            assert self.release.wait(30)
        return super().translate_batch(sentences, options)

    @property
    def sentences(self) -> list[str]:
        return [sentence for batch in self.batches for sentence in batch]


@pytest.fixture
def holding() -> Iterator[HoldingEngine]:
    engine = HoldingEngine()
    yield engine
    engine.release.set()


def send(client: TestClient, text: str | bytes = LONG, name: str = "cats.txt", **more: Any) -> Any:
    fields = {"source": "en", "target": "de", **more.pop("data", {})}
    return client.post(URL, files={"file": (name, text)}, data=fields, **more)


def ended(client: TestClient, job: Any, **more: Any) -> dict[str, Any]:
    """A job's status when it is over."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status: dict[str, Any] = client.get(job.headers["Location"], **more).json()
        if status["status"] in ("done", "failed"):
            return status
        time.sleep(0.02)
    pytest.fail(f"the job does not end: {status}")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_file_comes_back_translated(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(StubEngine(), jobs_dir=tmp_path / "jobs")
    sent = send(client, LONG, data={"source": "auto", "glossary": '{"cat": "Katze"}'})
    assert sent.status_code == 202, sent.text
    assert sent.json()["status"] == "queued"
    assert sent.json()["detected"]["language"] == "en"
    status = ended(client, sent)
    assert (status["status"], status["progress"], status["error"]) == ("done", 1.0, None)
    assert status["units"]["done"] == status["units"]["total"] >= 10
    assert status["result"] == f"{sent.headers['Location']}/result"
    result = client.get(status["result"])
    assert result.text == LONG.upper().replace("CAT", "Katze")
    assert result.headers["Content-Disposition"] == 'attachment; filename="cats.de.txt"'
    kept = [path.name for path in (tmp_path / "jobs" / "files").rglob("*") if path.is_file()]
    assert kept == ["result"]
    metrics = client.get("/metrics").text
    assert 'route="/v1/files/{id}/result"' in metrics
    assert 'quickstudy_files_total{kind="txt",status="done"}' in metrics
    assert sent.json()["id"] not in metrics


def test_equal_units_are_translated_once(make_client: MakeClient) -> None:
    engine = HoldingEngine()
    client = make_client(engine, cache_bytes=0, fallback_decoding=False)
    cue = "1\n00:00:01,000 --> 00:00:02,000\n{}\n\n"
    texts = ["Where is my cat?", "It sleeps."] * 50
    subtitles = "".join(map(cue.format, texts))
    sent = send(client, subtitles, "film.srt")
    assert ended(client, sent)["units"] == {"done": 100, "total": 100}
    assert sorted(engine.sentences) == ["It sleeps.", "Where is my cat?"]
    expected = "".join(cue.format(text.upper()) for text in texts)
    assert client.get(f"{sent.headers['Location']}/result").text == expected


def test_what_has_a_translation_is_replaced_where_that_is_asked_for(
    make_client: MakeClient,
) -> None:
    client = make_client(StubEngine())
    catalogue = 'msgid "the cat"\nmsgstr "die Katze"\n'
    sent = send(client, catalogue, "a.po")
    assert ended(client, sent)["units"]["total"] == 0
    assert client.get(f"{sent.headers['Location']}/result").text == catalogue
    sent = send(client, catalogue, "a.po", data={"replace_translations": "true"})
    assert ended(client, sent)["units"] == {"done": 1, "total": 1}
    assert 'msgstr "THE CAT"' in client.get(f"{sent.headers['Location']}/result").text
    wrong = send(client, catalogue, "a.po", data={"replace_translations": "all"})
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "replace_translations")


def test_progress_while_it_is_translated(make_client: MakeClient, holding: HoldingEngine) -> None:
    client = make_client(holding)
    sent = send(client, HELD)
    assert holding.reached.wait(20)
    path = sent.headers["Location"]
    status = client.get(path).json()
    assert status["status"] == "running"
    assert 0 < status["progress"] < 1
    assert 0 < status["units"]["done"] < status["units"]["total"]
    assert status["eta_s"] >= 0
    early = client.get(f"{path}/result")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "unfinished")
    holding.release.set()
    assert ended(client, sent)["status"] == "done"
    events = client.get(f"{path}/events").text
    assert json.loads(events.split("data: ")[1])["status"] == "done"


def test_deleting_stops_it_and_leaves_nothing(
    make_client: MakeClient, holding: HoldingEngine, tmp_path: Path
) -> None:
    keys = KeyStore(tmp_path / "keys.db")
    key = keys.add("somebody")
    client = make_client(holding, keys_file=tmp_path / "keys.db", jobs_dir=tmp_path / "jobs")
    sent = send(client, HELD, headers=bearer(key))
    assert holding.reached.wait(20)
    path = sent.headers["Location"]
    done = client.get(path, headers=bearer(key)).json()["progress"]
    assert client.delete(path, headers=bearer(key)).status_code == 204
    for method in ("GET", "DELETE"):
        assert client.request(method, path, headers=bearer(key)).status_code == 404
    assert list((tmp_path / "jobs" / "files").iterdir()) == []
    assert client.app_state["jobs"]._runner._tasks == {}
    usage = keys.usage(1)
    assert (usage.requests, usage.characters) == (1, pytest.approx(done * len(HELD), abs=1))
    assert 0 < usage.characters < len(HELD)


def test_a_restart_goes_on_with_what_is_missing(
    make_client: MakeClient, holding: HoldingEngine, tmp_path: Path
) -> None:
    options = {"jobs_dir": tmp_path, "shutdown_grace_s": 0, "fallback_decoding": False}
    first = make_client(holding, **options)
    sent = send(first, HELD)
    assert holding.reached.wait(20)
    first.portal.call(first.app_state["jobs"].close)
    store = JobStore(tmp_path / "jobs.db")
    (job,) = store.with_status("queued")
    recorded = store.translations(job.id)
    store.close()
    opened = open_again(HELD.encode(), "txt", "en", "de")
    missing = "".join(unit.text for unit in opened.units if digest(unit) not in recorded)
    assert recorded
    assert missing
    engine = StubEngine()
    second = make_client(engine, **options)
    assert ended(second, sent)["status"] == "done"
    assert second.get(f"{sent.headers['Location']}/result").text == HELD.upper()
    asked = [sentence for batch in engine.batches for sentence in batch]
    assert sorted(asked) == sorted(line for line in missing.split("\n") if line)


def test_a_file_that_ends_the_service_is_given_up(make_client: MakeClient, tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.db")
    store.add(Job("a.txt", "txt", "en", "de", 9, 1, 9, id="a", starts=3))
    store.close()
    client = make_client(StubEngine(), jobs_dir=tmp_path)
    deadline = time.monotonic() + 10
    while client.get("/v1/files/a").json()["status"] != "failed" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.get("/v1/files/a").json()["error"]["code"] == "internal"


def test_a_file_is_its_keys_alone(make_client: MakeClient, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.db")
    mine, other = bearer(keys.add("me")), bearer(keys.add("other"))
    client = make_client(StubEngine(), keys_file=tmp_path / "keys.db", require_key=True)
    assert send(client).status_code == 401
    assert send(client, headers=bearer("qs_wrong")).status_code == 403
    sent = send(client, headers=mine)
    path = sent.headers["Location"]
    ended(client, sent, headers=mine)
    for end in ("", "/result", "/events"):
        assert client.get(path + end).status_code == 401
        assert client.get(path + end, headers=other).status_code == 404
        assert client.get(path + end, headers=mine).status_code == 200
    assert client.delete(path, headers=other).status_code == 404
    assert client.delete(path, headers=mine).status_code == 204


def test_quotas_count_characters_and_not_what_failed(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "PAUSE_S", 0.0)
    keys = KeyStore(tmp_path / "keys.db")
    key = bearer(keys.add("me", quota_chars=20))
    client = make_client(StubEngine(fails=True), keys_file=tmp_path / "keys.db")
    over = send(client, "x" * 21, headers=key)
    assert (over.status_code, over.json()["error"]["code"]) == (429, "quota")
    assert int(over.headers["Retry-After"]) > 0
    failing = send(client, "A cat sleeps.", headers=key)
    status = ended(client, failing, headers=key)
    assert status["error"]["code"] == "internal"
    assert "secret" not in json.dumps(status)
    result = client.get(f"{failing.headers['Location']}/result", headers=key)
    assert (result.status_code, result.json()["error"]["code"]) == (409, "failed")
    assert (keys.usage(1).requests, keys.usage(1).characters) == (0, 0)
    limited = make_client(StubEngine(), rate_limit="1/hour")
    assert [send(limited, "a").status_code for _ in range(2)] == [202, 429]


def test_what_has_ended_expires(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(StubEngine(), jobs_dir=tmp_path, job_retention_s=1)
    sent = send(client, "A cat.")
    assert ended(client, sent)["expires"] is not None
    deadline = time.monotonic() + 10
    while any((tmp_path / "files").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list((tmp_path / "files").iterdir()) == []
    assert client.get(sent.headers["Location"]).status_code == 404


def test_limits_on_files(make_client: MakeClient) -> None:
    client = make_client(
        StubEngine(), max_file_bytes=5000, max_body_bytes=1024, max_file_chars=2000
    )
    for answer in (
        send(client, "a" * 5001),
        send(client, "a" * 50_000),
        send(client, "a b " * 501),
        client.post(URL, content=iter([b" " * 1000] * 9), headers=MULTIPART),
    ):
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "too_large"
    assert send(client, "a b " * 499).status_code == 202
    off = send(make_client(StubEngine(), max_file_bytes=0))
    assert (off.status_code, off.json()["error"]["code"]) == (403, "turned_off")


MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("limit", "status", "code"),
    [
        ({"max_client_jobs": 1}, 429, "too_many_files"),
        ({"max_jobs": 1}, 503, "overloaded"),
        ({"jobs_bytes": 1_048_576}, 503, "overloaded"),
    ],
)
def test_limits_on_what_waits(
    make_client: MakeClient, holding: HoldingEngine, limit: Any, status: int, code: str
) -> None:
    client = make_client(holding, **limit)
    sent = send(client, "Please hold this.")
    assert sent.status_code == 202
    refused = send(client, "a" * 600_000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert int(refused.headers["Retry-After"]) > 0
    holding.release.set()
    ended(client, sent)
    assert send(client, "One more.").status_code == 202


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"name": "a.exe"}, "file", "exe"),
        ({"name": "noname"}, "file", "extension"),
        ({"text": b"\0\1\2 binary"}, "file", "null"),
        ({"data": {"glossary": "no json"}}, "glossary", "JSON object"),
        ({"data": {"glossary": '["a"]'}}, "glossary", "dictionary"),
        ({"data": {"glossary": '{"a b": "c", "a  b": "d"}'}}, "glossary", "twice"),
        ({"data": {"glossary": '{"a": "c", "a": "d"}'}}, "glossary", "'a' comes twice"),
        ({"data": {"glossary": "[" * 20_000}}, "glossary", "JSON object"),
        ({"data": {"glossary": '{"a": "\\ud800"}'}}, "glossary", "JSON object"),
        ({"data": {"beam_size": "9"}}, "beam_size", "8"),
        ({"data": {"target": "fr"}}, "target", "fr"),
        ({"data": {"source": "xx"}}, "source", "xx"),
        ({"data": {"format": "text"}}, "format", "not a field"),
    ],
)
def test_what_cannot_be_is_422(
    client: TestClient, change: dict[str, Any], field: str, words: str
) -> None:
    answer = send(client, **change)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["field"] == field
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("text", [LONG, "1"])
def test_a_beam_that_the_engine_has_not_is_refused_at_once(
    make_client: MakeClient, text: str
) -> None:
    client = make_client(StubEngine(supported_options=frozenset()))
    for source in ("en", "auto"):
        refused = send(client, text, data={"source": source, "beam_size": "4"})
        assert refused.status_code == 422
        error = refused.json()["error"]
        assert (error["code"], error["field"]) == ("unsupported_search", "beam_size")
    greedily = send(client, text, data={"beam_size": "1"})
    assert ended(client, greedily)["status"] == "done"


def test_what_is_no_form(client: TestClient) -> None:
    assert client.post(URL, json={"file": "a"}).status_code == 422
    assert client.post(URL, data={"file": "a"}).status_code == 422
    assert client.post(URL, content=b"nothing", headers=MULTIPART).status_code == 400
    two = [("file", ("a.txt", "a")), ("file", ("b.txt", "b"))]
    assert client.post(URL, files=two).status_code == 400
    for path in ("/v1/files/x", "/v1/files/x/result", "/v1/files/%2e%2e/result"):
        assert client.get(path).status_code == 404


def test_a_full_queue_is_waited_for(make_client: MakeClient) -> None:
    client = make_client(StubEngine(), queue_size=1, queue_tokens=64, max_batch_sentences=1)
    jobs = [send(client, LONG[:3000]) for _ in range(2)]
    assert [ended(client, job)["status"] for job in jobs] == ["done", "done"]


def test_a_file_in_the_target_language_comes_back_as_it_is(make_client: MakeClient) -> None:
    client = make_client(StubEngine())
    german = "Das Wetter ist heute schön.\r\n"
    status = ended(client, sent := send(client, german, data={"source": "auto"}))
    assert status["detected"]["language"] == status["source"] == "de"
    assert client.get(f"{sent.headers['Location']}/result").content == german.encode()
    empty = send(client, "")
    assert ended(client, empty)["units"] == {"done": 0, "total": 0}
    assert client.get(f"{empty.headers['Location']}/result").content == b""


def test_the_rest_goes_through_the_models_that_are_served_then(
    make_client: MakeClient, make_pair: Callable[..., Any], holding: HoldingEngine
) -> None:
    client = make_client(holding)
    sent = send(client, HELD + LONG)
    assert holding.reached.wait(20)
    translator = client.app_state["translator"]
    bundle = make_pair("en", "fr")
    translator.models = ModelSet([Model.of(bundle, StubEngine(), translator.settings)])
    holding.release.set()
    assert ended(client, sent)["error"]["code"] == "unsupported_language"


@pytest.mark.parametrize(
    ("name", "clean", "header"),
    [
        ("report.docx", "report.docx", 'attachment; filename="report.docx"'),
        ("../../etc/pass wd.txt", "pass wd.txt", 'attachment; filename="pass wd.txt"'),
        ("C:\\docs\\a.txt", "a.txt", 'attachment; filename="a.txt"'),
        ('a"b\r\nX: 1.txt', "a_bX_ 1.txt", 'attachment; filename="a_bX_ 1.txt"'),
        ("é.txt", "é.txt", "attachment; filename=\"e.txt\"; filename*=UTF-8''%C3%A9.txt"),
        ("\u202egnp.txt", "gnp.txt", 'attachment; filename="gnp.txt"'),
        (".txt", "file.txt", 'attachment; filename="file.txt"'),
        ("猫.txt", "猫.txt", "attachment; filename=\"file.txt\"; filename*=UTF-8''%E7%8C%AB.txt"),
    ],
)
def test_names_are_safe(name: str, clean: str, header: str) -> None:
    assert clean_name(name, "txt") == clean
    assert attachment(clean) == header
    assert len(clean_name("a" * 500 + ".txt", "txt")) < 130


def test_what_is_left_in_a_file_is_named(make_client: MakeClient, tmp_path: Path) -> None:
    choice = "{n, plural, one {a dog} other {dogs}}"
    client = make_client(StubEngine(), jobs_dir=tmp_path / "jobs")
    units = "".join(
        f'<trans-unit id="u{number}"><source>{text}</source></trans-unit>'
        for number, text in enumerate(["We saw it", *[f"{choice} and {choice}"] * 120])
    )
    xliff = (
        '<xliff version="1.2"><file original="a" source-language="en" target-language="de" '
        f'datatype="plaintext"><body>{units}</body></file></xliff>'
    )
    status = ended(client, send(client, xliff, "a.xlf"))
    assert status["status"] == "done"
    assert status["warnings"]["not_translated"] == 120
    assert len(status["unit_warnings"]) == 100
    assert status["unit_warnings"][0]["place"] == "u1"
    assert status["unit_warnings"][0]["code"] == "not_translated"
    assert client.get(status["result"]).text.count("<target") == 1
    assert ended(client, send(client, "We saw it.\n"))["unit_warnings"] == []
