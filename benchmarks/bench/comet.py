"""COMET of translations (Rei et al. 2020, 2022), for users who have a checkpoint of it.

Nothing is downloaded. A COMET checkpoint is a pickle, which runs code when it is loaded: it is
loaded only where the user names it, in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import numpy as np

from benchmarks.bench.results import ScoreRecord
from benchmarks.systems.base import Unavailable
from export.bootstrap import SEED

WORKER = Path(__file__).with_name("comet_worker.py")
INSTALL = (
    "python -m venv comet && comet/bin/pip install 'unbabel-comet~=2.2', then add "
    "--comet-python comet/bin/python"
)
"""An environment of its own, since it needs an older Transformers than the peers do."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
INTERVAL = (0.025, 0.975)
RESAMPLES = 1000
PERCENT = 100
"""COMET's scores are around 0 to 1; as papers do, we give them times a hundred."""


class CometFailed(RuntimeError):
    """COMET ended without scores; the message has its last words."""


@dataclass(frozen=True)
class Comet:
    """A checkpoint, and the Python that has `unbabel-comet`."""

    checkpoint: Path
    python: str = sys.executable

    @property
    def name(self) -> str:
        """Of the model: its files are NAME/hparams.yaml and NAME/checkpoints/model.ckpt."""
        return self.checkpoint.resolve().parents[1].name

    def scores(
        self, texts: Iterable[tuple[Sequence[str], Sequence[str], Sequence[str]]]
    ) -> CometScores:
        """Scores of each sentence of some (sources, translations, references).

        Raises Unavailable where the package is missing, CometFailed where it breaks.
        """
        orders = [json.dumps({"src": [*src], "mt": [*mt], "ref": [*ref]}) for src, mt, ref in texts]
        done = subprocess.run(
            [self.python, str(WORKER), str(self.checkpoint)],
            input="".join(f"{order}\n" for order in orders),
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, **OFFLINE},
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        if answers and "missing" in answers[0]:
            raise Unavailable(f"{self.python} has no COMET ({answers[0]['missing']}): {INSTALL}")
        if done.returncode or len(answers) != 1 + len(orders):
            words = " ".join(done.stderr.strip().splitlines()[-3:])
            raise CometFailed(f"COMET ended with {done.returncode}: {words}")
        found = tuple(tuple(one["scores"]) for one in answers[1:])
        return CometScores(self._signature(answers[0]["version"]), found)

    def _signature(self, version: str) -> str:
        with self.checkpoint.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        return f"unbabel-comet:{version}|model:{self.name}|sha256:{digest[:16]}|x100"


@dataclass(frozen=True)
class CometScores:
    """Scores of the sentences of each text, and what they depend on."""

    signature: str
    texts: tuple[tuple[float, ...], ...]

    def __iter__(self) -> Iterator[ScoreRecord]:
        """The mean of each text, with its bootstrap interval of 95 % over sentences."""
        for scores in self.texts:
            values = PERCENT * np.array(scores)
            drawn = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
            low, high = np.quantile(values[drawn].mean(1), INTERVAL)
            yield ScoreRecord(
                metric="COMET",
                score=round(float(values.mean()), 2),
                low=round(float(low), 2),
                high=round(float(high), 2),
                signature=self.signature,
            )
