"""Fetch public corpora by name through mtdata (https://github.com/thammegowda/mtdata)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from training.interrupt import unreached
from training.readers import CorpusError


def download_command(src: str, trg: str, dataset_ids: list[str], out: str | Path) -> list[str]:
    """The mtdata command that puts all pairs into two files of the folder `out`.

    mtdata names them by ISO 639-3 code: `train.eng` and `train.deu`.
    """
    return [
        *(sys.executable, "-m", "mtdata", "get"),
        *("--langs", f"{src}-{trg}"),
        *("--train", *dataset_ids),
        *("--merge", "--out", str(out)),
    ]


def download(src: str, trg: str, dataset_ids: list[str], out: str | Path) -> None:
    """Fetch datasets (`mtdata list --langs en-de` names them) and merge them into `out`.

    Languages are given to mtdata as they are, which takes ISO 639 and BCP 47 codes. Raises
    CorpusError where mtdata is missing or fails; its own output goes to the terminal.
    """
    if not dataset_ids:
        raise CorpusError(
            f"name at least one dataset; `mtdata list --langs {src}-{trg}` lists them"
        )
    if importlib.util.find_spec("mtdata") is None:
        raise CorpusError(
            "downloading needs mtdata, which is not installed: pip install 'quickstudy[download]'"
        )
    with unreached():
        fetching = subprocess.Popen(download_command(src, trg, dataset_ids, out))
    try:
        status = fetching.wait()
    finally:
        fetching.kill()
    if status:
        raise CorpusError(
            f"mtdata ended with status {status}; its message stands above. Check the "
            f"dataset names with `mtdata list --langs {src}-{trg}`"
        )
