"""Full stops that end no sentence."""

from __future__ import annotations

import pytest

from service.text.sentences import split_text


def sentences(text: str, language: str) -> list[str]:
    parts = split_text(text, language, len, 1000)
    assert "".join(part.text for part in parts) == text
    return [part.text for part in parts if part.text.strip()]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("pt", "A fatura n.º 5 está paga."),
        ("pt", "A fatura n. º 5 está paga."),
        ("pt", "O artigo 3.º da lei."),
        ("pt-BR", "art.º 5.º, n.º 2, al. b)"),
        ("pt", "Processo n.º 123/2020."),
        ("pt", "Pág. 5, fig. 2, p. 7, séc. XX, cap. IV."),
        ("pt", "Vivo em S. Paulo, na Av. da Liberdade."),
        ("pt", "A Dra. Ana, a Profa. Eva e o Exmo. Sr. Costa."),
        ("pt", "No ano 5 a. C. e depois, p. ex. agora."),
        ("pt", "De seg. a sex. das 9 h às 17 h."),
        ("en", "the max. current is 5 A."),
        ("en", "Visit us Mon.–Fri. 9 a.m.–5 p.m."),
        ("en", "It takes approx. 5 min. or (incl. tax) approx. (at least) 6."),
        ("en", "See ch. 2, vol. IV, ed. 3 and fig. B."),
        ("en", "Open Mon. Jan. 5 to Fri. & Sat."),
        ("en", "Price incl. VAT."),
        ("en", "It opens at 5 p.m. EST or 9 a.m. Monday."),
        ("de", "Der 2. Weltkrieg und Dipl.-Ing. Maier."),
        ("de", "Mo. bis Fr. von 9 bis 5"),
        ("de", "inkl. MwSt., zzgl. Versand"),
        ("fr", "Le n.º 5, max. 6"),
    ],
)
def test_a_sentence_goes_on_after_them(language: str, text: str) -> None:
    assert sentences(text, language) == [text]


@pytest.mark.parametrize(
    "text", ["We ate at 5 p.m. IBM called.", "It closed at 5 p.m. Eastern markets reopened."]
)
def test_a_sentence_ends_behind_an_hour(text: str) -> None:
    assert len(sentences(text, "en")) == 2


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["Set it to max.", "The rest is easy."]),
        ("en", ["The cat sat.", "5 others stood."]),
        ("en", ["Open Sat.", "We see."]),
        ("en", ["Take plan B.", "It works."]),
        ("en", ["Foo Inc.", "We go."]),
        ("en", ["we go.", "they stay."]),
        ("pt", ["Tomo vitamina C.", "Depois saio."]),
        ("pt", ["Paga em fev.", "Depois saio."]),
        ("de", ["Er ist 5.", "Dann ging er."]),
        ("zh", ["你好。", "我是。"]),
    ],
)
def test_a_sentence_ends(language: str, expected: list[str]) -> None:
    text = "".join(expected) if language == "zh" else " ".join(expected)
    assert sentences(text, language) == expected
