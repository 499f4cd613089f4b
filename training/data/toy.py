"""A small English–German corpus that the project itself makes, for trying a whole run in minutes.

A grammar of simple sentences: agreement, case and gender, adjective endings, the verb bracket of
perfect and future, negation by `nicht` and `kein`, questions, inversion. The German of an English
sentence is always the same, so a small model can learn it. `python -m training.data.toy` writes the
text of the `tiny` recipe.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from quickstudy.atomic import atomic_write
from training.data.cleaning import bare


class Noun(NamedTuple):
    """Nominative forms; gender `m`, `f` or `n`. No weak nouns, so that only the dative plural adds
    an ending. A mass noun has no plural."""

    en: str
    en_plural: str
    de: str
    gender: str
    de_plural: str


class Verb(NamedTuple):
    """Present and simple past in English; infinitive, ich, du, er and participle in German."""

    en: str
    en_third: str
    en_past: str
    infinitive: str
    ich: str
    du: str
    er: str
    participle: str
    objects: str = ""


def _nouns(table: str) -> list[Noun]:
    return [Noun(*line.split()) for line in table.strip().splitlines()]


def _verbs(table: str) -> list[Verb]:
    rows = (line.split() for line in table.strip().splitlines())
    return [Verb(*(word.replace("_", " ") for word in row)) for row in rows]


def _phrases(table: str) -> list[tuple[str, str]]:
    rows = (line.split("=") for line in table.strip().splitlines())
    return [(en.strip(), de.strip()) for en, de in rows]


NOUNS: dict[str, list[Noun]] = {
    "person": _nouns("""
man men Mann m Männer
woman women Frau f Frauen
child children Kind n Kinder
girl girls Mädchen n Mädchen
teacher teachers Lehrer m Lehrer
doctor doctors Arzt m Ärzte
mother mothers Mutter f Mütter
father fathers Vater m Väter
sister sisters Schwester f Schwestern
brother brothers Bruder m Brüder
daughter daughters Tochter f Töchter
son sons Sohn m Söhne
friend friends Freund m Freunde
baker bakers Bäcker m Bäcker"""),
    "text": _nouns("""
book books Buch n Bücher
letter letters Brief m Briefe
newspaper newspapers Zeitung f Zeitungen
story stories Geschichte f Geschichten"""),
    "food": _nouns("""
apple apples Apfel m Äpfel
egg eggs Ei n Eier
orange oranges Orange f Orangen
pear pears Birne f Birnen
cake cakes Kuchen m Kuchen
potato potatoes Kartoffel f Kartoffeln"""),
    "thing": _nouns("""
house houses Haus n Häuser
car cars Auto n Autos
table tables Tisch m Tische
chair chairs Stuhl m Stühle
lamp lamps Lampe f Lampen
picture pictures Bild n Bilder
clock clocks Uhr f Uhren
hat hats Hut m Hüte
bag bags Tasche f Taschen
flower flowers Blume f Blumen
tree trees Baum m Bäume
dog dogs Hund m Hunde
cat cats Katze f Katzen
horse horses Pferd n Pferde
bicycle bicycles Fahrrad n Fahrräder"""),
    "drink": _nouns("""
water - Wasser n -
milk - Milch f -
coffee - Kaffee m -
tea - Tee m -"""),
}

# English base, third person, past; German infinitive, ich, du, er, participle; kinds of object
TRANSITIVE = _verbs("""
open opens opened öffnen öffne öffnest öffnet geöffnet text
write writes wrote schreiben schreibe schreibst schreibt geschrieben text
buy buys bought kaufen kaufe kaufst kauft gekauft text,food,thing,drink
sell sells sold verkaufen verkaufe verkaufst verkauft verkauft text,food,thing
see sees saw sehen sehe siehst sieht gesehen person,thing
find finds found finden finde findest findet gefunden text,food,thing
look_for looks_for looked_for suchen suche suchst sucht gesucht person,text,thing
need needs needed brauchen brauche brauchst braucht gebraucht text,food,thing,drink
eat eats ate essen esse isst isst gegessen food
drink drinks drank trinken trinke trinkst trinkt getrunken drink
paint paints painted malen male malst malt gemalt person,thing
visit visits visited besuchen besuche besuchst besucht besucht person""")

DATIVE = _verbs("""
help helps helped helfen helfe hilfst hilft geholfen person
thank thanks thanked danken danke dankst dankt gedankt person
answer answers answered antworten antworte antwortest antwortet geantwortet person""")

DITRANSITIVE = _verbs("""
give gives gave geben gebe gibst gibt gegeben text,food,thing
show shows showed zeigen zeige zeigst zeigt gezeigt text,thing""")

INTRANSITIVE = _verbs("""
sleep sleeps slept schlafen schlafe schläfst schläft geschlafen
work works worked arbeiten arbeite arbeitest arbeitet gearbeitet
wait waits waited warten warte wartest wartet gewartet
play plays played spielen spiele spielst spielt gespielt
sing sings sang singen singe singst singt gesungen
dance dances danced tanzen tanze tanzt tanzt getanzt""")

ADJECTIVES: dict[str, list[tuple[str, str]]] = {
    "person": _phrases("old=alt\nyoung=jung\nsmall=klein\nbeautiful=schön\ngood=gut"),
    "thing": _phrases("old=alt\nnew=neu\nbig=groß\nsmall=klein\nred=rot\nbeautiful=schön"),
    "text": _phrases("old=alt\nnew=neu\nlong=lang\nshort=kurz\ngood=gut\nbeautiful=schön"),
    "food": _phrases("big=groß\nsmall=klein\nfresh=frisch\ngood=gut\ncheap=billig"),
    "drink": _phrases("cold=kalt\nhot=heiß\nfresh=frisch\ngood=gut"),
}
STATES = _phrases("tired=müde\nhappy=glücklich\nsick=krank\nhungry=hungrig\nsad=traurig")

PLACES = _phrases("""
in the garden = im Garten
in the kitchen = in der Küche
at school = in der Schule
in the city = in der Stadt
in the park = im Park
at the market = auf dem Markt
at the station = am Bahnhof
at home = zu Hause
in the village = im Dorf""")

TIMES: dict[str, list[tuple[str, str]]] = {
    "present": _phrases("""
