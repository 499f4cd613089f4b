"""XML and zip archives from strangers, and inline elements of XML formats.

XML is read by lxml without its prologue, so there are no entities and no DTD. What is before the
root element stays byte for byte, and so do line endings; within the root the serialiser decides how
attributes are quoted and empty elements are written. Expat reads a file before lxml does, to check
the limits: lxml's time is quadratic in the attributes, and grows with the namespaces of all
ancestors.

`Archive` reads zips within limits, and writes them with new content for some members. The inline
elements of TMX and XLIFF become codes of `service/documents/base.py`: elements that hold text, and
elements that mark its ends.
"""

from __future__ import annotations

import copy
import io
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from xml.parsers import expat

from lxml import etree

from service.documents.base import DECLARED, Encoding, Event, FileError, Inline, decode

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


SUB_LEFT = "text in <sub>, within a code, stays as it is"


def has_sub(element: Element) -> bool:
    """Whether codes of TMX or XLIFF in an element have text of their own."""
    return any(text_of(sub).strip() for sub in element.iter("{*}sub"))


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


MAX_MEMBERS = 5_000
MAX_UNPACKED = 300 << 20
"""Bytes of all members together."""
MAX_XML = 32 << 20
"""Bytes of a member that is read as XML, and of those that are translated together; it takes about
ten times as much memory."""
MAX_RATIO = 200
"""How many times larger than the zip its members may be, together, from MIN_RATIO_SIZE on."""
MIN_RATIO_SIZE = 8 << 20
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1


class Archive:
    """A zip in memory. Names of members are only ever looked up, never used as paths."""

    def __init__(self, data: bytes) -> None:
        """Raises FileError for a zip that is damaged, encrypted, too large or deceptive."""
        self.data = data
        with _clear_errors():
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self.members = {info.filename: info for info in self._zip.infolist()}
            _check(self._zip.infolist(), len(data))

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str) -> bytes:
        """A member to be read as XML. Raises FileError if it is not there or too large."""
        info = self.members.get(name)
        if info is None:
            raise FileError(f"the file is incomplete: it has no {name!r}; save it again")
        if info.file_size > MAX_XML:
            raise FileError(f"{name!r} in the file is larger than {MAX_XML >> 20} MB; part it")
        with _clear_errors():
            return self._zip.read(info)

    def check_parts(self, names: Iterable[str]) -> None:
        """Raise FileError if members to be translated are too large together."""
        if sum(self.members[name].file_size for name in names if name in self) > MAX_XML:
            raise FileError(
                f"the text of the file is larger than {MAX_XML >> 20} MB with its markup; part it"
            )

    def write(self, changed: Mapping[str, bytes]) -> bytes:
        """The zip with other content for some members; all members stay in their order."""
        buffer = io.BytesIO()
        with _clear_errors(), zipfile.ZipFile(buffer, "w") as new:
            for name, info in self.members.items():
                written = zipfile.ZipInfo(name, info.date_time)
                written.compress_type = info.compress_type
                written.external_attr, written.create_system = (
                    info.external_attr,
                    info.create_system,
                )
                if name in changed:
                    new.writestr(written, changed[name])
                    continue
                written.file_size = info.file_size
                with self._zip.open(info) as source, new.open(written, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 16)
        return buffer.getvalue()


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        struct.error,
        EOFError,
        LookupError,
        NotImplementedError,
        OSError,
        OverflowError,
        RuntimeError,
        ValueError,
    ) as error:
        raise FileError(f"the file's zip is damaged ({error}); save it again") from error


