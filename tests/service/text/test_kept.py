"""What holds for every syntax, in every format and position.

A model that rotates letters and returns everything else shows that each letter is translated once
and all else is there once, byte for byte; one that drops, doubles and moves shows that a bad model
cannot break it.
"""

from __future__ import annotations

import html
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from service.text.document import Format
from service.text.inline import Block
from service.text.markdown import read_markdown
from service.text.placeholders import EN_DE
from tests.service.documents.document_samples import opened, served, word_document
from tests.service.text.engines import run

SENT_AS_IS = {*EN_DE.words, *EN_DE.numbers}
WORD = re.compile(r"[^\W\d_]+")
ROTATED = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "nopqrstuvwxyzabcdefghijklmNOPQRSTUVWXYZABCDEFGHIJKLM",
)


def rotated(text: str) -> str:
    """Every letter rotated, but for names that stand for something."""
    return WORD.sub(lambda m: m[0] if m[0] in SENT_AS_IS else m[0].translate(ROTATED), text)


def rotating(texts: Sequence[str]) -> list[str]:
    return [rotated(text) for text in texts]


def rotating_all(texts: Sequence[str]) -> list[str]:
    """Copies no name either."""
    return [text.translate(ROTATED) for text in texts]


def careless(seed: int) -> Callable[[Sequence[str]], list[str]]:
    """Rotates letters, and drops, doubles and moves signs, names and numbers."""
    generator = random.Random(seed)

    def one(text: str) -> str:
        words = re.findall(r"\w+|[^\w\s]", text)
        for _ in range(generator.randrange(1, 4)):
            odd = [i for i, word in enumerate(words) if not word.islower()]
            if not odd:
                break
            at = generator.choice(odd)
            match generator.randrange(3):
                case 0:
                    words.pop(at)
                case 1:
                    words.insert(at, words[at])
                case _:
                    words.insert(generator.randrange(len(words)), words.pop(at))
        return re.sub(r" (?=[.,;:!?])", "", " ".join(map(rotated, words)))

    return lambda texts: [one(text) for text in texts]


