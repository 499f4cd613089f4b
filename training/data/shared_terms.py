"""Words that stand the same on both sides of a pair, text that is no prose, and generated text that
a translation copies: addresses, placeholders, numbers, paths, identifiers, emoji.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

# Every quantifier is bounded or scans its token once, so that searching takes linear time.
_MARKUP = re.compile(
    r"""(\{\{[^{}]{0,200}\}\} | [$\#%@]?\{[^{}]{0,200}\} | %\(\w{1,60}\)[a-z]
      | </?\w[^<>]{0,300}>)""",
    re.VERBOSE,
)
_NO_PROSE = r"""[@\#\\_%$=~^|`{}<>\[\]*\d] | :// | \w\.\w | \(\) | [a-z]{2}[A-Z]"""
_TOKEN = re.compile(
    rf"""((?<!\S)
      (?: --[A-Za-z] | -[A-Za-z](?!\w) | [/~.]{{1,2}}/?\w | (?=\S*?(?:{_NO_PROSE})) )\S*)""",
    re.VERBOSE,
)
_SUSPECT = re.compile(rf"{_NO_PROSE}|(?<!\S)[-/~.]", re.VERBOSE)
_EDGE = ".,;:!?…\"'()[]“”„‟«»‹›‘’‚*"
_BROKEN = re.compile(r"[<>()\[\]\"]")


def pieces(text: str) -> list[str]:
    """The text cut into prose (even places) and what no change of letters may touch (odd places):
    markup, placeholders, addresses, paths, identifiers, options and tokens with digits."""
    if not _SUSPECT.search(text):
        return [text]
    cut: list[str] = []
    for place, part in enumerate(_MARKUP.split(text)):
        cut += [part] if place % 2 else _TOKEN.split(part)
    return cut


def in_prose(text: str, change: Callable[[str], str]) -> str:
    """The text with the prose in it changed."""
    cut = pieces(text)
    cut[::2] = map(change, cut[::2])
    return "".join(cut)


def shared_terms(src: str, trg: str) -> list[str]:
    """The tokens, without punctuation around them, that stand exactly once in source and target:
    numbers, names, words of four letters or more; sorted."""
    common = _tokens(src) & _tokens(trg)
    return sorted(
        token
        for token in common
        if src.count(token) == 1 and trg.count(token) == 1 and _is_term(token)
    )


def _tokens(text: str) -> set[str]:
    if "{" in text or "<" in text:
        text = _MARKUP.sub(lambda found: "" if " " in found[0] else found[0], text)
    return {token.strip(_EDGE) for token in text.split(" ")}


def _is_term(token: str) -> bool:
    if _BROKEN.search(token) or not any(map(str.isalnum, token)):
        return False
    lengthy = len(token) >= (4 if token.islower() else 3)
    return lengthy or any(map(str.isdigit, token))


# --- text to copy ------------------------------------------------------------------------------


_WORDS = str.split("""
    account admin alpha api archive backup beta blog book build cache card cart catalog client
    cloud code color config contact content count data date default demo design detail device
    doc draft edit email entry error event export feed field file filter first form game group
    guide help home host icon image import index info item job key label last lib link list
    local log login mail main map media menu message mode model music name news node note number
    office option order page panel path photo plan player plugin point post price print product
    profile project query report result root rule sample score search section server service
    session setting shop site size source star start state status step store style support sync
    system table tag task team temp test text theme time title token tool total travel type
    update user value version video view web week wiki window work world
""")
_FIRST = str.split("anna ben carla david elena felix greta henri ivan julia karl lena maria nina")
_DOMAINS = str.split("com org net de io eu info dev co.uk fr app")
_ENDINGS = str.split("txt py json html pdf png jpg csv md zip xml yaml js docx log cfg")
_EMOJI = str.split("""
    😀 😃 😄 😁 😅 😂 🙂 😉 😊 😍 😘 😎 🤔 😐 😴 😢 😭 😡 👍 👎 👏 🙏 💪 👋 ✌ ❤ 💔 💡 🔥
    ✨ ⭐ 🎉 🎁 🏆 ⚽ 🎵 📷 📱 💻 📧 📅 📌 📎 🔒 🔑 🔔 🔍 ⚠ ✅ ❌ ❓ ❗ ➡ ⬅ ⏰ ☀ ☁ ☔
    ❄ 🌍 🌈 🍕 🍎 ☕ 🍺 🚗 🚀 ✈ 🏠 🐶 🐱 🌹 🌳 💰 🛒 🇩🇪 🇫🇷 🇺🇸
""")


def _name(random: Random) -> str:
    """A word, or letters that are none."""
    if random.random() < 0.8:
        return random.choice(_WORDS)
    return "".join(random.choices("abcdefghiklmnoprstuvwxyz", k=random.randint(3, 8)))


def _number(random: Random) -> str:
    return str(random.randrange(10 ** random.randint(1, 6)))


def _host(random: Random) -> str:
    host = f"{_name(random)}{random.choice(('', '', '-' + _name(random)))}"
    return f"{random.choice(('', '', 'www.', 'docs.'))}{host}.{random.choice(_DOMAINS)}"


def url(random: Random) -> str:
    """An address of the web."""
    host = _host(random)
    scheme = "https://" if random.random() < 0.7 else "http://"
    start = host if host.startswith("www.") and random.random() < 0.5 else scheme + host
    path = "".join(f"/{_name(random)}" for _ in range(random.randrange(4)))
    tail = random.choice(("", "", "", "/", f"?{_name(random)}={_number(random)}", ".html"))
    return start + (path + tail if path else "")


def _email(random: Random) -> str:
    user = random.choice(_FIRST) if random.random() < 0.5 else _name(random)
    more = random.choice(("", f".{_name(random)}", f"_{random.randrange(100)}"))
    return f"{user}{more}@{_name(random)}.{random.choice(_DOMAINS)}"


def _placeholder(random: Random) -> str:
    name, digit = _name(random), random.randrange(4)
    if random.random() < 0.3:
        name += random.choice(("_", "")) + random.choice(_WORDS).capitalize()
    return random.choice(
        (
            *(f"{{{name}}}", f"{{{name}}}", f"{{{digit}}}", f"{{{digit}}}", "{}", "%s", "%s", "%d"),
            *(f"%{digit + 1}$s", "%@", f"%({name})s", f"%({name})d", f"${{{name}}}", f"${name}"),
            *(f"{{{{ {name} }}}}", f"{{{{{name}}}}}", f'<x id="{digit}"/>', f"%{name.upper()}%"),
            *(f"__{name.upper()}__", f"[[{name}]]", f"<{digit}/>", f"{{${name}}}"),
        )
    )


def _amount(random: Random) -> str:
    number = random.randrange(1, 10 ** random.randint(1, 4))
    unit = random.choice(("€{}", "${}", "£{}", "{}%", "{} EUR", "{} USD", "{} GB", "{} kg", "{}px"))
    return unit.format(number)


def _version(random: Random) -> str:
    parts = [str(random.randrange(limit)) for limit in (12, 30, 100)[: random.randint(2, 3)]]
    return random.choice(("", "", "v")) + ".".join(parts) + random.choice(("", "", "", "-beta"))


def _date(random: Random) -> str:
    year, month, day = random.randint(1900, 2035), random.randint(1, 12), random.randint(1, 28)
    return random.choice(
        (
            *(f"{year}-{month:02}-{day:02}", f"{day}/{month}/{year}", f"{month:02}/{year}"),
            *(f"{random.randrange(24)}:{random.randrange(60):02}", str(year)),
        )
    )


def _path(random: Random) -> str:
    names = [_name(random) for _ in range(random.randint(1, 3))]
    file = f"{names[-1]}.{random.choice(_ENDINGS)}"
    start = random.choice(("/", "~/", "./", "", "C:\\"))
    return start + ("\\" if start == "C:\\" else "/").join([*names[:-1], file])


def _identifier(random: Random) -> str:
    names = [_name(random) for _ in range(random.randint(2, 3))]
    camel = names[0] + "".join(name.capitalize() for name in names[1:])
    snake = "_".join(names)
    return random.choice(
        (camel, f"{camel}()", snake, f"{snake}()", snake.upper(), ".".join(names), f"--{names[0]}")
    )


def _handle(random: Random) -> str:
    return random.choice("@#") + _name(random) + random.choice(("", "", _number(random)))


def _emoji(random: Random) -> str:
    return random.choice(_EMOJI)


_INSIDE = (
    *(url, _email, _placeholder, _placeholder, _number, _amount, _version, _date, _path),
    *(_identifier, _handle, _emoji),
)
_OUTSIDE = (url, _placeholder, _emoji, _emoji, _handle)


def term_to_copy(random: Random) -> str:
    """Something that stands in a sentence and comes out of a translation as it went in."""
    return random.choice(_INSIDE)(random)


def addition_to_copy(random: Random) -> str:
    """The same, of the kinds that stand before or behind a sentence."""
    return random.choice(_OUTSIDE)(random)
