"""XML from strangers: read by lxml without its prologue, so that there are no entities and no DTD.

What is before the root element stays byte for byte, and line endings stay; within the root the
serialiser decides how attributes are quoted and empty elements are written. Expat reads a file
before lxml does, to see that it is within bounds: what lxml does with attributes takes quadratic
time, with namespaces as long as there are ancestors.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias
from xml.parsers import expat

from lxml import etree

from service.files.encoding import DECLARED, Encoding, decode
from service.files.inline import Event
from service.files.unit import FileError

Element: TypeAlias = Any
"""An lxml element; the library has no types."""
DECLARATION = re.compile(rb"""\s*<\?xml\s[^>]{0,200}?encoding\s{0,9}=\s{0,9}["']([\w.-]{1,40})""")
MAX_ELEMENTS = 1_000_000
MAX_ATTRIBUTES = 256
"""Of an element, declarations of namespaces too."""
MAX_NAMESPACES = 256
"""Declarations on an element and those around it."""
MAX_DEPTH = 256
"""Elements within each other."""
SHOWN = 100
"""Characters of the text of something that is kept as it is."""
XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
XML_SPACE = "{http://www.w3.org/XML/1998/namespace}space"


@dataclass(frozen=True)
class XmlFile:
    """An XML document: its root, and what is around it as it stood."""

    prologue: str
    root: Element
    encoding: Encoding
    end: str = ""
    """White space after the root."""
    windows_lines: bool = False

    def write(self) -> bytes:
        """The document, in its encoding."""
        body = "\n".join(
            etree.tostring(node, encoding="unicode", with_tail=False)
            for node in (self.root, *self.root.itersiblings())
        )
        body += self.end
        if self.windows_lines:
            body = body.replace("\n", "\r\n")
        return self.encoding.encode(self.prologue + body, references=True)


def read_xml(data: bytes) -> XmlFile:
    """Read XML. Raises FileError where it is not well formed, declares entities, or is over one of
    the bounds above."""
    match = DECLARATION.match(data)
    declared = match[1].decode("ascii") if match else "utf-8"
    if not DECLARED.fullmatch(declared):
        raise FileError(f"the file's encoding, {declared!r}, is not known; save it as UTF-8")
    text, encoding = decode(data, declared=declared)
    encoded = text.encode("utf-8")
    start = _Scan(encoded).start
    prologue = encoded[:start].decode("utf-8")
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        strip_cdata=False,
        collect_ids=False,
        encoding="utf-8",
    )
    try:
        root = etree.fromstring(encoded[start:], parser)
    except (etree.LxmlError, ValueError) as error:
        raise FileError(f"the file's XML cannot be read: {_reason(error, prologue)}") from error
    windows = text.count("\r\n")
    return XmlFile(
        prologue=prologue,
        root=root,
        encoding=encoding,
        end=re.sub(r"\r\n?", "\n", text[len(text.rstrip()) :]),
        windows_lines=windows > 0 and windows == text.count("\n"),
    )


class _Scan:
    """Sees that UTF-8 bytes are XML within bounds, in linear time; `start` is where in them the
    root element begins. Raises FileError, also for a DTD within the file."""

    def __init__(self, data: bytes) -> None:
        self.start = -1
        self._elements = 0
        self._namespaces = [0]
        """Declarations in scope, for each element that is open."""
        self._parser = parser = expat.ParserCreate("utf-8")
        parser.ordered_attributes = True
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = lambda name: self._namespaces.pop()
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise FileError(f"the file's XML cannot be read: {error}") from error

    def _begin(self, name: str, attributes: list[str]) -> None:
        if self.start < 0:
            self.start = self._parser.CurrentByteIndex
        in_scope = self._namespaces[-1]
        if attributes:
            if len(attributes) > 2 * MAX_ATTRIBUTES:
                self._refuse(f"an element has more than {MAX_ATTRIBUTES} attributes", "remove some")
            in_scope += sum(name.startswith("xmlns") for name in attributes[::2])
            if in_scope > MAX_NAMESPACES:
                self._refuse(f"more than {MAX_NAMESPACES} namespaces are declared", "remove some")
        self._namespaces.append(in_scope)
        if len(self._namespaces) > MAX_DEPTH + 1:
            self._refuse(f"elements nest deeper than {MAX_DEPTH}", "save it again")
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            self._refuse(f"there are more than {MAX_ELEMENTS:,} elements", "part it")

    def _refuse(self, what: str, remedy: str) -> None:
        line = self._parser.CurrentLineNumber
        raise FileError(f"the file's XML is over a limit: {what} (line {line}); {remedy}")

    @staticmethod
    def _doctype(name: str, system: str | None, public: str | None, internal: int) -> None:
        if internal:
            raise FileError(
                "the file declares entities or elements in its DOCTYPE, which is not accepted; "
                "remove what is in its brackets"
            )


