"""Pairs of sentences out of a synchronous grammar."""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from training.data.grammar import grammar_pairs, read_grammar, write_grammar_pairs
from training.data.readers import CorpusError
from training.data.synthetic import recombine_files
from training.data.word_pairs import write_word_pairs

GRAMMARS = Path(__file__).parents[2] / "recipes" / "grammars"

SEEN = r"""
# A man sees another.
[sentence]
{^person} sees {person:2}. | {^person} sieht {person:2/2}.

[person]
a {age} man | ein {age}er Mann / einen {age}en Mann
the woman | die Frau

[age]
old | alt
young | jung

[replace.source]
\b(a)(?= o) | \1n
"""


def grammar(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grammar.txt"
    path.write_text(text)
    return path


def test_both_languages_are_rewritten_together(tmp_path: Path) -> None:
    people = {
        "an old man": ("ein alter Mann", "einen alten Mann"),
        "a young man": ("ein junger Mann", "einen jungen Mann"),
        "the woman": ("die Frau", "die Frau"),
    }
    expected = {
        f"{one[0].upper()}{one[1:]} sees {other}.": f"{a[0].upper()}{a[1:]} sieht {b}."
        for (one, (a, _)), (other, (_, b)) in product(people.items(), repeat=2)
    }
    # "A" with a capital is not what [replace.source] asks for.
    expected = {source.replace("An old", "A old"): target for source, target in expected.items()}
    assert dict(grammar_pairs(read_grammar(grammar(tmp_path, SEEN)), len(expected))) == expected


def test_the_same_seed_gives_the_same_pairs(tmp_path: Path) -> None:
    read = read_grammar(grammar(tmp_path, SEEN))
    assert list(grammar_pairs(read, 6)) == list(grammar_pairs(read, 6))
    assert list(grammar_pairs(read, 6)) != list(grammar_pairs(read, 6, seed=2))


def test_weights_make_rules_likelier(tmp_path: Path) -> None:
    read = read_grammar(grammar(tmp_path, "[word]\n@9 often | oft\nrarely | selten\n"))
    generator = random.Random(1)
    drawn = [read.sample(generator)[1] for _ in range(1000)]
    assert 850 < drawn.count("oft") < 950


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rules"),
        ("a | b", ":1: put a symbol in brackets above the first rule"),
        ("[s]\na", ":2: write `source | target`"),
        ("[s]\na | b | c", ":2: write `source | target`"),
        ("[s]\n{x} | {x}", ":2: no rules for [x]"),
        ("[s]\n{x} | b\n[x]\na | b", ":2: {x} stands on one side alone"),
        ("[s]\n{x | {x", ":2: a symbol is written {like.this}"),
        ("[my s]\na | b", ":1: a symbol's name has letters, digits"),
        ("[s]\na | b\n[x]\nc | d", ": no rule leads to [x]"),
        ("[s]\na | b\n[replace.soruce]\nc | d", ":3: write [replace.source] or [replace.target]"),
        ("[s]\n@0 a | b", ":2: a rule's weight must be above 0"),
        ("[s]\na | b\n[replace.target]\n( | x", ":4: no regular expression"),
        ("[s]\na | b\n[replace.target]\nb | \\1", ":4: no regular expression"),
    ],
)
def test_faults_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CorpusError) as error:
        read_grammar(grammar(tmp_path, text))
    assert message in str(error.value)


def test_a_grammar_without_an_end_is_refused(tmp_path: Path) -> None:
    read = read_grammar(grammar(tmp_path, "[s]\na {s} | b {s}\n"))
    with pytest.raises(CorpusError, match=r"\[s\] goes on inside itself"):
        read.sample(random.Random(1))


def test_rules_that_double_each_other_stop_in_time(tmp_path: Path) -> None:
    doubled = [f"[s{n}]\n{{s{n + 1}}} {{s{n + 1}}} | {{s{n + 1}}}" for n in range(40)]
    read = read_grammar(grammar(tmp_path, "\n".join([*doubled, "[s40]\na | b"])))
    with pytest.raises(CorpusError, match=r"grammar.txt:\d+: makes sentences of more than"):
        read.sample(random.Random(1))