def _check(members: list[zipfile.ZipInfo], packed: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise FileError(f"the file has more than {MAX_MEMBERS} parts")
    if len({info.filename for info in members}) < len(members):
        raise FileError("the file has two parts of the same name; save it again")
    unpacked = sum(info.file_size for info in members)
    if unpacked > MAX_UNPACKED:
        raise FileError(f"the file is larger than {MAX_UNPACKED >> 20} MB when it is unpacked")
    if unpacked > max(MIN_RATIO_SIZE, MAX_RATIO * packed):
        raise FileError("the file is packed suspiciously tight; save it again")
    for info in members:
        name = info.filename
        if name.startswith(("/", "\\")) or "\\" in name or ".." in name.split("/") or ":" in name:
            raise FileError(f"the file has a part with an unsafe name: {name[:60]!r}")
        if info.flag_bits & ENCRYPTED:
            raise FileError("the file is encrypted; save it without a password")
        if info.compress_type not in COMPRESSIONS:
            raise FileError("the file is packed in an unusual way; save it again")


Role = Literal["around", "through", "start", "end", "placeholder", "word", "line", "point"]


@dataclass(frozen=True)
class Code:
    """What an element is in a sentence.

    `around`: a stretch; stretches with the same `key` that touch are one. `start`, `end`: the ends
    of one, which belong together by `key`; text between ends that are `kept` is not translated.
    `in_order` is for words, see `Inline.word`. `name` is that of a stretch, see `Inline.open`.
    `through`: nothing, only what is in it counts. All others are as in `Inline`.
    """

    role: Role
    key: str = ""
    kept: bool = False
    in_order: bool = False
    name: str = ""


Classify = Callable[[Element], Code]
Step = tuple[Literal["text", "leave"], str] | tuple[Code, Element]


def read_inline(
    element: Element,
    classify: Classify,
    add_text: Callable[[Inline, str], None] = Inline.lines,
    keeping: set[str] | None = None,
) -> Inline:
    """The text and codes of an element's content. Codes are `Around`, elements, and strings: text
    that is kept, and `"\\n"`, if its line breaks count.

    `keeping` has the keys of kept stretches that began before, and gets those that go on behind.
    """
    keeping = set() if keeping is None else keeping
    steps = _joined(_steps(element, classify))
    partners = _pair_up(steps)
    inline = Inline()
    for at, (what, content) in enumerate(steps):
        if isinstance(content, str):
            if what == "leave":
                inline.close()
            else:
                (_add_kept if keeping else add_text)(inline, content)
            continue
        assert isinstance(what, Code)
        if what.role == "start" and what.kept:
            keeping.add(what.key)
        elif what.role == "end":
            keeping.discard(what.key)
        match what.role:
            case "around":
                inline.open(Around(content), what.name or _name_of(content))
            case "start" if at in partners:
                inline.open(Around(content, steps[partners[at]][1]), _name_of(content))
            case "end" if at in partners:
                inline.close()
            case "placeholder":
                inline.placeholder(content)
            case "word":
                inline.word(content, text_of(content), in_order=what.in_order)
            case "line":
                inline.line(content)
            case _:
                inline.point(content)
    return inline


NATIVE_TAG = re.compile(r"\s*<(s|del|strike|ruby|rb|rt|rp)[\s>]", re.IGNORECASE)
TYPE = re.compile(r"(?:.*[-:])?(s|del|strike|strikethrough|ruby|rb|rt|rp)", re.IGNORECASE)
CODES = names("bpt bx pc sc")
"""Elements that hold a tag, or an attribute that does, and no text of the sentence at their
beginning that could be one."""
TYPES = ("ctype", "type", "subType")
DISPLAYED = ("equiv-text", "dispStart", "equivStart", "disp")


def _name_of(element: Element) -> str:
    """What a code stands for, by the tag that it holds or the type that it has: the name of a tag
    that says how the text in it belongs to the text around it, else `span`."""
    tags = [element.text or "", *(element.get(name, "") for name in DISPLAYED)]
    found = [NATIVE_TAG.match(tag) for tag in tags if local_name(element) in CODES]
    found += [TYPE.fullmatch(element.get(name, "")) for name in TYPES]
    name = next((match[1].lower() for match in found if match), "span")
    return "s" if name == "strikethrough" else name


def _add_kept(inline: Inline, text: str) -> None:
    """Text that is not translated, as a word."""
    word = text.strip()
    if not any(map(str.isalnum, word)):
        inline.lines(text)
        return
    start = text.index(word)
    inline.lines(text[:start])
    inline.word(word, word)
    inline.lines(text[start + len(word) :])


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