ALIKE: dict[str, str] = {
    "address": "https://a.example/b?c=d",
    "e-mail": "first.last@mail.example",
    "handle": "@someone",
    "path": "/usr/local/bin",
    "relative path": "pages/contact.html",
    "brace": "{name}",
    "index": "{0}",
    "index with a form": "{0:.2f}",
    "ICU argument": "{count, number}",
    "two braces": "{{ user.name }}",
    "three braces": "{{{raw}}}",
    "dollar brace": "${name}",
    "dollar braces": "${{ github.ref }}",
    "ruby": "#{name}",
    "ruby named": "%{name}",
    "template tag": "{% include x %}",
    "printf": "%s",
    "printf number": "%1$s",
    "printf flags": "%'d",
    "printf star": "%-*d",
    "printf long": "%llu",
    "python": "%(name)s",
    "qt": "%1",
    "qt plural": "%n",
    "percent sign": "%%",
    "windows variable": "%PATH%",
    "shell variable": "$HOME",
    "installer variable": "$(name)",
    "marker": ":tada:",
    "client's marker": "[X6X]",
    "i18n-tasks": "X__0",
    "hashes": "##0##",
    "sections": "§§0§§",
    "white brackets": "⟦0⟧",
    "wiki": "[[name]]",
    "underscores": "__NAME__",
    "escape": "\\u0041",
    "link of Vue": "@:common.name",
    "nested": "$t(common.name)",
    "bean": "#link",
    "name in parts": "{Cafe\u0301}",
    "address in parts": "https://a.example/Cafe\u0301",
    "ICU, nested": "{g, select, male {{n, plural, one {his dog} other {his dogs}}} other {#}}",
    "ICU number": "{n, number, percent}",
    "Mailchimp": "*|FNAME|*",
    "markers of two signs": "@@name@@",
    "form of a date": "YYYY-MM-DD",
    "form of a time": "HH:mm:ss",
    "key with a hyphen": "Ctrl-Alt-C",
    "function key": "F12",
    "ticket": "JIRA-42",
    "power": "10^23",
    "emoji": "😀",
    "emoji of a sequence": "👍🏽",
    "emoticon": ":-)",
}
"""Syntaxes by name that read the same in every format."""
ANGLED: dict[str, str] = {
    "ERB": "<%= name %>",
    "PHP": "<?= $name ?>",
    "FreeMarker": "<#if x>",
    "FreeMarker call": "<@macro/>",
    "numbered": "<0/>",
    "FreeMarker in brackets": "[#if x]",
    "self-closing": '<x id="1"/>',
}
"""Syntaxes that are written so in text and in HTML."""
VISIBLE = {"a tag": "<br>", "a pair": "<title>", "a closing tag": "</body>"}
"""Visible in text; escaped elsewhere."""
POSITIONS: dict[str, tuple[str, str]] = {
    "start": ("", " is a dog."),
    "middle": ("we saw the dog ", " there."),
    "end": ("they took ", "."),
    "no stop": ("they took ", " today"),
    "comma": ("we took ", ", and left."),
    "question": ("is it ", "?"),
    "quotes": ('the word "', '" is long.'),
    "brackets": ("we saw it (see ", ") there."),
    "label": ("the name: ", ""),
    "two sentences": ("we saw ", ". they slept."),
    "exclamation": ("look at ", "!"),
}
NOT_IN = {
    "md": {*VISIBLE, "white brackets", "underscores", "wiki", "printf star", "Mailchimp"},
    "html": set(VISIBLE),
    "vtt": {*ANGLED, *VISIBLE},
    "srt": {"template tag"},
    "po": {"ICU, nested"},  # which is translated branch by branch
    "xliff": {"ICU, nested"},
    "tmx": {"ICU, nested"},
}
"""Syntaxes that mean something else there."""


MARKED: dict[str, tuple[Format, str, str]] = {
    "struck out before a word": ("html", "<del>old</del>new", "<del>byq</del>arj"),
    "struck out behind a word": ("html", "new<s>old</s>", "arj<s>byq</s>"),
    "struck out before a tag": ("html", "<del>old</del><i>new</i>", "<del>byq</del><i>arj</i>"),
    "tags around both": ("html", "<b><s>old</s></b>new", "<b><s>byq</s></b>arj"),
    "several words struck out": ("html", "<s>an old dog</s>cat", "<s>na byq qbt</s>png"),
    "struck out, then inserted": (
        "html",
        "<del>old</del><ins>new</ins>",
        "<del>byq</del><ins>arj</ins>",
    ),
    "an ending struck out": ("html", "old<del>er</del>", "<del>byqre</del>byq"),
    "a letter struck out": ("html", "colo<del>u</del>r", "<del>pbybhe</del>pbybe"),
    "a letter replaced": (
        "html",
        "gr<del>e</del><ins>a</ins>y",
        "<del>terl</del><ins>tenl</ins>",
    ),
    "brackets around it": ("html", "(<s>old</s>) new", "(<s>byq</s>) arj"),
    "marks around it": ("html", "big, <s>old</s>; new", "ovt, <s>byq</s>; arj"),
    "a gloss struck out": (
        "html",
        "<s><ruby>dog<rt>pet</rt></ruby></s>cat",
        "<s><ruby>qbt<rt>crg</rt></ruby></s>png",
    ),
    "visible tags": ("text", "<del>old</del>new", "<del>byq</del>arj"),
    "a visible gloss": (
        "text",
        "<ruby>dog<rt>pet</rt></ruby>",
        "<ruby>qbt<rt>crg</rt></ruby>",
    ),
    "a hyphen": ("html", "re-<del>old</del>-made", "er-<del>byq</del>-znqr"),
    "tildes before a word": ("markdown", "~~old~~new", "~~byq~~arj"),
    "tildes within a word": ("markdown", "colo~~u~~r", "~~pbybhe~~pbybe"),
    "a gloss": ("html", "<ruby>dog<rt>pet</rt></ruby>", "<ruby>qbt<rt>crg</rt></ruby>"),
    "a gloss in brackets": (
        "html",
        "<ruby>big dog<rp> (</rp><rt>a pet</rt><rp>)</rp></ruby>",
        "<ruby>ovt qbt<rp> (</rp><rt>n crg</rt><rp>)</rp></ruby>",
    ),
    "glosses of two words": (
        "html",
        "<ruby>big<rt>old</rt>dog<rt>pet</rt></ruby>",
        "<ruby>ovt<rt>byq</rt>qbt<rt>crg</rt></ruby>",
    ),
    "glosses behind two words": (
        "html",
        "<ruby><rb>big</rb><rb>dog</rb><rt>old</rt><rt>pet</rt></ruby>",
        "<ruby><rb>ovt</rb><rb>qbt</rb><rt>byq</rt><rt>crg</rt></ruby>",
    ),
    "open annotations": ("html", "<ruby>dog<rt>pet</ruby>", "<ruby>qbt<rt>crg</ruby>"),
    "a gloss with tags": (
        "markdown",
        "<ruby>*dog*<rt>a **pet**</rt></ruby>",
        "<ruby>*qbt*<rt>n **crg**</rt></ruby>",
    ),
    "characters and how they are read": (
        "html",
        "<ruby>漢<rt>kan</rt></ruby>",
        "<ruby>漢<rt>kan</rt></ruby>",
    ),
    "sounds": ("html", "<ruby>dog<rt>dɒɡ</rt></ruby>", "<ruby>qbt<rt>dɒɡ</rt></ruby>"),
}
"""What is said twice or is no more said, by name: its format, its source, and what it becomes."""


