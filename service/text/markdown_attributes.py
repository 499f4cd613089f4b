"""What Markdown shows beside its text: alternative texts of images, titles of links and images."""

from __future__ import annotations

import re
from collections.abc import Callable

from service.text.attributes import TakenOut
from service.text.inline import Block, Escape, InlineText, InlineTextBuilder, kept

TITLE = re.compile(
    r"""(?P<before>[ \t\n])(?:"(?P<a>(?:[^"\\]|\\.){1,1000}+)"|'(?P<b>(?:[^'\\]|\\.){1,1000}+)'"""
    r"""|\((?P<c>(?:[^()\\]|\\.){1,1000}+)\))(?P<after>[ \t]*\)?[ \t]*)\Z""",
    re.DOTALL,
)
"""A title, at the end of a link's target or of a definition."""
IMAGE = re.compile(r"!\[(?P<alt>[^\[\]]*)\](?P<target>.*)", re.DOTALL)
ESCAPE = re.compile(r"(\\[!-/:-@\[-`{-~])")


def without_title(target: str, taken: TakenOut) -> str:
    """The end of a link or a definition with a number for its title."""
    match = TITLE.search(target)
    if match is None:
        return target
    name = next(name for name in "abc" if match[name] is not None)
    title = match[name]
    if "\n" in title or not any(map(str.isalpha, title)):
        return target
    number = taken.add(Block(_title(title), _escape_in(target[match.end(name)])))
    return f"{target[: match.start(name)]}{number}{target[match.end(name) :]}"


def without_texts(
    image: str, taken: TakenOut, read: Callable[[str], InlineText], escape: Escape
) -> str:
    """An image with numbers for its alternative text and its title. One that is named by its
    alternative text keeps that as its name."""
    match = IMAGE.match(image)
    assert match is not None
    alt, target = match["alt"], match["target"]
    shown = alt
    if "\n" not in alt and any(map(str.isalpha, alt)):
        shown = taken.add(Block(read(alt), escape))
        target = f"[{alt}]" if target == "[]" else target
    if target.startswith("("):
        target = without_title(target, taken)
    return f"![{shown}]{target}"


def _title(text: str) -> InlineText:
    builder = InlineTextBuilder()
    for part in ESCAPE.split(text):
        if ESCAPE.fullmatch(part):
            builder.add_element(kept(part, "character", part[1]), part[1])
        else:
            builder.add(part)
    return builder.build()


def _escape_in(quote: str) -> Escape:
    """How text is escaped before a closing quote or bracket."""
    signs = re.compile(r"[()\\]" if quote == ")" else rf"[{quote}\\]")
    return lambda text: signs.sub(r"\\\g<0>", text)
