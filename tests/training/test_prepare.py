"""The prepared folder: what is kept, in which order, and what the report says."""

import json
import random
import shutil

import pyarrow as pa
import pytest

from tests.training.test_readers import corpus
from training.data.cleaning import noisy
from training.data.prepare import (
    CorpusError,
    prepare,
    read_pairs,
    read_rows,
    render_report,
    train_shards,
)

PLAIN = {"src": "val.en", "trg": "val.de"}


def write(folder, name, pairs):
    for side, ending in enumerate(("en", "de")):
        (folder / f"{name}.{ending}").write_bytes(
            b"".join(
                (pair[side] if isinstance(pair[side], bytes) else pair[side].encode()) + b"\n"
                for pair in pairs
            )
        )


def plain(name, **fields):
    return {"src": f"{name}.en", "trg": f"{name}.de"} | fields


@pytest.fixture
def folder(tmp_path):
    write(
        tmp_path,
        "val",
        [("A held-out line.", " Eine  Zeile. "), ("Same.", "Gleich."), ("Same.", "Gleich.")],
    )
    write(tmp_path, "test", [("Only tested.", "Nur gemessen.")])
    write(
        tmp_path,
        "one",
        [
            ("first", "erster"),
            ("", "leer"),
            ("second", "zweiter"),
            ("first ", "erster"),
            (b"\xff", "kaputt"),
            ("a held-out line", "anders"),
            ("bell\x07", "Glocke"),
        ],
    )
    write(
        tmp_path, "two", [("second", "zweiter"), ("third", "dritter"), ("other", "nur gemessen!")]
    )
    return tmp_path


def prepared(folder, **fields):
    fields = {"train": [plain("one"), plain("two")], "test": {"flickr": plain("test")}} | fields
    out = folder / "out"
    report = prepare(corpus(folder, **fields), out)
    pairs = [pair for shard in train_shards(out) for pair in read_pairs(shard)]
    return out, report, pairs


def test_kept_pairs_in_order_and_counts(folder):
    out, report, pairs = prepared(folder)
    assert pairs == [("first", "erster"), ("second", "zweiter"), ("third", "dritter")]
    one = {"invalid_utf8": 1, "malformed": 0, "empty": 1, "too_long": 0, "length_ratio": 0}
    one |= {"control_characters": 1, "equal_sides": 0, "overlap": 1, "duplicate": 1}
    two = dict.fromkeys(one, 0) | {"overlap": 1, "duplicate": 1}
    assert report["sources"] == [
        {"name": "one.en | one.de", "read": 7, "kept": 2, "dropped": one},
        {"name": "two.en | two.de", "read": 3, "kept": 1, "dropped": two},
    ]
    total = {name: one[name] + two[name] for name in one}
    assert report["train"] == {"read": 10, "kept": 3, "dropped": total} | {
        "shards": 1,
        "src_chars": len("firstsecondthird"),
        "trg_chars": len("ersterzweiterdritter"),
    }
    assert json.loads((out / "report.json").read_text()) == report
    assert sorted(path.name for path in out.iterdir()) == [
        *("report.json", "test.flickr.arrow", "train", "validation.arrow")
    ]


def test_pairs_with_equal_sides_are_dropped_unless_they_are_made_on_purpose(folder):
    lines = [(f"we saw {n} dogs there", f"we  saw {n} dogs there") for n in range(3)]
    write(folder, "equal", [*lines, ("we saw them", "wir sahen sie")])
    _, report, pairs = prepared(folder, train=[plain("equal")])
    assert report["train"]["dropped"]["equal_sides"] == 3
    assert pairs == [("we saw them", "wir sahen sie")]
    shutil.rmtree(folder / "out")
    clean = {"drop_equal": False}
    assert len(prepared(folder, train=[plain("equal")], clean=clean)[2]) == 4
    shutil.rmtree(folder / "out")
    _, report, pairs = prepared(folder, train=[plain("equal")], augment={"copied": 1.0})
    assert pairs == [("wir sahen sie", "wir sahen sie")]


