"""Annotations above words (`<ruby>word<rt>gloss</rt></ruby>`), in HTML and Markdown.

An annotation is no part of the sentence: it goes with the tag at the end of what it is said of.
How Chinese, Japanese and Korean characters are read stays as it is; other annotations are
translated as paragraphs of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from service.text.attributes import TakenOut
from service.text.inline import (
    BASE,
    Block,
    Escape,
    InlineElement,
    InlineText,
    InlineTextBuilder,
    kept,
)
from service.text.sentences import SPACED, pair_up

RUBY = "ruby"
TAG = re.compile(r"<(?P<end>/?)(?P<name>ruby|rb|rt|rtc|rp)(?=[\s/>])", re.IGNORECASE)
OF_ANNOTATIONS = ("rt", "rtc", "rp")
UNSPACED = ("ja", "ko", "zh", "yue", "th", "lo", "km", "my")
"""Languages of such scripts."""
PHONETIC = re.compile("[\u0250-\u02ff]")
"""Letters and signs of the International Phonetic Alphabet."""


def with_annotations(
    inline: InlineText, escape: Escape, taken: TakenOut | None, language: str
) -> InlineText:
    """The text with the annotations in its tags. They are `taken` out to be translated; without it,
    all stay as they are. `language` is the code of the text's: words of a script that is not the
    language's stay as they are with their annotations."""
    if not any(element.name == RUBY for element in inline.elements):
        return inline
    partners = pair_up(inline)
    builder, done = InlineTextBuilder(), 0
    for place, element in zip(inline.places, inline.elements, strict=True):
        if element.name != RUBY or element.kind != "open" or place not in partners or place < done:
            continue
        end = partners[place] + 1
        builder.add_inline(inline.cut(done, place))
        builder.add_inline(_annotated(inline.cut(place, end), escape, taken, language))
        done = end
    builder.add_inline(inline.cut(done, len(inline.text)))
    return builder.build()


def _annotated(
    ruby: InlineText, escape: Escape, taken: TakenOut | None, language: str
) -> InlineText:
    """The words between both tags with their annotations, as tags around each of them, or around
    all where there is one, or where no spaces are between the words of their script."""
    pairs = list(_pairs(ruby.cut(1, len(ruby.text) - 1)))
    first, last = ruby.elements[0], ruby.elements[-1]
    if not any(annotation.text for _, annotation in pairs):
        return ruby
    is_unspaced = any(_is_unspaced(base.text) for base, _ in pairs)
    builder = InlineTextBuilder()
    if is_unspaced and language.partition("-")[0].lower() not in UNSPACED:
        builder.add_element(kept(ruby.raw(), "word", "".join(base.shown() for base, _ in pairs)))
        return builder.build()
    together = len(pairs) == 1 or is_unspaced
    builder.add_element(first)
    raw = output = ""
    for base, annotation in pairs:
        written = _written(annotation, base.text, escape, taken)
        if together:
            builder.add_inline(base)
            raw, output = raw + annotation.raw(), output + written
            continue
        builder.add_element(kept("", "open", name=BASE))
        builder.add_inline(base)
        builder.add_element(_closing(annotation.raw(), written, BASE))
    builder.add_element(_closing(raw + last.raw, output + last.output, RUBY))
    return builder.build()


def _closing(raw: str, output: str, name: str) -> InlineElement:
    return InlineElement(raw, "close", output, "", name)


def _pairs(inside: InlineText) -> Iterator[tuple[InlineText, InlineText]]:
    """Each base and the annotation behind it, tags and all; ends of tags may be left out."""
    start = place = 0
    annotation, is_within = -1, False
    for part in inside:
        name, ends = _annotation_tag(part)
        if name in OF_ANNOTATIONS:
            is_within = not ends
            annotation = place if annotation < 0 else annotation
        elif annotation >= 0 and (
            (name == BASE and not ends)
            or not (is_within or (isinstance(part, str) and part.isspace()))
        ):
            yield inside.cut(start, annotation), inside.cut(annotation, place)
            start, annotation, is_within = place, -1, False
        place += len(part) if isinstance(part, str) else 1
    annotation = place if annotation < 0 else annotation
    yield inside.cut(start, annotation), inside.cut(annotation, place)


def _annotation_tag(part: str | InlineElement) -> tuple[str, bool]:
    """The name of a tag of annotations, else empty, and whether its element ends there."""
    tag = None if isinstance(part, str) else TAG.match(part.raw)
    return (tag["name"].lower(), "</" in tag.string) if tag else ("", False)


def _written(annotation: InlineText, base: str, escape: Escape, taken: TakenOut | None) -> str:
    """The source of an annotation, with numbers in the place of what is translated."""
    parts: list[str] = []
    start = place = 0

    def add(text: InlineText) -> None:
        is_taken = taken is not None and text.has_letter() and _is_gloss(base, text.text)
        parts.append(taken.add(Block(text, escape)) if taken and is_taken else text.output())

    for part in annotation:
        if not isinstance(part, str) and _annotation_tag(part)[0]:
            add(annotation.cut(start, place))
            parts.append(part.output)
            start = place + 1
        place += len(part) if isinstance(part, str) else 1
    add(annotation.cut(start, place))
    return "".join(parts)


def _is_gloss(base: str, annotation: str) -> bool:
    """Whether an annotation is in the language of the text, and does not say how to read it."""
    return not (
        _is_unspaced(base) or _is_unspaced(annotation) or PHONETIC.search(annotation) is not None
    )


def _is_unspaced(text: str) -> bool:
    """Whether there are letters of a script that puts no spaces between words."""
    return any(character.isalpha() and character >= SPACED for character in text)
