"""A small English–German corpus that the project itself makes, for trying a whole run in minutes.

A grammar of simple sentences: agreement, case and gender, adjective endings, the verb bracket of
perfect and future, negation by `nicht` and `kein`, questions, inversion. The German of an English
sentence is always the same, so a small model can learn it. `python -m training.toy` writes the text
of the `tiny` recipe.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from training import toy_words as words
from training.atomic import atomic_write
from training.cleaning import bare
from training.toy_words import Noun, Verb

SIZES = {"train": 4000, "val": 200, "test": 200}
SEED = 1
FOLDER = Path(__file__).parent.parent / "recipes" / "tiny"

Item = TypeVar("Item")


class Phrase(NamedTuple):
    """A noun phrase in both languages; `person` is that of the verb, `definite` sets word order."""

    en: str
    de: str
    person: str
    definite: bool


class Clause(NamedTuple):
    """What a sentence says; rendered as a statement or a question."""

    subject: Phrase
    verb: Verb
    tense: str
    negated: bool
    objects: list[Phrase]
    time: tuple[str, str] | None
    place: tuple[str, str] | None


class Grammar:
    """Draws sentence pairs. Only `random()` is drawn from, whose sequence Python guarantees."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def _pick(self, items: Sequence[Item]) -> Item:
        return items[int(self._random() * len(items))]

    def _chance(self, share: float) -> bool:
        return self._random() < share

    def sentence(self) -> tuple[str, str]:
        """One (English, German) sentence, capitalised and punctuated."""
        if self._chance(0.2):
            return self._copula()
        clause = self._clause()
        if self._chance(0.25):
            return _question(clause, self._chance(0.3))
        return _statement(clause, clause.time is not None and self._chance(0.4))

    # --- noun phrases --------------------------------------------------------------------------

    def _noun_phrase(self, kind: str, case: str, negated: bool = False) -> Phrase:
        """A phrase around a noun of that kind; `negated` makes an indefinite one `kein`."""
        noun = self._pick(words.NOUNS[kind])
        adjective = self._pick(words.ADJECTIVES[kind]) if self._chance(0.4) else None
        if kind == "drink":
            determiner = self._pick(["the", "bare"])
        elif negated:
            determiner = self._pick(["the", "my", "a", "bare"])
        else:
            determiner = self._pick(["the", "the", "my", "a", "a", "two"])
        plural = kind != "drink" and (
            determiner in ("two", "bare") or (determiner != "a" and self._chance(0.3))
        )
        return self._build(noun, adjective, determiner, plural, case, negated)

    def _build(
        self,
        noun: Noun,
        adjective: tuple[str, str] | None,
        determiner: str,
        plural: bool,
        case: str,
        negated: bool,
    ) -> Phrase:
        gender = "p" if plural else noun.gender
        en_word, de_word, endings = self._determiner(determiner, gender, case, negated)
        en_noun = noun.en_plural if plural else noun.en
        en_parts = [en_word, adjective[0] if adjective else "", en_noun]
        stem = adjective[1] + endings[case][gender] if adjective else ""
        de_noun = noun.de_plural if plural else noun.de
        if plural and case == "dat" and de_noun[-1] not in "ns":
            de_noun += "n"
        return Phrase(
            _with_article(" ".join(filter(None, en_parts))),
            " ".join(filter(None, [de_word, stem, de_noun])),
            "pl" if plural else "er",
            determiner in ("the", "my"),
        )

    def _determiner(
        self, determiner: str, gender: str, case: str, negated: bool
    ) -> tuple[str, str, dict[str, dict[str, str]]]:
        """English word, German word, and the table of adjective endings after it."""
        if determiner == "the":
            return "the", words.ARTICLE[case][gender], words.WEAK
        if determiner == "my":
            en, de = self._pick(words.POSSESSIVES)
            return en, de + words.EIN[case][gender], words.MIXED
        if determiner == "two":
            return (*self._pick(words.NUMBERS), words.STRONG)
        en = "a" if determiner == "a" else ""
        if negated:
            return en, "kein" + words.EIN[case][gender], words.MIXED
        return (en, "ein" + words.EIN[case][gender], words.MIXED) if en else ("", "", words.STRONG)

    def _subject(self) -> Phrase:
        if self._chance(0.35):
            en, de, person = self._pick(words.PRONOUNS)
            return Phrase(en, de, person, True)
        return self._noun_phrase("person", "nom")

    # --- clauses -------------------------------------------------------------------------------

    def _clause(self) -> Clause:
        tense = self._pick(["present", "present", "past", "future"])
        negated = self._chance(0.25)
        subject = self._subject()
        shape = self._pick(["transitive", "transitive", "transitive", "in", "dative", "two"])
        verb, objects = self._predicate(shape, negated)
        while any(thing.en == subject.en for thing in objects):
            verb, objects = self._predicate(shape, negated)
        time = self._pick(words.TIMES[tense]) if self._chance(0.5) else None
        place = self._pick(words.PLACES) if self._chance(0.35) and not negated else None
        return Clause(subject, verb, tense, negated, objects, time, place)

    def _predicate(self, shape: str, negated: bool) -> tuple[Verb, list[Phrase]]:
        if shape == "in":
            return self._pick(words.INTRANSITIVE), []
        if shape == "dative":
            return self._pick(words.DATIVE), [self._noun_phrase("person", "dat", negated)]
        verb = self._pick(words.DITRANSITIVE if shape == "two" else words.TRANSITIVE)
        thing = self._noun_phrase(self._pick(verb.objects.split(",")), "acc", negated)
        if shape == "two":
            noun = self._pick(words.NOUNS["person"])
            person = self._build(noun, None, self._pick(["the", "my"]), False, "dat", False)
            return verb, [person, thing]
        return verb, [thing]

    def _copula(self) -> tuple[str, str]:
        """`The old man is not tired.`, `Was the house red?`"""
        kind = self._pick(["person", "person", "thing", "text", "food"])
        subject = self._subject() if kind == "person" else self._noun_phrase(kind, "nom")
        states = words.STATES if kind == "person" else words.ADJECTIVES[kind]
        en_state, de_state = self._pick(states)
        tense = self._pick(["present", "present", "past"])
        be, sein = words.BE[tense][subject.person], words.SEIN[tense][subject.person]
        if self._chance(0.25):
            return _finish(f"{be} {subject.en} {en_state}?", f"{sein} {subject.de} {de_state}?")
        not_, nicht = (" not", " nicht") if self._chance(0.25) else ("", "")
        return _finish(
            f"{subject.en} {be}{not_} {en_state}.", f"{subject.de} {sein}{nicht} {de_state}."
        )


