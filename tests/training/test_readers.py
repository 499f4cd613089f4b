"""Every format, its faults, and what is said of them."""

import gzip
import json
import tracemalloc
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.config.recipe import CorpusConfig, SourceConfig
from training.data.readers import (
    CorpusError,
    RawPair,
    corpus_faults,
    read_source,
    source_format,
    source_name,
    source_notes,
)

FAULT_UTF8 = RawPair("", "", "invalid_utf8")
MALFORMED = RawPair("", "", "malformed")


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


def corpus(root, **fields):
    plain = {"src": "val.en", "trg": "val.de"}
    return CorpusConfig(
        **{"src_lang": "en", "trg_lang": "de", "root": str(root), "train": [plain]}
        | {"validation": plain}
        | fields
    )


def read(root, _languages=("en", "de"), **source):
    config = corpus(root, src_lang=_languages[0], trg_lang=_languages[1])
    return list(read_source(SourceConfig(**source), config))


# --- plain -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_plain_pairs_packed_or_not(tmp_path, ending):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[ending]
    (tmp_path / f"a.en{ending}").write_bytes(pack("\ufeffOne\nTwo\u2028half\x0b\n\nfour".encode()))
    (tmp_path / f"a.de{ending}").write_bytes(pack(b"Eins\r\nZwei\n\nvier\n"))
    assert read(tmp_path, src=f"a.en{ending}", trg=f"a.de{ending}") == [
        ("One", "Eins\r", None),
        ("Two\u2028half\x0b", "Zwei", None),
        ("", "", None),
        ("four", "vier", None),
    ]


def test_several_packed_parts_are_one_file(tmp_path):
    for ending, pack in (("gz", gzip.compress), ("zst", zstd)):
        (tmp_path / f"a.{ending}").write_bytes(pack(b"one\n") + pack(b"two\n"))
    pairs = read(tmp_path, src="a.gz", trg="a.zst")
    assert pairs == [("one", "one", None), ("two", "two", None)]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_cut_off_files_are_an_error(tmp_path, ending):
    pack = {"gz": gzip.compress, "zst": zstd}[ending]
    whole = pack("".join(f"line {number}\n" for number in range(9999)).encode())
    (tmp_path / f"a.{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorpusError, match=r"a\.\w+ \| a\.\w+: cannot be read"):
        read(tmp_path, src=f"a.{ending}", trg=f"a.{ending}")


def test_invalid_utf8_is_a_marked_fault(tmp_path):
    (tmp_path / "a.en").write_bytes(b"good\nb\xffd\nfine\n")
    (tmp_path / "a.de").write_bytes(b"gut\nschlecht\n\xc3\n")
    assert read(tmp_path, src="a.en", trg="a.de") == [("good", "gut", None), FAULT_UTF8, FAULT_UTF8]


def test_different_line_counts_name_both_files_and_counts(tmp_path):
    (tmp_path / "a.en").write_text("1\n2\n3\n")
    (tmp_path / "a.de").write_text("1\n2\n3\n4\n5")
    with pytest.raises(CorpusError, match=r"a\.en has 3 lines and .*a\.de 5"):
        read(tmp_path, src="a.en", trg="a.de")
    with pytest.raises(CorpusError, match=r"a\.de has 5 lines and .*a\.en 3"):
        read(tmp_path, src="a.de", trg="a.en")


def test_missing_file_names_field_and_path(tmp_path):
    (tmp_path / "a.en").touch()
    with pytest.raises(CorpusError, match=r"trg: no file .*a\.de; .*corpus\.root"):
        read(tmp_path, src="a.en", trg="a.de")
    with pytest.raises(CorpusError, match=r"path: no file .*x\.tsv"):
        read(tmp_path, path="x.tsv")


def test_every_missing_file_is_a_fault_with_its_field_and_the_nearest_name(tmp_path):
    for name in ("train.en", "train.de.gz", "val.en", "val.de"):
        (tmp_path / name).touch()
    found = corpus_faults(
        corpus(
            tmp_path,
            train=[{"src": "trian.en", "trg": "train.de"}, {"path": "more.doc"}],
            test={"news": {"src": "val.en", "trg": "nothing.de"}},
        )
    )
    starts = [fault.split(";")[0].replace(f"{tmp_path}/", "") for fault in found]
    assert starts == [
        "corpus.train.0.src: no file trian.en (there is train.en)",
        "corpus.train.0.trg: no file train.de (there is train.de.gz)",
        "corpus.train.1: more.doc: the name does not tell the format",
        "corpus.train.1.path: no file more.doc",
        "corpus.test.news.trg: no file nothing.de",
    ]
    assert corpus_faults(corpus(tmp_path)) == []
    assert "(`--data`)" in corpus_faults(corpus(tmp_path / "nowhere"))[0]


def test_limit(tmp_path):
    (tmp_path / "a").write_text("1\n2\n3\n")
    assert len(read(tmp_path, src="a", trg="a", limit=2)) == 2


# --- formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.tsv", "tsv"),
        ("A.TSV.GZ", "tsv"),
        ("a.jsonl.zst", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.csv.gz", "csv"),
        ("a.tmx", "tmx"),
        ("a.parquet", "parquet"),
    ],
)
def test_auto_goes_by_the_name(name, expected):
    assert source_format(SourceConfig(path=name)) == expected


