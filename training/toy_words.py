"""The words and endings of the toy corpus: English and German, with the forms that it needs."""

from __future__ import annotations

from typing import NamedTuple


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
