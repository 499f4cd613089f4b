"""Other people's CTranslate2 models are served as CTranslate2 itself translates with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import pytest
import sentencepiece as spm

from export.exporter import upgrade_bundle, weights_of
from export.imported_ctranslate2 import import_argos, import_ctranslate2
from export.imported_gate import check_imported_engines
from export.licences import licence_of
from export.runtime.bundle import Bundle, BundleError, load_bundle
from export.runtime.engines import TranslateOptions, load_engine
from export.runtime.foreign_ctranslate2 import framing_of, read_foreign_model
from export.runtime.manifest import GateRecord
from export.verify import checks
from tests.export import foreign
from tests.export.foreign import FAIRSEQ_SPECIAL, M2M, MARIAN, OPENNMT, Shape, make_folder
from tests.export.hostile import write_model
from tests.export.tiny import sentences

TEXTS = [*sentences()[:12], "old cat", "a"]
LANGUAGES = {"source": "en", "target": "de"}
LICENSED: dict[str, Any] = {**LANGUAGES, "licence": "MIT"}
NEVER = ("<blank>", "<s>")
MARIAN_SPECIAL = ("</s>", "<unk>")


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.train_sentencepiece(tmp_path_factory.mktemp("spm") / "en.model")


@pytest.fixture(scope="module")
def russian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.train_sentencepiece(tmp_path_factory.mktemp("spm") / "ru.model", russian=True)


def direct(
    bundle: Bundle,
    folder: Path,
    source: Path,
    target: Path,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
    prefix: Sequence[str] = (),
    never: Sequence[str] = (),
    beam_size: int = 1,
    compute_type: str = "default",
) -> list[str]:
    """Translations by CTranslate2 alone, of one sentence at a time, with the bundle's limits."""
    engine = load_engine(bundle)
    translator = ctranslate2.Translator(str(folder), compute_type=compute_type)
    tokenizer = spm.SentencePieceProcessor(model_file=str(source))
    detokenizer = spm.SentencePieceProcessor(model_file=str(target))
    texts = []
    for text in TEXTS:
        pieces = tokenizer.encode(text, out_type=str)
        results = translator.translate_batch(
            [[*before, *pieces, *after]],
            target_prefix=[list(prefix)] if prefix else None,
            beam_size=beam_size,
            max_decoding_length=engine.output_limit(len(pieces)) + len(prefix),
            min_decoding_length=1 + len(prefix),
            disable_unk=True,
            suppress_sequences=[[token] for token in never],
        )
        texts.append(detokenizer.decode(results[0].hypotheses[0][len(prefix) :]).strip())
    return texts


def make_marian(folder: Path, sentencepiece: Path) -> Path:
    return make_folder(
        folder, sentencepiece, MARIAN, "int8", MARIAN_SPECIAL, decoder_start_token="</s>"
    )


def translations(bundle: Bundle, engine: str | None = None, beam_size: int = 1) -> list[str]:
    options = TranslateOptions(beam_size=beam_size)
    return [t.text for t in load_engine(bundle, engine).translate_batch(TEXTS, options)]