def cases() -> list[tuple[Format, str, str]]:
    found: list[tuple[Format, str, str]] = []
    for name, syntax in (ALIKE | ANGLED).items():
        found += [("text", name, syntax), ("html", name, syntax)]
        if name not in NOT_IN["md"]:
            found.append(("markdown", name, syntax))
    for name, syntax in VISIBLE.items():
        found += [
            ("text", name, syntax),
            ("html", name, html.escape(syntax, quote=False)),
            ("markdown", name, syntax.replace("<", "\\<")),
        ]
    return found


CASES = cases()


@pytest.mark.parametrize(("format", "name", "syntax"), CASES)
def test_letters_are_translated_once_and_syntax_stays(
    format: Format, name: str, syntax: str
) -> None:
    wrong = {}
    for position, (before, after) in POSITIONS.items():
        for translate in (rotating, rotating_all):
            text = f"{before}{syntax}{after}"
            expected = f"{before.translate(ROTATED)}{syntax}{after.translate(ROTATED)}"
            if (output := run(text, format, translate)) != expected:
                wrong[position, translate.__name__] = output
    assert not wrong


@pytest.mark.parametrize(("format", "name", "syntax"), CASES)
def test_a_careless_model_loses_no_syntax_and_no_final_mark(
    format: Format, name: str, syntax: str
) -> None:
    wrong = {}
    for position, (before, after) in POSITIONS.items():
        for seed in range(6):
            text = f"{before}{syntax}{after}"
            output = run(text, format, careless(seed))
            final = after[-1:] if after[-1:] in tuple(".?!") else ""
            if output.count(syntax) != 1 or not output.endswith(final):
                wrong[position, seed] = output
    assert not wrong


@pytest.mark.parametrize("name", MARKED)
def test_words_beside_each_other_are_no_word_together(name: str) -> None:
    format, source, written = MARKED[name]
    wrong = {}
    for position, (before, after) in POSITIONS.items():
        for translate in (rotating, rotating_all):
            expected = f"{before.translate(ROTATED)}{written}{after.translate(ROTATED)}"
            if (output := run(f"{before}{source}{after}", format, translate)) != expected:
                wrong[position, translate.__name__] = output
    assert not wrong