def test_formats_that_cannot_be_are_refused():
    with pytest.raises(CorpusError, match="set `format`"):
        source_format(SourceConfig(path="a.txt"))
    with pytest.raises(CorpusError, match="takes `src` and `trg`"):
        source_format(SourceConfig(path="a.txt", format="plain"))
    with pytest.raises(CorpusError, match="others `path`"):
        source_format(SourceConfig(src="a", trg="b", format="tsv"))


def test_source_name():
    assert source_name(SourceConfig(src="a", trg="b")) == "a | b"
    assert source_name(SourceConfig(src="a", trg=None)) == "a"
    assert source_name(SourceConfig(path="c.tmx")) == "c.tmx"


# --- TSV, JSONL --------------------------------------------------------------------------------


def test_tsv_columns(tmp_path):
    (tmp_path / "a.tsv").write_bytes(
        b'1\tone "x\teins\n2\ttwo\n3\tthree\tdrei\textra\n4\t\xff\tvier\n'
    )
    assert read(tmp_path, path="a.tsv", src_field="1", trg_field="2") == [
        ('one "x', "eins", None),
        MALFORMED,
        ("three", "drei", None),
        FAULT_UTF8,
    ]
    with pytest.raises(CorpusError, match=r"column 0 holds numbers .*\(from 0: 1, 2, 3\)"):
        read(tmp_path, path="a.tsv")


def test_tsv_that_the_recipe_does_not_fit(tmp_path):
    (tmp_path / "a.tsv").write_text("one\teins\n")
    with pytest.raises(CorpusError, match="has 2 columns, so there is no column 2"):
        read(tmp_path, path="a.tsv", src_field="2", trg_field="0")
    with pytest.raises(CorpusError, match="trg_field 'german' must be a column number from 0"):
        read(tmp_path, path="a.tsv", src_field="0", trg_field="german")


QUOTED = b'"a ""b"""\t"c ""d"""\n"one\ttab"\t"eins"\n"x" y\t"z"\n'


def test_quoted_tsv(tmp_path):
    """Quoted where all fields are; quotes of a text stay."""
    lines = QUOTED.splitlines(keepends=True)
    (tmp_path / "a.tsv").write_bytes(b"".join(lines[:2]))
    quoted = [('a "b"', 'c "d"', None), ("one\ttab", "eins", None)]
    assert read(tmp_path, path="a.tsv") == quoted
    assert read(tmp_path, path="a.tsv", quoted=False)[0] == ('"a ""b"""', '"c ""d"""', None)
    (tmp_path / "b.tsv").write_bytes(QUOTED)
    assert read(tmp_path, path="b.tsv", quoted=True) == [*quoted, MALFORMED]
    (tmp_path / "c.tsv").write_text('"Go!"\t"Geh!"\n"Go!" he said\tGeh\n')
    assert read(tmp_path, path="c.tsv")[0] == ('"Go!"', '"Geh!"', None)
    (tmp_path / "d.tsv").write_text('0.9\t"Go"\t"Geh"\n0.8\t"We"\t"Wir"\n')
    assert read(tmp_path, path="d.tsv", src_field="1", trg_field="2")[1] == ("We", "Wir", None)


