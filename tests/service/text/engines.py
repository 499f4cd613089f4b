"""Stand-ins for a model, and the way of a document through one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from service.text.accelerators import put_back
from service.text.document import Format, open_document
from service.text.glossary import NO_GLOSSARY, Glossary
from service.text.numerals import Numerals

Translate = Callable[[Sequence[str]], list[str]]
INVENTED = [
    "{name}", "%s", "%d", "{{ x }}", '<x id="1"/>', "<b>", "</b>", "</p>", "<a href='x'>", "<!--",
    "https://evil.example/x", "me@evil.example", "&amp;", "&", "<", ">", "\ufffc", "😀", "**", "*",
    "[x](y)", "`", "``", "Boston", "Tom", "Japan", "20", "/", "s", "{", "}", "%", "\\", "|", "# ",
    "- ", "1. ", "_", "~~", "[", "](", "\n", "",
]  # fmt: skip


def count_tokens(text: str) -> int:
    """Three characters a token."""
    return -(-len(text) // 3)


def shout(texts: Sequence[str]) -> list[str]:
    """A model that changes every word but names: "Tom sees a dog." → "Tom SEES A DOG."."""
    return [" ".join(w if w[:1].isupper() else w.upper() for w in t.split()) for t in texts]


def hostile(seed: int) -> Translate:
    """A model that drops, doubles, shuffles and invents."""
    generator = random.Random(seed)

    def one(text: str) -> str:
        words = text.split()
        for _ in range(generator.randrange(4)):
            match generator.randrange(6):
                case 0:
                    generator.shuffle(words)
                case 1 if words:
                    words.pop(generator.randrange(len(words)))
                case 2 if words:
                    words.append(generator.choice(words))
                case 3:
                    words.insert(generator.randrange(len(words) + 1), generator.choice(INVENTED))
                case 4:
                    words = generator.choices(INVENTED, k=generator.randrange(8))
                case 5:
                    words = words * 3
        return generator.choice([" ", " ", "", "\u00a0"]).join(words)

    return lambda texts: [one(text) for text in texts]


def run(
    text: str,
    format: Format = "text",
    translate: Translate = shout,
    glossary: Glossary = NO_GLOSSARY,
    max_tokens: int = 100,
    numerals: Numerals | None = None,
) -> str:
    """A text through a model, repaired where need be."""
    document = open_document(
        text, format, "en", count_tokens, max_tokens, glossary, numerals=numerals
    )
    assert all(count_tokens(segment.text) <= max_tokens for segment in document.segments)
    translated = translate([segment.text for segment in document.segments])
    for repair in document.check(translated):
        assert all(count_tokens(one) <= max_tokens for one in repair.texts)
        translated[repair.segment] = repair.join(translate(repair.texts))
    assert not document.check(translated)
    return document.rebuild(translated)


def source_of(text: str, format: Format, max_tokens: int = 100, *, wrapped: bool = False) -> str:
    """A document put together from its sources: the text itself, if nothing is lost."""
    document = open_document(text, format, "en", count_tokens, max_tokens, wrapped=wrapped)
    segments = [put_back(one.core.raw(), one.accelerators) for one in document.segments]
    return "".join(part if isinstance(part, str) else segments[part] for part in document.layout)
