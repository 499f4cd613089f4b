"""The command line: messages, exit codes, `translate`, and that serving never needs torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import quickstudy
from quickstudy import cli
from quickstudy.cli import TRAIN_EXTRA as EXTRA
from quickstudy.errors import ADVICE, QuickstudyError
from service.settings import SettingsError
from tests.export import tiny
from tests.shipped_recipes import lacks_another_run_alone

ROOT = Path(__file__).parents[1]


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["quickstudy", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
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
    """All but the made-up corpus may lack their text; a recipe that takes its teacher of another
    one, or a student to go on from, may lack those."""
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


BUNDLE = ROOT / "models" / "everyday" / "en-de"
TRANSLATE = [sys.executable, "-m", "quickstudy", "translate"]


@pytest.fixture(autouse=True)
def everyday(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_MODEL", str(BUNDLE))


def test_translate_answers_each_line_before_it_reads_the_next() -> None:
    with subprocess.Popen(
        TRANSLATE, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = []
        for line in ("Good morning.\n", "\n", "Where is the station?\n"):
            process.stdin.write(line)
            process.stdin.flush()
            answers.append(process.stdout.readline())
        process.stdin.close()
        assert process.stdout.read() == ""
    assert answers == ["Guten Morgen!\n", "\n", "Wo ist der Bahnhof?\n"]
    assert process.returncode == 0


def translate(text: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*TRANSLATE, *arguments], cwd=ROOT, input=text, capture_output=True)


def test_translate_gives_what_the_api_gives_line_by_line() -> None:
    lines = [f"I have {row} dogs, {{name}}." for row in range(40)] + ["", "  - The end"]
    lines += ["The train is late. " * 3000]  # longer than what is read at a time
    done = translate("\r\n".join(lines).encode(), str(BUNDLE), "--beam-size", "2")
    with quickstudy.load(BUNDLE) as model:
        text = done.stdout.decode()
        assert text.count("\r\n") == len(lines) - 1, "line ends stay"
        assert text.splitlines() == model.translate(lines, beam_size=2)


def test_translate_takes_markup_as_one_document() -> None:
    text = "<p>Open <b>the window</b>,\r\nplease.</p>\n"
    done = translate(text.encode(), "--format", "html")
    with quickstudy.load(BUNDLE) as model:
        assert done.stdout.decode() == model.translate(text, format="html")


def test_translate_refuses_a_beam_before_it_waits_for_text(tmp_path: Path) -> None:
    tokenizer = tiny.train_tokenizer(tmp_path / "tokenizer.model")
    bundle = tiny.make_bundle(tmp_path / "tiny", tokenizer, engines=["onnx-float32"])
    command = [*TRANSLATE, str(bundle.path), "--beam-size", "2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stderr is not None
        message = process.stderr.read().decode()  # standard input stays open
        assert process.wait(60) == 1
    assert message.startswith("quickstudy: beam_size is 2, but the engine onnx-float32 of ")
    assert message.endswith("only decodes greedily: leave it out\n")


def test_translate_refuses_what_is_not_text() -> None:
    done = translate(b"caf\xe9\n")
    assert done.returncode == 1
    assert done.stderr.startswith(b"quickstudy: standard input is not utf-8 text: convert it")


@pytest.mark.parametrize("command", ["label", "run", "study"])
def test_force_asks_a_weak_teacher_too(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("quickstudy.cli._stages", lambda run: asked.append(run.label_anyway) or {})
    monkeypatch.setattr("quickstudy.cli._run_stage", lambda run, *_: asked.append(run.label_anyway))
    monkeypatch.setattr(
        "benchmarks.study.run.run_study", lambda bench, *_: asked.append(bench.force)
    )
    recipe = str(ROOT / "recipes" / ("study-tiny.yaml" if command == "study" else "tiny.yaml"))
    for force in ([], ["--force"]):
        run(command, recipe, "--runs", str(tmp_path), *force, monkeypatch=monkeypatch)
    assert asked == [False, True]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (QuickstudyError("do this"), "quickstudy: do this\n"),
        (SettingsError("do that"), "quickstudy: do that\n"),
        (OSError(28, "No space left on device", "a/b"), f"quickstudy: a/b: {ADVICE[28]}\n"),
        (ModuleNotFoundError(name="torch"), f"quickstudy: torch is not installed; try: {EXTRA}\n"),
    ],
)
def test_errors_that_can_be_put_right_are_one_message(
    error: Exception,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("quickstudy.cli.app", fail)
    assert run(monkeypatch=monkeypatch) == 1
    assert capsys.readouterr().err == message


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class SettingsError(Exception):
        """Called as an error of the user's, and none."""

    def fail() -> None:
        raise failure

    monkeypatch.setattr("quickstudy.cli.app", fail)
    for failure in (SettingsError("x"), ValueError("x"), OSError(111, "Connection refused")):
        with pytest.raises(type(failure)):
            cli.main()


def test_what_a_command_works_on_comes_before_slow_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "quickstudy.pipeline", None)
    recipe = str(ROOT / "recipes" / "tiny.yaml")
    assert run("prepare", recipe, "--runs", str(tmp_path), monkeypatch=monkeypatch) == 1
    assert capsys.readouterr().err.startswith(f"tiny: results in {tmp_path / 'tiny'}\n")


def test_recipe_check_finds_missing_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(ROOT / "recipes" / "tiny.yaml")
    arguments = ("recipe", "check", recipe, "--data", str(tmp_path))
    assert run(*arguments, monkeypatch=monkeypatch) == 1
    err = capsys.readouterr().err
    assert "6 fault(s)" in err
    assert f"corpus.validation.trg: no file {tmp_path / 'val.de'}" in err
    misspelt = ("recipe", "check", recipe, "--set", "corpus.validation.src=val.ne")
    assert run(*misspelt, monkeypatch=monkeypatch) == 1
    assert "1 fault(s)" in capsys.readouterr().err


def test_checking_a_recipe_imports_no_torch() -> None:
    code = (
        "import sys; from training.config.io import check_recipe; "
        "check_recipe('recipes/tiny.yaml'); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module", ["quickstudy.cli", "quickstudy.api", "service.service", "export.runtime.bundle"]
)
def test_what_serving_installs_imports_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_word_pairs_are_written_or_it_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    src, trg, out = tmp_path / "text.en", tmp_path / "text.de", tmp_path / "words.tsv"
    src.write_text("the dog\nthe cat\nthe cow\n" * 4)
    trg.write_text("der Hund\ndie Katze\nder Ochse\n" * 4)
    arguments = ("word-pairs", str(src), str(trg), "--out", str(out))
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert "cow\tOchse" in out.read_text().splitlines()
    assert f"{out}: {len(out.read_text().splitlines())} lines" in capsys.readouterr().err
    assert run("word-pairs", str(src), "--out", str(out), monkeypatch=monkeypatch) == 1
    assert "give them in pairs" in capsys.readouterr().err


def test_grammar_pairs_writes_translated_sentences_or_names_the_faulty_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, out = tmp_path / "rules.txt", tmp_path / "pairs.tsv"
    rules.write_text("[sentence]\nA {color} car. | Ein {color}es Auto.\n[color]\nred | rot\n")
    arguments = ("grammar-pairs", str(rules), "--out", str(out), "--sentences", "1")
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert out.read_text() == "A red car.\tEin rotes Auto.\n"
    out.unlink()
    rules.write_text("[sentence]\nA {color} car. | Ein Auto.\n")
    assert run(*arguments, monkeypatch=monkeypatch) == 1
    assert f"{rules}:2: {{color}} stands on one side alone" in capsys.readouterr().err
    assert not out.exists()


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
