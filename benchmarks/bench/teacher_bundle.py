"""A teacher's checkpoint as a bundle, so that it runs on the engines that its student runs on."""

from __future__ import annotations

from pathlib import Path

from export.bundle import Bundle
from export.exporter import export_bundle
from training.checkpoint import load_checkpoint

ENGINES = ("ctranslate2-float32", "ctranslate2-int8")


def teacher_bundle(checkpoint: Path, out: Path, source: str, target: str) -> Bundle:
    """Write the bundle of a checkpoint at `out`."""
    loaded = load_checkpoint(checkpoint)
    room = loaded.config.max_length - 1
    return export_bundle(
        model=loaded.model,
        tokenizer_path=loaded.tokenizer,
        recipe_text=loaded.recipe_text,
        out=out,
        name="teacher",
        source_lang=source,
        target_lang=target,
        engines=ENGINES,
        licence="as its checkpoint",
        attribution="",
        description="A teacher, for measuring only.",
        max_input_tokens=min(room, 128),
    )
