"""The FastAPI app: the HTTP shapes joined together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from service.api import native, pages
from service.api.errors import add_error_handlers
from service.translator import Translator


def create_app(translator: Translator | None = None) -> FastAPI:
    """An app whose `state.translator` answers; until it is set, requests get 503."""
    app = FastAPI(
        title="Quickstudy",
        summary="Fast machine translation by a distilled model.",
        version=_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.translator = translator
    add_error_handlers(app)
    app.include_router(native.router)
    app.include_router(pages.router)
    return app


def _version() -> str:
    try:
        return version("quickstudy")
    except PackageNotFoundError:
        return "0"