@pytest.mark.parametrize(
    "header",
    ["source\ttarget", "src\ttrg", "en\tde", "English\tGerman", "Source\tTranslation", "EN\tDE\r"],
)
def test_a_header_is_left_out(tmp_path, header):
    (tmp_path / "a.tsv").write_text(f"\ufeff{header}\nwe\twir\nyou\tihr\n", newline="")
    assert read(tmp_path, path="a.tsv") == [("we", "wir", None), ("you", "ihr", None)]
    config = corpus(tmp_path)
    (note,) = source_notes(SourceConfig(path="a.tsv"), config)
    assert "header" in note


def test_a_header_names_the_columns(tmp_path):
    (tmp_path / "a.tsv").write_text("id\ttarget\tsource\n1\twir\twe\n2\tihr\tyou\n")
    assert read(tmp_path, path="a.tsv")[0] == ("we", "wir", None)
    (tmp_path / "b.tsv").write_text("score\tbefore\tafter\n1\twe\twir\n2\tyou\tihr\n")
    pairs = read(tmp_path, path="b.tsv", src_field="before", trg_field="after")
    assert pairs == [("we", "wir", None), ("you", "ihr", None)]
    (tmp_path / "c.tsv").write_text("we\twir\nen\tde\n")
    assert len(read(tmp_path, path="c.tsv")) == 2
    assert source_notes(SourceConfig(path="c.tsv"), corpus(tmp_path)) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("{n}.5\twe {n}\twir {n}", r"column 0 holds numbers .*from 0: 1, 2"),
        ("we {n}\t{n}e-1\twir {n}", r"column 1 holds numbers .*from 0: 0, 2"),
        ("en\tde\twe {n}\twir {n}", r"column 0 holds a language code.*from 0: 2, 3"),
        ("{n}\teng\twe {n}", r"column 0 holds numbers"),
    ],
)
def test_columns_of_scores_and_codes_are_refused(tmp_path, rows, message):
    (tmp_path / "a.tsv").write_text("".join(rows.format(n=n) + "\n" for n in range(5)))
    with pytest.raises(CorpusError, match=message):
        read(tmp_path, path="a.tsv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(tmp_path, delimiter):
    rows = ['we{d}"wir, ""hier"""', '"you\nand I"{d}"ihr\nund ich"', "{d}", "one", '"a;b,c"{d}x']
    text = "".join(f"{row.format(d=delimiter)}\r\n" for row in ["source{d}target", *rows])
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(tmp_path, path="a.csv") == [
        ("we", 'wir, "hier"', None),
        ("you\nand I", "ihr\nund ich", None),
        ("", "", None),
        MALFORMED,
        ("a;b,c", "x", None),
    ]
    (tmp_path / "b.csv").write_bytes(b"we,wir\nyou,\xff\n")
    assert read(tmp_path, path="b.csv")[1] == FAULT_UTF8


def test_csv_with_an_open_quote_names_the_line(tmp_path):
    (tmp_path / "a.csv").write_text('we,wir\n"you,ihr\n' + "x" * 140_000)
    with pytest.raises(CorpusError, match=r"line \d+ cannot be read as CSV.*repair its quotes"):
        read(tmp_path, path="a.csv")


LINES = "".join(f"Größe {n}\n" for n in range(40))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LINES.encode("utf-16"), "iconv -f UTF-16"),
        (LINES.encode("utf-16-le"), "iconv -f UTF-16"),
        (LINES.encode("latin-1"), "iconv -f ISO-8859-1"),
        (LINES.replace("G", "“G").encode("cp1252"), "iconv -f WINDOWS-1252"),
        (b"one\n" * 50 + LINES.encode("latin-1")[:18], "2 of 53 lines are not UTF-8"),
        (LINES.replace("\n", "\r").encode(), "carriage returns alone"),
        (b"\x1f\x8b" + b"x" * 50, r"name that ends in \.gz"),
    ],
)
def test_other_text_is_refused_with_what_to_do(tmp_path, data, message):
    (tmp_path / "a.en").write_bytes(data)
    (tmp_path / "a.de").write_text(LINES)
    with pytest.raises(CorpusError, match=message):
        read(tmp_path, src="a.en", trg="a.de")