def _reason(error: Exception, prologue: str) -> str:
    reason = re.split(r", line \d+|, use XML_PARSE_HUGE| \(<string>", str(error))[0]
    line = getattr(error, "lineno", None)
    return f"{reason} (line {line + prologue.count(chr(10))})" if line else reason


def names(listed: str) -> frozenset[str]:
    """Names that are listed with spaces between them."""
    return frozenset(listed.split())


def local_name(element: Element) -> str:
    """An element's name without its namespace; empty for a comment and the like."""
    tag = element.tag
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def namespace(element: Element) -> str:
    """An element's namespace in braces, or nothing."""
    tag = element.tag
    return tag[: tag.index("}") + 1] if isinstance(tag, str) and tag.startswith("{") else ""


def text_of(element: Element) -> str:
    """The text in an element, its children's too, as far as it takes to know what it is like."""
    text = ""
    for part in element.itertext():
        text += part
        if len(text) > SHOWN:
            return text[:SHOWN]
    return text


def shell(element: Element) -> Element:
    """The same element without what is in it, to be put where it was. It takes quadratic time in
    the attributes, which are at most MAX_ATTRIBUTES."""
    attributes = dict(element.attrib)
    used = {name[1 : name.index("}")] for name in (element.tag, *attributes) if name[0] == "{"}
    namespaces = {}
    if used:
        namespaces = {prefix: uri for prefix, uri in element.nsmap.items() if uri in used}
    return etree.Element(element.tag, attributes, namespaces)


def outermost(root: Element, tag: str) -> Iterator[Element]:
    """Descendants of a name that are in no other one."""
    walker = etree.iterwalk(root, events=("start",), tag=tag)
    for _, element in walker:
        walker.skip_subtree()
        yield element


def alone(element: Element) -> Element:
    """A copy of an element without the text after it."""
    copied = copy.deepcopy(element)
    copied.tail = None
    return copied


def detached(element: Element) -> Element:
    """An element itself, without the text after it, to be put elsewhere."""
    element.tail = None
    return element


def empty(element: Element) -> None:
    """Remove all that is in an element."""
    for child in list(element):
        element.remove(child)
    element.text = None


def base_language(code: str) -> str:
    """A language's code in small letters without its region or script."""
    return re.split(r"[-_]", code.strip())[0].lower()


def insert_after(element: Element, new: Element) -> None:
    """Put a new element after another, on a line of its own if that one is."""
    previous, parent = element.getprevious(), element.getparent()
    assert parent is not None
    indent = parent.text if previous is None else previous.tail
    new.tail, element.tail = element.tail, indent if indent and not indent.strip() else None
    parent.insert(parent.index(element) + 1, new)


def append_text(parent: Element, text: str) -> None:
    """Add text after all that an element has."""
    last = next(parent.iterchildren(reversed=True), None)
    if last is not None:
        last.tail = (last.tail or "") + text
    else:
        parent.text = (parent.text or "") + text


@dataclass(frozen=True, slots=True)
class Around:
    """A stretch's code: an element that holds it, or one at either end."""

    start: Element
    end: Element | None = None


def fill(
    parent: Element, events: Iterable[Event], take: Callable[[Element], Element] = alone
) -> None:
    """Add text and the elements of codes to an element: `Around`, an element, or the text of a
    break. `take` says whether they are copied or moved."""
    parents = [parent]
    for event in events:
        inner = parents[-1]
        match event.kind, event.code:
            case "text", _:
                append_text(inner, event.text)
            case "open", Around(start, None):
                holder = shell(start)
                inner.append(holder)
                parents.append(holder)
            case "close", Around(_, None):
                parents.pop()
            case "open", Around(start, _):
                inner.append(take(start))
            case "close", Around(_, end):
                inner.append(take(end))
            case _, str(text):
                append_text(inner, text)
            case _, element:
                inner.append(take(element))
