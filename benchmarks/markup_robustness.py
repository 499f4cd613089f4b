"""How often a model drops placeholders, tags and glossary terms, and what repairs do about it.

`python -m benchmarks.markup_robustness --source FILE --target FILE` takes parallel sentences and
prints one JSON object. Sentences get a placeholder, a tagged stretch or a glossary, at random with
a fixed seed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from export.metrics import scores
from export.quality_gate import EvalSet
from export.runtime.bundle import load_bundle
from export.runtime.engines import Engine, TranslateOptions, load_engine
from service.text.document import open_document
from service.text.glossary import NO_GLOSSARY, Glossary

BEFORE_NOUNS = re.compile(
    r"\b(?:the|a|an|my|your|his|her|our|their|this|that|to|in|of) ([a-z]{3,})\b"
)


def translator(engine: Engine) -> Callable[[Sequence[str]], list[str]]:
    options = TranslateOptions()
    return lambda texts: [one.text for one in engine.translate_batch(list(texts), options)]


def with_placeholder(sentence: str) -> str | None:
    """The sentence with `{name}` for a word after an article or the like, if there is one."""
    match = BEFORE_NOUNS.search(sentence)
    return f"{sentence[: match.start(1)]}{{name}}{sentence[match.end(1) :]}" if match else None


def with_tag(sentence: str, generator: random.Random) -> str | None:
    """The sentence with one to three of its words in `<b>`, not all."""
    words = [match.span() for match in re.finditer(r"[\w'-]+", sentence)]
    count = generator.randint(1, 3)
    if len(words) <= count:
        return None
    first = generator.randrange(len(words) - count + 1)
    start, end = words[first][0], words[first + count - 1][1]
    return f"{sentence[:start]}<b>{sentence[start:end]}</b>{sentence[end:]}"


def outcomes(
    texts: Sequence[str], engine: Engine, glossary: Glossary = NO_GLOSSARY
) -> tuple[Counter[str], list[str]]:
    """What happened to each sentence, and the outputs."""
    translate = translator(engine)
    counts: Counter[str] = Counter()
    results = []
    for text in texts:
        document = open_document(
            text, "html", "en", engine.count_tokens, engine.max_input_tokens, glossary
        )
        translated = translate([segment.text for segment in document.segments])
        for repair in document.check(translated):
            restored = repair.join(translate(repair.texts))
            translated[repair.segment] = restored
            counts[f"{repair.reason}: {restored.method}"] += 1
        counts["sentences"] += 1
        results.append(document.rebuild(translated))
    return counts, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("models/en-de"))
    parser.add_argument("--source", type=Path, required=True, help="a sentence a line, .gz or not")
    parser.add_argument("--target", type=Path, required=True, help="their translations")
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--term", action="append", default=[], help="SOURCE=TARGET, repeatable")
    arguments = parser.parse_args()
    engine = load_engine(load_bundle(arguments.bundle))
    text = EvalSet.read(arguments.source, arguments.target)
    sources, targets = text.src[: arguments.sentences], text.ref[: arguments.sentences]
    generator = random.Random(1)
    report: dict[str, object] = {}
    placed = [one for sentence in sources if (one := with_placeholder(sentence))]
    report["placeholder"] = outcomes(placed, engine)[0]
    tagged = [one for sentence in sources if (one := with_tag(sentence, generator))]
    report["tag"] = outcomes(tagged, engine)[0]
    report["full stop"] = _full_stop(sources, targets, engine)
    terms = dict(term.split("=", 1) for term in arguments.term)
    if terms:
        report["glossary"] = _glossary(sources, targets, engine, terms)
    print(json.dumps(report, indent=2, ensure_ascii=False))


def _full_stop(sources: Sequence[str], targets: Sequence[str], engine: Engine) -> dict[str, object]:
    """BLEU of sentences whose full stop is taken away: sent so, and sent with one."""
    pairs = [
        (source[:-1], target[:-1])
        for source, target in zip(sources, targets, strict=True)
        if source.endswith(".") and target.endswith(".")
    ]
    references = [target for _, target in pairs]
    bare = translator(engine)([source for source, _ in pairs])
    return {
        "sentences": len(pairs),
        "without": scores(bare, references)[0].score,
        "with": scores(outcomes([source for source, _ in pairs], engine)[1], references)[0].score,
    }


def _glossary(
    sources: Sequence[str], targets: Sequence[str], engine: Engine, terms: dict[str, str]
) -> dict[str, object]:
    """BLEU and terms in the output with and without a glossary, where the reference has them."""
    glossary = Glossary(terms)
    pairs = []
    for source, target in zip(sources, targets, strict=True):
        wanted = [term for _, _, term in glossary.find(source)]
        if wanted and all(re.search(rf"\b{re.escape(term)}\b", target) for term in wanted):
            pairs.append((source, target, wanted))
    references = [target for _, target, _ in pairs]
    without = outcomes([source for source, _, _ in pairs], engine)[1]
    counts, enforced = outcomes([source for source, _, _ in pairs], engine, glossary)

    def share(outputs: Sequence[str]) -> float:
        return sum(
            all(re.search(rf"\b{re.escape(term)}\b", output) for term in wanted)
            for output, (_, _, wanted) in zip(outputs, pairs, strict=True)
        ) / max(len(pairs), 1)

    return {
        "outcomes": counts,
        "terms there without": share(without),
        "terms there with": share(enforced),
        "BLEU without": scores(without, references)[0].score,
        "BLEU with": scores(enforced, references)[0].score,
    }


if __name__ == "__main__":
    main()
