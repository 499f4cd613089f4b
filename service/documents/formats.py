"""Format strings of gettext catalogues, by the flags of an entry (`c-format`, `python-format`).

`protected` finds what must stay in a message, `fitted` holds a translation to it by the rules of
`msgfmt --check`. See https://www.gnu.org/software/gettext/manual/html_node/PO-Files.html and the
manual's chapter on programming languages for the syntaxes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LENGTH = r"(?:hh|ll|I64|[hlqLjztw])?"
NUMBER = r"(?:(?P<number>\d{1,3})\$)?"
SIZE = r"(?:\*(?:\d{1,3}\$)?|\d{0,6})(?:\.(?:\*(?:\d{1,3}\$)?|\d{0,6}))?"
C_LETTERS = "diouxXeEfFgGaAcsCSpnm"


@dataclass(frozen=True)
class Syntax:
    """A syntax of format strings. `directive` finds directives, with the groups `number` or `name`
    where they have one; `literal` finds what stands for a plain sign. `sign` must stand in neither.
    `numbered` is how a directive of a number begins: None where it can have none."""

    directive: re.Pattern[str]
    literal: re.Pattern[str]
    sign: str
    numbered: str | None = None


def _percent(directive: str, numbered: str | None = "%{}$") -> Syntax:
    return Syntax(re.compile(directive), re.compile("%%"), "%", numbered)


def _braces(directive: str, literal: str = r"\{\{|\}\}", sign: str = "{}") -> Syntax:
    return Syntax(re.compile(directive), re.compile(literal), sign)


def _printf(flags: str, letters: str) -> str:
    conversion = rf"(?:[{letters}]|<[A-Z]\w{{0,20}}>)"
    return rf"%{NUMBER}[{flags}]{{0,6}}{SIZE}{LENGTH}{conversion}"


C = _percent(_printf("-+ 0#'I", C_LETTERS))
PYTHON = _percent(
    rf"%(?:\((?P<name>[^()]{{1,100}})\))?[-+ 0#]{{0,6}}{SIZE}{LENGTH}[diouxXeEfFgGcrsa]", None
)
FIELD = r"(?P<name>[A-Za-z_]\w{0,60}|\d{0,3})(?:\.\w{1,60}|\[[^\[\]{}]{1,60}\]){0,8}"
PYTHON_BRACE = _braces(rf"\{{{FIELD}(?:![rsa])?(?::(?:[^{{}}]|\{{[^{{}}]{{0,40}}\}}){{0,60}})?\}}")
NO_LITERAL = r"(?!)"
SYNTAXES: Mapping[str, Syntax] = {
    "c-format": C,
    "objc-format": _percent(_printf("-+ 0#'I", C_LETTERS + "@")),
    "gcc-internal-format": _percent(
        rf"%{NUMBER}[-+ 0#q'w]{{0,6}}{SIZE}{LENGTH}(?:[{C_LETTERS}A-Z<>RrKtTvVZ]|')"
    ),
    "awk-format": C,
    "lua-format": _percent(_printf("-+ 0#", C_LETTERS + "q"), None),
    "javascript-format": _percent(_printf("-+ 0#'", C_LETTERS + "j")),
    "tcl-format": C,
    "elisp-format": C,
    "librep-format": C,
    "perl-format": _percent(_printf("-+ 0#v", C_LETTERS + "BbUDO")),
    "php-format": _percent(rf"%{NUMBER}(?:[-+ 0]|'.){{0,6}}{SIZE}[bcdeEfFgGosuxX]"),
    "ruby-format": _percent(
        rf"%(?:<(?P<name>\w{{1,60}})>)?{NUMBER}[-+ 0#*]{{0,6}}{SIZE}[{C_LETTERS}bB]"
        r"|%\{(?P<braced>\w{1,60})\}"
    ),
    "java-printf-format": _percent(rf"%{NUMBER}[-+ 0#,(<]{{0,6}}{SIZE}(?:[a-zA-Z]|[tT][a-zA-Z])"),
    "object-pascal-format": _percent(
        r"%(?:(?P<number>\d{1,3}):)?-?(?:\*|\d{0,6})(?:\.\d{1,6})?[deFfgnmpsuxDEGNMPSUX]", "%{}:"
    ),
    "boost-format": _percent(
        rf"%(?P<name>\d{{1,3}})%|%\|[^|]{{1,30}}\||{_printf('-+ 0#', C_LETTERS)}"
    ),
    "qt-format": Syntax(re.compile(r"%L?(?P<number>\d{1,2})|%n"), re.compile(NO_LITERAL), ""),
    "qt-plural-format": Syntax(re.compile("%n"), re.compile(NO_LITERAL), ""),
    "kde-format": Syntax(re.compile(r"%(?P<number>\d{1,2})"), re.compile(NO_LITERAL), ""),
    "smalltalk-format": Syntax(re.compile(r"%(?P<number>\d)"), re.compile("%%"), ""),
    "sh-format": Syntax(
        re.compile(r"\$(?P<name>[A-Za-z_]\w{0,60})|\$\{(?P<braced>[A-Za-z_]\w{0,60})\}"),
        re.compile(NO_LITERAL),
        "",
    ),
    "python-format": PYTHON,
    "python-brace-format": PYTHON_BRACE,
    "c++-format": PYTHON_BRACE,
    "rust-format": PYTHON_BRACE,
    "perl-brace-format": _braces(r"\{(?P<name>[A-Za-z_]\w{0,60})\}", NO_LITERAL, ""),
    "csharp-format": _braces(r"\{(?P<name>\d{1,3})(?:,-?\d{1,5})?(?::[^{}]{0,60})?\}"),
    "java-format": _braces(r"\{(?P<name>\d{1,3})(?:,[^{}]{0,100})?\}", NO_LITERAL, ""),
    "lisp-format": _percent(r"~[\d,'@:#vV-]{0,20}[A-Za-z$?*]", None),
    "scheme-format": _percent(r"~[\d,'@:#vV-]{0,20}[A-Za-z$?*]", None),
}
"""By the flag. `c++-format` and `rust-format` are what `std::format` and `format!` take."""
SPACED_WORD = re.compile(r"%[-+0#'I]{0,5} [-+ 0#'I]{0,5}[A-Za-z]{2}")
"""`100% of`, which C takes for a directive, but nobody who writes it."""


def syntaxes_of(flags: Iterable[str]) -> list[Syntax]:
    """The syntaxes that flags name, also as `possible-…`; `no-…` names none."""
    names = (flag.removeprefix("possible-") for flag in flags)
    return [SYNTAXES[name] for name in names if name in SYNTAXES]


def protected(text: str, syntax: Syntax) -> list[tuple[int, int]]:
    """Where directives and literal signs stand in a message."""
    return [
        match.span()
        for match in _pieces(text, syntax)
        if not SPACED_WORD.match(text, match.start()) or match[0] == "%%"
    ]


def fitted(source: str, translation: str, syntax: Syntax) -> str | None:
    """A translation with the directives of its source, numbered where their order is another; None
    where it has others, or a sign that begins none."""
    wanted, given = _directives(source, syntax), _directives(translation, syntax)
    left = _without(translation, syntax)
    if any(sign in left for sign in syntax.sign) and not any(
        sign in _without(source, syntax) for sign in syntax.sign
    ):
        return None
    if wanted == given:
        return translation
    if sorted(wanted) != sorted(given):
        return None
    if all(_key(match) for match in _matches(source, syntax)):
        return translation
    starred = any("*" in one for one in wanted)
    if starred or any(_key(match) for match in _matches(source, syntax)):
        return None
    return _numbered(wanted, translation, syntax)


def _numbered(wanted: list[str], translation: str, syntax: Syntax) -> str | None:
    """A translation whose directives say which of the source's they are."""
    is_field = syntax is PYTHON_BRACE
    if syntax.numbered is None and not is_field:
        return None
    free = list(enumerate(wanted))
    text, end = "", 0
    for match in _matches(translation, syntax):
        number, directive = next(item for item in free if item[1] == match[0])
        free.remove((number, directive))
        start = f"{{{number}" if is_field else _start(syntax, number)
        text += translation[end : match.start()] + start + directive[1:]
        end = match.end()
    return text + translation[end:]


def _start(syntax: Syntax, number: int) -> str:
    assert syntax.numbered is not None
    first = 0 if syntax.numbered.endswith(":") else 1
    return syntax.numbered.format(number + first)


def _directives(text: str, syntax: Syntax) -> list[str]:
    return [match[0] for match in _matches(text, syntax)]


def _matches(text: str, syntax: Syntax) -> list[re.Match[str]]:
    return [match for match in _pieces(text, syntax) if match.re is syntax.directive]


def _key(match: re.Match[str]) -> str:
    """The number or name of a directive."""
    return "".join(value for value in match.groups() if value)


def _without(text: str, syntax: Syntax) -> str:
    left, end = "", 0
    for match in _pieces(text, syntax):
        left += text[end : match.start()] + " "
        end = match.end()
    return left + text[end:]


def _pieces(text: str, syntax: Syntax) -> Iterable[re.Match[str]]:
    """Literal signs and directives, from the left."""
    place = 0
    starts = re.compile(r"[%{}$~]")
    while start := starts.search(text, place):
        match = syntax.literal.match(text, start.start()) or syntax.directive.match(
            text, start.start()
        )
        if match:
            yield match
        place = match.end() if match else start.end()
