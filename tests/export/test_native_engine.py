"""The compiled engine in a bundle: against float32, alone and in batches, and who answers when."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from export import native
from export.importing import ImportOptions, built_in_sentences, import_models
from export.runtime import engines
from export.runtime.bundle import Bundle, load_bundle
from export.runtime.engines import (
    TranslateOptions,
    expected_runtime,
    load_engine,
    native_engine,
    usable_default,
)
from export.runtime.engines.ctranslate2_engine import CTranslate2Engine
from export.runtime.engines.native_engine import NativeEngine
from export.runtime.manifest import NATIVE_FILE, SEARCH_OPTIONS, BundleError
from export.runtime.native import build, library
from export.runtime.native.library import NativeUnavailable
from export.verify import checks
from tests.export import tiny
from tests.export.test_native_kernels import KERNELS, needs_library
from tests.training.tiny_pretrained import firefox_folder, sentencepiece_model

SHIPPED = Path(__file__).parents[2] / "models/everyday/en-de"
GREEDY, SCORED = TranslateOptions(), TranslateOptions(return_scores=True)
BEAM = TranslateOptions(beam_size=4, return_scores=True)


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load_bundle(SHIPPED)


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where there was no C compiler."""
    library.library.cache_clear()
    engines._say_once.cache_clear()
    monkeypatch.setattr(library, "build_files", lambda: [])
    yield
    library.library.cache_clear()
    engines._say_once.cache_clear()


