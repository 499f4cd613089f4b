"""What `quickstudy bench` makes of its options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import typer

from benchmarks.cli import _baselines, _numbers, _options
from benchmarks.run import Options


def test_numbers_of_options() -> None:
    assert _numbers("--batches", "1,8,8,0", least=0) == (1, 8, 0)
    with pytest.raises(Exception, match="by comma"):
        _numbers("--batches", "one", least=0)
    with pytest.raises(Exception, match="1 or more"):
        _numbers("--beams", "0", least=1)


PARTS = "quality,speed"


def options(quick: bool, **given: str | int) -> Options:
    some = {name: given.get(name) for name in ("rounds", "batches", "threads", "beams")}
    return _options(quick, PARTS, **some, comet=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"rounds": 7}, "rounds", 7),
        ({"batches": "4,16"}, "batch_sizes", (4, 16)),
        ({"threads": "2"}, "threads", (2,)),
        ({"beams": "3"}, "beams", (3,)),
    ],
)
def test_what_is_given_counts_with_quick_too(
    given: dict[str, str | int], field: str, value: object
) -> None:
    parts = tuple(PARTS.split(","))
    assert options(True, **given) == replace(Options.quickly(parts), **{field: value})
    assert options(False, **given) == replace(Options(parts=parts), **{field: value})
    assert options(True) == Options.quickly(parts)


def test_what_is_wrong_is_refused_with_quick_too() -> None:
    with pytest.raises(typer.BadParameter, match="by comma"):
        options(True, beams="many")


@pytest.mark.parametrize("file", ["checkpoint.json", "manifest.json"])
def test_baselines_are_checkpoints_and_bundles_by_name(tmp_path: Path, file: str) -> None:
    (tmp_path / file).touch()
    assert _baselines([f"a={tmp_path}", f"b={tmp_path}"]) == {"a": tmp_path, "b": tmp_path}
    for text in ("a", f"={tmp_path}", f"a={tmp_path / 'nowhere'}"):
        with pytest.raises(typer.BadParameter, match="give a name and the folder of a checkpoint"):
            _baselines([text])
    with pytest.raises(typer.BadParameter, match="'a' is there twice"):
        _baselines([f"a={tmp_path}", f"a={tmp_path}"])
