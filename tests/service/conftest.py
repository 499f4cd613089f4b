from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from export.runtime.bundle import Bundle, write_bundle
from export.runtime.engines import Engine, load_engine
from export.runtime.manifest import CARD_FILE, BundleInfo
from service.app import create_app, guarded
from service.models import Model, ModelSet
from service.settings import Settings
from service.translator import Translator
from tests.export import tiny

MakeClient = Callable[..., TestClient]
MakePair = Callable[[str, str], Bundle]


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
    """Clients of the guarded app in process; settings, the engine and bundles of more pairs can be
    given."""
    with ExitStack() as stack:

        def make(
            instead: Engine | None = None, pairs: Sequence[Bundle] = (), **values: object
        ) -> TestClient:
            settings = Settings(model=Path(tiny_bundle.path), inter_threads=1, **values)
            bundles = (tiny_bundle, *pairs)
            models = ModelSet([Model.of(each, instead or engine, settings) for each in bundles])
            app = create_app(settings, Translator(models, settings))
            client = stack.enter_context(TestClient(guarded(app, settings)))
            client.app_state = dict(app.state.__dict__["_state"])
            stack.callback(lambda: client.portal and client.portal.call(app.state.jobs.close))
            return client

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()


@pytest.fixture(scope="session")
def make_pair(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> MakePair:
    """The tiny bundle under other languages; the same one for the same pair."""
    made: dict[tuple[str, str], Bundle] = {}

    def make(source: str, target: str) -> Bundle:
        if (source, target) not in made:
            out = tmp_path_factory.mktemp("pair") / f"{source}-{target}"
            fields = {name: getattr(tiny_bundle.manifest, name) for name in BundleInfo.model_fields}
            languages = {"source_lang": source, "target_lang": target, "name": out.name}

            def fill(draft: Path) -> None:
                for name in set(tiny_bundle.manifest.files) - {CARD_FILE}:
                    (draft / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(tiny_bundle.path / name, draft / name)

            made[source, target] = write_bundle(
                out, BundleInfo(**{**fields, **languages}), fill=fill, verify=lambda _: None
            )
        return made[source, target]

    return make
