"""Test sets of several domains: read, scored apart, shown, compared, written into a card."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.cli import _domains
from benchmarks.domains import bleu_by_domain, bundle_record, write_to_card
from benchmarks.plan import BenchRequest, DomainFiles, make_text, plan_bundle
from benchmarks.quality import length_ratio, quality_rows, score
from benchmarks.report import BEGIN, END, compare_results, update_page, write_report
from benchmarks.results import (
    Quality,
    Results,
    ResultsError,
    ScoreRecord,
    TextRecord,
    load_results,
    save_results,
)
from benchmarks.systems.base import IMPORTED
from benchmarks.systems.ours import bundle_systems
from benchmarks.tables import domain_difference_table, domain_table
from benchmarks.targets import conclusions
from export.cli import bundle_app
from export.metrics import statistics_of
from export.runtime.bundle import Bundle, load_bundle
from export.runtime.manifest import BundleInfo, Origin
from quickstudy.cli import app
from tests.benchmarks import bench_results as made
from tests.export import tiny

ROOT = Path(__file__).parents[2]
STUDENT, OTHER = made.STUDENT, "firefox onnx-int8"
BLEU, CHRF = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0", "nrefs:1|nc:6"
SCORES = {
    (STUDENT, "medicine"): (31.5, 55.25, 0.97),
    (STUDENT, "law"): (22.25, 44.5, 0.88),
    (OTHER, "medicine"): (28.75, 51.5, 1.01),
    (OTHER, "law"): (35.5, 61.75, 1.02),
}
"""BLEU, chrF2 and length, no two alike, so that none can stand in another's place unnoticed."""


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.train_tokenizer(tmp_path_factory.mktemp("domains") / "tokenizer.model")


@pytest.fixture
def bundle(tmp_path: Path, tokenizer_path: Path) -> Bundle:
    model = tiny.random_model(tiny.tokenizer_of(tokenizer_path).get_piece_size())
    return tiny.make_bundle(
        tmp_path / "tiny", tokenizer_path, model=model, engines=["ctranslate2-int8"]
    )


def files(folder: Path, name: str, lines: list[str], refs: list[str] | None = None) -> DomainFiles:
    """The test set of a domain, on disk; its references packed."""
    src, ref = folder / f"{name}.en", folder / f"{name}.de.gz"
    src.write_text("".join(f"{line}\n" for line in lines))
    with gzip.open(ref, "wt") as file:
        file.writelines(f"{line}\n" for line in (lines if refs is None else refs))
    return DomainFiles(name, src, ref)


# --- what is given --------------------------------------------------------------------------------


def test_domains_are_given_by_name() -> None:
    found = _domains(["my medicine=a.en,a.de.gz", "law=x/b.en,b.de"])
    assert found == (
        DomainFiles("my medicine", Path("a.en"), Path("a.de.gz")),
        DomainFiles("law", Path("x/b.en"), Path("b.de")),
    )
    for text in ("law", "law=a.en", "=a.en,a.de", "law=a.en,", "law=a.en,b.en,c.en"):
        with pytest.raises(typer.BadParameter, match="give a name, the file of the sentences"):
            _domains([text])
    with pytest.raises(typer.BadParameter, match="'law' is there twice"):
        _domains(["law=a,b", "law=c,d"])
    for name in ("x" * 61, "a\tb"):
        with pytest.raises(typer.BadParameter, match="60 visible characters"):
            _domains([f"{name}=a,b"])


