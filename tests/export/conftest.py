from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.importing import built_in_sentences
from export.runtime.bundle import Bundle, load_bundle
from tests.export import tiny


@pytest.fixture(scope="session", autouse=True)
def few_built_in_sentences() -> Iterator[None]:
    """For the gate of an import: a model of random weights ends no sentence before its limit, so
    that two hundred of them take most of a test's time."""
    with pytest.MonkeyPatch.context() as patch:
        few = lambda language: built_in_sentences(language)[::10]  # noqa: E731
        patch.setattr("export.importing.built_in_sentences", few)
        yield


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.train_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model")


@pytest.fixture(scope="session")
def pristine_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Bundle:
    """A bundle that tests only read."""
    return tiny.make_bundle(tmp_path_factory.mktemp("bundles") / "tiny", tokenizer_path)


@pytest.fixture
def bundle(tmp_path: Path, pristine_bundle: Bundle) -> Bundle:
    """A copy of the bundle that a test may change."""
    shutil.copytree(pristine_bundle.path, tmp_path / "tiny")
    return load_bundle(tmp_path / "tiny")
