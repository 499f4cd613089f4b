"""Recipe sections of the bundle: its engines, and how far they may be from the model in torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.distill.config import Section

EngineName = Literal[
    "ctranslate2-int8",
    "ctranslate2-int8-float32",
    "ctranslate2-int8-shortlist",
    "ctranslate2-float32",
    "onnx-int8",
    "onnx-int8-beam",
    "onnx-float32",
]


class GateLimits(Section):
    """How far an engine may be from the float32 model in torch, on validation text, both greedy."""

    sentences: int = Field(1000, ge=1)
    """Validation sentences that are translated, from the first on."""
    float32_identical: float = Field(0.995, ge=0, le=1)
    """Least share of identical lines of a float32 engine, 0 to 1."""
    int8_identical: float = Field(0.8, ge=0, le=1)
    """Least share of identical lines of an int8 engine, 0 to 1."""
    bleu_loss: float = Field(0.3, ge=0)
    """Largest loss of BLEU, in points."""
    score_difference: float = Field(1e-4, gt=0)
    """Largest difference of a translation's mean log-probability of a float32 engine, in nats,
    where the lines are identical."""


class ExportConfig(Section):
    """The bundle that is served."""

    engines: list[EngineName] = Field(default=["ctranslate2-int8"], min_length=1)
    """Engines in the bundle; the first is the default. int8 keeps 7-bit weights."""
    out: str | None = None
    """Bundle folder; default: `bundle` in the run's folder. Relative to the working directory."""
    version: str = Field("1", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    """Which of a name's bundles this is: part of its tag where it is pushed."""
    max_input_tokens: int = Field(128, ge=8)
    """Longest piece of text the service gives the model at once, in tokens."""
    gate: GateLimits = Field(default_factory=GateLimits)
    """What an engine may lose."""
