"""`quickstudy translate` as a process, with the shipped bundle."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

import quickstudy
from quickstudy import cli
from service.settings import Settings
from service.translator import TranslationRequest, Translator

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models" / "everyday" / "en-de"
TRANSLATE = [sys.executable, "-m", "quickstudy", "translate"]
LINES = [
    "Good morning.",
    "",
    "  - Where is the station? I am late.",
    "Write to {name} or see https://example.com/a?b=c.",
    "“Hello…” she said – twice.",
    "I have 3 dogs.\tHe has 2 cats.",
    "THE WINDOW IS OPEN!",
    *(f"She bought {number} red apples at the market." for number in range(90)),
]


@pytest.fixture(autouse=True)
def everyday(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKSTUDY_MODEL", str(BUNDLE))


def run(
    *arguments: str | Path, text: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*TRANSLATE, *map(str, arguments)],
        cwd=ROOT,
        input=text.encode(),
        capture_output=True,
        env=os.environ | (environment or {}),
    )


def by_service(lines: Sequence[str]) -> list[str]:
    """What the service answers for the lines."""

    async def ask() -> list[str]:
        translator = Translator.load(Settings(model=BUNDLE, inter_threads=1))
        result = await translator.translate(TranslationRequest(lines))
        await translator.close_now()
        return [text.text for text in result.texts]

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def expected() -> list[str]:
    return by_service(LINES)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_file_is_translated_as_the_service_does(
    source: Path, tmp_path: Path, expected: list[str]
) -> None:
    text = "".join(f"{line}\n" for line in expected)
    output = tmp_path / "out.txt"
    environment = {"QUICKSTUDY_MODEL": str(BUNDLE)}
    done = run(
        "--input", source, "--output", output, "--shard-lines", "40", environment=environment
    )
    assert (done.returncode, done.stdout) == (0, b"")
    assert output.read_text(encoding="utf-8") == text
    assert f"translating: {len(LINES)} of {len(LINES)} lines".encode() in done.stderr
    streamed = run("--input", source)
    assert streamed.stdout.decode() == text
    assert f"translating: {len(LINES)} of {len(LINES)} lines".encode() in streamed.stderr
    piped = run(text=source.read_text(encoding="utf-8"))
    assert piped.stdout.decode() == text
    assert piped.stderr == b"", "nobody knows how much will come"


def test_a_dash_is_standard_input_and_output(expected: list[str]) -> None:
    done = run("--input", "-", "--output", "-", text=f"{LINES[0]}\n")
    assert (done.returncode, done.stdout.decode()) == (0, f"{expected[0]}\n")
    assert not (ROOT / "-").exists()


@pytest.mark.slow
def test_jsonl_streams_too(expected: list[str]) -> None:
    text = "".join(json.dumps({"id": row, "en": line}) + "\n" for row, line in enumerate(LINES))
    done = run("--records", "jsonl", "--field", "en", "--output-field", "de", text=text)
    rows = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [row["de"] for row in rows] == expected
    assert [row["id"] for row in rows] == list(range(len(LINES)))


@pytest.mark.slow
def test_a_killed_command_goes_on(source: Path, tmp_path: Path, expected: list[str]) -> None:
    output = tmp_path / "out.txt"
    command = [*TRANSLATE, "--input", source, "--output", output, "--shard-lines", "2"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: (tmp_path / "out.txt.parts" / "00000").exists())
        process.kill()
    assert not output.exists()
    other = run("--input", source, "--output", output, "--shard-lines", "2", "--beam-size", "2")
    assert other.returncode == 1
    assert b"out.txt.parts was begun with other values of beam_size: repeat" in other.stderr
    again = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert again.returncode == 0
    assert f"of {len(LINES)} lines are done".encode() in again.stderr
    assert output.read_text(encoding="utf-8").splitlines() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.txt"]


def until(condition) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


@pytest.mark.slow
def test_ctrl_c_keeps_finished_parts(source: Path, tmp_path: Path) -> None:
    command = [*TRANSLATE, "--input", source, "--output", tmp_path / "out", "--shard-lines", "1"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: (tmp_path / "out.parts" / "00000").exists())
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        message = process.stderr.read()
        assert process.wait(30) == 130
    assert message.endswith(
        "quickstudy: interrupted: finished work is kept; run the same command again to continue\n"
    )
    assert "Traceback" not in message


@pytest.mark.slow
def test_ctrl_c_while_it_waits_for_text() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(TRANSLATE, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"Good morning.\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"Guten Morgen!\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == (
            b"quickstudy: interrupted: run the same command again to start over\n"
        )


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_quietly(source: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(TRANSLATE, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"Good morning.\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"Good morning.\n")
        process.stdin.flush()  # and it stays open
        assert process.wait(30) == 1
        assert process.stderr.read() == b""


@pytest.mark.slow
def test_a_terminal_is_answered_line_by_line_and_told_once_of_the_end() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(TRANSLATE, cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        assert process.stdout is not None
        for line, answer in (
            (b"Good morning.\n", b"Guten Morgen!\n"),
            (b"Where is the station?\n", b"Wo ist der Bahnhof?\n"),
        ):
            os.write(ours, line)
            assert process.stdout.readline() == answer
        os.write(ours, b"\x04")  # Ctrl-D
        assert process.wait(30) == 0
    os.close(ours)


@pytest.mark.slow
def test_html_from_file_to_file(tmp_path: Path) -> None:
    page, output = tmp_path / "page.html", tmp_path / "page.de.html"
    page.write_text("<p>Open <b>the window</b>, please.</p>\n")
    done = run(BUNDLE, "--format", "html", "--input", page, "--output", output)
    assert done.returncode == 0
    with quickstudy.load(BUNDLE, threads=1) as model:
        assert output.read_text() == model.translate(page.read_text(), format="html")


def test_the_bundle_is_the_one_that_the_service_would_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUICKSTUDY_MODEL", "of-the-service")
    for arguments, bundle in (
        ([], "of-the-service"),
        (["--model", "other"], "other"),
        (["third"], "third"),
    ):
        monkeypatch.setattr(sys, "argv", ["quickstudy", "translate", *arguments])
        with pytest.raises(SystemExit):
            cli.main()
        assert f"there is no bundle at {bundle}:" in capsys.readouterr().err


def test_of_documents_it_is_said_where_they_are_translated() -> None:
    with pytest.raises(typer.BadParameter, match="/v1/translate/file"):
        cli.text_format("docx")
    assert [cli.text_format(name) for name in cli.TEXT_FORMATS] == ["text", "html", "markdown"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--records", "parquet"], "Parquet is translated from --input FILE to --output FILE"),
        (["--input", "a.parquet"], "Parquet is translated from --input FILE to --output FILE"),
        (["--workers", "2"], "--workers takes `ray`, not '2'"),
        (["--format", "html", "--report", "r"], "--report and --workers are for lines"),
        ([str(BUNDLE), "--model", str(BUNDLE)], "the bundle is given twice"),
        (["--input", __file__, "--output", __file__], "is the input: choose another file"),
        (
            ["--input", __file__, "--output", os.devnull],
            "is a device, a pipe or a socket: name a file",
        ),
        (["--input", __file__, "--output", str(ROOT)], "is a folder: name a file to write"),
        (["--input", __file__, "--report", str(ROOT)], "is a folder: name a file to write"),
        (["--input", "."], ". is a folder: give one file of it"),
        (["--input", "nowhere.txt"], "nowhere.txt: no such file; correct --input"),
        (["--input", __file__, "--output", "a.parquet"], "a.parquet: the output is lines, as the"),
        (["--input", __file__, "--output", "a.jsonl.gz"], "a.jsonl.gz: the output is lines"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["quickstudy", "translate", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
