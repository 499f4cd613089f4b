"""Errors: JSON in the dialect of the API that was called, with a message that says what to do.

Code anywhere below a route raises `ApiError`; the path chooses the dialect. Quickstudy's own is
`{"error": {"code", "message", "field", "request_id"}}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from service.observability import current_metrics

SEND_JSON = "send a JSON object, with the header Content-Type: application/json"
CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="A fixed word for programs.")
    message: str = Field(description="What is wrong and what to do, for people.")
    field: str | None = Field(default=None, description="The field of the request at fault.")
    request_id: str | None = Field(
        default=None, description="Names this request in the service's log."
    )


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class ApiError(Exception):
    """An error response; raise it anywhere below a route."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = headers

    @classmethod
    def later(cls, status: int, code: str, message: str, seconds: float) -> ApiError:
        """A temporary error: Retry-After says when to try again."""
        return cls(status, code, message, headers={"Retry-After": str(max(1, -int(-seconds // 1)))})


def native_body(error: ApiError) -> dict[str, Any]:
    """The body of an error in Quickstudy's own API."""
    metrics = current_metrics()
    detail = ErrorDetail(
        code=error.code,
        message=error.message,
        field=error.field,
        request_id=metrics.id if metrics else None,
    )
    return ErrorBody(error=detail).model_dump()


@dataclass(frozen=True)
class ErrorDialect:
    """An API's errors: the body, its own status for some codes, and its names for our fields."""

    body: Callable[[ApiError], dict[str, Any]] = native_body
    statuses: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def response(self, error: ApiError) -> JSONResponse:
        """The response to an error."""
        for ours, theirs in self.names.items():
            error.message = error.message.replace(f"`{ours}`", f"`{theirs}`")
        status = self.statuses.get(error.code, error.status)
        return JSONResponse(self.body(error), status_code=status, headers=error.headers)


NATIVE = ErrorDialect()
_DIALECTS: dict[str, ErrorDialect] = {}


def register_dialect(dialect: ErrorDialect, *prefixes: str) -> None:
    """Use a dialect for errors under these paths."""
    _DIALECTS.update(dict.fromkeys(prefixes, dialect))


def error_response(path: str, error: ApiError) -> JSONResponse:
    """The response to an error, in the dialect of the path."""
    for prefix, dialect in _DIALECTS.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            return dialect.response(error)
    return NATIVE.response(error)


def internal_error(path: str) -> JSONResponse:
    """The response to an internal error, without its details."""
    message = "the service failed on this request: see its log"
    return error_response(path, ApiError(500, "internal", message))


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of the app in the dialect of its path."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(Exception, _on_exception)


async def _on_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error_response(request.url.path, error)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    path = request.url.path
    messages = {
        400: f"the body cannot be read: {SEND_JSON}, in UTF-8",
        404: f"there is nothing at {path}: /docs lists what there is",
        405: f"{request.method} is not possible at {path}: see the Allow header",
    }
    status = error.status_code
    message = messages.get(status, str(error.detail))
    code = CODES.get(status, "error")
    return error_response(path, ApiError(status, code, message, headers=error.headers))


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    field, message = explain(error.errors()[0], skip=1)
    return error_response(request.url.path, ApiError(422, "invalid_request", message, field))


async def _on_exception(request: Request, error: Exception) -> JSONResponse:
    return internal_error(request.url.path)


def explain(error: Mapping[str, Any], skip: int = 0) -> tuple[str | None, str]:
    """The field at fault and what to do, from one of pydantic's errors.

    The first `skip` steps of its location are FastAPI's (`body`), not the client's.
    """
    if error["type"] == "json_invalid":
        return None, f"the body is not valid JSON ({error['ctx']['error']}): {SEND_JSON}"
    location: Sequence[Any] = error["loc"][skip:]
    if not location:
        return None, f"the body is not a JSON object: {SEND_JSON}"
    field = str(location[0])
    if error["type"] == "missing":
        return field, f"`{field}` is required"
    if error["type"] == "extra_forbidden":
        return field[:100], f"`{field[:100]}` is not a field of this request: leave it out"
    return field, f"`{field}`: {error['msg'].removeprefix('Value error, ')}"