def test_rules_that_branch_stop_in_time(tmp_path: Path) -> None:
    rules = [
        f"[s{n}]\n{{s{n + 1}}} {{s{n + 1}:2}} | {{s{n + 1}}} {{s{n + 1}:2}}" for n in range(40)
    ]
    read = read_grammar(grammar(tmp_path, "\n".join([*rules, "[s40]\na | b"])))
    with pytest.raises(CorpusError, match="without an end"):
        read.sample(random.Random(1))


def test_a_small_grammar_says_soon_that_it_has_no_more(tmp_path: Path) -> None:
    read = read_grammar(grammar(tmp_path, SEEN))
    with pytest.raises(CorpusError, match="gave 9 different sentences of the 1,000,000 wanted"):
        list(grammar_pairs(read, 1_000_000))


def test_replacements_leave_one_line_of_single_spaces(tmp_path: Path) -> None:
    text = "[s]\na\tx b | c d\n[replace.source]\nb |\n[replace.target]\nd | \\n\\tz"
    assert list(grammar_pairs(read_grammar(grammar(tmp_path, text)), 1)) == [("a x", "c z")]


def test_lines_of_a_test_set_are_left_out(tmp_path: Path) -> None:
    path, held, out = grammar(tmp_path, SEEN), tmp_path / "test.en", tmp_path / "pairs.tsv"
    held.write_text("The woman sees the woman.\nThe woman sees an old man.\n")
    write_grammar_pairs(path, out, 7, without=[held])
    sources = {row.split("\t")[0] for row in out.read_text().splitlines()}
    assert len(sources) == 7
    assert not sources & set(held.read_text().splitlines())
    with pytest.raises(CorpusError, match="gave 7 different sentences of the 8 wanted"):
        write_grammar_pairs(path, out, 8, without=[held])


def test_the_grammar_itself_is_never_the_output(tmp_path: Path) -> None:
    path = grammar(tmp_path, SEEN)
    for out in (path, tmp_path):
        with pytest.raises(CorpusError, match="choose another --out"):
            write_grammar_pairs(path, out, 9)
    assert path.read_text() == SEEN


def test_no_command_overwrites_what_it_reads(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("A dog.\n")
    for write in (
        lambda: write_word_pairs([text], [text], text),
        lambda: recombine_files([text], text, 9),
        lambda: write_grammar_pairs(grammar(tmp_path, SEEN), text, 9, without=[text]),
    ):
        with pytest.raises(CorpusError, match="is an input: choose another --out"):
            write()
    assert text.read_text() == "A dog.\n"


def test_a_sentence_comes_as_often_as_its_weight_says_up_to_the_limit(tmp_path: Path) -> None:
    read = read_grammar(grammar(tmp_path, "[s]\n@9 a. | b.\n{x} c. | {x} d.\n[x]\ne | e\nf | f\n"))
    assert Counter(grammar_pairs(read, 9, repeats=7))["a.", "b."] == 7
    with pytest.raises(CorpusError, match="gave 6 sentences of the 7 wanted"):
        list(grammar_pairs(read, 7, repeats=2))
    assert "a." not in {source for source, _ in grammar_pairs(read, 4, without=["a."], repeats=3)}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "pairs.tsv.gz"
    with pytest.raises(CorpusError, match="gave 9 different sentences of the 10 wanted"):
        write_grammar_pairs(grammar(tmp_path, SEEN), out, 10)
    assert not out.exists()
    write_grammar_pairs(grammar(tmp_path, SEEN), out, 9)
    rows = gzip.decompress(out.read_bytes()).decode().splitlines()
    assert "The woman sees an old man.\tDie Frau sieht einen alten Mann." in rows
    assert len(rows) == 9


@pytest.mark.parametrize("path", sorted(GRAMMARS.glob("*.txt")), ids=lambda path: path.stem)
def test_shipped_grammars_write_clean_sentences(path: Path) -> None:
    for pair in grammar_pairs(read_grammar(path), 300):
        for text in pair:
            assert text == " ".join(text.split())
            assert not text[0].islower() or text[1] in ")/"  # `a) …`, `c/o …`
            assert not re.search(r"[{}|]|(?<!\w)@", text)
