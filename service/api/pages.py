"""The pages: a box to translate in, and the API's documentation. They load nothing from outside."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response

router = APIRouter(include_in_schema=False)

UI_FOLDER = Path(__file__).resolve().parents[1] / "ui"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
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
READ = ["GET", "HEAD"]


def _file(name: str) -> Response:
    if name not in FILES:
        raise HTTPException(404)
    media_type = MEDIA_TYPES[Path(name).suffix]
    return Response(FILES[name], media_type=media_type, headers=HEADERS)


@router.api_route("/", methods=READ)
async def index() -> Response:
    """The page to translate in."""
    return _file("index.html")


@router.api_route("/docs", methods=READ)
async def docs() -> Response:
    """The API's documentation, drawn from /openapi.json."""
    return _file("docs.html")


@router.api_route("/docs.json", methods=READ)
async def docs_json(request: Request) -> Response:
    """The OpenAPI document, where BentoML has it."""
    return JSONResponse(request.app.openapi())


@router.api_route("/ui/{name}", methods=READ)
async def ui_file(name: str) -> Response:
    """A style sheet or a script of the pages."""
    return _file(name)