def thousand_sentences() -> list[str]:
    """Beginnings and ends of built-in sentences, of all lengths."""
    parts = [sentence.split() for sentence in built_in_sentences("en")]
    halves = product(parts[::8], parts[1::5])
    mixed = [" ".join([*a[: len(a) // 2 + 1], *b[len(b) // 2 :]]) for a, b in halves]
    return mixed[:1000]


# --- what it writes ----------------------------------------------------------------------------


@needs_library
@pytest.mark.parametrize(("options", "share"), [(SCORED, 0.9), (BEAM, 0.85)], ids=["1", "4"])
def test_most_lines_are_those_of_float32_products(
    shipped: Bundle, options: TranslateOptions, share: float
) -> None:
    sentences = built_in_sentences("en")
    entry = shipped.engine("ctranslate2-int8").model_copy(update={"compute": "float32"})
    manifest = shipped.manifest.model_copy(update={"engines": (entry,)})
    exact = load_engine(Bundle(shipped.path, manifest)).translate_batch(sentences, options)
    ours = load_engine(shipped, prefer_native=True).translate_batch(sentences, options)
    same = [a.score - b.score for a, b in zip(ours, exact, strict=True) if a.text == b.text]
    assert len(same) >= share * len(sentences)
    assert max(map(abs, same)) < 0.1


def check_alone_and_in_batches(bundle: Bundle, kernel: str, sentences: list[str]) -> None:
    """Alone, in batches of 64 and, the first of them, all at once by the best kernel: the same text
    and scores."""
    best = NativeEngine(bundle).translate_batch(sentences[:300], SCORED)
    engine = NativeEngine(bundle, kernel=kernel)
    alone = [engine.translate_batch([sentence], SCORED)[0] for sentence in sentences]
    batches = [
        translation
        for start in range(0, len(sentences), 64)
        for translation in engine.translate_batch(sentences[start : start + 64], SCORED)
    ]
    assert len(set(alone)) > 0.9 * len(sentences)
    assert alone == batches
    assert best == alone[:300]


@needs_library
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_thousand_sentences_alone_and_in_batches(shipped: Bundle, kernel: str) -> None:
    sentences = thousand_sentences()
    if kernel == "portable":
        sentences = sentences[::20]  # it is not made to be quick
    check_alone_and_in_batches(shipped, kernel, sentences)


@needs_library
def test_threads_and_small_calls_change_nothing(shipped: Bundle) -> None:
    sentences = thousand_sentences()[::10]
    whole = NativeEngine(shipped).translate_batch(sentences, SCORED)
    small = NativeEngine(shipped, inter_threads=3, max_batch_tokens=50)
    assert small.translate_batch(sentences, SCORED) == whole
    options = TranslateOptions(alternatives=2, return_scores=True)
    searched = NativeEngine(shipped).translate_batch(sentences[::4], options)
    alone = [small.translate_batch([sentence], options)[0] for sentence in sentences[::4]]
    assert alone == searched


@needs_library
@pytest.mark.parametrize(
    "options",
    [
        TranslateOptions(repetition_penalty=1.3, return_scores=True),
        TranslateOptions(no_repeat_ngram_size=2, return_scores=True),
        TranslateOptions(beam_size=4, repetition_penalty=1.3, return_scores=True),
    ],
)
def test_second_tries_are_those_of_ctranslate2(shipped: Bundle, options: TranslateOptions) -> None:
    sentences = built_in_sentences("en")[::2]
    theirs = load_engine(shipped, "ctranslate2-int8").translate_batch(sentences, options)
    ours = NativeEngine(shipped, "ctranslate2-int8").translate_batch(sentences, options)
    same = [a.score - b.score for a, b in zip(ours, theirs, strict=True) if a.text == b.text]
    assert len(same) >= 0.85 * len(sentences)
    assert max(map(abs, same)) < 0.1


def test_calls_are_bounded_by_tokens_and_rows() -> None:
    assert list(native_engine._calls([3, 3, 3, 9, 1], 6)) == [
        range(0, 2),
        range(2, 3),
        range(3, 4),
        range(4, 5),
    ]
    calls = list(native_engine._calls([1] * 1100, 10_000))
    assert [len(rows) for rows in calls] == [512, 512, 76]
    assert list(native_engine._calls([], 6)) == []


@needs_library
def test_empty_and_cut_sentences(shipped: Bundle) -> None:
    engine = NativeEngine(shipped)
    empty, hello = engine.translate_batch(["", "Hello."], GREEDY)
    assert (empty.text, hello.text, hello.truncated) == ("", "Hallo.", False)
    with pytest.raises(ValueError, match="split it first"):
        engine.translate_batch(["street " * 200], GREEDY)


# --- who answers -------------------------------------------------------------------------------


@needs_library
def test_it_is_preferred_where_it_computes_the_same_weights(pristine_bundle: Bundle) -> None:
    int8, float32 = pristine_bundle.manifest.engines
    preferred = load_engine(pristine_bundle, int8.name, prefer_native=True)
    assert preferred.runtime == expected_runtime(pristine_bundle, int8)
    assert preferred.runtime == f"native ({KERNELS[0]})"
    assert load_engine(pristine_bundle, int8.name).runtime == "CTranslate2"
    exact = load_engine(pristine_bundle, float32.name, prefer_native=True)
    assert exact.runtime == expected_runtime(pristine_bundle, float32) == "CTranslate2"


@needs_library
def test_searches_are_like_those_of_ctranslate2(shipped: Bundle) -> None:
    sentences = built_in_sentences("en")[::2]
    engine = load_engine(shipped, prefer_native=True)
    assert engine.supported_options == SEARCH_OPTIONS
    theirs = CTranslate2Engine(shipped)
    options = TranslateOptions(beam_size=5, alternatives=3, return_scores=True)
    pairs = list(
        zip(*(e.translate_batch(sentences, options) for e in (engine, theirs)), strict=True)
    )
    same = [a.score - b.score for a, b in pairs if a.text == b.text]
    assert len(same) >= 0.8 * len(sentences)
    assert max(map(abs, same)) < 0.1
    shared = sum(len({*a.alternatives} & {*b.alternatives}) for a, b in pairs)
    assert shared >= 0.8 * sum(len(b.alternatives) for _, b in pairs)
    with pytest.raises(ValueError, match="a beam of 33: set it to 32 at most"):
        engine.translate_batch(sentences, TranslateOptions(beam_size=33))


def test_without_the_library_ctranslate2_answers_and_it_is_said_once(
    pristine_bundle: Bundle, not_built: None, caplog: pytest.LogCaptureFixture
) -> None:
    entry = pristine_bundle.engine("ctranslate2-int8")
    with caplog.at_level(logging.WARNING):
        loaded = [load_engine(pristine_bundle, prefer_native=True) for _ in range(2)]
    assert [engine.runtime for engine in loaded] == ["CTranslate2"] * 2
    assert caplog.text.count("install a C compiler") == 1
    assert expected_runtime(pristine_bundle, entry) == "CTranslate2"
    with pytest.raises(NativeUnavailable, match="install a C compiler"):
        NativeEngine(pristine_bundle)


def test_a_broken_library_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "_engine.so"
    path.write_bytes(b"no library")
    with pytest.raises(NativeUnavailable, match="pip install"):
        library.open_library(path)


@needs_library
def test_an_imported_model_keeps_its_bytes_and_candidates(tmp_path: Path) -> None:
    firefox_folder(tmp_path / "enpt", sentencepiece_model())
    names = ("native-int8", "onnx-int8")
    options = ImportOptions(licence="MPL-2.0", force=True, engines=names)
    (bundle,) = import_models(tmp_path / "enpt", tmp_path / "out", options)
    assert usable_default(bundle) == "native-int8"
    entry, other = bundle.manifest.engines
    assert (entry.precision, entry.shortlist) == (other.precision, other.shortlist)
    sentences = ["the cat sees a dog", "a bird", "two dogs", "a red house and a dog"] * 3
    ours = load_engine(bundle).translate_batch(sentences, SCORED)
    theirs = load_engine(bundle, "onnx-int8").translate_batch(sentences, SCORED)
    same = [a.score - b.score for a, b in zip(ours, theirs, strict=True) if a.text == b.text]
    assert len(same) >= 9
    assert max(map(abs, same)) < 0.2
    assert not [check.fault for check in checks(bundle.path) if check.fault]


def test_without_the_library_another_engine_of_the_bundle_is_the_default(
    tmp_path: Path, tokenizer_path: Path, not_built: None, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = tiny.make_bundle(tmp_path / "tiny", tokenizer_path, engines=["ctranslate2-int8"])
    own = bundle.engine().model_copy(update={"name": "native-int8", "kind": "native"})
    engines_ = (own, *bundle.manifest.engines)
    shared = bundle.manifest.model_copy(update={"engines": engines_, "default_engine": own.name})
    assert usable_default(Bundle(bundle.path, shared)) == own.name  # CTranslate2 reads its folder
    files = {**shared.files, f"{own.path}/{NATIVE_FILE}": next(iter(shared.files.values()))}
    alone = shared.model_copy(update={"files": files})
    with caplog.at_level(logging.WARNING):
        assert usable_default(Bundle(bundle.path, alone)) == "ctranslate2-int8"
    assert "install a C compiler" in caplog.text


# --- exported ----------------------------------------------------------------------------------


@needs_library
def test_an_exported_engine_shares_the_folder_of_ctranslate2(
    tmp_path: Path, tokenizer_path: Path
) -> None:
    names = ["native-int8", "ctranslate2-int8"]
    bundle = tiny.make_bundle(tmp_path / "shared", tokenizer_path, engines=names)
    entry, theirs = bundle.manifest.engines
    assert (entry.kind, entry.path) == ("native", theirs.path)
    assert bundle.manifest.supported_options(entry) == SEARCH_OPTIONS
    engine = load_engine(bundle)
    assert engine.runtime.startswith("native")
    sentences = tiny.sentences()[:10]
    exact = load_engine(bundle, theirs.name).translate_batch(sentences, GREEDY)
    found = engine.translate_batch(sentences, GREEDY)
    same = sum(a.text == b.text for a, b in zip(found, exact, strict=True))
    assert same >= 8
    assert not [check.fault for check in checks(bundle.path) if check.fault]


@needs_library
def test_a_post_norm_model_has_a_folder_of_its_own(tmp_path: Path, tokenizer_path: Path) -> None:
    model = tiny.random_model(tiny.tokenizer_of(tokenizer_path).get_piece_size(), norm="post")
    bundle = tiny.make_bundle(
        tmp_path / "own", tokenizer_path, engines=["native-int8", "onnx-int8"], model=model
    )
    entry = bundle.engine("native-int8")
    assert entry.path == "engines/native-int8"
    assert bundle.manifest.supported_options(entry) == SEARCH_OPTIONS
    engine = load_engine(bundle, "native-int8")
    for options in (GREEDY, BEAM, TranslateOptions(alternatives=2)):
        assert engine.translate_batch(["old cat."], options)[0].text


@needs_library
def test_files_that_do_not_fit_the_manifest_are_refused(bundle: Bundle) -> None:
    sizes = bundle.manifest.model_copy(update={"vocab_size": 9})
    with pytest.raises(BundleError):
        NativeEngine(Bundle(bundle.path, sizes))
    long = bundle.manifest.decoding.model_copy(update={"max_output_tokens": 4000})
    limits = bundle.manifest.model_copy(update={"decoding": long})
    with pytest.raises(BundleError, match="room for"):
        NativeEngine(Bundle(bundle.path, limits))
    path = bundle.engine_path("ctranslate2-int8") / "model.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="export the bundle again"):
        NativeEngine(bundle)


def test_it_says_which_models_it_does_not_compute(tmp_path: Path, tokenizer_path: Path) -> None:
    size = tiny.tokenizer_of(tokenizer_path).get_piece_size()
    pieces = [tiny.tokenizer_of(tokenizer_path).id_to_piece(index) for index in range(size)]
    model = tiny.random_model(size, heads=8)
    with pytest.raises(BundleError, match="multiples of 8"):
        native.to_native(model, pieces, tmp_path / "model")


def test_setup_and_images_compile_alike() -> None:
    setup = (Path(__file__).parents[2] / "setup.py").read_text(encoding="utf-8")
    assert all(f'"{flag}"' in setup for flag in build.FLAGS)