def test_some_bad_lines_among_good_ones_are_counted(tmp_path):
    (tmp_path / "a.en").write_bytes(LINES.encode() * 3 + b"\xff\n" * 5)
    assert [pair.fault for pair in read(tmp_path, src="a.en", trg=None)].count("invalid_utf8") == 5


def zipped(path, packing=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)


OPUS = {"News__de-en__de": "wir\nJa\n", "News__de-en__en": "we\nYes\n", "News__de-en__xml": "<x/>"}


def test_the_two_sides_of_an_opus_archive(tmp_path):
    zipped(tmp_path / "en-de.zip", README="r", LICENSE="l", **OPUS)
    assert read(tmp_path, path="en-de.zip") == [("we", "wir", None), ("Yes", "Ja", None)]
    assert read(tmp_path, path="en-de.zip", trg_field=None) == [
        ("we", None, None),
        ("Yes", None, None),
    ]
    notes = source_notes(SourceConfig(path="en-de.zip"), corpus(tmp_path))
    assert notes == ["en-de.zip: read News.de-en.en and News.de-en.de in it"]
    zipped(tmp_path / "pt.zip", **{"a/x__en__gz": b"", "a/x__en": "we\n", "../x__pt_BR": "nós\n"})
    assert read(tmp_path, ("en", "pt"), path="pt.zip") == [("we", "nós", None)]
    assert read(tmp_path, ("en", "pt-BR"), path="pt.zip") == [("we", "nós", None)]


def test_a_memory_in_an_archive(tmp_path):
    unit = '<tu><tuv xml:lang="en"><seg>we</seg></tuv><tuv xml:lang="de"><seg>wir</seg></tuv></tu>'
    zipped(tmp_path / "a.zip", **{"en-de__tmx": f"<tmx><body>{unit}</body></tmx>", "README": "r"})
    assert read(tmp_path, path="a.zip") == [("we", "wir", None)]
    assert source_notes(SourceConfig(path="a.zip"), corpus(tmp_path)) == [
        "a.zip: read en-de.tmx in it"
    ]


def test_archives_that_are_not_clear_are_refused_with_what_is_in_them(tmp_path):
    zipped(tmp_path / "a.zip", **{"x__en": "we\n", "x__fr": "nous\n"})
    with pytest.raises(CorpusError, match=r"no file of each .*x\.en, x\.fr.*unzip a\.zip"):
        read(tmp_path, path="a.zip")
    zipped(tmp_path / "b.zip", **{"y__en": "we\n"}, **OPUS)
    with pytest.raises(CorpusError, match=r"y\.en and News\.de-en\.en both end in \.en"):
        read(tmp_path, path="b.zip")
    zipped(tmp_path / "c.zip", **{"x__en": "we\nyou\n", "x__de": "wir\n"})
    with pytest.raises(CorpusError, match=r"c\.zip/x\.en has 2 lines and .*x\.de 1"):
        read(tmp_path, path="c.zip")
    zipped(tmp_path / "d.zip", **{"x__en": "we\n".encode("utf-16"), "x__de": "wir\n"})
    with pytest.raises(CorpusError, match=r"d\.zip/x\.en: the file is UTF-16"):
        read(tmp_path, path="d.zip")
    with pytest.raises(CorpusError, match="give it as `path`"):
        read(tmp_path, src="a.zip", trg="a.zip")
    for ending in ("tar", "xlsx", "bz2"):
        with pytest.raises(CorpusError, match=f".{ending} is not read"):
            source_format(SourceConfig(path=f"a.{ending}"))


