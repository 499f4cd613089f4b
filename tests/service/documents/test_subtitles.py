"""Subtitles: cues, tags and lines."""

from __future__ import annotations

import re

import pytest

from service.documents import FileError
from service.documents.subtitles import wrap
from tests.service.documents.document_samples import SRT, VTT, opened, served, shouted, texts
from tests.service.text.engines import hostile
from tests.service.text.test_kept import ROTATED, rotating


def test_the_lines_of_a_cue_are_one_text() -> None:
    assert texts(opened(SRT.encode(), "a.srt")) == [
        '<bx id="0"/><span id="1">Hello my <span id="2">dear</span> friend, how are you?</span>',
        '<br id="0"/>Hi there, Tom.<br id="1"/><br id="2"/><span id="3">Bye</span> &amp; go on '
        "with this line of words.",
        '<bx id="0"/>Oh oh',
    ]
    assert texts(opened("1\n0:0:1,0 --> 0:0:2,0\n你好\n朋友".encode(), "a.srt", "zh", "en")) == [
        "你好朋友"
    ]


def test_only_the_words_of_a_cue_change() -> None:
    """Lines are made as long as each other."""
    for name, data in (("a.srt", SRT), ("a.vtt", VTT)):
        out = shouted(opened(data.encode(), name)).decode()
        assert [line for line in out.splitlines() if "-->" in line] == [
            line for line in data.splitlines() if "-->" in line
        ]
    out = shouted(opened(SRT.encode("utf-8-sig"), "a.srt"))
    assert out.decode("utf-8-sig").split("\r\n")[:11] == [
        "1",
        "00:00:01,000 --> 00:00:04,000 X1:40 X2:600",
        "{\\an8}<i>HELLO MY <b>DEAR</b>",
        "FRIEND, HOW ARE YOU?</i>",
        "",
        "2",
        "00:00:05,000 --> 00:00:06,000",
        "- HI THERE, TOM.",
        "- <i>BYE</i> & GO ON WITH",
        "THIS LINE OF WORDS.",
        "3",
    ]
    assert VTT.split("<v Bob>")[0] in shouted(opened(VTT.encode(), "a.vtt")).decode()


def test_webvtt_escapes_what_would_be_markup() -> None:
    out = opened(VTT.encode(), "a.vtt").rebuild(
        ['<span id="0">a &lt;b&gt; --&gt; <span id="1">c</span> &amp; d <bx id="2"/>e</span>']
    )
    assert b"<v Bob>a &lt;b&gt; --&gt;\n<c.x>c</c> &amp; d <00:00:02.000>e</v>\n" in out


def test_subrip_has_no_escapes_but_text_is_no_markup() -> None:
    """What a text has of a tag or a time is parted by a character without width."""
    times = "00:00:01,000 --> 00:00:02,000"
    data = f"1\n{times}\nOh oh\n"
    for text, written in (
        ("<i>a</i> b < c", "<\u2060i>a<\u2060/i> b < c"),
        ("{\\an8}a {b}", "{\u2060\\an8}a {b}"),
        (times, times.replace("-->", "--\u2060>")),
    ):
        out = opened(data.encode(), "a.srt").rebuild([text]).decode()
        assert out == f"1\n{times}\n{written}\n"
        assert len(opened(out.encode(), "a.srt").units) == (1 if "a" in text else 0)


def test_a_longer_translation_gets_more_lines_and_a_cue_no_blank_line() -> None:
    file = opened(SRT.encode(), "a.srt")
    words = " ".join(["word"] * 20)
    out = file.rebuild([words, texts(file)[1], "\n\n"]).decode()
    cue = out.split("\r\n")[2:6]
    assert cue == [
        "{\\an8}<i>" + " ".join(["word"] * 7),
        *[" ".join(["word"] * 7)],
        "word word word word word word<b></b></i>",
        "",
    ]
    assert '<font color="red">  \r\n\r\n4' in out


@pytest.mark.parametrize(
    ("text", "count", "width", "lines"),
    [
        ("one two three four", 2, 42, ["one two", "three four"]),
        ("one two", 1, 42, ["one two"]),
        ("one", 3, 42, ["one"]),
        ("aaaa bbbb cccc", 1, 9, ["aaaa bbbb", "cccc"]),
        ("", 1, 42, [""]),
    ],
)
def test_lines_are_about_as_long(text: str, count: int, width: int, lines: list[str]) -> None:
    breaks = wrap(text, count, width)
    joined = "".join("\n" if at in breaks else letter for at, letter in enumerate(text))
    assert joined.split("\n") == lines


@pytest.mark.parametrize(("name", "data"), [("a.srt", SRT), ("a.vtt", VTT)])
def test_tags_survive_any_model(name: str, data: str) -> None:
    file = opened(data.encode(), name)
    for seed in range(20):
        out = served(file, hostile(seed)).decode()
        for tag in ("{\\an8}", "<i>", "</b>", '<font color="red">', "<v Bob>", "</c>", "<00:00:02"):
            assert out.count(tag) >= data.count(tag)
        assert len(opened(out.encode(), name).units) >= len(file.units) - 1


