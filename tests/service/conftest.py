from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from export.bundle import Bundle
from export.engines import Engine, load_engine
from service.api.app import create_app, guarded
from service.settings import Settings
from service.translator import Translator
from tests.export import tiny

MakeClient = Callable[..., TestClient]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that has learnt to repeat its source, more or less."""
    folder = tmp_path_factory.mktemp("served")
    tokenizer = tiny.train_tokenizer(folder / "tokenizer.model")
    return tiny.make_bundle(folder / "tiny", tokenizer)


@pytest.fixture(scope="session")
def engine(tiny_bundle: Bundle) -> Engine:
    return load_engine(tiny_bundle)


@pytest.fixture
def make_client(tiny_bundle: Bundle, engine: Engine) -> Iterator[MakeClient]:
    """Clients of the guarded app in process; settings and the engine can be given."""
    with ExitStack() as stack:

        def make(instead: Engine | None = None, **values: object) -> TestClient:
            settings = Settings(model=Path(tiny_bundle.path), inter_threads=1, **values)
            app = create_app(Translator(tiny_bundle, instead or engine, settings))
            return stack.enter_context(TestClient(guarded(app, settings.max_body_bytes)))

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()
