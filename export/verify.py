"""Proof that a bundle works: every engine loads and translates, in the way it is served."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import sentencepiece as spm

from export.runtime.bundle import Bundle, load_bundle, load_source_tokenizer, load_tokenizer
from export.runtime.engines import TranslateOptions, load_engine
from export.runtime.manifest import BundleError, Manifest

SAMPLES = ("Hello.", "This is a test of a somewhat longer sentence, with a comma.", "42 %")
ENGINE_SECONDS = 120.0
"""Until an engine that is tried in a process of its own is given up."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what was seen, or the fault."""

    name: str
    seen: str = ""
    fault: str | None = None


def check_translates(bundle: Bundle) -> None:
    """Translate a few sentences with every engine. Raises BundleError if one does not."""
    load_tokenizer(bundle)
    for engine in bundle.manifest.engines:
        check_engine(bundle, engine.name)


def check_engine(bundle: Bundle, name: str) -> None:
    """Translate a few sentences with one engine. Raises BundleError if it does not."""
    try:
        loaded = load_engine(bundle, name)
        has_beam = "beam_size" in loaded.supported_options
        options = TranslateOptions(bundle.manifest.decoding.beam_size if has_beam else 1)
        sentences = [
            sentence
            for sentence in SAMPLES
            if loaded.count_tokens(sentence) <= loaded.max_input_tokens
        ]
        texts = loaded.translate_batch(sentences, options)
    except (OSError, RuntimeError, ValueError) as error:
        raise BundleError(
            f"engine {name} does not translate ({error}): "
            "export it again, with the versions of its libraries that this environment has"
        ) from error
    if len(texts) != len(sentences):
        raise BundleError(f"engine {name} gave {len(texts)} of {len(sentences)} translations")


def checks(path: Path) -> Iterator[Check]:
    """Look at everything in the bundle at `path`, one thing after another.

    Each engine is tried in a process of its own, so that one that crashes or hangs is a fault
    like any other. What cannot be looked at after a fault is left out.
    """
    try:
        bundle = load_bundle(path)
    except BundleError as error:
        yield Check("files", fault=str(error))
        return
    manifest = bundle.manifest
    yield Check("manifest", f"{manifest.name} {manifest.version}, all of its fields make sense")
    yield Check("files", f"{len(manifest.files)} of {manifest.total_bytes:,} bytes, unchanged")
    try:
        target = load_tokenizer(bundle)
        source = load_source_tokenizer(bundle, target)
    except BundleError as error:
        yield Check("tokenizer", fault=str(error))
        return
    yield Check("tokenizer", _pieces_seen(manifest, source, target))
    for engine in manifest.engines:
        fault = _try_apart(path, engine.name)
        yield Check(f"engine {engine.name}", "loads and translates", fault)


def _pieces_seen(
    manifest: Manifest, source: spm.SentencePieceProcessor, target: spm.SentencePieceProcessor
) -> str:
    """How many pieces there are; an imported model's vocabulary may be larger or smaller."""
    pieces = f"{target.get_piece_size():,} pieces"
    if source is not target:
        pieces = f"{source.get_piece_size():,} pieces of the source, {pieces} of the target"
    return pieces if manifest.keeps_original_folder else f"{pieces}, as the manifest says"


Attempt = Callable[[Path, str, Connection], None]


def _try_apart(path: Path, name: str, attempt: Attempt | None = None) -> str | None:
    """The fault of an engine that is tried in another process, or None."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=attempt or _try_engine, args=(path, name, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(ENGINE_SECONDS):
            return f"engine {name} did not translate within {ENGINE_SECONDS:.0f} s"
        fault: str | None = ours.recv()
        return fault
    except EOFError:
        process.join()
        return f"engine {name} ended its process (exit code {process.exitcode}): do not use it"
    finally:
        process.kill()
        process.join()
        ours.close()


def _try_engine(path: Path, name: str, answer: Connection) -> None:
    try:
        check_engine(load_bundle(path), name)
    except (BundleError, ImportError) as error:
        answer.send(str(error))
    else:
        answer.send(None)
