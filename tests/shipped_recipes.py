"""What the shipped recipes may lack."""

from __future__ import annotations

import re

LACKING = re.compile(
    r"\s*(teacher\.path: .* is no folder|student\.start\.checkpoint: .* is no checkpoint: no .*"
    r"|(student\.start|tokenizer\.source)\.(pretrained|whole): .* is no folder"
    r"|corpus\.[\w.-]+\.(src|trg|path): no file .*)"
)


def lacks_another_run_alone(message: str) -> bool:
    """Whether a recipe's only faults are text and pretrained models that are not shipped, and a
    teacher and a student to go on from that another recipe makes."""
    _, *faults = message.splitlines()
    return bool(faults) and all(LACKING.fullmatch(fault) for fault in faults)