def test_archives_that_would_fill_memory_are_refused_before_they_do(tmp_path, monkeypatch):
    zipped(tmp_path / "a.zip", **{"x__en": b"a" * (30 << 20), "x__de": "wir\n"})
    tracemalloc.start()
    with pytest.raises(CorpusError, match="packed tighter than text is"):
        read(tmp_path, path="a.zip")
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()
    monkeypatch.setattr("training.data.files.MAX_LINE_BYTES", 1 << 10)
    zipped(tmp_path / "b.zip", **{"x__en": b"we\n" + b"a" * (1 << 12), "x__de": "wir\nb\n"})
    with pytest.raises(CorpusError, match="line 2 is longer than 1,024 bytes"):
        read(tmp_path, path="b.zip")
    monkeypatch.setattr("training.data.archives.MAX_MEMBERS", 2)
    zipped(tmp_path / "c.zip", **OPUS)
    with pytest.raises(CorpusError, match="more than 2 files"):
        read(tmp_path, path="c.zip")


def test_damaged_and_encrypted_archives_are_refused(tmp_path):
    zipped(tmp_path / "a.zip", zipfile.ZIP_STORED, **OPUS)
    whole = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:90])
    (tmp_path / "changed.zip").write_bytes(whole.replace(b"we\n", b"wx\n"))
    at = whole.index(b"PK\x01\x02") + 8
    (tmp_path / "locked.zip").write_bytes(whole[:at] + b"\x01" + whole[at + 1 :])
    for name, said in (("cut", "damaged"), ("changed", "damaged"), ("locked", "is encrypted")):
        with pytest.raises(CorpusError, match=said):
            read(tmp_path, path=f"{name}.zip")