def test_all_that_is_wrong_with_domains_is_said_before_anything_runs(
    bundle: Bundle, tmp_path: Path
) -> None:
    good = files(tmp_path, "good", ["a dog.", "a cat."])
    gap = files(tmp_path, "gap", ["a dog.", "a cat."], ["a dog.", " "])
    cut = files(tmp_path, "cut", ["a dog."] * 500)
    cut.ref.write_bytes(cut.ref.read_bytes()[:-12])
    domains = (
        good,
        DomainFiles("missing", tmp_path / "none.en", good.ref),
        files(tmp_path, "uneven", ["a dog.", "a cat."], ["a dog."]),
        files(tmp_path, "empty", []),
        gap,
        DomainFiles("again", good.src, good.ref),
        cut,
    )
    with pytest.raises(ResultsError) as caught:
        plan_bundle(bundle.path, BenchRequest(domains=domains), tmp_path / "work")
    said = str(caught.value).splitlines()
    assert len(said) == 6
    assert said[0] == f"--domain missing: there is no file {tmp_path / 'none.en'}"
    assert "--domain uneven: " in said[1]
    assert "has 2 lines and" in said[1]
    assert (
        said[2] == f"--domain empty: {tmp_path / 'empty.en'} is empty: give sentences, one a line"
    )
    assert said[3].startswith(f"--domain gap: line 2 of {gap.ref} is empty")
    assert said[4].startswith("--domain again: the same text as domain good")
    assert said[5].startswith("--domain cut: ")
    assert not (tmp_path / "work").exists()


def test_the_first_domain_is_timed_where_nothing_else_was_given(
    bundle: Bundle, tmp_path: Path
) -> None:
    law = files(tmp_path, "law", ["a man rides.", "the dog rides.", "a cat."])
    medicine = files(tmp_path, "medicine", ["an old man.", "the red bike."])
    request = BenchRequest(beams=(1,), domains=(law, medicine))
    texts = plan_bundle(bundle.path, request, tmp_path).texts
    assert [(text.name, len(text.sources), text.domain) for text in texts] == [
        ("law", 3, True),
        ("medicine", 2, True),
    ]
    assert texts[1].about().domain
    main = files(tmp_path, "main", ["a street."])
    both = replace(request, src=main.src, ref=main.ref)
    texts = plan_bundle(bundle.path, both, tmp_path).texts
    assert [(text.name, text.domain) for text in texts] == [
        ("main.en", False),
        ("law", True),
        ("medicine", True),
    ]
    clash = replace(both, domains=(replace(law, name="main.en"),))
    with pytest.raises(ResultsError, match=r"--domain main\.en: there is another test set"):
        plan_bundle(bundle.path, clash, tmp_path)


# --- scores ---------------------------------------------------------------------------------------


def test_domains_are_scored_apart(tokenizer_path: Path) -> None:
    """The shipped system is perfect in law, the other in medicine, each where the other fails."""
    tokenizer = tiny.tokenizer_of(tokenizer_path)
    rarity = np.ones(tokenizer.get_piece_size())
    lines = {"law": tiny.sentences()[:20], "medicine": tiny.sentences()[20:40]}
    law, medicine = (
        make_text(name, [(line, line) for line in some], tokenizer, rarity)
        for name, some in lines.items()
    )
    poor = {name: [f"{line[:9]} x y" for line in some] for name, some in lines.items()}
    rows = quality_rows(
        [
            score(STUDENT, law, lines["law"]),
            score(STUDENT, medicine, poor["medicine"]),
            score(OTHER, law, poor["law"]),
            score(OTHER, medicine, lines["medicine"]),
        ],
        None,
        STUDENT,
    )
    found = {(row.system, row.text): row for row in rows}
    assert found[STUDENT, "law"].scores[0].score == pytest.approx(100)
    assert found[OTHER, "medicine"].scores[0].score == pytest.approx(100)
    assert found[STUDENT, "medicine"].scores[0].score < 50 > found[OTHER, "law"].scores[0].score
    assert found[STUDENT, "law"].less_shipped is None
    worse, better = found[OTHER, "law"].less_shipped, found[OTHER, "medicine"].less_shipped
    assert worse is not None
    assert better is not None
    assert worse.low <= worse.difference <= worse.high < -50
    assert 50 < better.low <= better.difference <= better.high
    assert worse.difference == pytest.approx(found[OTHER, "law"].scores[0].score - 100, abs=0.02)
    assert max(worse.p_value, better.p_value) < 0.05


def test_the_length_ratio_by_hand() -> None:
    """Four and two tokens, the full stop counted, over three each."""
    hypotheses, references = ["a dog barks.", "dog."], ["a dog.", "a dog."]
    assert length_ratio(statistics_of(hypotheses, references)) == 1
    assert length_ratio(statistics_of(["dog."], ["a dog."])) == 0.667
    assert length_ratio(statistics_of(["dog."], [""])) is None