@pytest.mark.parametrize("quantization", [None, "int8", "float16", "int16", "int8_float16"])
@pytest.mark.parametrize("shape", [OPENNMT, MARIAN], ids=["opennmt", "marian"])
def test_a_shared_vocabulary(
    tmp_path: Path, english: Path, shape: Shape, quantization: str | None
) -> None:
    special = foreign.OPENNMT_SPECIAL if shape is OPENNMT else MARIAN_SPECIAL
    start = {} if shape is OPENNMT else {"decoder_start_token": "</s>"}
    folder = make_folder(tmp_path / "model", english, shape, quantization, special, **start)
    bundle = import_ctranslate2(folder, tmp_path / "out", **LICENSED)
    eos = () if shape is OPENNMT else ("</s>",)
    assert bundle.manifest.source_suffix == eos
    never = NEVER if shape is OPENNMT else ()
    for beam_size in (1, 3):
        ours = translations(bundle, beam_size=beam_size)
        framed = {"after": eos, "never": never, "beam_size": beam_size}
        assert ours == direct(bundle, folder, english, english, **framed)
    precision = (quantization or "float32").split("_")[0]
    assert bundle.engine().precision == precision
    assert bundle.engine().compute == "default"
    if precision.startswith("int"):
        ours = translations(bundle, f"ctranslate2-{precision}-float32")
        framed = {"after": eos, "never": never, "compute_type": "float32"}
        assert ours == direct(bundle, folder, english, english, **framed)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(relative=True, stored_positions=False),
        Shape(stored_positions=False, biases=False),
        Shape(layernorm_embedding=True, glu=True),
        Shape(layers=(1, 3), pre_norm=False),
    ],
    ids=["relative", "sinusoidal without biases", "embedding norm and glu", "post-norm"],
)
def test_other_transformers(tmp_path: Path, english: Path, shape: Shape) -> None:
    folder = make_folder(tmp_path / "model", english, shape, "int8")
    bundle = import_ctranslate2(folder, tmp_path / "out", **LICENSED)
    assert translations(bundle) == direct(bundle, folder, english, english, never=NEVER)
    positions = shape.stored_positions and not shape.relative
    assert bundle.manifest.decoding.max_input_tokens == (64 if positions else 128)


def test_a_vocabulary_and_tokenizer_a_side(tmp_path: Path, english: Path, russian: Path) -> None:
    source = ["<blank>", *foreign.pieces_of(english), "<unk>"]
    target = [*foreign.OPENNMT_SPECIAL, *foreign.pieces_of(russian)]
    folder = tmp_path / "model"
    converter = foreign.RandomConverter(OPENNMT, source, target)
    converter.convert(str(folder), quantization="int8")
    shutil.copyfile(english, folder / "source.spm")
    shutil.copyfile(russian, folder / "target.spm")
    bundle = import_ctranslate2(folder, tmp_path / "out", **LICENSED)
    manifest = bundle.manifest
    assert (manifest.source_vocab_size, manifest.vocab_size) == (len(source), len(target))
    assert (manifest.source_tokenizer, manifest.tokenizer) == ("source.model", "tokenizer.model")
    assert translations(bundle) == direct(bundle, folder, english, russian, never=NEVER)


def test_vocabularies_as_text(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english)
    expected = translations(import_ctranslate2(folder, tmp_path / "json", **LICENSED))
    tokens = json.loads((folder / "shared_vocabulary.json").read_text())
    (folder / "shared_vocabulary.json").unlink()
    for end in ("\n", "\r\n"):
        (folder / "shared_vocabulary.txt").write_bytes(
            "".join(token + end for token in tokens).encode()
        )
        assert translations(import_ctranslate2(folder, tmp_path / "text", **LICENSED)) == expected


def test_languages_in_front(tmp_path: Path, english: Path) -> None:
    """M2M100's way: the languages are tokens, and none of them shows up in a translation."""
    folder = make_folder(
        tmp_path / "model",
        english,
        M2M,
        special=FAIRSEQ_SPECIAL,
        more=("__en__", "__de__", "__fr__", "madeupword0"),
        decoder_start_token="</s>",
    )
    with pytest.raises(BundleError, match=r"3 languages \(__en__, __de__, __fr__ …\): give"):
        import_ctranslate2(folder, tmp_path / "out", **LICENSED)
    framed = {"source_prefix": ("__en__",), "target_prefix": ("__de__",)}
    bundle = import_ctranslate2(folder, tmp_path / "out", **LICENSED, **framed)
    assert bundle.manifest.source_suffix == ("</s>",)
    assert bundle.manifest.decoding.max_input_tokens == foreign.POSITIONS - 2
    assert bundle.manifest.decoding.max_output_tokens == foreign.POSITIONS - 2
    never = ("<s>", "<pad>", "__en__", "__de__", "__fr__", "madeupword0")
    pieces = set(foreign.pieces_of(english))
    model = read_foreign_model(folder, {path.name for path in folder.iterdir()})
    assert framing_of(model, bundle.manifest, pieces).never == never
    for beam_size in (1, 3):
        ours = translations(bundle, beam_size=beam_size)
        assert ours == direct(
            bundle,
            folder,
            english,
            english,
            before=("__en__",),
            after=("</s>",),
            prefix=("__de__",),
            never=never,
            beam_size=beam_size,
        )
        assert not any(token in text for text in ours for token in never)
    with pytest.raises(BundleError, match="target_prefix: its vocabulary has no '__es__'"):
        import_ctranslate2(folder, tmp_path / "out", **LICENSED, target_prefix=("__es__",))


