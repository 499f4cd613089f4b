"""A bundle as a folder that any web server can serve: it translates in the browser; no torch.

```
index.html app.js style.css     the page
translator/                     the library that the page uses
translator/ort/                 onnxruntime-web, and runtime.json: size and SHA-256 of its files
model/                          manifest, card, tokenizer and the greedy graph of the bundle
```

`python -m export.web MODEL OUT --serve` does it and serves it; `make demo-web` calls that.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from export.runtime.bundle import Bundle, BundleError, load_bundle
from export.runtime.manifest import CARD_FILE, MANIFEST_FILE, FileEntry
from quickstudy.atomic import sha256_of

PAGE_FOLDER = Path(__file__).resolve().parents[1] / "web"
PAGE_FILES = ("index.html", "app.js", "style.css")
LIBRARY = "translator"
RUNTIME = f"{LIBRARY}/ort"
RUNTIME_LIST = "runtime.json"
RUNTIME_FILES = {
    "ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
"""Files of the npm package, and their names here: not every web server knows the type of .mjs."""
MODEL = "model"
GRAPH_FILES = ("greedy.onnx", "greedy.onnx.gz")

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    "": "application/octet-stream",
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "img-src data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class PartSize:
    """A part of the folder: its size in bytes, and that of its files after gzip."""

    name: str
    bytes: int
    gzip_bytes: int


def assemble(model: Path, out: Path, page: Path = PAGE_FOLDER) -> Path:
    """Make the folder `out` from a bundle, and from `page` with its npm packages installed.

    A former folder is replaced once the new one is whole. Raises BundleError, saying what to do.
    """
    bundle = load_bundle(model)
    files = bundle_files(bundle)
    out = Path(out).resolve()
    if out.exists() and not (out / RUNTIME / RUNTIME_LIST).is_file():
        raise BundleError(f"{out} exists and is no such page: remove it or choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        draft.chmod(0o755)
        _copy_page(page, draft)
        _copy_runtime(page / "node_modules" / "onnxruntime-web", draft / RUNTIME)
        for name in files:
            _copy(bundle.path / name, draft / MODEL / name)
        _swap(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return out


def bundle_files(bundle: Bundle) -> list[str]:
    """Files of a bundle that the browser loads; of its ONNX engines, the first without a shortlist,
    which the page cannot read. Raises BundleError if it has none."""
    manifest = bundle.manifest
    if manifest.source_prefix:
        raise BundleError(f"{bundle.path} has a source_prefix, which the page does not know")
    engines = [engine for engine in manifest.engines if engine.kind == "onnx"]
    engine = next((engine for engine in engines if not engine.shortlist), None)
    if engine is None and engines:
        raise BundleError(
            f"{bundle.path} has ONNX engines with a shortlist only, which the page cannot read: "
            "import it again with --engine onnx-float32"
        )
    if engine is None:
        raise BundleError(
            f"{bundle.path} has no ONNX engine, which is what a browser runs: write "
            "`engines: [ctranslate2-int8, onnx-int8]` under `export` in its recipe and run "
            "`quickstudy export`"
        )
    graphs = [f"{engine.path}/{name}" for name in GRAPH_FILES]
    graph = next((name for name in graphs if name in manifest.files), None)
    if graph is None:
        raise BundleError(f"{bundle.path} has no {graphs[0]}: export it again")
    own = [manifest.source_tokenizer] if manifest.source_tokenizer is not None else []
    return [MANIFEST_FILE, CARD_FILE, manifest.tokenizer, *own, graph]


def part_sizes(folder: Path) -> list[PartSize]:
    """Sizes of what a browser loads from an assembled folder, by part, their sum last."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    named = {path: path.relative_to(folder).as_posix() for path in files}
    parts = {
        "page and library": [
            path for path in files if not named[path].startswith((f"{RUNTIME}/", f"{MODEL}/"))
        ],
        "onnxruntime-web": [path for path in files if named[path].startswith(f"{RUNTIME}/")],
        "model": [path for path in files if path.name in GRAPH_FILES],
        "tokenizer, manifest, card": [
            path
            for path in files
            if named[path].startswith(f"{MODEL}/") and path.name not in GRAPH_FILES
        ],
    }
    sizes = [
        PartSize(
            name,
            sum(path.stat().st_size for path in paths),
            sum(len(gzip.compress(path.read_bytes(), 9)) for path in paths),
        )
        for name, paths in parts.items()
    ]
    total = PartSize("all", sum(s.bytes for s in sizes), sum(s.gzip_bytes for s in sizes))
    return [*sizes, total]


class Handler(SimpleHTTPRequestHandler):
    """Static files with the types that browsers insist on, and a policy of no outside requests."""

    extensions_map = TYPES

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_request(self, *_: Any) -> None:
        """Only errors are logged."""


class Server(ThreadingHTTPServer):
    """Says nothing of browsers that hang up, as they do when a page is closed or reloaded."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def make_server(folder: Path, host: str, port: int) -> Server:
    """A server of static files. Raises OSError if the port is taken; port 0 takes a free one."""
    return Server((host, port), partial(Handler, directory=str(folder)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Assemble, print the sizes and, where asked for, serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m export.web", description=__doc__.split("\n")[0]
    )
    parser.add_argument("model", type=Path, help="the bundle")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--serve", action="store_true", help="serve it until Ctrl+C")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    try:
        folder = assemble(options.model, options.out)
        _print_sizes(folder, part_sizes(folder))
        if options.serve:
            _serve(folder, options.host, options.port)
    except (BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _copy_page(page: Path, draft: Path) -> None:
    library = sorted(path.name for path in (page / LIBRARY).glob("*.js"))
    if not library:
        raise BundleError(f"{page} is not there: build the page from a checkout of Quickstudy")
    for name in (*PAGE_FILES, *(f"{LIBRARY}/{name}" for name in library)):
        _copy(page / name, draft / name)


def _copy_runtime(package: Path, folder: Path) -> None:
    for source, name in RUNTIME_FILES.items():
        if not (package / "dist" / source).is_file():
            raise BundleError(
                f"{package / 'dist' / source} is missing: run `npm ci` in "
                f"{package.parents[1]}, or `make demo-web`, which does"
            )
        _copy(package / "dist" / source, folder / name)
    listed = {
        name: FileEntry(
            bytes=(folder / name).stat().st_size, sha256=sha256_of(folder / name)
        ).model_dump()
        for name in RUNTIME_FILES.values()
    }
    version = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    text = json.dumps({"onnxruntime-web": version, "files": listed}, indent=2)
    (folder / RUNTIME_LIST).write_text(text + "\n", encoding="utf-8")


def _swap(draft: Path, out: Path) -> None:
    """Put `draft` in the place of `out`; if that fails, `out` comes back."""
    former = draft.with_suffix(".former")
    if out.exists():
        out.rename(former)
    try:
        draft.rename(out)
    except OSError:
        if former.exists():
            former.rename(out)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _print_sizes(folder: Path, sizes: Sequence[PartSize]) -> None:
    print(f"{folder}\n{'part':<26} {'MB':>7} {'gzip':>7}")
    for part in sizes:
        print(f"{part.name:<26} {part.bytes / 1e6:7.2f} {part.gzip_bytes / 1e6:7.2f}", flush=True)


def _serve(folder: Path, host: str, port: int) -> None:
    try:
        server = make_server(folder, host, port)
    except OSError as error:
        raise OSError(f"port {port} of {host}: {error.strerror}; choose another, PORT=…") from error
    with server:
        print(f"Open http://{host}:{server.server_port}/ (Ctrl+C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    sys.exit(main())
