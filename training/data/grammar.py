"""Pairs of sentences out of a synchronous grammar that somebody wrote.

Where a kind of text has no translations (descriptions of pictures, the formulas of letters), a few
hundred rules of a person who knows both languages give a student some hundred thousand pairs that
are right by construction. The grammar is a synchronous context-free one (Aho & Ullman 1969,
"Syntax Directed Translations and the Pushdown Assembler"): each rule rewrites a symbol in both
languages at once. It is plain text:

    [sentence]
    {^person} is {place}. | {^person} ist {place}.
    {^person} sees {person:2}. | {^person} sieht {person:2/2}.

    [person]
    @3 a {adjective} man | ein {adjective}er Mann / einen {adjective}en Mann
    a woman | eine Frau

    [adjective]
    old | alt
    young | jung

    [place]
    in the park | in dem Park

    [replace.target]
    \\bin dem\\b | im

- Symbols stand in brackets, their rules below them, `source | target`; the first is where sentences
  begin. Lines that begin with `#` and blank lines do not count.
- `{person}` is the same person on both sides, `{person:2}` another one. `{^person}` has a capital
  first letter.
- A side may have several forms, divided by ` / `: cases, say, or numbers. `{person/2}` takes the
  second, or the first where there is one alone.
- `@3` makes a rule three times as likely as the others.
- `[replace.source]` and `[replace.target]` hold regular expressions and what takes their place in
  finished sentences, in order: `a apple` → `an apple`, `in dem` → `im`. A
  pattern with nothing behind ` |` is taken out.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from quickstudy.progress import Ticker
from training.data.files import CorpusError, check_output, read_whole, write_lines

Pair = tuple[str, str]

HEADING = re.compile(r"\[([\w.-]+)\]")
WEIGHT = re.compile(r"@(\d{1,6}(?:\.\d{1,6})?)\s+")
PLACE = re.compile(r"\{(?P<capital>\^?)(?P<symbol>[\w.-]+)(?P<number>:\d+)?(?:/(?P<form>[1-9]))?\}")
SIDES = ("source", "target")
REPLACE = {f"replace.{side}": number for number, side in enumerate(SIDES)}
TRIES = 20
"""Sentences drawn for each one wanted before it is said that the grammar has too few to give."""
REPEATS = 10_000
"""So many drawn in a row that came before say so earlier."""
DEEPEST = 50
"""Rules one inside the other; a grammar that goes on beyond has no end."""
LONGEST = 10_000
"""Characters, and rules, of a sentence: rules that double each other would fill the memory."""


class Rule(NamedTuple):
    """What a symbol may become: its forms in either language, and the file and line they are in."""

    forms: tuple[Sequence[str], Sequence[str]]
    weight: float
    where: str

    @property
    def symbols(self) -> list[dict[str, str]]:
        """Of either side: name of each place (`person`, `person:2`) → its symbol."""
        return [
            {
                found["symbol"] + (found["number"] or ""): found["symbol"]
                for form in forms
                for found in PLACE.finditer(form)
            }
            for forms in self.forms
        ]


@dataclass(frozen=True)
class _Drawn:
    """A symbol's chosen rule, and what was chosen for the places in it."""

    rule: Rule
    inside: dict[str, _Drawn]

    def text(self, side: int, form: int = 1) -> str:
        """Its text in the source (0) or the target (1), in that form or, without one, the first.

        Raises CorpusError for one of more than 10,000 characters.
        """
        forms = self.rule.forms[side]

        def filled(place: re.Match[str]) -> str:
            inner = self.inside[place["symbol"] + (place["number"] or "")]
            text = inner.text(side, int(place["form"] or 1))
            return text[:1].upper() + text[1:] if place["capital"] else text

        text = PLACE.sub(filled, forms[form - 1 if form <= len(forms) else 0])
        if len(text) > LONGEST:
            raise CorpusError(
                f"{self.rule.where}: makes sentences of more than {LONGEST:,} characters: shorten "
                "what it refers to"
            )
        return text


@dataclass
class Grammar:
    """Rules by symbol, the first symbol being where sentences begin."""

    path: Path
    rules: dict[str, list[Rule]] = field(default_factory=dict)
    replace: tuple[list[tuple[re.Pattern[str], str]], ...] = field(default_factory=lambda: ([], []))
    _sums: dict[str, list[float]] = field(default_factory=dict)
    _left: int = LONGEST
    """Rules that the sentence which is being drawn may still have."""

    def sample(self, generator: random.Random) -> Pair:
        """One sentence in both languages. Raises CorpusError where its rules find no end, or one of
        more than 10,000 characters."""
        self._left = LONGEST
        drawn = self._draw(next(iter(self.rules)), generator, 0)
        return self._finished(drawn, 0), self._finished(drawn, 1)

    def _draw(self, symbol: str, generator: random.Random, depth: int) -> _Drawn:
        rules = self.rules[symbol]
        self._left -= 1
        if depth > DEEPEST or not self._left:
            raise CorpusError(
                f"{self.path}: [{symbol}] goes on inside itself without an end: make the rules "
                "that end it likelier, with @ and a number"
            )
        sums = self._sums.setdefault(symbol, list(accumulate(rule.weight for rule in rules)))
        (rule,) = generator.choices(rules, cum_weights=sums)
        inside = {
            name: self._draw(inner, generator, depth + 1) for name, inner in rule.symbols[0].items()
        }
        return _Drawn(rule, inside)

    def _finished(self, drawn: _Drawn, side: int) -> str:
        text = drawn.text(side)
        for pattern, replacement in self.replace[side]:
            text = pattern.sub(replacement, text)
        return " ".join(text.split())