def test_an_m2m100_that_lost_its_languages(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english, M2M, more=("madeupword0", "madeupword1"))
    with pytest.raises(BundleError, match="madeupword0 where M2M100 has its languages"):
        import_ctranslate2(folder, tmp_path / "out", **LICENSED)


def test_a_decoder_that_starts_with_the_language(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english, more=("en_XX",), decoder_start_token=None)
    with pytest.raises(BundleError, match="starts with a token that has to be given"):
        import_ctranslate2(folder, tmp_path / "out", **LICENSED)
    bundle = import_ctranslate2(folder, tmp_path / "out", **LICENSED, target_prefix=("en_XX",))
    engine = load_engine(bundle)
    translator = ctranslate2.Translator(str(folder))
    tokenizer = spm.SentencePieceProcessor(model_file=str(english))
    pieces = tokenizer.encode(TEXTS[0], out_type=str)
    result = translator.translate_batch(
        [pieces],
        target_prefix=[["en_XX"]],
        beam_size=1,
        max_decoding_length=engine.output_limit(len(pieces)),
        disable_unk=True,
        suppress_sequences=[["<blank>"], ["<s>"], ["en_XX"]],
    )[0]
    ours = engine.translate_batch(TEXTS[:1], TranslateOptions())[0]
    assert ours.text == tokenizer.decode(result.hypotheses[0])


def test_the_score_is_the_mean_without_the_prefix(tmp_path: Path, english: Path) -> None:
    framed = {"source_prefix": ("__en__",), "target_prefix": ("__de__",)}
    folder = make_folder(
        tmp_path / "model",
        english,
        M2M,
        special=FAIRSEQ_SPECIAL,
        more=("__en__", "__de__"),
        decoder_start_token="</s>",
    )
    bundle = import_ctranslate2(folder, tmp_path / "out", **LICENSED, **framed)
    options = TranslateOptions(return_scores=True)
    ours = load_engine(bundle).translate_batch(TEXTS[:1], options)[0]
    pieces = spm.SentencePieceProcessor(model_file=str(english)).encode(TEXTS[0], out_type=str)
    result = ctranslate2.Translator(str(folder)).translate_batch(
        [["__en__", *pieces, "</s>"]],
        target_prefix=[["__de__"]],
        beam_size=1,
        min_decoding_length=2,
        max_decoding_length=ours.tokens + 1,
        length_penalty=0,
        return_scores=True,
        disable_unk=True,
        suppress_sequences=[["<s>"], ["<pad>"], ["__en__"], ["__de__"]],
    )[0]
    assert ours.truncated
    assert ours.score == pytest.approx(result.scores[0] / ours.tokens, rel=1e-4)


@pytest.mark.parametrize(("version", "revision"), [(4, 3), (5, 4)])
def test_folders_of_older_versions(
    tmp_path: Path, english: Path, version: int, revision: int
) -> None:
    """CTranslate2 1 and 2: scalars of the whole model, tokens in variables, no config.json."""
    from export.runtime.ctranslate2_format import read_variables

    folder = make_folder(tmp_path / "model", english)
    expected = translations(import_ctranslate2(folder, tmp_path / "new", **LICENSED))
    arrays = read_variables(folder / "model.bin")
    old = {
        name: array
        for name, array in arrays.items()
        if array.shape or name.endswith("weight_scale")
    }
    old["encoder/embeddings/weight"] = old.pop("encoder/embeddings_0/weight")
    scalars = {name: arrays[f"encoder/{name}"] for name in ("num_heads", "pre_norm", "activation")}
    old |= {**scalars, "with_source_eos": arrays["decoder/alibi"]}
    write_model(folder / "model.bin", old, revision=revision, version=version)
    (folder / "config.json").unlink()
    bundle = import_ctranslate2(folder, tmp_path / "old", **LICENSED)
    assert translations(bundle) == expected


