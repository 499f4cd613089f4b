"""A text into lines of about the same length."""

from __future__ import annotations

import re
from math import ceil


def wrap(text: str, count: int, width: int) -> set[int]:
    """Which spaces of a text to make line breaks, so that it has `count` lines of about the same
    length, or more where they would be longer than `width` characters."""
    count = max(count, ceil(len(text) / width))
    places = [match.start() for match in re.finditer(r"(?<=\S) (?=\S)", text)]
    low, high = ceil(len(text) / count), len(text)
    while low < high:
        middle = (low + high) // 2
        if len(_breaks(places, len(text), middle)) < count:
            high = middle
        else:
            low = middle + 1
    return set(_breaks(places, len(text), low))


def _breaks(places: list[int], length: int, width: int) -> list[int]:
    """Breaks at the last of the places that each line can reach."""
    breaks: list[int] = []
    start = 0
    for place, following in zip(places, [*places[1:], length], strict=False):
        if following - start > width:
            breaks.append(place)
            start = place + 1
    return breaks