def test_notes_of_a_table_are_in_the_report(folder):
    (folder / "a.tsv").write_text('source\ttarget\n"we"\t"wir"\n"you"\t"ihr"\n')
    _, report, pairs = prepared(folder, train=[{"path": "a.tsv"}])
    assert pairs == [("we", "wir"), ("you", "ihr")]
    assert len(report["sources"][0]["notes"]) == 2
    assert "a.tsv: its first line is a header" in render_report(report)


def test_held_out_text_keeps_every_line(folder):
    out, report, _ = prepared(folder)
    assert list(read_pairs(out / "validation.arrow")) == [
        *[("A held-out line.", "Eine  Zeile."), ("Same.", "Gleich."), ("Same.", "Gleich.")]
    ]
    assert list(read_pairs(out / "test.flickr.arrow")) == [("Only tested.", "Nur gemessen.")]
    assert report["validation"] == {"name": "val.en | val.de", "pairs": 3}
    assert report["test"] == {"flickr": {"name": "test.en | test.de", "pairs": 1}}


@pytest.mark.parametrize("shard_pairs", [1, 2, 3, 100])
def test_shards_and_running_numbers(folder, shard_pairs):
    write(folder, "many", [(f"s{number}", f"t{number}") for number in range(7)])
    out, report, pairs = prepared(folder, train=[plain("many")], shard_pairs=shard_pairs)
    assert pairs == [(f"s{number}", f"t{number}") for number in range(7)]
    shards = train_shards(out)
    assert [shard.name for shard in shards] == [f"{n:05}.arrow" for n in range(len(shards))]
    assert report["train"]["shards"] == len(shards) == -(-7 // shard_pairs)
    tables = [pa.ipc.open_file(pa.memory_map(str(shard))).read_all() for shard in shards]
    assert [len(table) for table in tables[:-1]] == [shard_pairs] * (len(tables) - 1)
    assert [number for table in tables for number in table["id"].to_pylist()] == list(range(7))
    assert {str(table.schema) for table in tables} == {"id: int64\nsrc: string\ntrg: string"}


def test_batches_do_not_change_the_result(folder, monkeypatch):
    out, report, pairs = prepared(folder, shard_pairs=2)
    monkeypatch.setattr("training.data.prepare.BATCH_PAIRS", 2)
    assert prepared(folder, shard_pairs=2) == (out, report, pairs)


@pytest.mark.parametrize("shard_pairs", [3, 100])
def test_noise_is_on_sources_alone_and_does_not_depend_on_shards(folder, shard_pairs):
    lines = [(f"one two three four {number}", f"eins zwei drei {number}") for number in range(20)]
    write(folder, "many", lines)
    settings = {"train": [plain("many")], "shard_pairs": shard_pairs}
    out, _, pairs = prepared(folder, noise=0.5, **settings)
    assert [trg for _, trg in pairs] == [trg for _, trg in lines]
    assert sum(src != clear for (src, _), (clear, _) in zip(pairs, lines, strict=True)) > 10
    assert pairs == [
        (noisy(src, 0.5, random.Random(f"train {number}")), trg)
        for number, (src, trg) in enumerate(lines)
    ]
    (src, trg), *_ = read_pairs(out / "validation.arrow")
    assert trg == "Eine  Zeile."
    assert src == noisy("A held-out line.", 0.5, random.Random("validation 0"))


@pytest.mark.parametrize("first", [True, False])
def test_source_text_alone_is_cleaned_by_its_source(folder, first):
    lines = ["new", "", "first", "A held-out line", "new", "bell\x07", "x" * 1001, "last"]
    (folder / "mono.en").write_text("".join(f"{line}\n" for line in lines))
    mono = {"src": "mono.en", "trg": None}
    sources = [mono, plain("one")] if first else [plain("one"), mono]
    out, report, pairs = prepared(folder, train=sources)
    parallel = [("first", "erster"), ("second", "zweiter")]
    assert pairs == parallel
    rows = [row for shard in train_shards(out) for row in read_rows(shard)]
    alone = [("new", None), ("last", None)]
    assert rows == (alone + parallel if first else parallel + alone)
    part = next(part for part in report["sources"] if part["name"] == "mono.en")
    assert part["monolingual"]
    counts = {"empty": 1, "too_long": 1, "control_characters": 1, "overlap": 1, "duplicate": 2}
    assert {name: count for name, count in part["dropped"].items() if count} == counts
    assert report["train"]["trg_chars"] == len("ersterzweiter")
    assert "mono.en (source only)" in render_report(report)
    assert "1 shard(s), 2 lines source only; held out" in render_report(report)


def test_held_out_text_needs_both_sides(folder):
    for name in ("validation", "test"):
        source = {"src": "test.en", "trg": None}
        fields = {name: source if name == "validation" else {"flickr": source}}
        with pytest.raises(ValueError, match=rf"{name}.*: held-out text needs its target side"):
            corpus(folder, **fields)


def test_plain_sources_are_plain_in_training_and_held_out_text(folder):
    write(folder, "quotes", [("It’s “plain”.", "Es ist „schlicht“.")])
    fields = {"train": [plain("quotes")], "test": {"same": plain("quotes")}}
    rules = {"clean": {"drop_overlap": False}}
    expected = [('It\'s "plain".', "Es ist „schlicht“.")]
    out, _, pairs = prepared(folder, **fields, **rules, plain_source=True)
    assert pairs == expected
    assert list(read_pairs(out / "test.same.arrow")) == expected
    _, _, pairs = prepared(folder, **fields, **rules)
    assert pairs == [("It’s “plain”.", "Es ist „schlicht“.")]


def test_duplicates_may_stay(folder):
    _, report, pairs = prepared(folder, clean={"drop_duplicates": False})
    assert [src for src, _ in pairs] == ["first", "second", "first", "second", "third"]
    assert "duplicate" not in report["train"]["dropped"]


def test_progress_and_limit(folder):
    calls = []
    fields = {"train": [plain("one", limit=3), plain("two")]}
    report = prepare(corpus(folder, **fields), folder / "out", calls.append)
    assert calls == [3, 6]
    assert report["sources"][0]["read"] == 3


def test_a_failure_leaves_the_former_corpus(folder):
    out, _, pairs = prepared(folder)
    write(folder, "two", [("x", "y")])
    with (folder / "two.de").open("a") as file:
        file.write("one more\n")
    with pytest.raises(CorpusError, match=r"two\.en has 1 lines and .*two\.de 2"):
        prepared(folder)
    assert [pair for shard in train_shards(out) for pair in read_pairs(shard)] == pairs
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_nothing_kept_names_the_rule(folder):
    write(folder, "long", [("x" * 50, "y" * 50), ("x" * 60, "y" * 60), ("", "")])
    with pytest.raises(CorpusError, match=r"left of 3 read; the rule `too_long` dropped 2"):
        prepared(folder, train=[plain("long")], clean={"max_chars": 10})
    write(folder, "none", [])
    with pytest.raises(CorpusError, match="left of 0 read; look at"):
        prepared(folder, train=[plain("none")])


@pytest.mark.parametrize(
    ("pair", "fault"), [(("x", " \u2003"), "empty"), ((b"\xc3", "x"), "invalid_utf8")]
)
def test_faults_of_held_out_text_are_errors(folder, pair, fault):
    write(folder, "test", [("fine", "gut"), pair])
    with pytest.raises(CorpusError, match=rf"test\.en \| test\.de: pair 2 is {fault}"):
        prepared(folder)
    write(folder, "test", [])
    with pytest.raises(CorpusError, match=r"no pairs in test\.flickr text"):
        prepared(folder)


def test_test_names_become_file_names(folder):
    with pytest.raises(CorpusError, match=r"the name '\.\./x'"):
        prepared(folder, test={"../x": plain("test")})


def test_missing_shard(tmp_path):
    with pytest.raises(CorpusError, match="run the `prepare` stage"):
        next(read_pairs(tmp_path / "none.arrow"))
    assert train_shards(tmp_path) == []


def test_report_as_a_table(folder):
    _, report, _ = prepared(folder)
    assert render_report(report).split("\n") == [
        "source           read  kept  invalid_utf8  empty  control_characters  overlap  duplicate",
        "one.en | one.de     7     2             1      1                   1        1          1",
        "two.en | two.de     3     1             0      0                   0        1          1",
        "all                10     3             1      1                   1        2          2",
        "1 shard(s); held out: validation 3, flickr 1 pairs",
    ]
