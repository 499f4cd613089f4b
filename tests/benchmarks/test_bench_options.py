"""What `quickstudy bench` makes of its options."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from benchmarks.bench.cli import _baselines, _numbers


def test_numbers_of_options() -> None:
    assert _numbers("--batches", "1,8,8,0", least=0) == (1, 8, 0)
    with pytest.raises(Exception, match="by comma"):
        _numbers("--batches", "one", least=0)
    with pytest.raises(Exception, match="1 or more"):
        _numbers("--beams", "0", least=1)


def test_baselines_are_checkpoints_by_name(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").touch()
    assert _baselines([f"a={tmp_path}", f"b={tmp_path}"]) == {"a": tmp_path, "b": tmp_path}
    for text in ("a", f"={tmp_path}", f"a={tmp_path / 'nowhere'}"):
        with pytest.raises(typer.BadParameter, match="give a name and a checkpoint's folder"):
            _baselines([text])
    with pytest.raises(typer.BadParameter, match="'a' is there twice"):
        _baselines([f"a={tmp_path}", f"a={tmp_path}"])