def test_what_is_no_subtitle_file() -> None:
    with pytest.raises(FileError, match="begin with WEBVTT"):
        opened(SRT.encode(), "a.vtt")
    with pytest.raises(FileError, match="no subtitles"):
        opened(b"Just some text.\n", "a.srt")
    assert opened(b"", "a.srt").rebuild([]) == b""


def rotated_cue(text: str, web: bool = False) -> str:
    """What becomes of a cue's text."""
    times = "00:00:01.000 --> 00:00:04.000\n" if web else "1\n00:00:01,000 --> 00:00:04,000\n"
    before = "WEBVTT\n\n" + times if web else times
    after = f"\n\n{times.replace('4', '5')}The end\n"
    out = served(opened(f"{before}{text}{after}".encode(), "a.vtt" if web else "a.srt"), rotating)
    written = out.decode()
    assert written.startswith(before)
    assert written.endswith(after.replace("The end", "Gur raq"))
    return written[len(before) : -len(after)]


@pytest.mark.parametrize("web", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "We saw it\n\nand left",
        "We saw it\n\n\nThey slept\n\nand left",
        "First\\Nsecond\\hthing",
        "We saw it \\N they went",
        "- We saw it.\\N- They slept.",
        "{\\an8}We saw it",
        "ANN: We saw it.",
        "ANN: We saw it.\nTHE MAN 2: Go!",
        "- [sighs] We saw it.\n- ANN: Go!",
        "[DOOR SLAMS]\nWe saw it.",
        "(sighs) We saw it. [music]",
        "[ANN]: We saw it.",
        "Jim Hill: They slept.",
        "ANN:\nWe saw it.",
        ">> We saw it.\n>> ANN: They slept.",
        "♪ We saw it ♪",
        "Who is it?\\NThe dog is here.",
        "We saw the dog.\nThey slept for an hour.\nI did not.",
        "“We saw it!”\\N“They slept.”",
        "<i>We saw it.</i>\n<i>They slept in the old house.</i>",
        "{\\i1}No...{\\i0}\\N{\\i1}They slept.{\\i0}",
        "- Who is it?\\N- They slept in it.\\NThe dog did.",
        "♪ we saw it\\N♪ they slept in the house ♪",
        "It is <s>cold</s>hot there.",
        "we saw <ruby>word<rt>gloss</rt></ruby> there",
        "we saw <ruby>word<rt>gloss</ruby> there",
    ],
)
def test_every_letter_of_a_cue_is_translated_and_the_rest_stays(text: str, web: bool) -> None:
    expected = re.sub(
        r"(\\[Nh]|\{[^}]*\}|<[^>]*>)|([^\W\d_]+)", lambda m: m[1] or m[2].translate(ROTATED), text
    )
    assert rotated_cue(text, web) == expected


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("ANN: We saw it.", ["ANN:", "We saw it."]),
        ("[sighs] We saw it.", ["[sighs]", "We saw it."]),
        ("We saw it. (laughs)", ["We saw it.", "(laughs)"]),
        ("We saw it\\Nat home.", ["We saw it at home."]),
        ("We saw\\hit.", ["We saw&#160;it."]),
        ("The time: 10:30", ["The time: 10:30"]),
        ("We saw it.\\NThey slept.", ["We saw it.", "They slept."]),
        ("We saw Mr.\\NHill there.", ["We saw Mr. Hill there."]),
        ("We saw it...\\Nand left.", ["We saw it... and left."]),
        ("We saw it in\\NParis.", ["We saw it in Paris."]),
    ],
)
def test_who_speaks_and_what_is_heard_are_sentences_of_their_own(
    text: str, sentences: list[str]
) -> None:
    file = opened(f"1\n00:00:01,000 --> 00:00:04,000\n{text}\n".encode(), "a.srt")
    assert re.split("<br[^>]*>", texts(file)[0]) == sentences


def test_notes_and_cues_after_a_blank_line_are_not_text_of_the_cue() -> None:
    vtt = (
        "WEBVTT\n\n00:01.000 --> 00:02.000\nWe saw it\n\nNOTE we did\nnot\n\n"
        "an id\n00:03.000 --> 00:04.000\n- 1 -\n\n\n\nSTYLE\n::cue {}\n"
    )
    assert texts(opened(vtt.encode(), "a.vtt")) == ["We saw it"]
    srt = "1\n00:00:01,000 --> 00:00:02,000\nWe\n\nsaw\n2\n00:00:03,000 --> 00:00:04,000\nit\n"
    assert texts(opened(srt.encode(), "a.srt")) == ["We", "saw", "it"]
