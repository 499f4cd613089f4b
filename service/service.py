"""The BentoML service. All it does is join a FastAPI app with a loaded model."""

from __future__ import annotations

import os

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml

from service.api.app import create_app, guarded
from service.settings import Settings
from service.translator import Translator

SETTINGS = Settings()
TIMEOUT_S = 10
"""BentoML keeps memory for each request this long; our own limit, `timeout_s`, comes before."""

app = create_app()


@bentoml.service(
    name="quickstudy", workers=1, traffic={"timeout": TIMEOUT_S}, metrics={"enabled": False}
)
@bentoml.asgi_app(guarded(app, SETTINGS.max_body_bytes), path="/")
class Translation:
    """Translates by the bundles that are set, in one process with as many threads as set."""

    def __init__(self) -> None:
        app.state.translator = Translator.load(SETTINGS)

    async def __is_ready__(self) -> bool:
        translator: Translator = app.state.translator
        return await translator.ready()

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Stop the queue's workers."""
        await app.state.translator.close()