# --- report and comparison ------------------------------------------------------------------------


def text(name: str, digit: str, domain: bool = True) -> TextRecord:
    return TextRecord(
        name=name,
        sentences=40 if domain else 41,
        source_tokens=400,
        source_words=320,
        sha256=digit * 64,
        domain=domain,
    )


def row(system: str, name: str) -> Quality:
    bleu, chrf, length = SCORES[system, name]
    scores = (
        ScoreRecord(metric="BLEU", score=bleu, low=bleu - 1, high=bleu + 1, signature=BLEU),
        ScoreRecord(metric="chrF2", score=chrf, low=chrf - 1, high=chrf + 1, signature=CHRF),
    )
    base = made.quality(system, made.GOOD)
    return base.model_copy(update={"text": name, "scores": scores, "length_ratio": length})


def results(**changed: Any) -> Results:
    """A student and an imported baseline on two domains, and on a text that is none."""
    fields: dict[str, Any] = {
        "systems": (
            made.system(STUDENT, "student", "CTranslate2", 1),
            made.system(OTHER, "baseline", "ONNX Runtime", 1),
        ),
        "texts": (text("toy", "a", domain=False), text("medicine", "b"), text("law", "c")),
        "quality": (made.quality(STUDENT, made.GOOD), *(row(*key) for key in SCORES)),
        "speed": (),
        "ratios": (),
        "latency": (),
        "cost": (),
    }
    return made.results(**{**fields, **changed})


def test_the_table_has_every_system_on_every_domain() -> None:
    table = domain_table(results())
    of_each = [[f"{name}: BLEU", "chrF2", "length"] for name in ("medicine", "law")]
    assert table.head == ["system", *of_each[0], *of_each[1]]
    assert table.rows == [
        [STUDENT, "31.50", "55.25", "0.970", "22.25", "44.50", "0.880"],
        [OTHER, "28.75", "51.50", "1.010", "35.50", "61.75", "1.020"],
    ]
    assert BLEU in table.note
    assert "medicine 40, law 40" in table.note
    without = tuple(one for one in results().quality if (one.system, one.text) != (OTHER, "law"))
    assert domain_table(results(quality=without)).rows[1][4:] == ["–", "–", "–"]
    assert not domain_table(made.results()).rows
    assert not domain_difference_table(results()).rows


def test_the_report_shows_domains_in_a_table_and_a_picture(tmp_path: Path) -> None:
    page = write_report(results(), tmp_path).read_text()
    markdown = (tmp_path / "results.md").read_text()
    assert "![BLEU by domain](results-domains.svg)" in markdown
    assert page.count("<h2>BLEU by domain</h2>") == 1
    for shown in (page, markdown):
        assert "Quality by domain" in shown
        assert "35.50" in shown
    drawn = (tmp_path / "results-domains.svg").read_text()
    ElementTree.fromstring(drawn)
    for (system, name), (bleu, *_) in SCORES.items():
        assert f"<title>{system}, {name}: {bleu:.2f} BLEU</title>" in drawn
    assert "url(" not in drawn
    assert drawn.strip() == bleu_by_domain(results())
    write_report(made.results(), tmp_path / "without")
    assert not (tmp_path / "without" / "results-domains.svg").exists()


def test_the_conclusions_name_every_domain() -> None:
    said = conclusions(results())
    assert "The shipped student's BLEU by domain: 31.5 on medicine, 22.2 on law." in said
    assert sum("medicine" in line for line in said) == 1


def test_names_of_domains_are_escaped(tmp_path: Path) -> None:
    odd = "<b>$x$ & |"
    renamed = text(odd, "b")
    quality = row(STUDENT, "medicine").model_copy(update={"text": odd})
    found = results(texts=(renamed,), quality=(quality,), timed_text=odd)
    page = write_report(found, tmp_path).read_text()
    assert "<b>" not in page
    ElementTree.fromstring((tmp_path / "results-domains.svg").read_text())
    assert "$x$" in (tmp_path / "results-domains.svg").read_text()