def test_what_the_card_and_manifest_say(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / "vmap.txt").write_text("\ta\n")
    bundle = import_ctranslate2(folder, tmp_path / "out", **LANGUAGES, attribution="By them.")
    manifest = bundle.manifest
    assert manifest.attribution.startswith("By them.\n\nWhat came with it is in `origin/`")
    assert manifest.licence == "apache-2.0"
    assert manifest.recipe is None
    origin = manifest.origin
    assert origin is not None
    assert origin.format == "ctranslate2"
    assert set(origin.files) == {
        *("README.md", "config.json", "model.bin"),
        *("sentencepiece.model", "shared_vocabulary.json"),
    }
    assert "vmap.txt was left out" in origin.changes[0]
    card = (bundle.path / "README.md").read_text()
    assert "trained by others and imported by Quickstudy" in card
    assert "Quickstudy did not train it" in card
    assert "apache-2.0" in card
    assert "recipe" not in card
    assert "vmap.txt was left out" in card
    assert (bundle.path / "origin/README.md").read_text().endswith("# A model\n")
    assert not list(bundle.path.rglob("vmap.txt"))
    with pytest.raises(BundleError, match="was imported and has no recipe"):
        bundle.recipe_text()
    with pytest.raises(BundleError, match="holds an imported model as it was"):
        weights_of(bundle)
    with pytest.raises(BundleError):
        upgrade_bundle(bundle.path, tmp_path / "upgraded")


def test_pieces_that_the_model_lacks_are_unknown(tmp_path: Path, english: Path) -> None:
    """The tokenizer has them, the model's vocabulary does not."""
    folder = make_folder(tmp_path / "model", english)
    bundle = import_ctranslate2(folder, tmp_path / "whole", **LICENSED)
    assert '"' in bundle.manifest.missing_characters
    assert "a" not in bundle.manifest.missing_characters
    whole = load_engine(bundle)
    vocabulary = json.loads((folder / "shared_vocabulary.json").read_text())
    renamed = ["zzz" if token == "man" else token for token in vocabulary]
    (folder / "shared_vocabulary.json").write_text(json.dumps(renamed))
    lacking = load_engine(import_ctranslate2(folder, tmp_path / "lacking", **LICENSED))
    assert whole.unknown_spans("old man") == []
    assert lacking.unknown_spans("old man") == [(4, 7)]
    assert whole.unknown_spans("old ☃") == [(4, 5)]


def test_the_gate_compares_with_the_same_weights(tmp_path: Path, english: Path) -> None:
    folder = make_marian(tmp_path / "model", english)

    def gate(bundle: Bundle) -> GateRecord:
        return check_imported_engines(bundle, [*sentences(), ""], dataset="made-up sentences")

    bundle = import_ctranslate2(folder, tmp_path / "out", **LICENSED, gate=gate, name="tiny")
    record = bundle.manifest.gate
    assert record is not None
    assert record.sentences == len(sentences())
    assert "same weights computed in float32" in record.reference
    assert record.torch_bleu == 100
    rounded, exact = record.engines
    assert exact.identical == 1
    assert exact.bleu_difference == 0
    assert rounded.identical < 1
    assert rounded.bleu_difference < 0
    assert rounded.worst[0].engine != rounded.worst[0].torch
    with pytest.raises(BundleError, match="no sentence that the model can take"):
        check_imported_engines(bundle, ["", "a " * 200])