def read_grammar(path: Path) -> Grammar:
    """The grammar in a file.

    Raises CorpusError, which names the line, where a rule is not one, names a symbol that has no
    rules, or names one on one side alone, and where no rule leads to a symbol; also where a file
    cannot be read.
    """
    grammar = Grammar(path)
    heading = ""
    for number, line in enumerate(read_whole(path), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if found := HEADING.fullmatch(text):
            heading = found[1]
            if heading.startswith("replace.") and heading not in REPLACE:
                raise CorpusError(
                    f"{path}:{number}: write [replace.source] or [replace.target]: {text}"
                )
        elif text.startswith("[") and text.endswith("]"):
            raise CorpusError(
                f"{path}:{number}: a symbol's name has letters, digits, full stops, hyphens and "
                f"underscores, no spaces: {text}"
            )
        elif not heading:
            raise CorpusError(f"{path}:{number}: put a symbol in brackets above the first rule")
        elif heading in REPLACE:
            grammar.replace[REPLACE[heading]].append(_replacement(path, number, text))
        else:
            grammar.rules.setdefault(heading, []).append(_rule(path, number, text))
    if not grammar.rules:
        raise CorpusError(f"{path}: has no rules. See `quickstudy grammar-pairs --help`")
    for rule in (rule for rules in grammar.rules.values() for rule in rules):
        _check(grammar, rule)
    if unused := grammar.rules.keys() - _reached(grammar):
        raise CorpusError(f"{path}: no rule leads to [{min(unused)}]: use it, or take it out")
    return grammar


def _reached(grammar: Grammar) -> set[str]:
    """The symbols that a sentence may have."""
    waiting = [next(iter(grammar.rules))]
    reached = set(waiting)
    while waiting:
        rules = grammar.rules[waiting.pop()]
        new = {symbol for rule in rules for symbol in rule.symbols[0].values()} - reached
        reached |= new
        waiting += new
    return reached


def _sides(path: Path, number: int, text: str) -> tuple[str, str]:
    sides = [side.strip() for side in text.split(" | ")]
    if len(sides) != len(SIDES):
        raise CorpusError(f"{path}:{number}: write `source | target`, with one ` | `: {text}")
    return sides[0], sides[1]


def _replacement(path: Path, number: int, text: str) -> tuple[re.Pattern[str], str]:
    pattern, replacement = _sides(path, number, f"{text} " if text.endswith(" |") else text)
    try:
        compiled = re.compile(pattern)
        compiled.sub(replacement, "")
    except (re.error, IndexError) as error:
        raise CorpusError(f"{path}:{number}: no regular expression: {error}: {text}") from None
    return compiled, replacement


def _rule(path: Path, number: int, text: str) -> Rule:
    weight = 1.0
    if found := WEIGHT.match(text):
        weight, text = float(found[1]), text[found.end() :]
        if not weight:
            raise CorpusError(
                f"{path}:{number}: a rule's weight must be above 0: leave the rule out"
            )
    forms = [
        tuple(form.strip() for form in side.split(" / ")) for side in _sides(path, number, text)
    ]
    for side in forms:
        for form in side:
            if set(PLACE.sub("", form)) & set("{}"):
                raise CorpusError(f"{path}:{number}: a symbol is written {{like.this}}: {form}")
    return Rule((forms[0], forms[1]), weight, f"{path}:{number}")


def _check(grammar: Grammar, rule: Rule) -> None:
    source, target = rule.symbols
    if alone := sorted(source.keys() ^ target.keys()):
        raise CorpusError(f"{rule.where}: {{{alone[0]}}} stands on one side alone")
    if unknown := sorted(set(source.values()) - grammar.rules.keys()):
        raise CorpusError(f"{rule.where}: no rules for [{unknown[0]}]")


def grammar_pairs(
    grammar: Grammar, count: int, seed: int = 1, without: Collection[str] = (), repeats: int = 1
) -> Iterator[Pair]:
    """`count` pairs, no source of them more than `repeats` times, nor one in `without`, such as a
    test set's; the same arguments give the same pairs.

    Sentences of rules without places come more than once only with `repeats`, whatever their
    weight. Raises CorpusError where 20 sentences drawn for each one wanted do not give as many, or
    10,000 in a row nothing new.
    """
    generator = random.Random(seed)
    times = Counter({" ".join(line.split()): repeats for line in without})
    found = in_a_row = 0
    for _ in range(TRIES * count):
        pair = grammar.sample(generator)
        if times[pair[0]] >= repeats:
            in_a_row += 1
            if in_a_row == REPEATS:
                break
            continue
        in_a_row = 0
        times[pair[0]] += 1
        found += 1
        yield pair
        if found == count:
            return
    different = "different " if repeats == 1 else ""
    raise CorpusError(
        f"{grammar.path}: gave {found:,} {different}sentences of the {count:,} wanted: ask for "
        "fewer with --sentences, or write more rules"
    )


def write_grammar_pairs(
    path: Path,
    out: Path,
    count: int,
    seed: int = 1,
    without: Sequence[Path] = (),
    repeats: int = 1,
) -> None:
    """Write `count` pairs of the grammar in a file as TSV, packed where `out` ends in .gz; none
    whose source is a line of a file of `without`, or comes more than `repeats` times.

    Nothing is written where it fails; raises what `read_grammar` and `grammar_pairs` raise.
    """
    grammar = read_grammar(path)
    check_output(out, (path, *without))
    others = [line for file in without for line in read_whole(file)]
    rows = []
    with Ticker("grammar-pairs", count, "sentences") as tell:
        for pair in grammar_pairs(grammar, count, seed, others, repeats):
            rows.append("\t".join(pair))
            tell(len(rows))
    write_lines(out, rows)