def test_the_readme_shows_domains_too(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"{BEGIN}{END}")
    timed = results(speed=(made.speed(STUDENT, [400.0, 404.0]),))
    update_page(timed, page, tmp_path / "docs" / "bench.svg")
    assert "![BLEU by domain](docs/bench-domains.svg)" in page.read_text()
    assert "| 22.25 | 44.50 | 0.880 |" in page.read_text()
    assert (tmp_path / "docs" / "bench-domains.svg").read_text().startswith("<svg")


def test_domains_are_compared_where_both_have_them() -> None:
    bad = made.quality(STUDENT, made.BAD).model_copy(update={"text": "law"})
    worse = results(quality=(row(STUDENT, "medicine"), bad))
    found = compare_results(results(), worse, 0.1, 0.5)
    assert [one.figure for one in found.changes] == ["BLEU, domain medicine", "BLEU, domain law"]
    assert [one.figure for one in found.regressions] == ["BLEU, domain law"]
    assert not [note for note in found.notes if note.startswith("Domain")]
    other = results(texts=(text("medicine", "f"), text("news", "d")))
    found = compare_results(results(), other, 0.1, 0.5)
    assert not found.changes
    notes = [note for note in found.notes if note.startswith("Domain")]
    assert notes == [
        "Domain law: only before.",
        "Domain medicine: another text after than before, so it is not compared.",
        "Domain news: only after.",
    ]


