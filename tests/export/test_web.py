"""The folder that a browser loads: what it holds, how it is served, what it must not hold."""

from __future__ import annotations

import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.runtime.bundle import Bundle, BundleError, write_bundle
from export.runtime.manifest import BundleInfo, EngineEntry
from export.web import (
    PAGE_FOLDER,
    RUNTIME_FILES,
    assemble,
    bundle_files,
    main,
    make_server,
    part_sizes,
)
from quickstudy.atomic import sha256_of

GRAPH = "engines/onnx-int8/greedy.onnx"


@pytest.fixture(scope="session")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory, pristine_bundle: Bundle) -> Bundle:
    """The tiny bundle with a file in the place of an ONNX graph, and one that browsers leave."""
    onnx = EngineEntry(
        name="onnx-int8",
        kind="onnx",
        precision="int8-7bit",
        compute="int8",
        path="engines/onnx-int8",
    )
    fields = {name: getattr(pristine_bundle.manifest, name) for name in BundleInfo.model_fields}
    info = BundleInfo(**{**fields, "engines": (*pristine_bundle.manifest.engines, onnx)})

    def fill(draft: Path) -> None:
        shutil.copytree(pristine_bundle.path, draft, dirs_exist_ok=True)
        (draft / "manifest.json").unlink()
        (draft / GRAPH).parent.mkdir()
        (draft / GRAPH).write_bytes(b"a graph")
        (draft / "engines/onnx-int8/step.onnx").write_bytes(b"another graph")

    out = tmp_path_factory.mktemp("web") / "bundle"
    return write_bundle(out, info, fill=fill, verify=lambda _: None)


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with files in the place of its npm package."""
    folder = tmp_path_factory.mktemp("page") / "web"
    shutil.copytree(PAGE_FOLDER, folder, ignore=shutil.ignore_patterns("node_modules"))
    package = folder / "node_modules" / "onnxruntime-web"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text('{"version": "1.2.3"}')
    for name in RUNTIME_FILES:
        (package / "dist" / name).write_text(f"stands for {name}" * 100)
    return folder


@pytest.fixture
def site(tmp_path: Path, onnx_bundle: Bundle, page: Path) -> Path:
    return assemble(onnx_bundle.path, tmp_path / "site", page)


def test_the_folder_holds_what_a_browser_needs_and_no_more(site: Path, onnx_bundle: Bundle) -> None:
    found = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    library = {f"translator/{path.name}" for path in (PAGE_FOLDER / "translator").glob("*.js")}
    model = {"manifest.json", "README.md", "tokenizer.model", GRAPH}
    assert found == {
        *("index.html", "app.js", "style.css", "translator/ort/runtime.json"),
        *(f"translator/ort/{name}" for name in RUNTIME_FILES.values()),
        *(f"model/{name}" for name in model),
        *library,
    }
    for name in model:
        assert sha256_of(site / "model" / name) == sha256_of(onnx_bundle.path / name)
    assert len(library) > 5


def test_what_the_browser_loads_of_other_bundles(onnx_bundle: Bundle) -> None:
    def changed(**values: object) -> Bundle:
        return Bundle(onnx_bundle.path, onnx_bundle.manifest.model_copy(update=values))

    both = bundle_files(changed(source_tokenizer="source.model"))
    assert {"tokenizer.model", "source.model"} <= set(both)
    with pytest.raises(BundleError, match="source_prefix"):
        bundle_files(changed(source_prefix=(">>deu<<",)))


def test_the_runtime_is_listed_with_its_hashes(site: Path) -> None:
    listed = json.loads((site / "translator/ort/runtime.json").read_text())
    assert listed["onnxruntime-web"] == "1.2.3"
    assert set(listed["files"]) == set(RUNTIME_FILES.values())
    for name, entry in listed["files"].items():
        file = site / "translator" / "ort" / name
        assert entry == {"bytes": file.stat().st_size, "sha256": sha256_of(file)}


def test_sizes_add_up(site: Path) -> None:
    *parts, total = part_sizes(site)
    sizes = {part.name: part.bytes for part in parts}
    assert sizes["model"] == len(b"a graph")
    assert total.bytes == sum(sizes.values())
    assert total.bytes == sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    assert 0 < total.gzip_bytes < total.bytes


def test_a_new_page_replaces_the_former(site: Path, onnx_bundle: Bundle, page: Path) -> None:
    (site / "old.txt").write_text("of a former version")
    assemble(onnx_bundle.path, site, page)
    assert not (site / "old.txt").exists()
    assert (site / "index.html").is_file()
    assert [path.name for path in site.parent.iterdir()] == ["site"]


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, onnx_bundle: Bundle, page: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("kept")
    with pytest.raises(BundleError, match="choose another folder"):
        assemble(onnx_bundle.path, tmp_path / "mine", page)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "kept"


def test_what_is_missing_is_named(
    tmp_path: Path,
    pristine_bundle: Bundle,
    onnx_bundle: Bundle,
    page: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(pristine_bundle.path), str(tmp_path / "site")]) == 1
    assert "engines: [ctranslate2-int8, onnx-int8]" in capsys.readouterr().err
    bare = tmp_path / "bare"
    shutil.copytree(page, bare, ignore=shutil.ignore_patterns("node_modules"))
    with pytest.raises(BundleError, match=r"ort\.wasm.* is missing: run `npm ci`"):
        assemble(onnx_bundle.path, tmp_path / "site", bare)
    with pytest.raises(BundleError, match="checkout"):
        assemble(onnx_bundle.path, tmp_path / "site", tmp_path / "nowhere")
    assert not (tmp_path / "site").exists()


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    server = make_server(site, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_are_served_with_types_that_browsers_accept(address: str) -> None:
    types = {
        "/": "text/html; charset=utf-8",
        "/translator/worker.js": "text/javascript; charset=utf-8",
        "/translator/ort/ort.wasm.bundle.min.js": "text/javascript; charset=utf-8",
        "/translator/ort/ort-wasm-simd-threaded.wasm": "application/wasm",
        "/model/manifest.json": "application/json",
        f"/model/{GRAPH}": "application/octet-stream",
    }
    for path, expected in types.items():
        with urllib.request.urlopen(address + path) as answer:
            assert answer.headers["Content-Type"] == expected
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + "/model/%2e%2e/%2e%2e/secret")


def test_the_page_names_no_other_origin() -> None:
    files = [path for path in PAGE_FOLDER.rglob("*") if "node_modules" not in path.parts]
    shown = [path for path in files if path.suffix in (".html", ".css", ".js")]
    assert len(shown) > 10
    for path in shown:
        assert not re.search(r"https?:|['\"(]//", path.read_text(encoding="utf-8")), path


def test_npm_packages_are_pinned_and_name_no_registry() -> None:
    wanted = json.loads((PAGE_FOLDER / "package.json").read_text())["dependencies"]
    lock = json.loads((PAGE_FOLDER / "package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert lock[f"node_modules/{name}"]["version"] == version
    for name, package in lock.items():
        assert "resolved" not in package
        assert not name or package["integrity"].startswith("sha512-")