# --- rendering ---------------------------------------------------------------------------------


def _with_article(en: str) -> str:
    return "an" + en[1:] if en.startswith("a ") and en[2] in "aeiou" else en


def _finish(en: str, de: str) -> tuple[str, str]:
    return en[0].upper() + en[1:], de[0].upper() + de[1:]


def _verb_forms(clause: Clause) -> tuple[str, str]:
    """The German finite verb, and what closes the bracket (perfect, future) or nothing."""
    verb, person = clause.verb, clause.subject.person
    if clause.tense == "past":
        return words.HABEN[person], verb.participle
    if clause.tense == "future":
        return words.WERDEN[person], verb.infinitive
    return {"ich": verb.ich, "du": verb.du, "er": verb.er, "pl": verb.infinitive}[person], ""


def _middle_field(clause: Clause, with_time: bool) -> str:
    """Between verb and bracket: definite objects before the time, indefinite ones after it."""
    time = clause.time[1] if clause.time and with_time else ""
    place = clause.place[1] if clause.place else ""
    before = [thing.de for thing in clause.objects if thing.definite]
    after = [thing.de for thing in clause.objects if not thing.definite]
    nicht = "nicht" if clause.negated and not after else ""
    return " ".join(filter(None, [*before, time, nicht, *after, place]))


def _auxiliary(clause: Clause) -> str:
    """English `do`, `did` or `will`, for questions and negation."""
    third = clause.subject.person == "er"
    return {"present": "does" if third else "do", "past": "did", "future": "will"}[clause.tense]


def _english_verb(clause: Clause) -> str:
    verb = clause.verb
    if clause.negated:
        return f"{_auxiliary(clause)} not {verb.en}"
    third = clause.subject.person == "er"
    return {
        "present": verb.en_third if third else verb.en,
        "past": verb.en_past,
        "future": f"will {verb.en}",
    }[clause.tense]


def _english_rest(clause: Clause, with_time: bool) -> str:
    parts = [thing.en for thing in clause.objects]
    parts += [clause.place[0]] if clause.place else []
    parts += [clause.time[0]] if clause.time and with_time else []
    return " ".join(parts)


def _join(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _statement(clause: Clause, time_first: bool) -> tuple[str, str]:
    verb, end = _verb_forms(clause)
    middle = _middle_field(clause, not time_first)
    en = _join(clause.subject.en, _english_verb(clause), _english_rest(clause, not time_first))
    if time_first and clause.time is not None:
        de = _join(clause.time[1], verb, clause.subject.de, middle, end)
        return _finish(f"{clause.time[0]} {en}.", f"{de}.")
    return _finish(f"{en}.", f"{_join(clause.subject.de, verb, middle, end)}.")


def _question(clause: Clause, asks_where: bool) -> tuple[str, str]:
    """A question with a yes or no, or one for the place."""
    asks_where = asks_where and clause.place is None and not clause.negated
    where, wo = ("where", "wo") if asks_where else ("", "")
    verb, end = _verb_forms(clause)
    not_ = "not" if clause.negated else ""
    rest = _english_rest(clause, True)
    en = _join(where, _auxiliary(clause), clause.subject.en, not_, clause.verb.en, rest)
    de = _join(wo, verb, clause.subject.de, _middle_field(clause, True), end)
    return _finish(f"{en}?", f"{de}?")


def make_toy(n: int, seed: int = SEED) -> list[tuple[str, str]]:
    """n (English, German) pairs; no two share either side, punctuation and case aside."""
    grammar = Grammar(seed)
    seen: set[str] = set()
    pairs: list[tuple[str, str]] = []
    while len(pairs) < n:
        en, de = grammar.sentence()
        keys = {bare(en), bare(de)}
        if not keys & seen:
            seen |= keys
            pairs.append((en, de))
    return pairs


def toy_files() -> dict[str, str]:
    """The files of the `tiny` recipe: name → text."""
    pairs = make_toy(sum(SIZES.values()))
    files = {}
    start = 0
    for name, size in SIZES.items():
        part = pairs[start : start + size]
        for side, language in enumerate(("en", "de")):
            files[f"{name}.{language}"] = "".join(pair[side] + "\n" for pair in part)
        start += size
    return files


if __name__ == "__main__":
    for name, text in toy_files().items():
        atomic_write(FOLDER / name, text)
