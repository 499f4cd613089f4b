"""Inline elements of TMX and XLIFF → codes: those that hold text, and those that mark its ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from service.files.inline import Inline
from service.files.xml import Around, Element, text_of

Role = Literal["around", "through", "start", "end", "placeholder", "word", "line", "point"]


@dataclass(frozen=True)
class Code:
    """What an element is in a sentence.

    `around`: a stretch; stretches with the same `key` that touch are one. `start`, `end`: the ends
    of one, which belong together by `key`. `through`: nothing, only what is in it counts. All
    others are as in `Inline`.
    """

    role: Role
    key: str = ""


Classify = Callable[[Element], Code]
Step = tuple[Literal["text", "leave"], str] | tuple[Code, Element]


def read_inline(
    element: Element, classify: Classify, add_text: Callable[[Inline, str], None] = Inline.lines
) -> Inline:
    """The text and codes of an element's content. Codes are `Around`, elements, and `"\\n"`, if its
    line breaks count."""
    steps = _joined(_steps(element, classify))
    partners = _pair_up(steps)
    inline = Inline()
    for at, (what, content) in enumerate(steps):
        if isinstance(content, str):
            if what == "leave":
                inline.close()
            else:
                add_text(inline, content)
            continue
        assert isinstance(what, Code)
        match what.role:
            case "around":
                inline.open(Around(content))
            case "start" if at in partners:
                inline.open(Around(content, steps[partners[at]][1]))
            case "end" if at in partners:
                inline.close()
            case "placeholder":
                inline.placeholder(content)
            case "word":
                inline.word(content, text_of(content))
            case "line":
                inline.line(content)
            case _:
                inline.point(content)
    return inline


def _steps(element: Element, classify: Classify) -> Iterator[Step]:
    """The content in order, without recursion; a stretch ends with `leave`."""
    waiting = [element.iterchildren()]
    within: list[tuple[Element, bool]] = [(element, False)]
    yield "text", element.text or ""
    while waiting:
        child = next(waiting[-1], None)
        if child is None:
            waiting.pop()
            left, stretch = within.pop()
            if stretch:
                yield "leave", ""
            if waiting:
                yield "text", left.tail or ""
            continue
        code = classify(child)
        if code.role in ("around", "through"):
            if code.role == "around":
                yield code, child
            waiting.append(child.iterchildren())
            within.append((child, code.role == "around"))
            yield "text", child.text or ""
        else:
            yield code, child
            yield "text", child.tail or ""


def _joined(steps: Iterable[Step]) -> list[Step]:
    """Steps without empty texts, touching stretches of the same key in one."""
    joined: list[Step] = []
    open_keys: list[str] = []
    left = ""
    for what, content in steps:
        if what == "text" and not content:
            continue
        if isinstance(what, Code) and what.role == "around":
            open_keys.append(what.key)
            if what.key and what.key == left:
                joined.pop()
                left = ""
                continue
        left = open_keys.pop() if what == "leave" else ""
        joined.append((what, content))  # type: ignore[arg-type]
    return joined


def _pair_up(steps: list[Step]) -> dict[int, int]:
    """Starts and ends that belong together and do not cross others, each → the other."""
    waiting: list[tuple[int, str]] = []
    counts: list[dict[str, int]] = [{}]
    partners: dict[int, int] = {}
    for at, (what, _) in enumerate(steps):
        if what == "leave":
            while waiting.pop()[0] >= 0:
                pass
            counts.pop()
        elif not isinstance(what, Code):
            continue
        elif what.role == "around":
            waiting.append((-1, ""))
            counts.append({})
        elif what.role == "start":
            waiting.append((at, what.key))
            counts[-1][what.key] = counts[-1].get(what.key, 0) + 1
        elif what.role == "end" and counts[-1].get(what.key):
            while True:
                start, key = waiting.pop()
                counts[-1][key] -= 1
                if key == what.key:
                    break
            partners[start], partners[at] = at, start
    return partners
