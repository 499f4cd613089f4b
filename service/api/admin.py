"""What only administrators may do: serve other bundles without a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from export.errors import BundleError
from service.api.errors import ApiError, ErrorBody
from service.api.native import ModelList, model_list
from service.api.work import ERRORS, AccessDep, TranslatorDep

router = APIRouter(prefix="/admin", tags=["administration"])


class SwapRequest(BaseModel):
    """Which bundles to serve from now on."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"models": ["/models/en-de"]}, {}]}
    )

    models: list[Annotated[str, Field(min_length=1, max_length=4096)]] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Bundle folders on the service's disk, the default one first; "
        "those of the settings, read again, if left out.",
    )


@router.post(
    "/models",
    responses={
        400: ERRORS[400],
        401: {"model": ErrorBody, "description": "No key."},
        403: {"model": ErrorBody, "description": "Not an administrator's key."},
        415: ERRORS[415],
        429: {"model": ErrorBody, "description": "Too many wrong keys came from this address."},
        422: {"model": ErrorBody, "description": "A bundle cannot be served; nothing changed."},
    },
)
async def swap(
    request: Request, door: AccessDep, translator: TranslatorDep, body: SwapRequest
) -> ModelList:
    """Load bundles, prove them and put them in the place of the served ones.

    Requests that have begun end with the former ones. If one cannot be loaded, nothing changes.
    """
    door.check_admin(request)
    try:
        models = await translator.swap([Path(folder) for folder in body.models or []])
    except BundleError as error:
        raise ApiError(422, "bad_bundle", str(error), "models") from error
    return model_list(models.models)
