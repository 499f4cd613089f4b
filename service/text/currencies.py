"""Amounts of money: a number keeps the sign of its currency, or gets its name."""

from __future__ import annotations

import re
from collections.abc import Mapping

SIGNS = "$¢£¤¥\u058f\u060b\u09f2\u09f3\u0e3f" + "".join(map(chr, range(0x20A0, 0x20C1)))
SIGN = re.compile(f"[{SIGNS}]")
BEFORE = re.compile(rf"(?:\b[A-Z]{{1,3}})?[{SIGNS}][ \u00a0]?\Z")
AFTER = re.compile(rf"[ \u00a0]?[{SIGNS}](?!\d)")
LETTERS, DIGITS = re.compile("[A-Z]{1,3}"), re.compile(r"\d(?:.*\d)?")
NAMES: Mapping[str, str] = {
    "$": r"d[oó]l+ar|\bUSD\b|\bpeso|\breal\b|reais",
    "€": r"\beuro|\bEUR\b",
    "£": r"\bpound|pfund|\blibra|\blivre|sterlin|\bGBP\b",
    "¥": r"\byen\b|\biene|yuan|\bJPY\b|\bCNY\b",
    "¢": r"\bcent",
    "₹": r"\brupi|\brupe|\bINR\b",
}
NAMED = {sign: re.compile(f"[{sign}]|{names}", re.IGNORECASE) for sign, names in NAMES.items()}


def sign_beside(text: str, start: int, end: int) -> tuple[int, int]:
    """Where a number begins and ends with the sign of its currency, if it has one."""
    if before := BEFORE.search(text, max(0, start - 5), start):
        return before.start(), end
    if after := AFTER.match(text, end):
        return start, after.end()
    return start, end


def with_sign(amount: str, number: str, before: str) -> str:
    """A `number` with the sign of an amount, of which the end of what is `before` it may be
    letters (`US`)."""
    letters = LETTERS.match(amount)
    if letters and before.rstrip().endswith(letters[0]):
        amount = amount[letters.end() :]
    return DIGITS.sub(lambda _: number, amount, count=1)


def lost_signs(source: str, translation: str) -> frozenset[str]:
    """Signs that a translation has less often than its source, by themselves and by name."""
    signs = set(SIGN.findall(source))
    return frozenset(sign for sign in signs if _count(sign, source) > _count(sign, translation))


def _count(sign: str, text: str) -> int:
    return len(NAMED[sign].findall(text)) if sign in NAMED else text.count(sign)
