"""`quickstudy bundle …`: its words and exit codes."""

from __future__ import annotations

import json
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from typer.testing import CliRunner

from export import verify
from export.cli import bundle_app
from export.runtime.bundle import Bundle
from export.runtime.engines import expected_runtime
from tests.export.hostile import list_again

RUN = CliRunner()


def test_inspect(pristine_bundle: Bundle) -> None:
    done = RUN.invoke(bundle_app, ["inspect", str(pristine_bundle.path)])
    assert done.exit_code == 0
    manifest = pristine_bundle.manifest
    for needed in ("en → de", f"{manifest.parameters:,}", "CC-BY 2.0 FR", "Export gate: not run"):
        assert needed in done.stdout
    assert expected_runtime(pristine_bundle, manifest.engines[0]) in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if "ctranslate2-float32  " in line]
    assert row.split()[1:5] == ["ctranslate2", "float32", "float32", "no"]
    done = RUN.invoke(bundle_app, ["inspect", str(pristine_bundle.path), "--json"])
    found = json.loads(done.stdout)
    assert found["engines"][0]["bytes"] == manifest.engine_bytes(manifest.engines[0])
    assert found["files"]["recipe.yaml"]["bytes"] == len("name: tiny\n")


def test_strangers_words_do_not_steer_the_terminal(bundle: Bundle) -> None:
    path = bundle.path / "manifest.json"
    raw = json.loads(path.read_text())
    raw["description"] = "a\x1b[2Jb [red]c[/red]"
    path.write_text(json.dumps(raw))
    (bundle.path / "README.md").write_text("# x\x1b]0;y\x07\n")
    list_again(bundle.path)
    done = RUN.invoke(bundle_app, ["inspect", str(bundle.path)])
    assert "a\\x1b[2Jb [red]c[/red]" in done.stdout
    done = RUN.invoke(bundle_app, ["card", str(bundle.path)])
    assert done.stdout == "# x\\x1b]0;y\\x07\n"


def test_card_and_schema(pristine_bundle: Bundle) -> None:
    done = RUN.invoke(bundle_app, ["card", str(pristine_bundle.path)])
    assert done.stdout == (pristine_bundle.path / "README.md").read_text()
    done = RUN.invoke(bundle_app, ["schema"])
    schema = json.loads(done.stdout)
    assert schema["additionalProperties"] is False
    assert "gate" in schema["properties"]


def test_verify_names_every_check_and_fault(bundle: Bundle) -> None:
    (bundle.path / "engines/ctranslate2-float32/model.bin").write_bytes(b"nothing")
    list_again(bundle.path)
    done = RUN.invoke(bundle_app, ["verify", str(bundle.path)])
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert [line[:5] for line in lines] == ["ok   "] * 4 + ["FAULT"]
    assert "engine ctranslate2-int8: loads and translates" in lines[3]
    assert "ctranslate2-float32" in lines[4]
    assert "not a CTranslate2 model" in lines[4]


def test_verify_of_a_damaged_file(bundle: Bundle) -> None:
    (bundle.path / "recipe.yaml").write_text("name: tinx\n")
    done = RUN.invoke(bundle_app, ["verify", str(bundle.path)])
    assert done.exit_code == 1
    assert done.stdout.startswith("FAULT files: ")
    assert "recipe.yaml has SHA-256" in done.stdout


def crash(path: Path, name: str, answer: Connection) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_an_engine_that_crashes_is_a_fault(pristine_bundle: Bundle) -> None:
    fault = verify._try_apart(pristine_bundle.path, "ctranslate2-int8", crash)
    assert fault == "engine ctranslate2-int8 ended its process (exit code -11): do not use it"


def test_push_and_pull(pristine_bundle: Bundle, tmp_path: Path) -> None:
    shelf = str(tmp_path / "shelf")
    done = RUN.invoke(bundle_app, ["push", str(pristine_bundle.path), shelf, "--tag", "first"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"pushed to {shelf}#first: 10 files of ")
    done = RUN.invoke(bundle_app, ["pull", f"{shelf}#first", str(tmp_path / "back")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "back/manifest.json").is_file()
    small = ["pull", shelf, str(tmp_path / "other"), "--max-gib", "0.00001"]
    assert "at most 10,737 are taken" in str(RUN.invoke(bundle_app, small).exception)


def test_printing_goes_on_where_the_terminal_is_narrow(pristine_bundle: Bundle) -> None:
    done = RUN.invoke(bundle_app, ["inspect", str(pristine_bundle.path)], env={"COLUMNS": "40"})
    assert done.exit_code == 0
