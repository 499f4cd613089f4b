"""Files in shards: formats, order, resuming. The translator turns letters into capitals."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quickstudy.bulk import files
from quickstudy.bulk.job import JobConfig, run_job
from quickstudy.bulk.workers import TranslatedLine
from quickstudy.errors import QuickstudyError

MODEL = {"model": "m", "beam_size": 1}


class Capitals:
    """Upper-cases, with a warning where a line is `odd`; notes what it gets. Ends the process in
    the window number `dies_at`."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.lines: list[str] = []
        self._dies_at = dies_at

    def __call__(self, batches: Iterable[Sequence[str]]) -> Iterator[list[TranslatedLine]]:
        for number, batch in enumerate(batches):
            if number == self._dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.lines += batch
            yield [
                TranslatedLine(line.upper(), (("odd", "It is odd."),) if line == "odd" else ())
                for line in batch
            ]


def translate(config: JobConfig, identity: dict[str, Any] = MODEL, **arguments: Any) -> list[str]:
    """Run a job; → the lines that it has translated."""
    capitals = Capitals(**arguments)
    run_job(config, identity, lambda: nullcontext(capitals))
    return capitals.lines


def job(tmp_path: Path, lines: Sequence[str], shard_lines: int = 3) -> JobConfig:
    source = tmp_path / "in.txt"
    source.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return JobConfig(source, tmp_path / "out.txt", shard_lines=shard_lines)


LINES = [f"line {number} ä" for number in range(10)]


# --- formats ------------------------------------------------------------------------------------


def packed(data: bytes, ending: str) -> bytes:
    if ending == ".gz":
        return gzip.compress(data)
    return pa.compress(data, codec="zstd", asbytes=True) if ending == ".zst" else data


def unpacked(path: Path) -> bytes:
    with files.open_bytes(path) as file:
        return file.read()


@pytest.mark.parametrize("source", ["", ".gz", ".zst"])
@pytest.mark.parametrize("target", ["", ".gz", ".zst"])
def test_lines_in_every_compression(source: str, target: str, tmp_path: Path) -> None:
    path, output = tmp_path / f"in.txt{source}", tmp_path / f"out{target}"
    text = "\ufeffone\r\ntwo\rthree\n\nfive ü"
    path.write_bytes(packed(text.encode(), source))
    assert translate(JobConfig(path, output, shard_lines=2)) == [
        "one",
        "two",
        "three",
        "",
        "five ü",
    ]
    assert unpacked(output).decode() == "ONE\r\nTWO\rTHREE\n\nFIVE Ü\n"
    if not target:
        assert output.read_bytes() == unpacked(output)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, output.name])


def test_streams_that_follow_one_another_are_read_to_the_end(tmp_path: Path) -> None:
    for ending in (".gz", ".zst"):
        path, output = tmp_path / f"in{ending}", tmp_path / "out"
        path.write_bytes(packed(b"one\ntw", ending) + packed(b"o\nthree\n", ending))
        translate(JobConfig(path, output))
        assert output.read_text() == "ONE\nTWO\nTHREE\n"


