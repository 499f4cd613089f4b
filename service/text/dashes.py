"""Dashes between clauses: found, counted, and where a sentence parts at them.

Models leave dashes out, or write a comma. A sentence whose translation lost one is translated
clause by clause (`service/text/segment.py`).
"""

from __future__ import annotations

import re
from itertools import pairwise

from service.text.inline import InlineText
from service.text.typography import HYPHENS, LONG_DASHES, MINUS

DASH = re.compile(
    rf"\s*[{LONG_DASHES}]+\s*|(?:^|\s+)[{HYPHENS}{MINUS}-](?=\s)\s*|\s*(?<!-)-{{2,3}}(?!-)\s*"
)
ANY_DASH = re.compile(f"[{LONG_DASHES}{HYPHENS}{MINUS}-]")
MAYBE_DASH = re.compile(rf"[{LONG_DASHES}]|[{HYPHENS}{MINUS}-][\s-]")
"""What a text has in which `DASH` finds something; the first is the quicker to look for."""
FINAL_DASHES = f"{LONG_DASHES}–"


def lost_dashes(source: str, translation: str) -> bool:
    """Whether a translation has fewer dashes between clauses than its source."""
    if not ANY_DASH.search(source) or not MAYBE_DASH.search(source):
        return False
    return len(DASH.findall(source)) > len(DASH.findall(translation))


def split_at_dashes(sentence: InlineText) -> list[InlineText]:
    """Clauses and dashes with the spaces around them, which add up to the sentence."""
    places = {place for match in DASH.finditer(sentence.text) for place in match.span()}
    cuts = sorted({0, len(sentence.text), *places})
    return [sentence.cut(start, end) for start, end in pairwise(cuts)]
