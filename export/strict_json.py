"""JSON with one meaning: what other readers would take otherwise, or choke on, is refused."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DIGITS = 20


def strict_json(data: bytes) -> Any:
    """UTF-8 JSON → Python values.

    Raises ValueError for anything else, for a key that comes twice, numbers that are not finite
    or have more than MAX_DIGITS digits before the point, lone surrogates, and nesting so deep
    that Python's own limit is met.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} comes twice")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:30]} is too large")
    return value


def _short(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"the number {text[:30]}… has more than {MAX_DIGITS} digits")
    return int(text)
