"""DeepL's client for Node.js against a served process."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from export.runtime.bundle import Bundle
from tests.service.conftest import MakePair
from tests.service.serving import serving

FOLDER = Path(__file__).parent / "node"
PACKAGE = FOLDER / "node_modules" / "deepl-node"
WITHIN_S = 120

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(which("node") is None, reason="needs Node.js"),
    pytest.mark.skipif(
        not PACKAGE.is_dir(), reason="needs deepl-node (cd tests/service/node && npm ci)"
    ),
]


@pytest.fixture(scope="module")
def answers(
    tiny_bundle: Bundle, make_pair: MakePair, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("node")
    models = f"{tiny_bundle.path},{make_pair('fr', 'en').path}"
    with serving(folder, models=models) as served:
        command = ["node", "deepl.mjs", str(served.client.base_url)]
        run = subprocess.run(
            command, cwd=FOLDER, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_texts(answers: dict[str, Any]) -> None:
    texts = answers["texts"]
    assert texts["first"]["text"]
    assert texts["first"]["detectedSourceLang"] == "en"
    assert texts["first"]["modelTypeUsed"] == "latency_optimized"
    assert re.fullmatch(r"<b>.+</b>", texts["second"]["text"])
    assert texts["detected"]["text"]


def test_documents(answers: dict[str, Any]) -> None:
    documents = answers["documents"]
    assert documents["state"] == "done"
    assert documents["html"] == f'<p class="x">{documents["text"]}</p>'


def test_glossaries(answers: dict[str, Any]) -> None:
    glossaries = answers["glossaries"]
    assert glossaries["isListed"]
    assert glossaries["terms"] == {"cat": "Katze"}
    assert "Katze" in glossaries["used"]
    assert glossaries["gone"][0] == "GlossaryNotFoundError"
    assert (glossaries["counts"], glossaries["names"]) == ([1, 1], ["pets"])


def test_languages_and_usage(answers: dict[str, Any]) -> None:
    assert answers["sources"] == ["en", "fr"]
    assert {"de", "en-US"} & set(answers["targets"])
    assert ["en", "de"] in answers["pairs"]
    assert answers["usage"]["count"] >= 0


def test_what_is_not_supported_is_said(answers: dict[str, Any]) -> None:
    messages = [message for _, message in answers["refused"]]
    for message, said in zip(
        messages,
        ("model_type", "custom_instructions", "style_id", "target_lang", "/v2/write", "/v3/style"),
        strict=True,
    ):
        assert said in message
