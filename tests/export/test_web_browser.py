"""The page in a real browser: it translates as the service does, after its server is gone."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export.runtime.bundle import Bundle
from export.runtime.engines import TranslateOptions, load_engine
from export.web import PAGE_FOLDER, RUNTIME_FILES, Server, assemble, make_server
from tests.browser import needs_playwright, open_browser, sync_api
from tests.export import tiny

RUNTIME = PAGE_FOLDER / "node_modules" / "onnxruntime-web" / "dist"
ENGINE = "onnx-int8"

pytestmark = [
    pytest.mark.slow,
    needs_playwright,
    pytest.mark.skipif(
        not all((RUNTIME / name).is_file() for name in RUNTIME_FILES),
        reason="needs onnxruntime-web (cd web && npm ci)",
    ),
]


@pytest.fixture(scope="module")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Bundle:
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("browser") / "tiny"
    return tiny.make_bundle(out, tokenizer_path, engines=["ctranslate2-int8", ENGINE])


@pytest.fixture
def site(tmp_path: Path, onnx_bundle: Bundle) -> Path:
    return assemble(onnx_bundle.path, tmp_path / "site")


@pytest.fixture
def server(site: Path) -> Iterator[Server]:
    server = make_server(site, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


def open_page(page: Any, server: Server, expected: str) -> None:
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    sync_api.expect(page.get_by_role("status")).to_contain_text(expected, timeout=60_000)


def translate(page: Any, text: str) -> str:
    """What the page shows for a text that is typed into it."""
    page.get_by_label("Text (English)").fill(text)
    page.get_by_label("Text (English)").press("Control+Enter")
    done = re.compile(r"\d+ sentences? in \d+ ms")
    sync_api.expect(page.get_by_role("status")).to_contain_text(done, timeout=60_000)
    shown: str = page.get_by_label("Translation (German)").input_value()
    page.get_by_label("Translation (German)").evaluate("field => { field.value = ''; }")
    return shown


def test_it_translates_as_the_engine_does_without_its_server(
    page: Any, server: Server, onnx_bundle: Bundle
) -> None:
    requests: list[str] = []
    faults: list[str] = []
    page.context.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    open_page(page, server, "Ready")
    loaded = list(requests)
    assert all(url.startswith(f"http://127.0.0.1:{server.server_port}/") for url in loaded)
    server.shutdown()
    server.server_close()

    engine = load_engine(onnx_bundle, ENGINE)
    sentences = [*tiny.sentences()[:6], "old cat 😀."]
    expected = [engine.translate_batch([one], TranslateOptions())[0].text for one in sentences]
    assert len(set(expected)) > 4
    assert [translate(page, sentence) for sentence in sentences] == expected
    text = f"  {sentences[0]}\n\n{sentences[1]} \n42\n"
    assert translate(page, text) == f"  {expected[0]}\n\n{expected[1]} \n42\n"
    assert requests == loaded
    assert faults == []


def test_the_example_of_the_docs_works(
    page: Any, server: Server, site: Path, onnx_bundle: Bundle
) -> None:
    docs = (PAGE_FOLDER.parent / "docs" / "web.md").read_text(encoding="utf-8")
    example = re.search(r"^```js\n(.*?)^```", docs, re.MULTILINE | re.DOTALL)
    assert example is not None
    (site / "mine.js").write_text(example[1], encoding="utf-8")
    html = "<!doctype html><output></output><script type='module' src='mine.js'></script>"
    (site / "mine.html").write_text(html)
    engine = load_engine(onnx_bundle, ENGINE)
    sentence = "Where is the nearest station?"
    (expected,) = engine.translate_batch([sentence], TranslateOptions())
    page.goto(f"http://127.0.0.1:{server.server_port}/mine.html")
    sync_api.expect(page.locator("output")).to_have_text(expected.text, timeout=60_000)


def test_a_long_text_can_be_stopped(page: Any, server: Server) -> None:
    open_page(page, server, "Ready")
    page.get_by_label("Text (English)").fill("\n".join(tiny.sentences() * 30))
    page.get_by_role("button", name="Translate").click()
    page.get_by_role("button", name="Stop").click()
    status = page.get_by_role("status")
    sync_api.expect(status).to_contain_text("Stopped.", timeout=60_000)
    assert int(status.inner_text().split()[0]) < len(tiny.sentences()) * 30
    sync_api.expect(page.get_by_role("button", name="Translate")).to_be_enabled()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model/engines/onnx-int8/greedy.onnx.gz", "flip", "not the file that the manifest names"),
        ("model/tokenizer.model", "cut", "not the file that the manifest names"),
        ("model/manifest.json", "remove", "make demo-web"),
        ("translator/ort/ort-wasm-simd-threaded.wasm", "flip", "not the file"),
        ("translator/text.js", "remove", "build the page again"),
    ],
)
def test_damage_is_told(
    page: Any, server: Server, site: Path, name: str, change: str, message: str
) -> None:
    content = bytearray((site / name).read_bytes())
    content[len(content) // 2] ^= 1
    (site / name).write_bytes(content if change == "flip" else content[:-1])
    if change == "remove":
        (site / name).unlink()
    open_page(page, server, "Not loaded")
    sync_api.expect(page.get_by_role("status")).to_contain_text(message)
    sync_api.expect(page.get_by_role("button", name="Translate")).to_be_disabled()
