"""The header of a gettext catalogue: what it says, and what it lacks.

Plural forms are those of gettext's own table (`gettext-tools/src/plural-table.c`).
"""

from __future__ import annotations

import re

from service.documents.base import Encoding
from service.documents.xml import base_language, names

ONE_FORM = ("1", "0")
NOT_ONE = ("2", "(n != 1)")
OVER_ONE = ("2", "(n > 1)")
EAST_SLAVIC = (
    "3",
    "(n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2)",
)
CZECH = ("3", "(n==1) ? 0 : (n>=2 && n<=4) ? 1 : 2")
PLURALS = {
    **dict.fromkeys(names("ja ko vi zh th id ms lo km my ka"), ONE_FORM),
    **dict.fromkeys(
        names(
            "af az bg bn ca da de el en eo es et eu fi fo fy gl gu ha he hi hu hy is it kk kn ku "
            "ky lb ml mn mr nb ne nl nn no or pa ps pt rm sq sv sw ta te tk tt ur yo"
        ),
        NOT_ONE,
    ),
    **dict.fromkeys(names("fr pt-br ak am br fa fil ln mg oc ti tl tr uz wa"), OVER_ONE),
    **dict.fromkeys(names("ru uk be sr hr bs sh"), EAST_SLAVIC),
    **dict.fromkeys(names("cs sk"), CZECH),
    "pl": ("3", "(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2)"),
    "lt": ("3", "(n%10==1 && n%100!=11 ? 0 : n%10>=2 && (n%100<10 || n%100>=20) ? 1 : 2)"),
    "lv": ("3", "(n%10==1 && n%100!=11 ? 0 : n != 0 ? 1 : 2)"),
    "ro": ("3", "n==1 ? 0 : (n==0 || (n%100 > 0 && n%100 < 20)) ? 1 : 2"),
    "sl": ("4", "(n%100==1 ? 0 : n%100==2 ? 1 : n%100==3 || n%100==4 ? 2 : 3)"),
    "ga": ("5", "n==1 ? 0 : n==2 ? 1 : n<7 ? 2 : n<11 ? 3 : 4"),
    "ar": ("6", "n==0 ? 0 : n==1 ? 1 : n==2 ? 2 : n%100>=3 && n%100<=10 ? 3 : n%100>=11 ? 4 : 5"),
}
"""How many forms a language has, and which one a number takes."""
PLURAL_COUNT = re.compile(r"nplurals\s{0,9}=\s{0,9}(\d{1,2})")
ONE_ALONE = re.compile(
    r"plural\s{0,9}=\s{0,9}\(?\s{0,9}n\s{0,9}(?:==\s{0,9}1\b|!=\s{0,9}1\b|>\s{0,9}1\b)"
)
"""A rule whose first form is for one thing."""


def plural_forms(target: str) -> str | None:
    """The value of `Plural-Forms` for a language, None for one that the table lacks."""
    code = target.lower().replace("_", "-")
    count, rule = PLURALS.get(code) or PLURALS.get(base_language(code)) or (None, None)
    return f"nplurals={count}; plural={rule};" if count else None


def completed(header: str, target: str, encoding: Encoding, has_plurals: bool) -> str:
    """A header with the fields that `msgfmt --check` asks for and a translation needs; those that
    are filled stay."""
    codec = {"utf-8": "UTF-8", "latin-1": "ISO-8859-1"}.get(encoding.codec, encoding.codec.upper())
    wanted = {
        "Language": (target.replace("-", "_"), ""),
        "MIME-Version": ("1.0", ""),
        "Content-Type": (f"text/plain; charset={codec}", ""),
        "Content-Transfer-Encoding": ("8bit", "ENCODING"),
    }
    if has_plurals and (forms := plural_forms(target)):
        wanted["Plural-Forms"] = (forms, "nplurals=INTEGER; plural=EXPRESSION;")
    lines = header.splitlines(keepends=True)
    for name, (value, placeholder) in wanted.items():
        line = f"{name}: {value}\n"
        for at, former in enumerate(lines):
            if former.partition(":")[0].strip().lower() == name.lower():
                if former.partition(":")[2].strip() in ("", placeholder):
                    lines[at] = line
                break
        else:
            if lines and not lines[-1].endswith("\n"):
                lines[-1] += "\n"
            lines.append(line)
    return "".join(lines)