@pytest.mark.parametrize("name", MARKED)
def test_a_careless_model_loses_none_of_their_tags(name: str) -> None:
    format, source, written = MARKED[name]
    tags = re.compile(r"</?\w+>|~~|\*+")
    for before, after in POSITIONS.values():
        for seed in range(6):
            output = run(f"{before}{source}{after}", format, careless(seed))
            assert Counter(tags.findall(output)) == Counter(tags.findall(written))


CONTAINERS = {
    "paragraph": ("", ""),
    "item": ("- ", "  "),
    "numbered item": ("12. ", "    "),
    "quotation": ("> ", "> "),
    "item of a quotation": ("> * ", ">   "),
    "definition": (": ", "  "),
}
"""What is before the first line of a paragraph of Markdown, and before the others."""
IN_LINES = (
    "we saw the\nbig dog.",
    "we saw it,\nand they slept\nthere. they\nleft.",
    "they slept.\nwe saw it.\nthey left.",
    "we saw **the\nbig** dog and [the\nhouse](/x) there.",
    "we *saw* it,\n**they** left, and\n[we](/x) slept\nfor an hour.",
    "we saw `the\ncode` and\nthey slept.",
    "we saw it -\nand they left\nin 1984.\n",
    'we saw [the\nhouse](/x\n"A title") and\nthe ![dog](/y.png\n"A dog").',
)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_paragraphs_of_lines_stay_so(container: str, newline: str) -> None:
    """In their places where a translation is as long."""
    first, others = CONTAINERS[container]
    for text in IN_LINES:
        source = f"{first}{text.rstrip()}".replace("\n", f"{newline}{others}") + newline
        kept = re.compile(r"`[^`]*`|!?\[dog\]\([^)]*\)|\]\([^)]*\)|(\w+)")
        expected = kept.sub(lambda m: m[1].translate(ROTATED) if m[1] else m[0], source)
        assert run(source, "markdown", rotating) == expected


@pytest.mark.parametrize("name", [name for name in ALIKE if name not in NOT_IN["md"]])
def test_lines_are_parted_at_spaces_of_text_alone(name: str) -> None:
    """As wide as the source, however long a translation is, and a paragraph as before."""
    syntax = ALIKE[name]
    source = (
        f"we took the {syntax} and the dog, and they went to the house by the river\n"
        f"with it. we saw the {syntax} and {syntax} there, and they slept for an hour\n"
        f"in it ({syntax}), and left."
    )
    width = max(map(len, source.split("\n")))
    for factor in (1, 2, 3):
        output = run(source, "markdown", lambda texts, factor=factor: _longer(texts, factor))
        lines = output.split("\n")
        assert output.count(syntax) == 4
        assert len(lines) >= 3
        assert all(len(line) <= width + len(syntax) for line in lines)
        assert sum(isinstance(part, Block) for part in read_markdown(output)) == 1


def _longer(texts: Sequence[str], factor: int) -> list[str]:
    """Small words as often as that."""
    words = re.compile(r"\b(?:the|and|they)\b")
    return [words.sub(lambda m: " ".join([m[0]] * factor), text) for text in texts]


@pytest.mark.parametrize("symbol", ["😀", "❤️", "👋🏽", "→", "✅", "©"])
def test_symbols_keep_their_spaces(symbol: str) -> None:
    for format in ("text", "html", "markdown"):
        for source in (
            f"we saw{symbol}the dog",
            f"we saw{symbol} the dog",
            f"we saw {symbol}the dog",
            f"{symbol}we saw",
            f"we saw{symbol}",
            f"we saw{symbol}! they slept{symbol}. they left",
            f"we saw {symbol}{symbol}, they slept",
        ):
            for translate in (rotating, rotating_all):
                assert run(source, format, translate) == source.translate(ROTATED)


