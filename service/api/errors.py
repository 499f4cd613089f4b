"""Every error is JSON: `{"error": {"code", "message", "field"}}`, and says what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

logger = logging.getLogger("quickstudy.service")

SEND_JSON = "send a JSON object, with the header Content-Type: application/json"
CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="A fixed word for programs.")
    message: str = Field(description="What is wrong and what to do, for people.")
    field: str | None = Field(default=None, description="The field of the request at fault.")


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer other than success; raise it anywhere below a route."""

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


def error_response(
    status: int,
    code: str,
    message: str,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error's response."""
    body = ErrorBody(error=ErrorDetail(code=code, message=message, field=field))
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)


def internal_error() -> JSONResponse:
    """The response to an error of ours, telling nothing of its inside."""
    return error_response(500, "internal", "the service failed on this request: see its log")


def add_error_handlers(app: FastAPI) -> None:
    """Make every error of the app an `ErrorBody`."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(Exception, _on_exception)


async def _on_api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error_response(error.status, error.code, error.message, error.field, error.headers)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    messages = {
        400: f"the body cannot be read: {SEND_JSON}, in UTF-8",
        404: f"there is nothing at {request.url.path}: /docs lists what there is",
        405: f"{request.method} is not possible at {request.url.path}: see the Allow header",
    }
    status = error.status_code
    message = messages.get(status, str(error.detail))
    return error_response(status, CODES.get(status, "error"), message, headers=error.headers)


async def _on_validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    field, message = _explain(error.errors()[0])
    return error_response(422, "invalid_request", message, field)


async def _on_exception(_: Request, error: Exception) -> JSONResponse:
    return internal_error()


def _explain(error: Mapping[str, Any]) -> tuple[str | None, str]:
    """The field at fault and what to do, from one of pydantic's errors."""
    if error["type"] == "json_invalid":
        return None, f"the body is not valid JSON ({error['ctx']['error']}): {SEND_JSON}"
    location: Sequence[Any] = error["loc"][1:]
    if not location:
        return None, f"the body is not a JSON object: {SEND_JSON}"
    field = str(location[0])
    if error["type"] == "missing":
        return field, f"`{field}` is required"
    if error["type"] == "extra_forbidden":
        return field[:100], f"`{field[:100]}` is not a field of this request: leave it out"
    return field, f"`{field}`: {error['msg'].removeprefix('Value error, ')}"