def test_jsonl_keys_and_faults(tmp_path):
    lines = [
        b'{"src": "one", "trg": "eins\\nzwei"}',
        b'{"src": "two"}',
        b"{not json",
        b'["a list"]',
        b'{"src": 3, "trg": "drei"}',
        b'{"src": "\\ud800", "trg": "halbes Zeichen"}',
        b'{"src": "\xff", "trg": "x"}',
        b"[" * 100_000,
        b"",
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    assert read(tmp_path, path="a.jsonl") == [
        ("one", "eins\nzwei", None),
        *[MALFORMED] * 4,
        FAULT_UTF8,
        FAULT_UTF8,
        *[MALFORMED] * 2,
    ]


def test_jsonl_nested_and_wrong_keys(tmp_path):
    record = {"id": 1, "translation": {"en": "one", "de": "eins"}, "a.b": "dotted"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    nested = {"src_field": "translation.en", "trg_field": "translation.de"}
    assert read(tmp_path, path="a.jsonl", **nested) == [("one", "eins", None)]
    dotted = {"src_field": "a.b", "trg_field": "a.b"}
    assert read(tmp_path, path="a.jsonl", **dotted) == [("dotted", "dotted", None)]
    with pytest.raises(CorpusError, match=r"it has: id, translation, a\.b.*set src_field"):
        read(tmp_path, path="a.jsonl")


# --- TMX ---------------------------------------------------------------------------------------

TMX = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"><prop type="x">p</prop></header><body>
<tu><prop type="t">ignored</prop>
  <tuv xml:lang="EN-us"><prop>no</prop><seg>A <bpt i="1">&lt;b&gt;</bpt>big<ept i="1"/> <hi>red
house</hi>.</seg></tuv>
  <tuv xml:lang="de_AT"><seg>Ein großes Haus.</seg></tuv><tuv xml:lang="fr"><seg>x</seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>alone</seg></tuv></tu>
<tu><tuv lang="de"><seg>zuerst</seg></tuv><tuv lang="en"><seg>first</seg></tuv>
  <tuv lang="en"><seg>second</seg></tuv></tu>
</body></tmx>"""


def test_tmx_languages_markup_and_incomplete_units(tmp_path):
    (tmp_path / "a.tmx.gz").write_bytes(gzip.compress(TMX.encode()))
    assert read(tmp_path, path="a.tmx.gz") == [
        ("A big red\nhouse.", "Ein großes Haus.", None),
        ("alone", "", "malformed"),
        ("first", "zuerst", None),
    ]
    with pytest.raises(CorpusError, match=r"both en and pt; languages in it: de, de-at, en, en-us"):
        read(tmp_path, ("en", "pt"), path="a.tmx.gz")


def test_tmx_with_a_namespace_and_languages_that_differ_by_region(tmp_path):
    (tmp_path / "a.tmx").write_text(
        '<tmx xmlns="http://www.lisa.org/tmx14"><body><tu>'
        '<tuv xml:lang="en-GB"><seg>colour</seg></tuv><tuv xml:lang="en-US"><seg>color</seg></tuv>'
        "</tu></body></tmx>"
    )
    assert read(tmp_path, ("en-US", "en-GB"), path="a.tmx") == [("color", "colour", None)]


def test_tmx_entities_are_refused(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for entity in ('"ha"', f'SYSTEM "{secret}"'):
        text = TMX.replace('SYSTEM "tmx14.dtd"', f"[<!ENTITY x {entity}>]")
        (tmp_path / "a.tmx").write_text(text.replace("alone", "&x;"))
        with pytest.raises(CorpusError, match="declares entities"):
            read(tmp_path, path="a.tmx")


def test_tmx_that_is_not_well_formed(tmp_path):
    (tmp_path / "a.tmx").write_text(TMX[:-30])
    with pytest.raises(CorpusError, match="not well-formed XML"):
        read(tmp_path, path="a.tmx")


def test_tmx_memory_is_flat(tmp_path):
    unit = TMX[TMX.index("<tu>") : TMX.index("</tu>") + 5]

    def peak(units):
        (tmp_path / "a.tmx").write_text(f"<tmx><body>{unit * units}</body></tmx>")
        pairs = read_source(SourceConfig(path="a.tmx"), corpus(tmp_path))
        tracemalloc.start()
        assert sum(1 for _ in pairs) == units
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(10)
    assert peak(4000) < 1.5 * peak(1000)


def test_source_text_alone_in_every_format(tmp_path):
    (tmp_path / "a.en").write_bytes(b"one\n\xff\ntwo\n")
    (tmp_path / "a.tsv").write_bytes(b"1\tone\n2\n3\ttwo\n")
    (tmp_path / "a.jsonl").write_text('{"en": "one"}\n{"de": "zwei"}\n{"en": "two"}\n')
    (tmp_path / "a.tmx").write_text(TMX)
    pq.write_table(pa.table({"en": ["one", None, "two"]}), tmp_path / "a.parquet")
    found = [
        read(tmp_path, src="a.en", trg=None),
        read(tmp_path, path="a.tsv", src_field="1", trg_field=None),
        read(tmp_path, path="a.jsonl", src_field="en", trg_field=None),
        read(tmp_path, path="a.parquet", src_field="en", trg_field=None),
        read(tmp_path, path="a.tmx", trg_field=None),
    ]
    for pairs in found[:4]:
        assert (pairs[0], pairs[2]) == (("one", None, None), ("two", None, None))
    assert [pairs[1].fault for pairs in found[:4]] == ["invalid_utf8", *["malformed"] * 3]
    assert found[4][1] == ("alone", None, None)


# --- Parquet -----------------------------------------------------------------------------------


def test_parquet_columns_nulls_and_bad_bytes(tmp_path):
    table = pa.table(
        {
            "en": pa.array([b"one", b"\xff", b"three", None], pa.binary()),
            "de": pa.array(["eins", "zwei", "drei", "vier"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert read(tmp_path, path="a.parquet", src_field="en", trg_field="de") == [
        ("one", "eins", None),
        FAULT_UTF8,
        ("three", "drei", None),
        MALFORMED,
    ]


def test_parquet_structs(tmp_path):
    rows = [{"translation": {"en": "one", "de": "eins"}}, {"translation": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    fields = {"src_field": "translation.en", "trg_field": "translation.de"}
    assert read(tmp_path, path="a.parquet", **fields) == [("one", "eins", None), MALFORMED]


def test_parquet_that_the_recipe_does_not_fit(tmp_path):
    pq.write_table(pa.table({"en": ["one"], "n": [1]}), tmp_path / "a.parquet")
    for field in ("src", "n", "en.x"):
        with pytest.raises(CorpusError, match=rf"no text column `{field}`; columns: en, n"):
            read(tmp_path, path="a.parquet", src_field="en", trg_field=field)
    (tmp_path / "b.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(CorpusError, match="cannot be read as Parquet"):
        read(tmp_path, path="b.parquet")
