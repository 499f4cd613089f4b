"""How well models translate text unlike what they learnt: capitals, typing errors, things to copy.

`python -m benchmarks.altered_text --bundle FOLDER --source FILE --target FILE` alters parallel
sentences, both sides, as `corpus.augment` does in training, kind by kind, translates what it could
alter with the models alone, without the service's text work, and prints one JSON object: BLEU and
chrF2 of the altered sentences, and of the same ones as they were.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from export.metrics import scores
from export.runtime.bundle import load_bundle
from export.runtime.engines import Engine, TranslateOptions, load_engine
from training.data.augment import ALTERATIONS, Pair, joined

MAX_TOKENS = 120
"""Longer sources are left out, in tokens of every model."""
KINDS = ("joined", *ALTERATIONS)


def altered(pairs: Sequence[Pair], kind: str, seed: int) -> dict[int, Pair]:
    """Each pair that the kind alters, by its place, in its altered form."""
    random, found = Random(f"{kind} {seed}"), {}
    for place, pair in enumerate(pairs):
        if kind == "joined":
            result = joined(pair, pairs[place + 1] if place + 1 < len(pairs) else None)
        else:
            result = ALTERATIONS[kind](*pair, random)
        if result and result != pair:
            found[place] = result
    return found


def quality(engine: Engine, pairs: Sequence[Pair]) -> dict[str, float]:
    """BLEU, chrF2 and the share of sources that are given back as they are, in percent."""
    sources = [src for src, _ in pairs]
    hypotheses = [one.text for one in engine.translate_batch(sources, TranslateOptions())]
    references = [trg for _, trg in pairs]
    figures = {score.metric: round(score.score, 2) for score in scores(hypotheses, references)}
    same = sum(map(str.__eq__, sources, hypotheses))
    return {**figures, "unchanged_percent": round(100 * same / len(pairs), 1)}


def compare(engines: dict[str, Engine], pairs: Sequence[Pair], seed: int = 1) -> dict[str, object]:
    """The figures of every kind and model."""
    results: dict[str, object] = {}
    for kind in KINDS:
        changed = {
            place: pair
            for place, pair in altered(pairs, kind, seed).items()
            if all(engine.count_tokens(pair[0]) <= MAX_TOKENS for engine in engines.values())
        }
        if not changed:
            continue
        as_it_was = [pairs[place] for place in changed]
        results[kind] = {
            "sentences": len(changed),
            **{
                name: {
                    "as_it_was": quality(engine, as_it_was),
                    "altered": quality(engine, list(changed.values())),
                }
                for name, engine in engines.items()
            },
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, action="append", required=True)
    parser.add_argument("--source", type=Path, required=True, help="a sentence a line")
    parser.add_argument("--target", type=Path, required=True, help="their translations")
    parser.add_argument("--sentences", type=int, default=300)
    arguments = parser.parse_args()
    sides = [
        path.read_text(encoding="utf-8").splitlines()[: arguments.sentences]
        for path in (arguments.source, arguments.target)
    ]
    pairs = list(zip(*sides, strict=True))
    engines = {str(path): load_engine(load_bundle(path)) for path in arguments.bundle}
    print(json.dumps(compare(engines, pairs), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
