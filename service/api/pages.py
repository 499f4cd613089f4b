"""The pages: two panes to translate in, and the API's documentation.

They load nothing from outside, and no script or style but their own files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response

router = APIRouter(include_in_schema=False)

UI_FOLDER = Path(__file__).resolve().parents[1] / "ui"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
FILES = {
    path.name: path.read_bytes()
    for path in sorted(UI_FOLDER.iterdir())
    if path.suffix in MEDIA_TYPES
}
TAGS = {name: f'"{hashlib.sha256(content).hexdigest()[:32]}"' for name, content in FILES.items()}
"""Entity tags: a browser that has a file asks for it again, and gets 304 if it is the same."""
READ = ["GET", "HEAD"]


def _file(name: str, request: Request) -> Response:
    if name not in FILES:
        raise HTTPException(404)
    headers = {**HEADERS, "ETag": TAGS[name]}
    known = request.headers.get("If-None-Match", "").replace("W/", "")
    if TAGS[name] in {tag.strip() for tag in known.split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(FILES[name], media_type=MEDIA_TYPES[Path(name).suffix], headers=headers)


@router.api_route("/", methods=READ)
async def index(request: Request) -> Response:
    """The page to translate in."""
    return _file("index.html", request)


@router.api_route("/docs", methods=READ)
async def docs(request: Request) -> Response:
    """The API's documentation, drawn from /openapi.json."""
    return _file("docs.html", request)


@router.api_route("/docs.json", methods=READ)
async def docs_json(request: Request) -> Response:
    """The OpenAPI document, where BentoML has it."""
    return JSONResponse(request.app.openapi())


@router.api_route("/ui/{name}", methods=READ)
async def ui_file(name: str, request: Request) -> Response:
    """A style sheet or a script of the pages."""
    return _file(name, request)