today = heute
in the morning = am Morgen
in the evening = am Abend
on Monday = am Montag
on Sunday = am Sonntag
in summer = im Sommer
in winter = im Winter"""),
    "past": _phrases("yesterday = gestern\nlast week = letzte Woche\nlast year = letztes Jahr"),
    "future": _phrases("tomorrow = morgen\nnext week = nächste Woche\nsoon = bald"),
}

POSSESSIVES = _phrases("my=mein\nyour=dein\nhis=sein\nher=ihr\nour=unser")
NUMBERS = _phrases("""
two = zwei
three = drei
four = vier
five = fünf
six = sechs
seven = sieben
eight = acht
ten = zehn""")

# Endings by case and by gender (p: plural).
ARTICLE = {
    "nom": {"m": "der", "f": "die", "n": "das", "p": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "p": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "p": "den"},
}
EIN = {
    "nom": {"m": "", "f": "e", "n": "", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "", "p": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "p": "en"},
}
WEAK = {
    "nom": {"m": "e", "f": "e", "n": "e", "p": "en"},
    "acc": {"m": "en", "f": "e", "n": "e", "p": "en"},
    "dat": {"m": "en", "f": "en", "n": "en", "p": "en"},
}
MIXED = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "en"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "en"},
    "dat": {"m": "en", "f": "en", "n": "en", "p": "en"},
}
STRONG = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "p": "en"},
}

# German auxiliaries and copula by person: ich, du, er, plural.
HABEN = {"ich": "habe", "du": "hast", "er": "hat", "pl": "haben"}
WERDEN = {"ich": "werde", "du": "wirst", "er": "wird", "pl": "werden"}
SEIN = {
    "present": {"ich": "bin", "du": "bist", "er": "ist", "pl": "sind"},
    "past": {"ich": "war", "du": "warst", "er": "war", "pl": "waren"},
}
BE = {
    "present": {"ich": "am", "du": "are", "er": "is", "pl": "are"},
    "past": {"ich": "was", "du": "were", "er": "was", "pl": "were"},
}
PRONOUNS = [
    ("I", "ich", "ich"),
    ("you", "du", "du"),
    ("he", "er", "er"),
    ("she", "sie", "er"),
    ("we", "wir", "pl"),
    ("they", "sie", "pl"),
]


SIZES = {"train": 4000, "val": 200, "test": 200}
SEED = 1
FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "tiny"

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
        noun = self._pick(NOUNS[kind])
        adjective = self._pick(ADJECTIVES[kind]) if self._chance(0.4) else None
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
            return "the", ARTICLE[case][gender], WEAK
        if determiner == "my":
            en, de = self._pick(POSSESSIVES)
            return en, de + EIN[case][gender], MIXED
        if determiner == "two":
            return (*self._pick(NUMBERS), STRONG)
        en = "a" if determiner == "a" else ""
        if negated:
            return en, "kein" + EIN[case][gender], MIXED
        return (en, "ein" + EIN[case][gender], MIXED) if en else ("", "", STRONG)

    def _subject(self) -> Phrase:
        if self._chance(0.35):
            en, de, person = self._pick(PRONOUNS)
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
        time = self._pick(TIMES[tense]) if self._chance(0.5) else None
        place = self._pick(PLACES) if self._chance(0.35) and not negated else None
        return Clause(subject, verb, tense, negated, objects, time, place)

    def _predicate(self, shape: str, negated: bool) -> tuple[Verb, list[Phrase]]:
        if shape == "in":
            return self._pick(INTRANSITIVE), []
        if shape == "dative":
            return self._pick(DATIVE), [self._noun_phrase("person", "dat", negated)]
        verb = self._pick(DITRANSITIVE if shape == "two" else TRANSITIVE)
        thing = self._noun_phrase(self._pick(verb.objects.split(",")), "acc", negated)
        if shape == "two":
            noun = self._pick(NOUNS["person"])
            person = self._build(noun, None, self._pick(["the", "my"]), False, "dat", False)
            return verb, [person, thing]
        return verb, [thing]

    def _copula(self) -> tuple[str, str]:
        """`The old man is not tired.`, `Was the house red?`"""
        kind = self._pick(["person", "person", "thing", "text", "food"])
        subject = self._subject() if kind == "person" else self._noun_phrase(kind, "nom")
        states = STATES if kind == "person" else ADJECTIVES[kind]
        en_state, de_state = self._pick(states)
        tense = self._pick(["present", "present", "past"])
        be, sein = BE[tense][subject.person], SEIN[tense][subject.person]
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
        return HABEN[person], verb.participle
    if clause.tense == "future":
        return WERDEN[person], verb.infinitive
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