@pytest.mark.parametrize(
    ("format", "pattern"),
    [
        ("html", '<a href="{}.pdf">we saw</a>'),
        ("html", "<pre>{}</pre><p>we saw</p>"),
        ("html", "<p>we saw <code>{}</code> there</p>"),
        ("html", "<!-- {} --><p title='{}'>we saw</p>"),
        ("markdown", "[we saw]({}.pdf)"),
        ("markdown", "we saw `{}` there\n\n    {}\n"),
        ("text", "we saw {{{}}} there"),
    ],
)
def test_what_is_kept_keeps_its_bytes(format: Format, pattern: str) -> None:
    for kept in ("Cafe\u0301", "Café", "\u2126", "ﬁ\u00ad"):
        source = pattern.replace("{}", kept)
        assert run(source, format, rotating).count(kept) == source.count(kept)


def test_what_is_sent_is_composed() -> None:
    assert run("we saw a cafe\u0301 there", translate=list) == "we saw a café there"


TAGGED = {
    "html": ("<b>", "</b>"),
    "html link": ('<a href="/x">', "</a>"),
    "markdown": ("**", "**"),
    "markdown link": ("[", "](/x)"),
}


@pytest.mark.parametrize("kind", TAGGED)
@pytest.mark.parametrize("final", [".", "!", "?", "...", '."', ".)"])
def test_the_final_mark_stays_on_its_side_of_a_tag(kind: str, final: str) -> None:
    start, end = TAGGED[kind]
    format: Format = "html" if kind.startswith("html") else "markdown"
    for source in (
        f"this is {start}very big{final}{end}",
        f"this is {start}very big{end}{final}",
        f"{start}this is very big{final}{end}",
        f"we saw it. this is {start}very big{final}{end} they slept.",
    ):
        for translate in (rotating, rotating_all):
            expected = re.sub(
                r"<[^>]*>|\]\([^)]*\)|(\w+)",
                lambda m: m[1].translate(ROTATED) if m[1] else m[0],
                source,
            )
            assert run(source, format, translate) == expected


@pytest.mark.parametrize(
    "extension", ["txt", "md", "html", "srt", "vtt", "po", "xliff", "tmx", "docx", "odt"]
)
def test_files_keep_syntax(extension: str) -> None:
    """In every position. Lines of subtitles may be parted elsewhere."""
    syntaxes = {
        name: (syntax, syntax)
        for name, syntax in (ALIKE | ANGLED | VISIBLE).items()
        if name not in NOT_IN.get(extension, ())
    }
    syntaxes |= {
        name: (source, written)
        for name, (format, source, written) in MARKED.items()
        if {"md": "markdown", "txt": "text", "po": "text"}.get(extension, extension) == format
    }
    sentences, wanted = [], {}
    for name, (source, written) in syntaxes.items():
        for position, (before, after) in POSITIONS.items():
            sentences.append(f"{before}{source}{after}")
            translated = f"{before.translate(ROTATED)}{written}{after.translate(ROTATED)}"
            wanted[name, position] = " ".join(translated.split())
    file = opened(FILES[extension](sentences), f"x.{extension}")
    seen = " ".join(SEEN[extension](served(file, rotating)).split())
    assert not {case: text for case, text in wanted.items() if text not in seen}


def _run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def _word(*runs: str) -> bytes:
    return word_document(f"<w:p {{ns}}>{''.join(runs)}</w:p>")


def _struck_odt() -> bytes:
    import io

    from odf.opendocument import OpenDocumentText
    from odf.style import Style, TextProperties
    from odf.text import P, Span

    document = OpenDocumentText()
    style = Style(name="T1", family="text")
    style.addElement(TextProperties(textlinethroughstyle="solid"))
    document.automaticstyles.addElement(style)
    paragraph = P(text="we saw ")
    paragraph.addElement(Span(stylename=style, text="old"))
    paragraph.addText("new dogs")
    document.text.addElement(paragraph)
    buffer = io.BytesIO()
    document.write(buffer)
    return buffer.getvalue()


