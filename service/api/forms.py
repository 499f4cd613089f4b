"""Bodies of the LibreTranslate and DeepL APIs: JSON or a form, read into one typed request."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.formparsers import MultiPartException

from service.errors import SEND_JSON, ApiError, explain

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
MAX_FORM_FIELDS = 10_000
OF_LIST = re.compile(r"(\w{1,40})\[(\d{1,3})\]\.(\w{1,40})", re.ASCII)
"""A field of an object in a list, as DeepL's client for Node.js has it: `dictionaries[0].name`."""
M = TypeVar("M", bound=BaseModel)


async def read_body(request: Request, model: type[M]) -> M:
    """The request's fields as `model`; those of the query where the body has none of that name.

    A form's field that comes several times is a list, and so are fields named `a[0].b`. Raises
    ApiError 400 that says what is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fields = await _form(request) if kind in FORMS else _json(await request.body())
    for name, value in request.query_params.items():
        fields.setdefault(name, value)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        field, message = explain(error.errors()[0])
        raise ApiError(400, "invalid_request", message, field) from error


def described(model: type[BaseModel]) -> dict[str, Any]:
    """For OpenAPI: a body that is JSON or a form of this model."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    content = {"schema": schema}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": content, FORMS[0]: content},
        }
    }


def described_query(model: type[BaseModel]) -> dict[str, Any]:
    """For OpenAPI: this model's fields as parameters of the query."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": field}
            for name, field in schema["properties"].items()
        ]
    }


async def _form(request: Request) -> dict[str, Any]:
    try:
        form = await request.form(max_files=0, max_fields=MAX_FORM_FIELDS)
    except (MultiPartException, UnicodeDecodeError) as error:
        raise ApiError(400, "invalid_request", f"the form cannot be read: {error}") from error
    fields: dict[str, Any] = {}
    lists: dict[str, dict[int, dict[str, Any]]] = {}
    for name in form:
        values = form.getlist(name)
        value = values if len(values) > 1 else values[0]
        if within := OF_LIST.fullmatch(name):
            objects = lists.setdefault(within[1], {})
            objects.setdefault(int(within[2]), {})[within[3]] = value
        else:
            fields[name] = value
    for name, objects in lists.items():
        fields.setdefault(name, [objects[number] for number in sorted(objects)])
    return fields


def _json(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        fields = from_json(body)
    except ValueError as error:
        message = f"the body is not valid JSON ({error}): {SEND_JSON}, or a form"
        raise ApiError(400, "invalid_request", message) from error
    if not isinstance(fields, dict):
        raise ApiError(400, "invalid_request", f"the body is not a JSON object: {SEND_JSON}")
    return fields