def test_the_gate_names_a_broken_limit(tmp_path: Path, english: Path) -> None:
    from training.config.recipe import GateLimits

    folder = make_marian(tmp_path / "model", english)
    bundle = import_ctranslate2(folder, tmp_path / "out", **LICENSED)
    record = check_imported_engines(bundle, sentences(), limits=GateLimits(int8_identical=1))
    assert record.engines[0].faults[0].endswith("the limit is 100.0%")
    assert not record.engines[1].faults


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "model.bin").unlink(), "it has no model.bin"),
        (lambda f: (f / "config.json").unlink(), "it has no config.json"),
        (lambda f: (f / "shared_vocabulary.json").unlink(), "it has no shared_vocabulary.json or"),
        (
            lambda f: (f / "shared_vocabulary.json").rename(f / "source_vocabulary.json"),
            "only source_vocabulary.json",
        ),
        (lambda f: (f / "shared_vocabulary.txt").touch(), "remove what is not the model's"),
        (lambda f: (f / "source_1_vocabulary.txt").touch(), "several source features"),
        (lambda f: (f / "sentencepiece.model").unlink(), "no SentencePiece model: give --sent"),
        (lambda f: (f / "other.spm").touch(), "holds other.spm, sentencepiece.model: give"),
        (lambda f: (f / "sentencepiece.model").rename(f / "source.spm"), "source.spm: give --sent"),
        (lambda f: (f / "sentencepiece.model").write_bytes(b"?"), "is not a SentencePiece model"),
        (lambda f: (f / "README.md").write_text("---\nlicense: other\n---"), "give --licence"),
        (
            lambda f: (
                (f / "model.bin").rename(f.parent / "elsewhere"),
                (f / "model.bin").symlink_to(f.parent / "elsewhere"),
            ),
            "is a link or special file",
        ),
    ],
)
def test_folders_that_are_not_whole(
    tmp_path: Path, english: Path, change: Callable[[Path], object], message: str
) -> None:
    folder = make_folder(tmp_path / "model", english)
    (folder / "README.md").write_text("License: MIT")
    change(folder)
    with pytest.raises(BundleError, match=message):
        import_ctranslate2(folder, tmp_path / "out", **LANGUAGES)
    assert not (tmp_path / "out").exists()


def test_what_is_asked_for_must_make_sense(tmp_path: Path, english: Path, russian: Path) -> None:
    folder = make_folder(tmp_path / "model", english)
    out = tmp_path / "out"
    with pytest.raises(BundleError, match="source_lang: String should match"):
        import_ctranslate2(folder, out, source="English", target="de", licence="MIT")
    with pytest.raises(BundleError, match="name: String should match"):
        import_ctranslate2(folder, out, **LICENSED, name="a/b")
    with pytest.raises(BundleError, match="needs --sentencepiece"):
        import_ctranslate2(folder, out, **LICENSED, target_sentencepiece=russian)
    with pytest.raises(BundleError, match="is not a SentencePiece model"):
        import_ctranslate2(folder, out, **LICENSED, sentencepiece=tmp_path / "no.model")
    other = make_folder(tmp_path / "other", russian)
    with pytest.raises(BundleError, match=r"is not this model's: \d+% of its pieces"):
        import_ctranslate2(other, out, **LICENSED, sentencepiece=english)
    with pytest.raises(BundleError, match="is a file: give the folder"):
        import_ctranslate2(english, out, **LICENSED)
    with pytest.raises(BundleError, match="no folder"):
        import_ctranslate2(tmp_path / "nowhere", out, **LICENSED)
    (tmp_path / "many").mkdir()
    for number in range(1001):
        (tmp_path / "many" / str(number)).touch()
    with pytest.raises(BundleError, match="holds over 1000 files"):
        import_ctranslate2(tmp_path / "many", out, **LICENSED)
    (tmp_path / "mine").mkdir()
    with pytest.raises(BundleError, match="is not a bundle: remove it"):
        import_ctranslate2(folder, tmp_path / "mine", **LICENSED)


def test_verify_looks_at_every_engine(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english, quantization="int8")
    bundle = import_ctranslate2(folder, tmp_path / "out", **LICENSED)
    looked_at = list(checks(bundle.path))
    assert [check.fault for check in looked_at] == [None] * 5
    assert looked_at[2].seen == "31 pieces"
    assert looked_at[-1].name == "engine ctranslate2-int8-float32"


