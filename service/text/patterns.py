"""The regular expressions of protected spans: what comes out of a translation as it went in.

`PROTECTED` and `PROTECTED_AND_TAGS` find them in a source. `INVENTED` finds what a translation must
not have of its own: without plain stretches such as `1/2/2026`, which a model may well write.
"""

from __future__ import annotations

import re
import unicodedata

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
      | (?<![\w@])[@\#][A-Za-z_]\w{{1,60}}
    )"""
PLACEHOLDER = rf"""
    (?P<number>
        %(?:\d{{1,2}}\$)?[-+0\#]{{0,3}}\d{{0,4}}(?:\.\d{{1,4}})?[hlqjzt]{{0,2}}[diufFeEgG](?![A-Za-z])
      | %\((?:{NUMBER_NAMES})\)[sdif]
      | \{{\ ?(?:{NUMBER_NAMES})\ ?\}}
      | \{{\{{\ ?(?:{NUMBER_NAMES})\ ?\}}\}}
    )
  | (?P<placeholder>
        \{{\{{[^{{}}]{{0,200}}\}}\}}
      | \{{%[^{{}}]{{0,200}}%\}}
      | [$\#%@]?\{{(?:[^{{}}]|\{{[^{{}}]{{0,100}}\}}){{0,200}}\}}
      | %\([A-Za-z_][\w.-]{{0,60}}\)[-+0\#]{{0,3}}\d{{0,4}}(?:\.\d{{1,4}})?[A-Za-z]
      | %(?:\d{{1,2}}\$)?[-+0\#]{{0,3}}\d{{0,4}}(?:\.\d{{1,4}})?[hlqjzt]{{0,2}}
        [sScCxXoOpaAn@di](?![A-Za-z])
      | %[A-Za-z_]\w{{1,60}}%
      | %%
      | \$[A-Za-z_]\w{{0,60}}
      | \[\[[^\[\]]{{1,200}}\]\]
      | __\w{{1,60}}__
    )"""
ONE_SYMBOL = r"""
        (?:[\u00a9\u00ae\u2122\u2190-\u21ff\u2300-\u23ff\u2460-\u27bf\u2b00-\u2bff\ufffc]
          |[\U0001f000-\U0001faff\ue000-\uf8ff])
        [\ufe0e\ufe0f\u200d\u20e3\U0001f000-\U0001faff\U000e0020-\U000e007f]{0,30}"""
SYMBOL = rf"""
    (?P<symbol>\({ONE_SYMBOL}\)|\[{ONE_SYMBOL}\]|{ONE_SYMBOL})"""
IDENTIFIER = r"""
    (?P<identifier>
        \b[A-Za-z]\w{0,60}\(\)
      | \b[\w-]{1,60}\.(?:py|js|ts|json|ya?ml|md|txt|html?|css|pdf|png|jpe?g|docx?|xlsx?|csv
        |zip|exe|sh)\b
      | \b[A-Za-z0-9]{1,60}(?:_[A-Za-z0-9]{1,60}){1,20}\b
    )"""
TAG = r"""
    (?P<tag></?[A-Za-z][\w:.-]{0,60}(?:\s[^<>]{0,1000})?/?>)"""
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
      | \.{5,300}+ | \.(?:[ ]\.){4,100}+ | …{2,100}+ | -{3,300}+ | ={3,300}+ | \*{3,300}+
      | ~{3,300}+ | \#{3,300}+
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

_SOURCE = (DIGITS, OPERATOR, FIELD)
PROTECTED = re.compile(
    "|".join((ADDRESS, *_SOURCE, PLACEHOLDER, IDENTIFIER, SYMBOL, COMPATIBLE)), re.VERBOSE
)
PROTECTED_AND_TAGS = re.compile(
    "|".join((ADDRESS, TAG, *_SOURCE, PLACEHOLDER, IDENTIFIER, SYMBOL, COMPATIBLE)), re.VERBOSE
)
INVENTED = re.compile("|".join((ADDRESS, TAG, PLACEHOLDER, IDENTIFIER, SYMBOL)), re.VERBOSE)
SUSPECT = re.compile(
    r"""[^A-Za-z0-9\u00c0-\u024f\s,;!?'’.()"“”„-]|\(\)|(?<![^\W\d_])\.|\.(?!\s|$)"""
)
"""What a Latin text contains if `INVENTED` matches it; most sentences contain none of it."""
SUSPECT_DIGITS = re.compile(r"[-0-9](?:(?<=-)--|(?<=\d)[ –-]\d|(?<=\d)\d{6})")
"""What it contains besides if `PROTECTED` or `PROTECTED_AND_TAGS` matches it."""
