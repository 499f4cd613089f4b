"""Fast machine translation by distilled models.

    import quickstudy

    model = quickstudy.load("models/en-de")
    model.translate("Good morning.")

The names below are imported when they are first used, so `import quickstudy` costs nothing; see
`quickstudy/api.py` and docs/python.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quickstudy.errors import QuickstudyError

if TYPE_CHECKING:
    from export.runtime.manifest import BundleError
    from quickstudy.api import (
        Model,
        ModelClosedError,
        OptionError,
        SentencePair,
        Translation,
        load,
    )
    from service.fallback import TranslationWarning

__all__ = [
    "BundleError",
    "Model",
    "ModelClosedError",
    "OptionError",
    "QuickstudyError",
    "SentencePair",
    "Translation",
    "TranslationWarning",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from quickstudy import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
