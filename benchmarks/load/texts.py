"""What the load sends: sentences, and requests of mixed sizes made of them. All seeded."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

Shape = Literal["native", "libretranslate"]
PATHS: dict[Shape, str] = {"native": "/v1/translate", "libretranslate": "/translate"}

WHO = (
    "The old man", "My sister", "A small dog", "The teacher", "Our neighbour", "The young doctor",
    "Nobody", "Her brother", "The driver", "A friend of mine", "The children", "The committee",
    "Tom", "The woman next door", "Everyone in the village", "The new student",
)  # fmt: skip
DOES = (
    "wants to buy", "never talks about", "has always liked", "is looking for", "forgot to bring",
    "will soon sell", "could not find", "has just repaired", "is afraid of", "dreams about",
    "would like to see", "has to pay for", "was waiting for", "does not need",
)  # fmt: skip
WHAT = (
    "a red bicycle", "the big house at the end of the street", "the train to the coast", "a map",
    "the letter that came on Monday", "a cup of tea", "the blue door", "his father's car",
    "the answer to this question", "a ticket for the concert", "some bread and cheese",
    "the keys of the office", "a warm coat", "the bridge over the river",
)  # fmt: skip
WHEN = (
    "", " today", " after work", " because the weather is bad", " in the middle of the night",
    " when the shop is closed", " again", ", but there is not enough time left for it",
    " without telling anybody", " since last summer", ", and that is why we are late",
    " in the rain",
)  # fmt: skip

SIZES = {"sentence": 70, "paragraph": 12, "list": 9, "html": 7, "document": 2}
"""Of a hundred mixed requests so many are of each kind."""
DOCUMENT_LINES = 60
MAX_CHARS = 9000
"""Characters of a document at most, under the service's own limit of a text."""


def read_sentences(path: Path | None, limit: int, seed: int = 1) -> list[str]:
    """Different sentences of a text file (one a line, .gz or not) in a shuffled order; made-up
    ones where no file is given. Raises OSError, and ValueError if there are none."""
    if path is None:
        found = [f"{' '.join(words)}{end}." for *words, end in _made_up()]
    else:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as lines:
            found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise ValueError(f"{path} has no sentence: give a text with one a line")
    random.Random(seed).shuffle(found)
    return found[:limit]


def _made_up() -> itertools.product[Any]:
    return itertools.product(WHO, DOES, WHAT, WHEN)


def body(shape: Shape, text: str | Sequence[str], source: str, target: str) -> str:
    """A request's body for one text, or for a list."""
    if shape == "libretranslate":
        return json.dumps({"q": text, "source": source, "target": target, "format": "text"})
    return json.dumps({"text": text})


def mixed(sentences: Sequence[str], count: int, seed: int = 1) -> list[str]:
    """Bodies of the native API: mostly sentences, some paragraphs, lists, HTML, few documents."""
    chance = random.Random(seed)
    kinds = chance.choices(list(SIZES), list(SIZES.values()), k=count)
    return [json.dumps(_request(kind, sentences, chance)) for kind in kinds]


def _request(kind: str, sentences: Sequence[str], chance: random.Random) -> dict[str, Any]:
    def some(least: int, most: int) -> list[str]:
        return chance.choices(sentences, k=chance.randint(least, most))

    if kind == "paragraph":
        return {"text": " ".join(some(3, 8))}
    if kind == "list":
        return {"text": some(4, 16)}
    if kind == "html":
        paragraphs = "".join(f"<p>{_marked(one)}</p>\n" for one in some(2, 6))
        return {"text": f"<h1>{some(1, 1)[0]}</h1>\n{paragraphs}", "format": "html"}
    if kind == "document":
        lines = some(DOCUMENT_LINES, DOCUMENT_LINES)
        return {"text": "\n\n".join(lines)[:MAX_CHARS]}
    return {"text": some(1, 1)[0]}


def _marked(sentence: str) -> str:
    """A sentence with its second word in bold."""
    first, _, rest = sentence.partition(" ")
    second, space, rest = rest.partition(" ")
    return f"{first} <b>{second}</b>{space}{rest}" if rest else sentence