def test_jsonl_keeps_its_other_fields(tmp_path: Path) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl.gz"
    rows = [{"id": number, "en": text} for number, text in enumerate(["a\nb", None, "ü"])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    translate(JobConfig(path, output, "jsonl", "en", "de", shard_lines=2))
    lines = unpacked(output).decode().split("\n")
    assert [json.loads(line) for line in lines[:3]] == [
        {"id": 0, "en": "a\nb", "de": "A\nB"},
        {"id": 1, "en": None, "de": None},
        {"id": 2, "en": "ü", "de": "Ü"},
    ]
    assert lines[3:] == ["", ""]


@pytest.mark.parametrize("target", ["de", "en"])
def test_parquet_keeps_its_other_columns(target: str, tmp_path: Path) -> None:
    path, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    texts = ["a", None, "ü", "", "e"]
    columns = {
        "id": pa.array(range(5), pa.int16()),
        "en": texts,
        "tags": [["x"], [], None, ["y"], []],
    }
    table = pa.table(columns).replace_schema_metadata({"made by": "a test"})
    pq.write_table(table, path, row_group_size=2)
    translate(JobConfig(path, output, "parquet", "en", target, shard_lines=3))
    read = pq.read_table(output)
    capitals = ["A", None, "Ü", "", "E"]
    if target == "en":
        assert read.equals(table.set_column(1, "en", [capitals]))
    else:
        assert read.equals(table.append_column("de", [capitals]))
    assert read.schema.metadata[b"made by"] == b"a test"


@pytest.mark.parametrize("name", ["in.txt", "in.gz", "in.jsonl", "in.parquet"])
def test_nothing_becomes_nothing(name: str, tmp_path: Path) -> None:
    path, output = tmp_path / name, tmp_path / name.replace("in", "out")
    kind = files.kind_of(path)
    if kind == "parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    else:
        path.write_bytes(packed(b"", path.suffix))
    assert translate(JobConfig(path, output, kind)) == []
    if kind == "parquet":
        assert pq.read_table(output).column_names == ["text", "translation"]
    else:
        assert unpacked(output) == b""


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("in.txt", b"good\ncaf\xe9\n", "line 2 is not UTF-8"),
        # The time is set: workers of the test run must collect tests of the same names.
        ("in.gz", gzip.compress(b"a\n" * 1000, mtime=0)[:-9], "cannot be unpacked"),
        ("in.gz", b"no gzip", "cannot be unpacked"),
        ("in.zst", b"no zstd", "cannot be unpacked"),
        ("in.jsonl", b'{"text": "a"}\n{"txt": "a"}\n', "line 2 has no field 'text' (txt)"),
        ("in.parquet", b"no parquet", "cannot be read as Parquet"),
    ],
)
def test_bad_input_is_refused_before_anything_is_translated(
    name: str, data: bytes, fault: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    output = tmp_path / name.replace("in", "out")
    config = JobConfig(path, output, files.kind_of(path), shard_lines=1)
    with pytest.raises(QuickstudyError, match="in") as raised:
        translate(config)
    assert fault in str(raised.value)
    assert [entry.name for entry in tmp_path.iterdir()] == [name], "nothing is left"


@pytest.mark.parametrize(
    ("field", "output_field", "fault"),
    [
        ("none", "de", "no column 'none' (it has: id, en): name the text's by --field"),
        ("id", "de", "is int64, not text"),
        ("en", "id", "has a column 'id' already: choose another --output-field"),
    ],
)
def test_columns_that_do_not_fit_are_named(
    field: str, output_field: str, fault: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": [1], "en": ["a"]}), path)
    with pytest.raises(QuickstudyError) as raised:
        translate(JobConfig(path, tmp_path / "out.parquet", "parquet", field, output_field))
    assert fault in str(raised.value)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
    assert translate(job(tmp_path, ["x" * 999])) == ["x" * 999]
    with pytest.raises(QuickstudyError, match="line 2 is longer than"):
        translate(job(tmp_path, ["short", "x" * 1001]))


def test_zstandard_and_parquet_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name, kind in (("in.parquet", "parquet"), ("in.zst", "lines")):
        path = tmp_path / name
        path.write_bytes(b"x")
        with pytest.raises(QuickstudyError, match=r"pip install 'quickstudy\[parquet\]'"):
            translate(JobConfig(path, tmp_path / name.replace("in", "out"), kind))
    config = job(tmp_path, ["a"])
    with pytest.raises(QuickstudyError, match=r"out.zst needs pyarrow"):
        translate(replace(config, output=tmp_path / "out.zst"))


# --- shards -------------------------------------------------------------------------------------


def test_what_is_wrong_is_reported_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = job(tmp_path, ["a", "odd", "b", "c", "odd"])
    config = replace(config, report=tmp_path / "report.jsonl")
    translate(config)
    report = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert report == [{"line": number, "code": "odd", "message": "It is odd."} for number in (2, 5)]
    assert "quickstudy: 2 of 5 lines have warnings: odd 2\n" in capsys.readouterr().err


KILLED = """
import sys
from pathlib import Path
from tests.bulk.test_job import JobConfig, translate
translate(JobConfig(Path(sys.argv[1]), Path(sys.argv[2]), shard_lines=3), dies_at=2)
"""


def kill_midway(config: JobConfig) -> None:
    """Run a job in a process that is killed, without a chance to clean up, in its third shard."""
    arguments = [str(config.input), str(config.output)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parents[2]
    )
    assert killed.returncode == -signal.SIGKILL


def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = job(tmp_path, LINES)
    kill_midway(config)
    assert not config.output.exists()
    assert translate(config) == LINES[6:], "two shards of three lines were done"
    assert config.output.read_text() == "".join(f"{line.upper()}\n" for line in LINES)
    assert not config.parts.exists()
    assert "6 of 10 lines are done" in capsys.readouterr().err


def test_a_run_that_ended_between_its_last_part_and_the_output_only_joins(tmp_path: Path) -> None:
    config = job(tmp_path, LINES)
    kill_midway(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "atomic_file", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            translate(config)
    assert translate(config) == []
    assert config.output.read_text().count("\n") == 10


def other_text(config: JobConfig) -> JobConfig:
    assert config.input is not None
    config.input.write_text(config.input.read_text().replace("line 9", "line X"))
    return config


@pytest.mark.parametrize(
    ("change", "identity", "names"),
    [
        (other_text, MODEL, "input"),
        (lambda config: config, MODEL | {"model": "other"}, "model"),
        (lambda config: config, MODEL | {"beam_size": 4}, "beam_size"),
        (lambda config: replace(config, shard_lines=4), MODEL, "shard_lines"),
    ],
)
def test_parts_of_something_else_are_refused(
    change: Callable[[JobConfig], JobConfig],
    identity: dict[str, Any],
    names: str,
    tmp_path: Path,
) -> None:
    config = job(tmp_path, LINES)
    kill_midway(config)
    before = sorted(entry.name for entry in config.parts.iterdir())
    with pytest.raises(QuickstudyError, match=rf"with other values of {names}: repeat the command"):
        translate(change(config), identity)
    assert sorted(entry.name for entry in config.parts.iterdir()) == before


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    config = job(tmp_path, LINES)
    config.parts.mkdir()
    (config.parts / "00000").write_text("precious")
    with pytest.raises(QuickstudyError, match="holds other files"):
        translate(config)
    assert (config.parts / "00000").read_text() == "precious"


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    config = job(tmp_path, LINES)

    def second() -> Any:
        with pytest.raises(QuickstudyError, match="another process works on this output"):
            translate(config)
        return nullcontext(Capitals())

    run_job(config, MODEL, second)
    assert config.output.exists()


def test_an_input_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    config = job(tmp_path, LINES)

    def change_then_translate(batches: Iterable[Sequence[str]]) -> Iterator[list[TranslatedLine]]:
        other_text(config)
        os.utime(config.input or "", (1, 1))
        yield from Capitals()(batches)

    with pytest.raises(QuickstudyError, match="has changed while it was translated"):
        run_job(config, MODEL, lambda: nullcontext(change_then_translate))
    assert not config.output.exists()


def test_standard_input_is_kept_so_that_it_can_go_on(tmp_path: Path) -> None:
    config = job(tmp_path, LINES)
    assert config.input is not None
    with config.input.open("rb") as source:
        capitals = Capitals()
        run_job(replace(config, input=None), MODEL, lambda: nullcontext(capitals), source.fileno())
    assert capitals.lines == LINES
    assert config.output.read_text() == "".join(f"{line.upper()}\n" for line in LINES)