def test_a_refused_import_leaves_the_former_bundle(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english)
    former = import_ctranslate2(folder, tmp_path / "out", **LICENSED)
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-1])
    with pytest.raises(BundleError):
        import_ctranslate2(folder, tmp_path / "out", **LICENSED)
    assert load_bundle(tmp_path / "out").manifest == former.manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_a_file_that_changes_while_it_is_copied(
    tmp_path: Path, english: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "model", english)
    monkeypatch.setattr("export.imported_ctranslate2._sha256", lambda _: "0" * 64)
    with pytest.raises(BundleError, match="was changed while it was read"):
        import_ctranslate2(folder, tmp_path / "out", **LICENSED)


def test_a_bundle_whose_folder_is_another_does_not_load(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english)
    bundle = import_ctranslate2(folder, tmp_path / "out", **LICENSED)
    raw = bundle.manifest.model_dump()
    for change, message in (
        ({"vocab_size": 99}, "its vocabularies have"),
        ({"source_prefix": ("zz",)}, "has no 'zz'"),
        ({"special_tokens": {**raw["special_tokens"], "eos": "a"}}, "its tokens are"),
        ({"decoding": {**raw["decoding"], "max_input_tokens": 65}}, "has room for 64 tokens"),
        ({"engines": [{**raw["engines"][0], "precision": "int8"}]}, "its weights are float32"),
    ):
        changed = type(bundle.manifest).model_validate({**raw, **change})
        with pytest.raises(BundleError, match=message):
            load_engine(Bundle(bundle.path, changed))
    (bundle.engine_path() / "vmap.txt").touch()
    with pytest.raises(BundleError, match=r"it holds vmap\.txt"):
        load_engine(bundle)


# --- Argos packages ----------------------------------------------------------------------------


def test_an_argos_package(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english, quantization="int8")
    package = foreign.make_argos(tmp_path / "en_de.argosmodel", folder, english)
    bundle = import_argos(package, tmp_path / "out")
    manifest = bundle.manifest
    assert (manifest.name, manifest.version) == ("argos-en-de", "1.9")
    assert (manifest.source_lang, manifest.target_lang) == ("en", "de")
    assert manifest.licence == "CC BY 4.0"
    assert manifest.origin is not None
    assert manifest.origin.format == "argos"
    assert {"model/model.bin", "sentencepiece.model", "README.md"} <= set(manifest.origin.files)
    assert translations(bundle) == direct(bundle, folder, english, english, never=NEVER)
    other = import_argos(
        package, tmp_path / "other", target="de-AT", licence="MIT", name="mine", beam_size=4
    )
    assert other.manifest.target_lang == "de-AT"
    assert other.manifest.licence == "MIT"
    assert other.manifest.decoding.beam_size == 4


def test_an_argos_package_with_a_target_prefix(tmp_path: Path, english: Path) -> None:
    folder = make_folder(tmp_path / "model", english, more=("__de__",))
    package = foreign.make_argos(
        tmp_path / "en_de.argosmodel", folder, english, target_prefix="__de__"
    )
    bundle = import_argos(package, tmp_path / "out")
    assert bundle.manifest.target_prefix == ("__de__",)
    never = ("<blank>", "<s>", "__de__")
    theirs = direct(bundle, folder, english, english, prefix=("__de__",), never=never)
    assert translations(bundle) == theirs


# --- licences ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "licence"),
    [
        ("README.md", "---\nlanguage: de\nlicense: 'cc-by-4.0'\n---\n", "cc-by-4.0"),
        ("README.md", "---\nlicense: other\n---\n", None),
        ("README.md", "# X\n\n**License:** CC0\n", "CC0"),
        ("README.md", "# X\n\nLicence is MIT.\n", "MIT"),
        ("README.md", "It is free.", None),
        ("LICENSE", "   Apache License\n   Version 2.0, January 2004\n", "Apache-2.0"),
        ("LICENSE", "MIT License\n\nCopyright", "MIT"),
        ("LICENSE", "All rights reserved", None),
        ("README.md", "License: \x1b[2Jx", "\\x1b[2Jx"),
    ],
)
def test_licences(tmp_path: Path, name: str, text: str, licence: str | None) -> None:
    (tmp_path / name).write_text(text)
    assert licence_of([tmp_path / name]) == licence
    assert licence_of([tmp_path / name], {"license": "GPL-3.0"}) == "GPL-3.0"
