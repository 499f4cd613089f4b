"""How results came about, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench.formats import percent
from benchmarks.bench.results import Results


def method(results: Results) -> list[str]:
    """How it was measured, in sentences; the last ones are the signatures of the scores."""
    about = results.machine
    versions = ", ".join(f"{name} {value}" for name, value in sorted(about.versions.items()))
    siblings = (
        f", {about.threads_per_core} hardware threads a core" if about.threads_per_core else ""
    )
    governor = f", governor {about.governor}" if about.governor else ", governor not told"
    settings = "".join(f", {name}={value}" for name, value in about.environment.items())
    found = [
        f"{about.processor}, {about.cores} cores{siblings} ({about.instructions}){governor}, "
        f"{about.memory_bytes / 2**30:.0f} GiB, {about.system}, Python {about.python}, {versions}"
        f"{settings}. Load {about.load_before} before and {about.load_after} after; "
        f"{percent(about.steal_share, 2)} of the processor time went to other machines of the "
        "host.",
        "Every system runs in a process of its own, kept on as many cores as it has threads. They "
        "take turns on the same sentences: A B C, A B C, …; the first turn warms up. Speeds count "
        "source tokens by the bundle's tokenizer and words by white space, for all systems alike.",
        *(
            f"{text.name}: {text.sentences:,} sentences, {text.source_tokens:,} source tokens, "
            f"{text.source_words:,} words, SHA-256 {text.sha256[:16]}…"
            for text in results.texts
        ),
        f"Measured {results.created:%Y-%m-%d %H:%M} UTC with Quickstudy "
        f"{results.quickstudy_version}.",
    ]
    signatures = dict.fromkeys(
        f"{one.metric}: {one.signature}" for row in results.quality for one in row.scores
    )
    return [*found, *signatures]


def skipped_lines(results: Results) -> Sequence[str]:
    return [f"{one.name}: {one.reason}" for one in results.skipped]