RUBY = (
    "<w:r><w:ruby><w:rt><w:r><w:t>pet</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>dog</w:t></w:r>"
    "</w:rubyBase></w:ruby></w:r>"
)
STRUCK: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "line through": (
        "docx",
        lambda: _word(_run("we saw "), _run("old", "<w:strike/>"), _run("new dogs")),
        "we saw new dogs",
    ),
    "two lines through": (
        "docx",
        lambda: _word(_run("old", "<w:dstrike/>"), _run("new dogs"), _run("big", "<w:b/>")),
        "new dogsbig",
    ),
    "no line through": (
        "docx",
        lambda: _word(_run("we saw "), _run("old", '<w:strike w:val="0"/>'), _run("er dogs")),
        "we saw older dogs",
    ),
    "ruby text": (
        "docx",
        lambda: _word(_run("we saw a "), RUBY, _run(" here")),
        "we saw a Boston here",
    ),
    "style": ("odt", _struck_odt, "we saw new dogs"),
    "type of a code": (
        "xliff",
        lambda: _xliff(["we saw @new dogs"]).replace(b"@", b'<g id="1" ctype="x-html-del">old</g>'),
        "we saw new dogs",
    ),
    "tag in a code": (
        "xliff",
        lambda: _xliff(["we saw @new dogs"]).replace(
            b"@", b'<bpt id="1">&lt;s></bpt>old<ept id="1">&lt;/s></ept>'
        ),
        "we saw new dogs",
    ),
    "gloss in codes": (
        "tmx",
        lambda: _tmx(["we saw @ here"]).replace(
            b"@",
            b'<bpt i="1">&lt;ruby></bpt>dogs<bpt i="2">&lt;rt></bpt>pets<ept i="2">&lt;/rt></ept>'
            b'<ept i="1">&lt;/ruby></ept>',
        ),
        "we saw dogs here",
    ),
    "voice": (
        "vtt",
        lambda: b"WEBVTT\n\n0:01.000 --> 0:02.000\nwe saw <ruby>dogs<rt>pets</ruby>",
        "we saw dogs",
    ),
}
"""What is struck out or above words, as files have it, and the sentence without it."""


@pytest.mark.parametrize("name", STRUCK)
def test_files_say_what_is_no_part_of_a_sentence(name: str) -> None:
    extension, data, sentence = STRUCK[name]
    sent: list[str] = []

    def translate(texts: Sequence[str]) -> list[str]:
        sent.extend(text.rstrip(".") for text in texts)
        return rotating(texts)

    file = opened(data(), f"x.{extension}")
    written = SEEN[extension](served(file, translate))
    assert sentence in sent
    assert not {"oldnew dogs", "oldnew", "dogspets", "dogpet"} & {*sent}
    apart = {"old", "pets"} & {*sent}
    assert len(apart) == (name not in ("no line through", "ruby text"))
    assert all(word.translate(ROTATED) in written for word in apart)


def _in_lines(head: str, line: str) -> Callable[[Sequence[str]], bytes]:
    return lambda texts: (head + "".join(line.format(text=text) for text in texts)).encode()


def _po(texts: Sequence[str]) -> bytes:
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    entries = "".join(f'\nmsgid "{text}"\nmsgstr ""\n' for text in quoted)
    return f'msgid ""\nmsgstr "Language: de\\n"\n{entries}'.encode()


def _xliff(texts: Sequence[str]) -> bytes:
    units = "".join(
        f'<trans-unit id="{at}"><source>{html.escape(text, quote=False)}</source></trans-unit>'
        for at, text in enumerate(texts)
    )
    return (
        '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file original="a" '
        f'source-language="en" target-language="de" datatype="plaintext"><body>{units}</body>'
        "</file></xliff>"
    ).encode()


