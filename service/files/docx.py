"""Word documents: the paragraphs of their body, tables, headers, footers, notes and text boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.files.archive import Archive
from service.files.docx_paragraph import DocxParagraph
from service.files.unit import FileError, Unit, check_count
from service.files.xml import Element, XmlFile, local_name, namespace, read_xml

CONTENT_TYPES = "[Content_Types].xml"
MAIN = ("document.main+xml", "template.main+xml")
TRANSLATED = (*MAIN, "header+xml", "footer+xml", "footnotes+xml", "endnotes+xml")
"""How the content types of the parts that are translated end."""
MAX_COPIED_CHARS = 32 << 20
"""What the formats of a part's runs may come to, once each part of a run is one with its format."""


class DocxFile:
    """A Word document; a unit is a paragraph."""

    def __init__(self, data: bytes) -> None:
        self.archive = Archive(data)
        self.parts = _parts(self.archive)
        self.archive.check_parts(self.parts)
        self.units: Sequence[Unit] = [
            paragraph.inline.unit
            for part in self.parts
            for paragraph in _paragraphs(read_xml(self.archive.read(part)).root)
        ]

    def rebuild(self, translations: Sequence[str]) -> bytes:
        check_count(self.units, translations)
        remaining = iter(translations)
        changed = {}
        for part in self.parts:
            document = read_xml(self.archive.read(part))
            if _rewrite(document, remaining):
                changed[part] = document.write()
        return self.archive.write(changed)


def open_docx(data: bytes, source: str, target: str, max_unit_chars: int) -> DocxFile:
    """A Word document. Raises FileError if it is damaged, encrypted or has macros."""
    return DocxFile(data)


def _parts(archive: Archive) -> list[str]:
    """Names of the parts to translate, the document itself first."""
    if "EncryptedPackage" in archive:
        raise FileError("the file is encrypted; save it without a password")
    types = {
        element.get("PartName", "").lstrip("/"): element.get("ContentType", "")
        for element in read_xml(archive.read(CONTENT_TYPES)).root.iter("{*}Override")
    }
    macros = any("macroEnabled" in type or "vbaProject" in type for type in types.values())
    if macros or any(name.lower().endswith("vbaproject.bin") for name in archive.members):
        raise FileError("the file has macros, which is not accepted; save it as .docx without them")
    found = [
        name
        for name, type in types.items()
        if type.endswith(TRANSLATED) and "wordprocessingml" in type and "glossary" not in type
    ]
    found.sort(key=lambda name: (not types[name].endswith(MAIN), name))
    if not found or not types[found[0]].endswith(MAIN):
        raise FileError("the file is not a Word document: it has no main part; save it again")
    return found


def _paragraphs(root: Element) -> Iterator[DocxParagraph]:
    """The paragraphs of a part that have a letter."""
    ns = namespace(root)
    if local_name(root) not in ("document", "hdr", "ftr", "footnotes", "endnotes"):
        raise FileError("the file is not a Word document: it has an unknown part; save it again")
    copied = 0
    for element in root.iter(f"{ns}p"):
        paragraph = DocxParagraph(element, ns)
        copied += paragraph.copied_chars
        if copied > MAX_COPIED_CHARS:
            raise FileError(
                "the file has runs of so many parts with so large formats that its translation "
                f"would have more than {MAX_COPIED_CHARS:,} characters of formats; simplify them"
            )
        if paragraph.inline.translatable:
            yield paragraph


def _rewrite(document: XmlFile, translations: Iterator[str]) -> bool:
    """Put translations into a part; whether it has changed."""
    changed = False
    for paragraph in list(_paragraphs(document.root)):
        translation = next(translations)
        if translation != paragraph.inline.unit.text:
            paragraph.write(paragraph.inline.translated(translation))
            changed = True
    return changed
