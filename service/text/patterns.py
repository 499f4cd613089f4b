"""The regular expressions of protected spans: what comes out of a translation as it went in.

`PROTECTED` finds them in a source. `INVENTED` finds what a translation must not have of its own:
without plain stretches such as `1/2/2026`, which a model may well write.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from service.text.inline import MARK

TOP_LEVEL = "com|org|net|edu|gov|io|dev|app|de|eu|uk|fr|nl|pl|ru|jp|cn|ch|ca|br"
NUMBER_NAMES = r"count|num|number|n|total|amount|quantity"

# Every quantifier is bounded or possessive, so that searching takes linear time.
ADDRESS = rf"""
    (?P<address>
        (?<![A-Za-z])(?:[A-Za-z][A-Za-z0-9+.-]{{1,15}}://|www\.|mailto:)[^\s<>"'`{MARK}]{{1,2000}}
      | (?<![\w.+-])[\w.+-]{{1,64}}@(?:[\w-]{{1,63}}\.){{1,8}}[A-Za-z]{{2,24}}\b
      | (?<![\w@./-])(?:[a-z0-9-]{{1,63}}\.){{1,6}}(?:{TOP_LEVEL})\b(?:/[^\s<>"'`{MARK}]{{0,2000}})?
      | (?<![\w/])(?:~|\.{{1,2}})?(?:/[\w.-]{{1,100}}){{2,20}}/?
      | (?<!\w)[A-Za-z]:\\[^\s<>"'|?*{MARK}]{{1,500}} | (?<![\w\\])\\\\\w[^\s<>"'|?*{MARK}]{{1,500}}
      | (?<![\w@])[@\#][A-Za-z_]\w{{1,60}}
    )"""
CONVERSION = r"""
    %(?:\d{1,2}\$)?[-+0\#']{0,5}(?:\*|\d{0,4})(?:\.(?:\*|\d{1,4}))?(?:hh|ll|I64|[hlqjztL])?"""
"""printf's conversion up to its letter."""
WITH_UNIT = r"(?=[A-Za-z]{1,3}(?![A-Za-z]))"
"""A short unit right behind a conversion (`%dpx`)."""
ICU_TYPES = "number|date|time|spellout|ordinal|duration|list|plural|select|selectordinal|choice"
PROSE = (
    rf"(?!\w{{1,60}},[ ]?(?:{ICU_TYPES})\b)" r"[^\W\d_]{1,40}+(?:,?[ ][\w'’-]{1,40}+){2,60}+[.!?]?"
)
"""Three words or more in braces are a text."""


def _nested(depth: int) -> str:
    """What is in braces, with other braces in it so deep."""
    inner = r"[^{}]"
    for _ in range(depth):
        inner = rf"(?:[^{{}}]|\{{{inner}{{0,1000}}+\}})"
    return rf"{inner}{{0,2000}}+"


NOT_A_NUMBER = r"(?<!\d)(?<!\d[ \u00a0])"
"""A percent sign behind a number is one."""

COUNTS: Mapping[str, str] = {
    "printf": rf"{CONVERSION}[diufFeEgG](?![A-Za-z])",
    "printf with a unit": rf"(?<!\d){CONVERSION}[diuf]{WITH_UNIT}",
    "Python by name": rf"%\((?:{NUMBER_NAMES})\)[sdif]",
    "brace": rf"\{{\ ?(?:{NUMBER_NAMES})\ ?\}}",
    "two braces": rf"\{{\{{\ ?(?:{NUMBER_NAMES})\ ?\}}\}}",
}
"""Placeholders that stand for a number, by the name of their syntax."""
SYNTAXES: Mapping[str, str] = {
    "ERB, EJS, ASP, JSP": r"<%[=-](?:[^%]|%(?!>)){0,1000}+%>",
    "PHP": r"<\?=(?:[^?]|\?(?!>)){0,1000}+\?>",
    "three braces": r"\{\{\{[^{}]{0,200}\}\}\}",
    "GitHub Actions": r"\$\{\{[^{}]{0,200}\}\}",
    "ICU choice": rf"\{{\s?[\w.-]{{1,60}}\s?,\s?(?:plural|select|selectordinal)\s?,{_nested(4)}\}}",
    "two braces": r"\{\{[^{}]{0,200}\}\}",
    "prefixed brace": r"[$\#%@]\{(?:[^{}]|\{[^{}]{0,100}\}){0,200}\}",
    "brace, ICU": rf"\{{(?!{PROSE}\}})(?:[^{{}}]|\{{[^{{}}]{{0,100}}\}}){{0,200}}\}}",
    "Python by name": r"%\([A-Za-z_][\w.-]{0,60}\)[-+0\#]{0,3}\d{0,4}(?:\.\d{1,4})?[A-Za-z]",
    "Ruby by name": r"%<[A-Za-z_]\w{0,60}>[-+0\#]{0,3}\d{0,4}(?:\.\d{1,4})?[A-Za-z]",
    "printf": rf"{CONVERSION}[sScCxXoOpaAn@di](?![A-Za-z])",
    "printf with a unit": rf"(?<!\d){CONVERSION}[sSc@]{WITH_UNIT}",
    "Windows variable": r"%[A-Za-z_]\w{1,60}%",
    "strftime": rf"{NOT_A_NUMBER}%[-_0^\#]?[A-Za-z](?![A-Za-z])",
    "Qt": rf"{NOT_A_NUMBER}%L?\d{{1,2}}(?!\d)",
    "percent sign": r"%%",
    "NSIS, make": r"\$\([\w^.][\w^.\ -]{0,60}\)",
    "i18next": r"\$t\([^()]{1,200}\)",
    "Vue": r"@(?:\.\w{1,20})?:\(?\w{1,60}+(?:\.\w{1,60}+){0,10}+\)?",
    "shell": r"\$[A-Za-z_]\w{0,60}",
    "wiki": r"\[\[[^\[\]]{1,200}\]\]",
    "underscores": r"__\w{1,60}__",
    "Laravel": r"""(?<![^\s(\["'„“])(?<!\d\s):[a-z_]\w{1,60}+(?!:)""",
    "Weblate": r"\[X\d{1,5}X\]",
    "i18n-tasks": r"\bX__\d{1,5}\b",
    "marked number": r"(?:\#\#\d{1,5}\#\#|§§\d{1,5}§§|@@\w{1,60}@@|⟦[^⟦⟧]{1,60}⟧)",
    "Mailchimp": r"\*\|[A-Z][A-Z0-9_:]{0,60}\|\*",
    "TYPO3": r"\#\#\#[A-Z]\w{0,60}\#\#\#",
    "entity": r"&(?:[A-Za-z][\w.-]{1,40}|\#\d{1,7}|\#x[0-9A-Fa-f]{1,6});",
    "character escape": r"\\(?:u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}|x[0-9A-Fa-f]{2})",
}
"""Placeholders that stand for a word, by the name of their syntax."""
CONTROLS: Mapping[str, str] = {
    "ERB, EJS, ASP, JSP": r"<%(?![=-])(?:[^%]|%(?!>)){0,1000}+%>",
    "PHP": r"<\?(?!=)(?:[^?]|\?(?!>)){0,1000}+\?>",
    "FreeMarker": r"""</?[\#@][A-Za-z](?:[^<>"']|"[^"]{0,300}"|'[^']{0,300}'){0,500}+>""",
    "FreeMarker in brackets": (
        r"\[/?\#(?:if|else|elseif|list|items|sep|switch|case|default|assign|local|global|include|"
        r"import|macro|nested|noparse|escape|ftl)\b[^\[\]]{0,300}\]"
    ),
    "Jinja, Twig, Liquid": r"\{%[^{}]{0,200}%\}|\{\#[^{}]{0,200}\#\}",
    "Hugo": r"\{\{[<%][^{}]{0,300}[>%]\}\}",
    "Handlebars": r"\{\{(?:[\#/^>!]|else\b)[^{}]{0,200}\}\}",
    "subtitles": r"\{\\[^{}]{1,100}\}",
    "emoji": r"(?<![\w:]):(?:[a-z][a-z0-9_+-]{1,40}|[+-]1):(?![\w:])",
    "escaped quote": r"""\\(?:"|'(?<!\w\\')|'(?!\w)|\\(?!\w))""",
}
"""What is no word of a sentence: it parts the text around it, or decorates it."""


OWN_LINE = tuple(name for name in CONTROLS if name not in ("subtitles", "emoji", "escaped quote"))
"""Those that, alone in a line, part what is before from what is after."""


def _any_of(group: str, patterns: Mapping[str, str]) -> str:
    return f"(?P<{group}>{'|'.join(f'(?:{pattern})' for pattern in patterns.values())})"


_PLACEHOLDERS = "|".join(
    (_any_of("control", CONTROLS), _any_of("number", COUNTS), _any_of("placeholder", SYNTAXES))
)
PLACEHOLDER = rf"(?=[%{{$\[<\#§@⟦&\\:_X*])(?:{_PLACEHOLDERS})"
"""All of them; a test holds its first characters to the tables."""
TEMPLATE_LINE = re.compile(
    rf"(?:{_any_of('control', {name: CONTROLS[name] for name in OWN_LINE})}[ \t]*+)++\Z", re.VERBOSE
)
"""The rest of a line that has template tags only."""
ESCAPED_BREAK = r"""
    (?P<break>(?:(?<!\\)(?:\\r\\n|\\[nrt])(?![a-z])|(?<=[.,;:!?)])\\[nrt]
      |(?<![\\:])\\N(?!\w{0,60}\\(?![Nh])))+)"""
"""Ends of lines as source code and subtitles have them; `\\New\\` is of a path."""
BRACKET = r"(?P<bracket>[{}])"
ONE_SYMBOL = r"""
        (?:[\u00a9\u00ae\u2122\u2190-\u21ff\u2300-\u23ff\u2460-\u27bf\u2b00-\u2bff\ufffc]
          |[\U0001f000-\U0001faff\ue000-\uf8ff])
        [\ufe0e\ufe0f\u200d\u20e3\U0001f000-\U0001faff\U000e0020-\U000e007f]{0,30}"""
EMOTICON = r"""(?<![^\s("'“„])(?:[:;=]['’]?-?[()DPp|/*]|[xX]D)(?=[\s.,!?)"'”“]|$)"""
BRACKETED_KEY = r"\([&_~][A-Za-z0-9]\)"
"""The key of a label in a script without its letter (`保存(&S)`)."""
SYMBOL = rf"""
    (?P<symbol>{EMOTICON}|[±∓≤≥≦≧≈](?=[ ]?\d)|{BRACKETED_KEY}
      |\({ONE_SYMBOL}\)|\[{ONE_SYMBOL}\]|(?:{ONE_SYMBOL}){{1,20}}+)"""
IDENTIFIER = r"""
    (?P<identifier>
        \b[A-Za-z]\w{0,60}\(\)
      | \b(?:[\w.-]{1,60}/){0,8}[\w-]{1,60}\.(?:py|js|ts|json|ya?ml|md|txt|html?|css|pdf|png
        |jpe?g|docx?|xlsx?|csv|zip|exe|sh)\b
      | \b[A-Za-z0-9]{1,60}(?:_[A-Za-z0-9]{1,60}){1,20}\b
      | (?<![\w^.,-])(?:\d{1,9}|[A-Za-z])\^(?:[-−+]?\d{1,5}(?![\w^.,]\d|\w)\^?|\{[^{}]{1,20}\})
      | (?<![\w-])[A-Z][A-Z0-9]{1,9}-\d{1,9}(?![\w-])
      | (?<![\w.-])(?=[-/.:\w]{1,30}?(?P<twice>[yYJMDdTHhms])(?P=twice))
        (?:(?:[yYJ]{1,4}|M{1,4}|D{1,3}|d{1,4}|T{1,2}|H{1,2}|h{1,2}|m{1,2}|s{1,2}|S{1,3})[-/.:]){1,6}
        (?:[yYJ]{1,4}|M{1,4}|D{1,3}|d{1,4}|T{1,2}|H{1,2}|h{1,2}|m{1,2}|s{1,2}|S{1,3})(?![\w-])
    )"""
"""Names of code, of files, of tickets (`JIRA-42`), powers, forms of dates (`YYYY-MM-DD`)."""
REFERENCE = r"""
    (?P<reference>[§¶№]{1,2}+[ \u00a0\u202f]?\d{1,6}+(?:[.:]\d{1,6}){0,5}[a-z]?(?![\w§])
      (?:[ ]?[-–][ ]?\d{1,6}[a-z]?(?!\w))?)"""
"""Signs of paragraphs and numbers with what they count."""
TAG = r"""
    (?P<tag></?(?:[A-Za-z][\w:.-]{0,60}(?:\s[^<>]{0,1000})?|\d{1,3}\ ?)/?>)"""
"""A visible one, or one of a format that is not read (`<0>` of React)."""
ARROWS = r"\u2190-\u21ff\u2794\u2798-\u27af\u27b1-\u27be\u27f0-\u27ff\u2900-\u297f\u2b00-\u2b11"
OPERATOR = rf"""
    (?P<operator>(?<=\s)(?:[<>=!:]=|=>|<?-{{1,2}}>|<-{{1,2}}|<>|[<>]|[{ARROWS}\u2200-\u22ff])(?=\s))"""
DIGITS = r"""
    (?P<digits>
        (?<![\w.,/:+-])(?:
            \+\d{1,4}+(?:[ .-]?\(?\d{1,6}+\)?){1,8}+
          | (?:[A-Z]{1,6}-)?\d{1,20}+(?:[-‐‑–/:]\d{1,20}+){2,12}+(?:-X)?
          | \d{3,6}+(?:[ ]\d{3,6}+){2,12}+
          | \d{1,6}+(?:[ ]\d{1,6}+){3,12}+
          | (?!\d{1,3}(?:\.\d{3}){1,2}(?![\d.]))\d{1,9}+(?:\.\d{1,9}+){2,8}+
          | \d{7,40}+
        )(?!\w|[.,/:-]\d)
    )"""
"""Numbers that count nothing: of telephones, books, versions, dates, or long ones."""
FIELD = r"""
    (?P<field>
        (?:_{4,300}+|_{2,3}(?!\w))(?:[ ]?[/.:-][ ]?_{1,60}+){0,10}
      | \.{5,300}+ | \.(?:[ ]\.){4,100}+ | …{2,100}+ | -{4,300}+ | \A-{3}
      | -{3}(?=\s*\Z) | ={3,300}+ | \*{3,300}+ | ~{3,300}+ | \#{3,300}+
    )"""
"""Lines to write on, to part texts, and to lead the eye."""


def _has_other_letters(character: str) -> bool:
    """Whether a mark or number stands for plain letters or digits (`²`, `½`, `℃`), for which
    normalisation may take it."""
    plain = unicodedata.normalize("NFKC", character)
    is_letter = unicodedata.category(character) in ("Lu", "Ll", "Lt", "Lo", "Lm", "Nd")
    return plain != character and not is_letter and any(map(str.isalnum, plain))


SCRIPTS = "".join(map(chr, range(0x2070, 0x20A0)))
"""Superscripts and subscripts, but `¹²³`."""
COMPOSED = SCRIPTS + "".join(c for c in map(chr, range(0xA0, 0x3400)) if _has_other_letters(c))
COMPATIBLE = rf"(?P<compatible>[{COMPOSED}])|(?P<ordinal>(?<!\w)[A-Za-z0-9]{{1,9}}+\.?[ºª])"

HYPHENATED = "Ctrl|Control|Strg|Shift|Umschalt|Alt|AltGr|Meta|Cmd|Command"
"""Keys that are also joined to others by a hyphen."""
MODIFIER = "Ctrl|Control|Strg|Shift|Umschalt|Alt|AltGr|Meta|Super|Cmd|Command|Option|Win|Windows|Fn"
KEY = (
    r"F\d{1,2}|Enter|Return|Eingabe|Esc(?:ape)?|Del(?:ete)?|Entf|Ins(?:ert)?|Einfg|Tab|Space|"
    "Backspace|Home|End|Page[ ]?(?:Up|Down)|PgUp|PgDn|Up|Down|Left|Right|Plus|Minus|PrtSc|Pause|"
    r"[A-Za-z0-9](?!\w)|[^\w\s<>()\[\]{}]"
)
SHORTCUT = rf"""
    (?P<shortcut>\b(?:{MODIFIER})(?:[ ]?\+[ ]?(?:(?:{MODIFIER})\b|{KEY})){{1,4}}
      | \b(?:{HYPHENATED})(?:-(?:(?:{HYPHENATED})\b|{KEY})){{1,4}}(?![\w-])
      | \bF(?:1[0-9]|2[0-4]|[1-9])(?![\w.,-]\d|\w)
      | [⌘⌥⇧⌃⊞]{{1,4}}\+?(?:{KEY}))"""
_SOURCE = (SHORTCUT, DIGITS, OPERATOR, FIELD)
_FIRST = (ADDRESS, TAG, *_SOURCE, REFERENCE, PLACEHOLDER, ESCAPED_BREAK)
PROTECTED = re.compile("|".join((*_FIRST, IDENTIFIER, SYMBOL, COMPATIBLE, BRACKET)), re.VERBOSE)
ADDRESSES = re.compile(ADDRESS, re.VERBOSE)
INVENTED = re.compile("|".join((ADDRESS, TAG, PLACEHOLDER, IDENTIFIER, SYMBOL)), re.VERBOSE)
SUSPECT_SIGNS = re.compile(r"""[^A-Za-z0-9\u00c0-\u024f\s,;:!?'‘’.()"“”„«»$–—-]""")
SUSPECT_MARKS = re.compile(
    r"[.:$(;D-](?:(?<=\.)(?:\w|\.{4})|(?<=www\.)\S|(?<!\S\.)(?<=\.)|(?<=:)\S|(?<=\$)[A-Za-z_{(]|(?<=\()\)"
    r"|(?<=;)-?[)D]|(?<=\b[xX]D)\b"
    r"|(?<=YY-|JJ-|yy-|MM-|mm-|DD-|dd-|TT-|ss-))"
)
SUSPECT_DIGITS = re.compile(
    r"[-0-9](?:(?<=-)--|(?<=\d)[ –-]\d|(?<=\d)\d{6}|(?<=[ltdgr]-)[A-Z]|(?<=[ltdgr]-)\w(?!\w)"
    r"|(?<=[A-Z]-)\d"
    r"|(?<=F\d))"
)


def may_be_invented(text: str) -> bool:
    """Whether `INVENTED` may match a text; most sentences have nothing that it does. Quick."""
    return bool(SUSPECT_SIGNS.search(text) or SUSPECT_MARKS.search(text))


def may_be_protected(text: str) -> bool:
    """The same of `PROTECTED`."""
    return may_be_invented(text) or bool(SUSPECT_DIGITS.search(text))