def _tmx(texts: Sequence[str]) -> bytes:
    units = "".join(
        f'<tu><tuv xml:lang="en"><seg>{html.escape(text, quote=False)}</seg></tuv></tu>'
        for text in texts
    )
    return f'<tmx version="1.4"><header srclang="en"/><body>{units}</body></tmx>'.encode()


def _odt(texts: Sequence[str]) -> bytes:
    import io

    from odf.opendocument import OpenDocumentText
    from odf.text import P

    document = OpenDocumentText()
    for text in texts:
        document.text.addElement(P(text=text))
    buffer = io.BytesIO()
    document.write(buffer)
    return buffer.getvalue()


def _docx(texts: Sequence[str]) -> bytes:
    escaped = [html.escape(t, quote=False).replace("{", "{{").replace("}", "}}") for t in texts]
    return word_document(*(f"<w:p {{ns}}><w:r><w:t>{t}</w:t></w:r></w:p>" for t in escaped))


FILES: dict[str, Callable[[Sequence[str]], bytes]] = {
    "txt": _in_lines("", "{text}\n"),
    "md": _in_lines("", "{text}\n\n"),
    "html": _in_lines("", "<p>{text}</p>\n"),
    "srt": _in_lines("", "1\n00:00:01,000 --> 00:00:04,000\n{text}\n\n"),
    "vtt": _in_lines("WEBVTT\n\n", "00:01.000 --> 00:04.000\n{text}\n\n"),
    "po": _po,
    "xliff": _xliff,
    "tmx": _tmx,
    "docx": _docx,
    "odt": _odt,
}


def _seen_po(data: bytes) -> str:
    import polib

    return "\n".join(entry.msgstr for entry in polib.pofile(data.decode()))


def _seen_docx(data: bytes) -> str:
    import io

    import docx

    return "\n".join(paragraph.text for paragraph in docx.Document(io.BytesIO(data)).paragraphs)


def _seen_odt(data: bytes) -> str:
    import io

    from odf import teletype
    from odf.opendocument import load
    from odf.text import P

    return "\n".join(
        teletype.extractText(one) for one in load(io.BytesIO(data)).getElementsByType(P)
    )


SEEN: dict[str, Callable[[bytes], str]] = {
    **dict.fromkeys(("txt", "md", "html", "srt", "vtt"), bytes.decode),
    "po": _seen_po,
    "xliff": lambda data: html.unescape(data.decode()),
    "tmx": lambda data: html.unescape(data.decode()),
    "docx": _seen_docx,
    "odt": _seen_odt,
}


def test_a_rotation_twice_is_the_text() -> None:
    text = "We saw it. They slept."
    assert rotated(rotated(text)) == text
    assert Counter(rotated(text))["."] == 2


@pytest.mark.parametrize(
    ("format", "source", "expected"),
    [
        ("html", "<b>T</b>he dog", "<b>Gur</b> qbt"),
        ("html", "we saw dog<b>s</b>.", "jr fnj <b>qbtf</b>."),
        ("html", "the <b>d<i>o</i></b>g", "gur <b><i>qbt</i></b>"),
        ("html", "the n<sup>th</sup> dog", "gur n<sup>th</sup> qbt"),
        ("markdown", "un**believ**able", "**haoryvrinoyr**"),
        ("markdown", "H~2~O and a note^[we saw it] here", "U~2~B naq n abgr^[jr fnj vg] urer"),
        ("markdown", "import A from './a'\n\nthe dog", "import A from './a'\n\ngur qbt"),
        ("text", "It\\'s the dog\\'s", "Vg\\'f gur qbt\\'f"),
        ("text", "within ±5 and ≥3", "jvguva ±5 naq ≥3"),
    ],
)
def test_signs_beside_and_within_words(format: Format, source: str, expected: str) -> None:
    for translate in (rotating, rotating_all):
        assert run(source, format, translate) == expected
