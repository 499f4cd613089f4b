"""Altered training pairs: what each kind does, how often, and that both sides stay consistent."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from quickstudy.pipeline import build_stages
from tests.training.test_prepare import folder, plain, prepared, write  # noqa: F401
from tests.training.test_readers import corpus
from training.config.io import load_recipe
from training.config.recipe import AugmentConfig
from training.data import augment
from training.data.augment import KINDS, Augmenter, misspelt
from training.data.cleaning import held_out_keys
from training.data.prepare import read_pairs, render_report
from training.data.shared_terms import addition_to_copy, pieces, shared_terms, term_to_copy
from training.run import Run
from training.stage import fingerprint

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"

PAIRS = [
    ("Tom lives in Berlin.", "Tom wohnt in Berlin."),
    ("Click “Save as…” to keep %s files.", "Klicken Sie auf „Speichern unter…“, um %s Dateien …"),
    ("Der Straßenbau – 25 km!", "Road works – 25 km!"),
    ("L'été à Nîmes, c'est génial…", "Summer in Nîmes is great…"),
    (
        "See https://example.com/Path and {{ user name }}.",
        "Siehe https://example.com/Path und {{ x }}.",
    ),
    ('<a href="x y">Open</a> file_name.txt', '<a href="x y">Datei</a> file_name.txt öffnen'),
    ("Wait... 3 of 10 - done?", "Warte... 3 von 10 - fertig?"),
    ("OK", "OK"),
    ("a", "ß"),
    (".", "."),
    ("!", "!"),
    ("Ŵyneb İstanbul naïve coöperation", "Ŵyneb İstanbul naïve Zusammenarbeit"),
    ("The museum opened in 1998.", "Das Museum wurde 1998 eröffnet."),
    ("We walked all the way home.", "Wir gingen den ganzen Weg zu Fuß."),
]
MANY = [
    (f"{src} {number}", f"{trg} {number}") if number % 3 else (src, trg)
    for number, (src, trg) in enumerate(PAIRS * 150)
]


def altered(pairs, seed=1, held_out=frozenset(), **fields):
    kinds = {name: fields.pop(name) for name in list(fields) if name in KINDS}
    augmenter = Augmenter(corpus(".", augment=kinds, **fields), seed, set(held_out))
    rows = [row for batch in augmenter.batches([pairs]) for row in batch]
    return rows, augmenter.counts


def every(kind, pair, seeds=200):
    """What the kind makes of the pair, for many seeds."""
    return {getattr(augment, kind)(*pair, Random(seed)) for seed in range(seeds)} - {None}


@pytest.mark.parametrize(
    ("kind", "src", "trg"),
    [
        ("no_final_stop", "Tom lives in Berlin", "Tom wohnt in Berlin"),
        ("title_case", "Tom Lives In Berlin.", "Tom Wohnt In Berlin."),
        ("all_caps", "TOM LIVES IN BERLIN.", "TOM WOHNT IN BERLIN."),
        ("lower_case", "tom lives in berlin.", "Tom wohnt in Berlin."),
        ("copied", "Tom wohnt in Berlin.", "Tom wohnt in Berlin."),
        ("joined", "Tom lives in Berlin. a b", "Tom wohnt in Berlin. ä ö"),
    ],
)
def test_kinds_that_are_determined(kind, src, trg):
    rows, counts = altered([PAIRS[0], ("a b", "ä ö")], **{kind: 1.0})
    assert rows[0] == (src, trg)
    assert (
        counts[kind]
        == counts["pairs"]
        == sum(a != b for a, b in zip(rows, [PAIRS[0], ("a b", "ä ö")], strict=True))
    )


def test_case_leaves_what_is_no_prose():
    src, trg = "Save ${user} to C:\\Temp, foo_bar() or www.x.de – it's straße", "-teil {a b} ß"
    assert every("all_caps", (src, trg)) == {
        ("SAVE ${user} TO C:\\Temp, foo_bar() OR www.x.de – IT'S STRASSE", "-TEIL {a b} SS")
    }
    assert every("title_case", (src, trg)) == {
        ("Save ${user} To C:\\Temp, foo_bar() Or www.x.de – It's Straße", "-Teil {a b} Ss")
    }
    [(lower, same)] = every("lower_case", ("See getUserName in README.md, B2B, --F -G", "Siehe"))
    assert (lower, same) == ("see getUserName in README.md, B2B, --F -G", "Siehe")


def test_final_stops_that_stay():
    for pair in [("Wait...", "Warte..."), ("Why?", "Warum?"), ("Yes.", "Ja"), (".", "."), ("", "")]:
        assert augment.no_final_stop(*pair, Random(1)) is None
    assert augment.no_final_stop("Yes.", "Ja!", Random(1)) == ("Yes", "Ja")


def test_typos_are_in_long_words_of_the_source_alone():
    results = every("typos", ("It is a https://garden.com garden", "Garten"))
    assert len(results) > 20
    for src, trg in results:
        assert trg == "Garten"
        assert src.startswith("It is a https://garden.com ")
        assert abs(len(src) - len("It is a https://garden.com garden")) <= 1
    assert not every("typos", ("It is so 12", "Es ist so 12"))


@pytest.mark.parametrize("word", ["Straße", "aaaa", "ééàà", "KEYS", "letter"])
def test_misspelt_words_differ_by_a_letter_or_two(word):
    for seed in range(200):
        found = misspelt(word, Random(seed))
        assert found != word
        assert abs(len(found) - len(word)) <= 1
        different = sum((Counter(word) - Counter(found)).values())
        assert different <= 1


def test_shared_terms():
    assert shared_terms(*PAIRS[0]) == ["Berlin", "Tom"]
    assert shared_terms("It was 5 (in Rome), in 5", "Es war in (Rome)") == ["Rome"]
    assert shared_terms("Tom's Tom", "Tom war da") == []  # stands twice in the source
    assert shared_terms("Use {{ name here }} now", "Nun {{ name here }}") == []
    assert shared_terms("", "") == shared_terms("- — …", "- — …") == []


def test_swapped_terms_are_the_same_on_both_sides():
    results = every("swapped_terms", PAIRS[0], 500)
    assert len(results) > 300
    for src, trg in results:
        before = re.fullmatch(r"(.+) lives in (.+)\.", src)
        behind = re.fullmatch(r"(.+) wohnt in (.+)\.", trg)
        assert before
        assert behind
        assert before.groups() == behind.groups()
        assert before.groups().count("Tom") + before.groups().count("Berlin") == 1


def test_without_a_shared_term_half_get_an_addition():
    pair = ("We walked.", "Wir gingen.")
    results = [augment.swapped_terms(*pair, Random(seed)) for seed in range(1000)]
    assert 430 < sum(result is not None for result in results) < 570
    for src, trg in filter(None, results):
        assert src.replace("We walked.", "") == trg.replace("Wir gingen.", "")
        assert src.startswith("We walked. ") or src.endswith(" We walked.")


def test_generated_text_is_varied_and_clean():
    terms = [term_to_copy(Random(seed)) for seed in range(3000)]
    assert len(set(terms)) > 2000
    assert all(term == " ".join(term.split()) and term for term in terms)
    for pattern in (
        *(r"https?://\S+", r"[\w.+-]+@\w+\.[\w.]+", r"\{\w+\}", r"%s", r"\{\{ \w+ \}\}", r"\d+"),
        *(r"v?\d+\.\d+\.\d+", r"\d{4}-\d\d-\d\d", r"(~|\.)?(/\w+)+\.\w+", r"\w+(_\w+)+"),
        *(r"[#@]\w+", r"€\d+", r"<x id=\"\d\"/>", r"%\(\w+\)d", r"\$\{\w+\}", r"[^\w\s]{1,2}"),
    ):
        assert any(re.fullmatch(pattern, term) for term in terms), pattern
    assert addition_to_copy(Random(1)) == addition_to_copy(Random(1))


def test_tags_wrap_the_same_term():
    results = every("tags", PAIRS[0], 400)
    assert len(results) > 60
    for src, trg in results:
        assert src.replace("lives", "wohnt") == trg
        assert re.sub(r"</?[^<>]+>|[*_~`]+|\[|\]\(\S+\)", "", src) == PAIRS[0][0]
        assert src != PAIRS[0][0]


def test_quotes_are_the_same_on_both_sides():
    results = every("quotes", PAIRS[0], 400)
    assert len(results) > 25
    for src, trg in results:
        assert src.replace("lives", "wohnt") == trg
        assert re.sub("[\"'“”‘’„‚«»‹›]", "", src).strip().replace("  ", " ") in (
            *(PAIRS[0][0], " Tom  lives in Berlin.", "Tom lives in Berlin ."),
        )
    assert not every("quotes", ('He said "no"', "Er sagte nein"))


def test_dashes_and_ellipses_are_exchanged_on_both_sides():
    results = every("quotes", ("One - two", "Eins – zwei"))
    assert {("One – two", "Eins – zwei"), ("One — two", "Eins — zwei")} <= results
    results = every("quotes", ("Wait...", "Warte…"))
    assert ("Wait…", "Warte…") in results
    assert ("Wait...", "Warte...") not in results


def test_plain_sources_stay_plain():
    rows, counts = altered(MANY, quotes=1.0, plain_source=True)
    assert counts["quotes"] > 500
    for (src, trg), (new_src, new_trg) in zip(MANY, rows, strict=True):
        assert set(new_src) - set(src) <= {'"', "'"}
        assert set(new_trg) - set(trg) <= {'"', "'"}
    rows, _ = altered([("x", "„Nein“ – so…")], copied=1.0, plain_source=True)
    assert rows == [('"Nein" - so...',) * 2]


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_keep_what_they_share(kind):
    """Digits and what is no prose differ between the sides as they did, whatever is altered."""

    def difference(pair):
        counts = []
        for side in pair:
            kept = [piece.rstrip(".,!?") for piece in pieces(side)[1::2]]
            counts.append(Counter(re.findall(r"\d", side)) + Counter(kept))
        return counts[0] - counts[1], counts[1] - counts[0]

    pairs = [pair for pair in MANY if difference(pair) == ({}, {})]
    assert len(pairs) > 1500
    rows, counts = altered(pairs, **{kind: 1.0})
    assert counts[kind] > 100
    for before, after in zip(pairs, rows, strict=True):
        digits = [Counter(re.findall(r"\d", side)) for side in after]
        assert digits[0] == digits[1], (before, after)
        if kind not in ("tags", "quotes", "swapped_terms"):  # marks stick to the tokens
            assert difference(after) == ({}, {}), (before, after)
        assert all(side and "  " not in side for side in after)


@pytest.mark.parametrize("kind", KINDS)
def test_rates(kind):
    pairs = [(f"Tom reads book {n}.", f"Tom liest Buch {n}.") for n in range(2000)]
    rows, counts = altered(pairs, **{kind: 0.2})
    assert counts == {"pairs": counts[kind], kind: pytest.approx(400, abs=60)}
    changed = sum(before != after for before, after in zip(pairs, rows, strict=True))
    assert changed == counts["pairs"]


def test_rates_together():
    pairs = [(f"Tom reads book {n}.", f"Tom liest Buch {n}.") for n in range(4000)]
    _, counts = altered(pairs, **dict.fromkeys(KINDS, 0.05))
    for kind in KINDS:
        assert counts[kind] == pytest.approx(200, abs=50), kind
    assert counts["pairs"] == pytest.approx(4000 * (1 - 0.95**7 * 0.85), abs=130)


def test_a_pair_gets_few_kinds_and_one_case():
    config = AugmentConfig(**dict.fromkeys(KINDS, 0.33))
    drawn = [kinds for _, kinds, _ in augment.draws(config, 1, 0, 3000)]
    assert max(map(len, drawn)) == 3
    assert max(len(set(kinds) & set(augment.CASES)) for kinds in drawn) == 1
    with pytest.raises(ValueError, match="may be 1 together"):
        AugmentConfig(title_case=0.6, all_caps=0.6)


def test_batches_do_not_matter_and_seeds_do():
    kinds = dict.fromkeys(KINDS, 0.1)
    whole, counts = altered(MANY, **kinds)
    for size in (1, 7, 500):
        augmenter = Augmenter(corpus(".", augment=kinds), 1, set())
        parts = [MANY[start : start + size] for start in range(0, len(MANY), size)]
        assert [row for batch in augmenter.batches([[], *parts, []]) for row in batch] == whole
        assert augmenter.counts == counts
    assert altered(MANY, seed=2, **kinds)[0] != whole
    assert altered(MANY, **dict.fromkeys(KINDS, 0.0)) == (MANY, {"pairs": 0})


def test_odd_pairs_of_any_script_never_fail():
    generator = random.Random(5)
    alphabet = "aZéßǆİıñ .!…-–\"'“{}<>%$@#/\\_09🙂漢ا́\u200d"
    pairs = [
        tuple("".join(generator.choices(alphabet, k=generator.randrange(14))) for _ in range(2))
        for _ in range(3000)
    ]
    for kind in KINDS:
        assert len(altered(pairs, **{kind: 1.0})[0]) == len(pairs)
    assert altered([], joined=1.0) == ([], {"pairs": 0, "joined": 0})


def test_longest_pairs_and_source_alone_stay():
    alone = [("Some text.", None), ("Tom is here.", "Tom ist da."), ("More.", None)]
    rows, counts = altered(alone, joined=1.0, swapped_terms=1.0)
    assert rows[0] == alone[0]
    assert rows[2] == alone[2]
    assert counts == {"pairs": 1, "joined": 0, "swapped_terms": 1}
    rows, _ = altered(MANY, clean={"max_chars": 40}, **dict.fromkeys(KINDS, 0.3))
    for before, after in zip(MANY, rows, strict=True):
        assert after == before or max(map(len, after)) <= 40


def test_an_altered_pair_is_never_held_out_text():
    pairs = [("One.", "Eins."), ("Two.", "Zwei."), ("Three.", "Drei.")]
    rows, counts = altered(pairs, joined=1.0, held_out=held_out_keys(["one: two"]))
    assert rows == [pairs[0], ("Two. Three.", "Zwei. Drei."), pairs[2]]
    assert counts == {"pairs": 1, "joined": 1}


@pytest.mark.parametrize("shard_pairs", [7, 1000])
def test_prepared_text(folder, shard_pairs, monkeypatch):  # noqa: F811
    write(folder, "many", [(f"Tom reads book {n}.", f"Tom liest Buch {n}.") for n in range(50)])
    fields = {"train": [plain("many")], "shard_pairs": shard_pairs}
    _, before, clear = prepared(folder, **fields)
    held_out = {path.name: path.read_bytes() for path in (folder / "out").glob("*.arrow")}
    kinds = {"all_caps": 0.5, "joined": 0.3, "typos": 0.2}
    out, report, pairs = prepared(folder, augment=kinds, **fields)
    assert pairs == altered(clear, **kinds)[0] != clear
    assert {path.name: path.read_bytes() for path in out.glob("*.arrow")} == held_out
    assert list(read_pairs(out / "test.flickr.arrow")) == [("Only tested.", "Nur gemessen.")]
    counts = report["augmented"]
    assert counts == altered(clear, **kinds)[1]
    assert report["train"]["src_chars"] == sum(len(src) for src, _ in pairs)
    assert render_report(report).splitlines()[-1] == (
        f"altered: {counts['pairs']} pairs (joined {counts['joined']}, typos {counts['typos']}, "
        f"all_caps {counts['all_caps']})"
    )
    assert "augmented" not in before
    monkeypatch.setattr("training.data.prepare.BATCH_PAIRS", 3)
    assert prepared(folder, augment=kinds, **fields) == (out, report, pairs)


def test_the_section_and_then_the_seed_make_the_text_again(tmp_path):
    def prepare_stage(*settings):
        stages = build_stages(Run(load_recipe(TINY, list(settings)), tmp_path))
        return fingerprint(stages["prepare"], stages)

    assert prepare_stage() == prepare_stage("seed=2") == prepare_stage("corpus.augment.tags=0")
    few = prepare_stage("corpus.augment.tags=0.1")
    assert len({prepare_stage(), few, prepare_stage("corpus.augment={tags: 0.1}", "seed=2")}) == 3
    assert few != prepare_stage("corpus.augment.tags=0.2")
