"""Language codes as clients write them → the codes of bundles; their English names."""

from __future__ import annotations

from collections.abc import Collection

AUTO = "auto"
UNDETERMINED = "und"
"""ISO 639's code for text whose language cannot be told."""

NAMES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian",
    "bg": "Bulgarian", "bn": "Bengali", "bs": "Bosnian", "ca": "Catalan", "cs": "Czech",
    "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "eo": "Esperanto", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "ga": "Irish", "gl": "Galician", "gu": "Gujarati",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian",
    "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian",
    "kk": "Kazakh", "km": "Khmer", "kn": "Kannada", "ko": "Korean", "ku": "Kurdish",
    "ky": "Kyrgyz", "la": "Latin", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian",
    "mg": "Malagasy", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi",
    "ms": "Malay", "mt": "Maltese", "my": "Burmese", "nb": "Norwegian Bokmål", "ne": "Nepali",
    "nl": "Dutch", "nn": "Norwegian Nynorsk", "no": "Norwegian", "pa": "Punjabi", "pl": "Polish",
    "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "si": "Sinhala",
    "sk": "Slovak", "sl": "Slovenian", "so": "Somali", "sq": "Albanian", "sr": "Serbian",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai",
    "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek",
    "vi": "Vietnamese", "xh": "Xhosa", "yo": "Yoruba", "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip


def base_code(code: str) -> str:
    """A code without region and script: `pt-BR` → `pt`; `_` counts as `-`."""
    return code.replace("_", "-").partition("-")[0].lower()


def language_name(code: str) -> str:
    """A language's English name, with its region or script; the code where it is not known."""
    name = NAMES.get(base_code(code), code)
    rest = code.partition("-")[2]
    return f"{name} ({rest})" if rest and name != code else name


def match_language(code: str, served: Collection[str]) -> str | None:
    """The served code that a client means: the same one in any case, else one with its base.

    `EN-GB` means a served `en`, and `pt` a served `pt-BR`; `pt-BR` does not mean a `pt-PT`.
    """
    wanted = code.replace("_", "-").lower()
    for one in sorted(served):
        if one.lower() == wanted:
            return one
    base = base_code(code)
    for one in sorted(served):
        if one.lower() == base or (wanted == base and base_code(one) == base):
            return one
    return None
