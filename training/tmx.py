"""Translation units of a TMX file (LISA TMX 1.4b), one at a time.

Entities are refused, never expanded, and each unit leaves the tree when it was used, so that memory
stays flat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import iterparse

XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def translation_units(file: IO[bytes]) -> Iterator[dict[str, str]]:
    """Each unit's texts by language code (lower case); of several in a language, the first.

    Of inline markup, `hi` alone keeps its content, since only that is text by the standard. Raises
    xml.etree.ElementTree.ParseError, or DefusedXmlException where the file declares entities.
    """
    for unit in _units(iterparse(file, events=("start", "end"))):
        texts: dict[str, str] = {}
        for variant in _named(unit, "tuv"):
            language = variant.get(XML_LANG) or variant.get("lang") or ""
            for segment in _named(variant, "seg"):
                texts.setdefault(_code(language), _text(segment))
        yield texts


def text_in(texts: dict[str, str], language: str, other: str) -> str | None:
    """The text in a language: by its very code, else by its primary subtag.

    Where both languages of a corpus share the primary subtag (`zh-Hans`, `zh-Hant`), only the very
    code counts.
    """
    language, other = _code(language), _code(other)
    primary = language.partition("-")[0]
    if language in texts or primary == other.partition("-")[0]:
        return texts.get(language)
    return next((text for code, text in texts.items() if code.split("-")[0] == primary), None)


def _code(language: str) -> str:
    return language.lower().replace("_", "-")


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _named(parent: Element, name: str) -> Iterator[Element]:
    return (child for child in parent if _name(child) == name)


def _units(events: Iterable[tuple[str, Element]]) -> Iterator[Element]:
    open_elements: list[Element] = []
    unit: Element | None = None
    for event, element in events:
        if event == "start":
            open_elements.append(element)
            if unit is None and _name(element) == "tu":
                unit = element
            continue
        open_elements.pop()
        if element is unit:
            yield element
            unit = None
        if unit is None and open_elements:
            open_elements[-1].clear()


def _text(element: Element) -> str:
    inner = [
        (_text(child) if _name(child) == "hi" else "") + (child.tail or "") for child in element
    ]
    return (element.text or "") + "".join(inner)
