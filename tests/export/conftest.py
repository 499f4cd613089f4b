from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export.runtime.bundle import Bundle, load_bundle
from tests.export import tiny


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
