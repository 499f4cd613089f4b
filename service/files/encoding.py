"""Bytes of a text file → text, and back in the same encoding."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from service.files.unit import FileError

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LEGACY = {
    "cp1250": "cs hr hu pl ro sk sl sq",
    "cp1251": "be bg kk ky mk mn ru sr tg uk",
    "cp1253": "el",
    "cp1254": "az tr",
    "cp1255": "he yi",
    "cp1256": "ar fa ur",
    "cp1257": "et lt lv",
    "cp1258": "vi",
    "cp874": "th",
    "cp932": "ja",
    "cp936": "zh",
    "cp949": "ko",
}
LEGACY_OF = {
    language: codec for codec, languages in LEGACY.items() for language in languages.split()
}
"""What text that is not Unicode is most likely in, by its language; cp1252 for all others."""
DECLARED = re.compile(
    r"utf-?8|utf-?16(?:-?[lb]e)?|us-ascii|ascii|latin-?1|iso-?8859-?\d{1,2}|iso-2022-jp"
    r"|(?:windows-?|cp)(?:125\d|874|932|936|949|950)|koi8-[rtu]|shift[-_]?jis|euc-?(?:jp|kr)"
    r"|gb2312|gbk|gb18030|big5|macintosh|mac-?roman",
    re.IGNORECASE,
)
"""Names that a file may give as its encoding; all are decoded in linear time."""
NEVER = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True)
class Encoding:
    """How a text was written."""

    codec: str
    bom: bytes = b""

    def encode(self, text: str, *, references: bool = False) -> bytes:
        """The text in this encoding, else in UTF-8 where a character is not in it; `references`:
        such a character is written as `&#…;`. What no text file can have is left out."""
        text = NEVER.sub("", text)
        try:
            return self.bom + text.encode(
                self.codec, "xmlcharrefreplace" if references else "strict"
            )
        except UnicodeError:
            return codecs.BOM_UTF8 + text.encode("utf-8", "replace")


def decode(data: bytes, language: str = "", declared: str | None = None) -> tuple[str, Encoding]:
    """A text file's text, all line breaks as they are, and its encoding.

    A byte order mark decides, then what the file says of itself (`declared`), then whether it is
    UTF-8 or UTF-16; else it is taken for the old encoding of its `language`. Raises FileError for
    bytes that are no text.
    """
    encoding = _encoding(data, language, declared)
    try:
        text = data[len(encoding.bom) :].decode(encoding.codec)
    except (UnicodeError, LookupError) as error:
        raise FileError(f"the file is not text in {encoding.codec}; save it as UTF-8") from error
    if "\0" in text:
        raise FileError("the file has null characters, so it is no text; give a text file")
    return text, encoding


def _encoding(data: bytes, language: str, declared: str | None) -> Encoding:
    for bom, codec in BOMS:
        if data.startswith(bom):
            return Encoding(codec, bom)
    if declared and DECLARED.fullmatch(declared.strip()):
        name = declared.strip().lower()
        if not name.replace("-", "").startswith("utf16"):
            return Encoding(re.sub(r"^windows-?(?=\d)", "cp", name))
    even, odd = data[:4000:2].count(0), data[1:4000:2].count(0)
    most = min(len(data), 4000) / 2 * 0.6
    if odd > most > even:
        return Encoding("utf-16-le")
    if even > most > odd:
        return Encoding("utf-16-be")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        codec = LEGACY_OF.get(language.split("-")[0].lower(), "cp1252")
        try:
            data.decode(codec)
        except UnicodeDecodeError:
            codec = "latin-1"
        return Encoding(codec)
    return Encoding("utf-8")