def test_results_of_the_first_format_are_read_and_compared(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    tree = json.loads(results().model_dump_json())
    tree["format_version"] = 1
    del tree["bundle"]
    for record in tree["texts"]:
        del record["domain"]
    for record in tree["quality"]:
        del record["length_ratio"], record["less_shipped"]
    old.write_text(json.dumps(tree))
    loaded = load_results(old)
    assert (loaded.format_version, loaded.domains, loaded.bundle) == (2, (), None)
    # The first format knew no domains, but several test sets: the same text is compared.
    figures = {one.figure for one in compare_results(loaded, results(), 0.1, 0.5).changes}
    assert {"BLEU, toy", "BLEU, domain law", "BLEU, domain medicine"} == figures
    tree["format_version"] = 3
    old.write_text(json.dumps(tree))
    with pytest.raises(ResultsError, match="format_version is 3, this quickstudy reads 1 to 2"):
        load_results(old)


def test_the_results_in_the_repository_are_read() -> None:
    shipped = load_results(ROOT / "benchmarks/results/bench-en-de/results.json")
    assert shipped.quality[0].score("BLEU") == shipped.quality[0].scores[0]


# --- the card -------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_card_gets_the_figures_of_each_domain(bundle: Bundle, tmp_path: Path) -> None:
    before = snapshot(bundle.path)
    path = tmp_path / "results.json"
    save_results(results(bundle=bundle_record(bundle)), path)
    done = CliRunner().invoke(app, ["bench", "card", str(path), str(bundle.path)])
    assert done.exit_code == 0, done.output
    assert "quality by domain: medicine, law" in done.output
    written = load_bundle(bundle.path)
    found = {
        (one.system, domain.name): (one.bleu, one.chrf2, one.length_ratio)
        for domain in written.manifest.domains
        for one in domain.scores
    }
    assert found == SCORES
    assert [domain.text_sha256 for domain in written.manifest.domains] == ["b" * 64, "c" * 64]
    assert [domain.bleu_signature for domain in written.manifest.domains] == [BLEU, BLEU]
    card = (bundle.path / "README.md").read_text()
    assert f"| law (40) | {OTHER} | ONNX Runtime | float32 | greedy | 35.50 (34.50–36.50)" in card
    assert f"`{BLEU}`" in card
    assert "Not evaluated yet" not in card
    after = snapshot(bundle.path)
    assert {name for name in after if after[name] != before.get(name)} == {
        "manifest.json",
        "README.md",
    }
    shown = CliRunner().invoke(bundle_app, ["inspect", str(bundle.path)], env={"COLUMNS": "200"})
    (line,) = [one for one in shown.stdout.splitlines() if OTHER in one and "law" in one]
    assert line.split()[-3:] == ["35.50", "61.75", "1.020"]


def test_the_card_shows_the_systems_that_were_chosen(bundle: Bundle) -> None:
    found = results(bundle=bundle_record(bundle))
    write_to_card(found, bundle.path)
    again = write_to_card(found, bundle.path, ["student*"]).manifest
    assert [[one.system for one in domain.scores] for domain in again.domains] == [[STUDENT]] * 2
    with pytest.raises(ResultsError, match="--only marian: no system fits"):
        write_to_card(found, bundle.path, ["marian"])


def test_figures_of_something_else_are_kept_out_of_the_card(
    bundle: Bundle, tmp_path: Path, tokenizer_path: Path
) -> None:
    before = snapshot(bundle.path)
    own = bundle_record(bundle)
    model = tiny.random_model(tiny.tokenizer_of(tokenizer_path).get_piece_size(), seed=12)
    other = tiny.make_bundle(
        tmp_path / "other", tokenizer_path, model=model, engines=["ctranslate2-int8"]
    )
    quick = results().settings.model_copy(update={"quick": True})
    for changed, advice in (
        ({"bundle": None}, "do not say which bundle"),
        ({"bundle": bundle_record(other)}, "has other files: measure it"),
        ({"bundle": own, "settings": quick}, "without --quick"),
        ({"bundle": own, "texts": (text("toy", "a", domain=False),)}, "have no domains"),
        ({"bundle": own, "quality": (row(OTHER, "law"),)}, f"{STUDENT} was not scored on"),
    ):
        with pytest.raises(ResultsError, match=advice):
            write_to_card(results(**changed), bundle.path)
    assert snapshot(bundle.path) == before


def test_what_names_a_baseline_is_said_beside_it(bundle: Bundle) -> None:
    (own,) = bundle_systems(bundle, (1,), "baseline", "former")
    assert (own.info.name, own.info.note) == ("former ctranslate2-int8", "tiny, version 1")
    origin = Origin(format="firefox", name="en-de \x1b base", files={})
    manifest = bundle.manifest.model_copy(update={"origin": origin, "recipe": None})
    assert set(BundleInfo.model_fields) <= set(type(manifest).model_fields)
    (theirs,) = bundle_systems(Bundle(bundle.path, manifest), (1,), "baseline", "firefox")
    assert theirs.info.note == "tiny, version 1, imported (en-de \\x1b base)"
    assert IMPORTED not in theirs.info.name


# --- the whole ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bundle_and_a_baseline_on_two_domains(bundle: Bundle, tmp_path: Path) -> None:
    law = files(tmp_path, "law", tiny.sentences()[:6])
    medicine = files(tmp_path, "medicine", tiny.sentences()[6:14])
    command = ["bench", str(bundle.path), "--out", str(tmp_path / "out"), "--parts", "quality"]
    command += ["--peers", "none", "--beams", "1", "--only", "former *"]
    command += ["--baseline", f"former={bundle.path}"]
    for one in (law, medicine):
        command += ["--domain", f"{one.name}={one.src},{one.ref}"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "Quality by domain" in done.output
    found = load_results(tmp_path / "out" / "results.json")
    assert [(one.name, one.sentences, one.domain) for one in found.texts] == [
        ("law", 6, True),
        ("medicine", 8, True),
    ]
    assert found.timed_text == "law"
    shipped = found.main_system
    assert shipped.startswith(STUDENT)
    formers = [one.name for one in found.systems if one.role == "baseline"]
    assert [(one.system, one.text) for one in found.quality] == [
        (system, name) for system in (shipped, *formers) for name in ("law", "medicine")
    ]
    systems = (shipped, shipped.replace("student", "former"))
    for name in ("law", "medicine"):
        own, same = (found.quality_of(system, name) for system in systems)
        assert own is not None
        assert same is not None
        assert own.scores == same.scores
        assert same.less_shipped is not None
        assert (same.less_shipped.difference, own.less_shipped) == (0, None)
    card = ["bench", "card", str(tmp_path / "out" / "results.json"), str(bundle.path)]
    assert CliRunner().invoke(app, card).exit_code == 0
    assert [one.sentences for one in load_bundle(bundle.path).manifest.domains] == [6, 8]
