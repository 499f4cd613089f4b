"""The command line: its words, its exit codes, and that serving never needs torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import quickstudy
from tests.shipped_recipes import lacks_another_run_alone

ROOT = Path(__file__).parents[1]


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["quickstudy", *arguments])
    with pytest.raises(SystemExit) as ended:
        quickstudy.main()
    return int(ended.value.code or 0)


def test_recipe_check_lists_every_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "bad.yaml"
    good = (ROOT / "recipes" / "tiny.yaml").read_text()
    recipe.write_text(good.replace("beam_size: 4", "beam_size: 0\n  beam: 4"))
    assert run("recipe", "check", str(recipe), monkeypatch=monkeypatch) == 1
    message = capsys.readouterr().err
    assert "2 fault(s)" in message
    assert "labels.beam_size" in message
    assert "labels.beam:" in message


def test_recipe_check_accepts_what_ships(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the made-up corpus may lack their text; a recipe that takes its teacher, and a student
    to go on from, of another one may lack those."""
    assert run("recipe", "check", str(ROOT / "recipes" / "tiny.yaml"), monkeypatch=monkeypatch) == 0
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        if recipe.name.startswith("study-"):
            continue
        if run("recipe", "check", str(recipe), monkeypatch=monkeypatch):
            assert lacks_another_run_alone(capsys.readouterr().err), recipe.name


def test_recipe_schema_is_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("recipe", "schema", monkeypatch=monkeypatch) == 0
    assert "corpus" in json.loads(capsys.readouterr().out)["properties"]


def test_a_missing_recipe_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("run", "nowhere.yaml", monkeypatch=monkeypatch) == 1
    assert capsys.readouterr().err == "quickstudy: nowhere.yaml: no such recipe\n"


def test_a_stage_before_its_time_names_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(ROOT / "recipes" / "tiny.yaml")
    assert run("label", recipe, "--runs", str(tmp_path), monkeypatch=monkeypatch) == 1
    assert "label needs the stage `teacher`" in capsys.readouterr().err


def test_a_missing_bundle_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("translate", str(tmp_path / "none"), monkeypatch=monkeypatch) == 1
    assert "quickstudy export" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["quickstudy", "service.service", "export.bundle"])
def test_serving_imports_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_recombine_writes_new_sentences_or_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "text.en", tmp_path / "new.en"
    text.write_text("a big dog barks\nthe big dog sleeps\na big cat sleeps\n")
    arguments = ("recombine", str(text), "--out", str(out))
    assert run(*arguments, "--sentences", "2", monkeypatch=monkeypatch) == 0
    assert sorted(out.read_text().splitlines()) == ["a big dog sleeps", "the big dog barks"]
    out.unlink()
    assert run(*arguments, "--sentences", "3", monkeypatch=monkeypatch) == 1
    assert "gave 2 new sentences of the 3 wanted" in capsys.readouterr().err
    assert run(*arguments, "--order", "2", monkeypatch=monkeypatch) == 1
    assert "--overlap 2 must be below --order 2" in capsys.readouterr().err
    assert not out.exists()
