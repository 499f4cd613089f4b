"""The Python API: it equals the service, and is safe with threads, event loops and exits."""

from __future__ import annotations

import asyncio
import doctest
import gc
import itertools
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import quickstudy
from export.runtime.bundle import Bundle
from quickstudy import api
from quickstudy.api import WINDOWS_IN_FLIGHT, OptionError, windows_of
from service import models as served_models
from service.app import create_app, guarded
from service.settings import Settings
from service.translator import Translator
from tests.export import tiny
from tests.service.stub import StubEngine

ROOT = Path(__file__).parents[1]
TRANSLATE = [sys.executable, "-m", "quickstudy", "translate"]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TEXTS = [
    "The old man rides a red bike. The dog rides the blue bike!",
    "",
    "  - the cat\n\n\tthe woman and https://example.org/a?b=1 in {place}\r\n",
    "the street the street the street the street the street",
    "a red dog",
]
HTML = "<p>The <b>old man</b> rides.<br> The <code>dog</code> &amp; cat</p>"
MARKDOWN = "# The old man\n\n- a *red* `bike`\n- [the dog](https://example.org)\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("api")
    return tiny.make_bundle(folder / "tiny", tiny.train_tokenizer(folder / "tokenizer.model"))


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Iterator[quickstudy.Model]:
    with quickstudy.load(bundle.path, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def client(bundle: Bundle) -> Iterator[TestClient]:
    settings = Settings(model=Path(bundle.path), inter_threads=1)
    models = served_models.load_models([settings.model], settings)
    app = create_app(settings, Translator(models, settings))
    with TestClient(guarded(app, settings)) as client:
        yield client


def stub_model(bundle: Bundle, engine: StubEngine) -> quickstudy.Model:
    settings = Settings.model_construct(
        model=bundle.path, inter_threads=1, queue_size=sys.maxsize, queue_tokens=sys.maxsize
    )
    return quickstudy.Model(served_models.Model.of(bundle, engine, settings), settings)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (TEXTS, {}),
        (TEXTS, {"beam_size": 3}),
        (TEXTS, {"alternatives": 2}),
        (TEXTS, {"glossary": {"red bike": "Rotrad", "Dog": "Hund"}}),
        ([HTML, "plain & simple"], {"format": "html", "glossary": {"old man": "Greis"}}),
        ([MARKDOWN], {"format": "markdown", "beam_size": 2}),
        (["the old dog " * 300], {}),
    ],
)
def test_it_equals_the_service(
    text: list[str], options: dict[str, Any], model: quickstudy.Model, client: TestClient
) -> None:
    body = {"text": text, "return": ["scores", "sentences"], **options}
    expected = client.post("/v1/translate", json=body).json()["translations"]
    results = model.translate_with_details(text, **options)
    assert [
        {
            "text": result.text,
            "truncated": result.truncated,
            "score": result.score,
            "warnings": [{"code": one.code, "message": one.message} for one in result.warnings],
            **({"alternatives": list(result.alternatives)} if "alternatives" in options else {}),
            "sentences": [pair._asdict() for pair in result.sentences],
        }
        for result in results
    ] == expected
    if "alternatives" not in options:
        assert model.translate(text, **options) == [item["text"] for item in expected]


def test_a_form_of_address(tmp_path: Path, model: quickstudy.Model) -> None:
    text = tiny.sentences()[0]
    tagged = tiny.make_tagged_bundle(tmp_path / "tagged", engines=["ctranslate2-int8"])
    with quickstudy.load(tagged.path, threads=1) as polite:
        assert polite.translate(text) == tiny.FORMAL
        assert polite.translate([text], formality="informal") == [tiny.INFORMAL]
        assert polite.translate_with_details(text, formality="formal").text == tiny.FORMAL
        ((one,),) = polite.translate_batches([[text]], formality="informal")
        assert one.text == tiny.INFORMAL
        done = subprocess.run(
            [*TRANSLATE, str(tagged.path), "--formality", "informal"],
            input=text, capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        assert done.stdout == f"{tiny.INFORMAL}\n"
        with pytest.raises(quickstudy.OptionError, match="'formal', 'informal' or None"):
            polite.translate(text, formality="less")  # type: ignore[call-overload]
    with pytest.raises(quickstudy.OptionError, match="not supported for de"):
        model.translate(text, formality="formal")


def test_a_bundles_own_beam_is_for_requests_that_name_none(tmp_path: Path) -> None:
    tokenizer_path = tiny.train_tokenizer(tmp_path / "tokenizer.model")
    model = tiny.barely_trained_model(tokenizer_path, steps=60)
    engines = ["ctranslate2-int8", "onnx-int8"]  # the second has no beam without a compiler
    made = tiny.make_bundle(
        tmp_path / "b", tokenizer_path, engines=engines, model=model, beam_size=4
    )
    assert made.manifest.decoding.beam_size == 4
    sentences = tiny.sentences()[:60]
    with quickstudy.load(made.path, threads=1) as loaded:
        greedy, beam = (loaded.translate(sentences, beam_size=size) for size in (1, 4))
        assert greedy != beam
        assert loaded.translate(sentences) == beam


def test_a_string_gives_a_string_and_a_list_a_list(model: quickstudy.Model) -> None:
    text = model.translate("a red dog")
    assert isinstance(text, str)
    assert model.translate(["a red dog"]) == [text]
    assert model.translate(("a red dog",)) == [text]
    assert model.translate_with_details("a red dog").text == text
    assert model.translate([]) == []
    assert (model.name, model.source, model.target) == ("tiny", "en", "de")
    assert "tiny" in repr(model)


def test_long_lists_keep_their_order_and_never_find_the_queue_full(bundle: Bundle) -> None:
    texts = [" ".join(["word"] * (row % 37)) + f" {row}" for row in range(1100)]
    with stub_model(bundle, StubEngine()) as model, ThreadPoolExecutor(4) as pool:
        for translations in pool.map(model.translate, [texts] * 4):
            assert [text.strip() for text in translations] == [t.upper().strip() for t in texts]


def test_it_works_inside_a_running_event_loop(model: quickstudy.Model) -> None:
    async def cell() -> str:
        return model.translate("a red dog")

    assert asyncio.run(cell()) == model.translate("a red dog")


def test_a_closed_model_says_so_and_is_freed(bundle: Bundle) -> None:
    engine = StubEngine()
    freed = weakref.ref(engine)
    model = stub_model(bundle, engine)
    del engine
    model.translate("a")
    model.close()
    model.close()
    with pytest.raises(quickstudy.ModelClosedError, match="load it again"):
        model.translate("a")
    assert model.name == "tiny"
    thread = model._thread._thread
    del model
    gc.collect()
    assert freed() is None
    assert not thread.is_alive()


def test_a_model_without_references_ends_its_thread(bundle: Bundle) -> None:
    model = stub_model(bundle, StubEngine())
    model.translate("a")
    thread = model._thread._thread
    del model
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_closing_ends_calls_that_wait(bundle: Bundle) -> None:
    engine = StubEngine(seconds=60)
    model = stub_model(bundle, engine)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            model.translate("a")
        except quickstudy.ModelClosedError as error:
            errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    while not engine.batches:
        threading.Event().wait(0.01)
    model.close()
    caller.join(10)
    engine.release.set()
    assert len(errors) == 1


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((b"bytes",), {}, "text is of type bytes: pass a str or a list of str"),
        ((None,), {}, "text is of type NoneType"),
        ((["a", 1],), {}, r"text\[1\] is of type int: pass a str"),
        (("\ud800",), {}, "text contains half of a surrogate pair"),
        (("a",), {"format": "xml"}, "format is 'xml': pass 'text' or 'html' or 'markdown'"),
        (("a",), {"beam_size": 9}, "beam_size is 9: set it to 1 up to 8"),
        (("a",), {"beam_size": 1.5}, "beam_size is 1.5"),
        (("a",), {"alternatives": 6}, "alternatives is 6: set it to 0 up to 5"),
        (("a",), {"glossary": {"": "x"}}, "glossary: a term of the glossary is empty"),
        ((bytearray(b"hi"),), {}, "text is of type bytearray: pass a str or a list of str"),
        ((memoryview(b"hi"),), {}, "text is of type memoryview: pass a str or a list of str"),
        (("a",), {"beam_size": True}, "beam_size is True: set it to an int, 1 up to 8"),
        (("a",), {"beam_size": "2"}, "beam_size is '2': set it to an int, 1 up to 8"),
        (("a",), {"beam_size": np.int64(9)}, "beam_size is 9: set it to 1 up to 8"),
        (("a",), {"alternatives": False}, "alternatives is False: set it to an int, 0 up to 5"),
        (("a",), {"glossary": "a"}, "glossary is of type str: pass a dict of str to str"),
        (("a",), {"glossary": ""}, "glossary is of type str"),
        (("a",), {"glossary": []}, "glossary is of type list"),
        (("a",), {"glossary": 0}, "glossary is of type int"),
        (("a",), {"glossary": [("a", "b")]}, "glossary is of type list"),
        (("a",), {"glossary": {"a": 1}}, r"glossary\['a'\] is of type int: pass a str"),
        (("a",), {"glossary": {"a": None}}, r"glossary\['a'\] is of type NoneType"),
        (("a",), {"glossary": {1: "a"}}, "the term 1 of the glossary is of type int: pass a str"),
        (("a",), {"glossary": {"a": "\udc80"}}, r"glossary\['a'\] contains half of a surrogate"),
        (("a",), {"glossary": {"\ud800": "a"}}, "of the glossary contains half of a surrogate"),
    ],
)
def test_invalid_arguments_say_what_to_pass(
    arguments: Sequence[Any], options: dict[str, Any], message: str, model: quickstudy.Model
) -> None:
    with pytest.raises(quickstudy.OptionError, match=message):
        model.translate_with_details(*arguments, **options)


def test_integers_of_other_types_and_other_mappings_count(
    bundle: Bundle, model: quickstudy.Model
) -> None:
    text = "the red bike"
    glossary = MappingProxyType({"red bike": "Rotrad"})
    assert model.translate_with_details(
        text, beam_size=np.int64(2), alternatives=np.uint8(1), glossary=glossary
    ) == model.translate_with_details(text, beam_size=2, alternatives=1, glossary=dict(glossary))
    assert model.translate(text, glossary={}) == model.translate(text)
    with quickstudy.load(bundle.path, threads=np.int32(1)) as other:
        assert other.translate(text) == model.translate(text)


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"/tmp"


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (None, {"threads": "2"}, "threads is '2': set it to an int, 1 up to 256"),
        (None, {"threads": 1.5}, "threads is 1.5: set it to an int"),
        (None, {"threads": True}, "threads is True: set it to an int"),
        (None, {"threads": 257}, "threads is 257: set it to 1 up to 256"),
        (None, {"engine": []}, "engine is of type list: pass a str or None"),
        (5, {}, "path is of type int: pass a str or a pathlib.Path"),
        ([], {}, "path is of type list"),
        (b"/tmp", {}, "path is of type bytes"),
        (BytesPath(), {}, "path is of type BytesPath"),
    ],
)
def test_invalid_options_of_load_say_what_to_pass(
    path: Any, options: dict[str, Any], message: str, bundle: Bundle
) -> None:
    with pytest.raises(quickstudy.OptionError, match=message):
        quickstudy.load(bundle.path if path is None else path, **options)


def test_what_cannot_be_loaded_says_what_to_do(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(quickstudy.BundleError, match="quickstudy export"):
        quickstudy.load(tmp_path / "none")
    with pytest.raises(quickstudy.BundleError, match="faster"):
        quickstudy.load(bundle.path, engine="faster")
    with pytest.raises(quickstudy.OptionError, match="threads is 0"):
        quickstudy.load(bundle.path, threads=0)
    assert issubclass(quickstudy.OptionError, quickstudy.QuickstudyError)
    assert issubclass(quickstudy.ModelClosedError, quickstudy.QuickstudyError)
    assert issubclass(quickstudy.BundleError, quickstudy.QuickstudyError)


@pytest.mark.parametrize("text", ["a", "1", []])
def test_an_engine_without_a_beam_says_so(bundle: Bundle, text: str | list[str]) -> None:
    engine = StubEngine(supported_options=frozenset())
    with stub_model(bundle, engine) as model:
        with pytest.raises(quickstudy.OptionError, match="beam_size is 2, but the engine"):
            model.translate(text, beam_size=2)
        with pytest.raises(quickstudy.OptionError, match="alternatives is 1, but the engine"):
            model.translate_with_details(text, alternatives=1)
        assert engine.batches == []
        model.translate_with_details(text, beam_size=1, alternatives=0)


def test_settings_of_the_service_have_no_effect(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICKSTUDY_QUEUE_SIZE", "none")
    monkeypatch.setenv("QUICKSTUDY_ENGINE", "none")
    with quickstudy.load(str(bundle.path)) as model:
        assert isinstance(model.translate("a dog"), str)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_importing_it_imports_nothing_heavy() -> None:
    done = python(
        "import sys, quickstudy; dir(quickstudy); "
        "print([m for m in ('numpy', 'pydantic', 'asyncio', 'service', 'export') "
        "if m in sys.modules], hasattr(quickstudy, 'nothing'))"
    )
    assert done.stdout == "[] False\n", done.stderr


def test_translating_imports_no_server_and_the_process_ends(bundle: Bundle) -> None:
    """While another thread still translates, and with the model still open."""
    code = """
import sys, threading, quickstudy
model = quickstudy.load(sys.argv[1], threads=1)
def translate():
    while True:
        model.translate(["the old dog"] * 100, beam_size=2)
threading.Thread(target=translate, daemon=True).start()
assert model.translate("a red dog")
servers = ("torch", "fastapi", "starlette", "uvicorn", "bentoml")
print([name for name in servers if name in sys.modules])
"""
    done = python(code, str(bundle.path))
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_call_when_the_interpreter_ends_says_so(bundle: Bundle) -> None:
    code = """
import atexit, sys, threading, quickstudy
def translate(text):
    try:
        print(model.translate(text))
    except quickstudy.ModelClosedError as error:
        print(error, flush=True)
atexit.register(translate, "the old dog " * 9000)  # prepared in a thread
model = quickstudy.load(sys.argv[1], threads=1)
atexit.register(translate, "the old dog")
"""
    done = python(code, str(bundle.path))
    assert done.stdout == 2 * f"{api.ENDING}\n", done.stderr
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_of_the_engine_is_not_taken_for_the_end(bundle: Bundle) -> None:
    class Broken(StubEngine):
        def translate_batch(self, sentences: Sequence[str], options: Any) -> Any:
            raise RuntimeError("out of memory")

    with stub_model(bundle, Broken()) as model, pytest.raises(RuntimeError, match="out of memory"):
        model.translate("a")


def test_a_forked_process_is_told_to_load_its_own(bundle: Bundle) -> None:
    code = """
import os, sys, quickstudy
model = quickstudy.load(sys.argv[1], threads=1)
if os.fork() == 0:
    try:
        model.translate("a")
    except quickstudy.QuickstudyError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    assert "load it in each process" in python(code, str(bundle.path)).stdout


def test_examples_of_the_documentation_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = "\n".join(PYTHON_BLOCK.findall(page))
    test = doctest.DocTestParser().get_doctest(code, {}, "python.md", "docs/python.md", 0)
    assert len(test.examples) > 10
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert not report, "".join(report)


def test_everything_public_is_documented() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert set(api.__all__) | {"QuickstudyError"} == set(quickstudy.__all__)
    for name in quickstudy.__all__:
        assert name in page
        assert getattr(quickstudy, name).__doc__


# --- lists, however many ------------------------------------------------------------------------


def test_batches_are_answered_in_order(model: quickstudy.Model) -> None:
    batches = [["a red dog", ""], [], ["the old dog", "a red dog. the old dog."], ["x" * 500]]
    answers = list(model.translate_batches(iter(batches)))
    assert [[one.text for one in answer] for answer in answers] == [
        model.translate(batch) for batch in batches
    ]


def test_a_batch_is_answered_before_the_next_is_there(model: quickstudy.Model) -> None:
    answered = threading.Event()

    def batches() -> Iterator[list[str]]:
        yield ["a red dog"]
        assert answered.wait(20)
        yield ["the old dog"]

    answers = model.translate_batches(batches())
    assert len(next(answers)) == 1
    answered.set()
    assert len(next(answers)) == 1
    assert list(answers) == []


def test_batches_without_end_are_taken_a_few_ahead(model: quickstudy.Model) -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[str]]:
        for number in itertools.count():
            taken.append(number)
            yield [f"dog {number}"]

    answers = model.translate_batches(batches())
    for _ in range(20):
        next(answers)
    answers.close()  # type: ignore[attr-defined]
    time.sleep(0.1)
    assert 20 <= len(taken) <= 20 + WINDOWS_IN_FLIGHT + 2


def test_what_batches_raise_comes_after_the_answers_before_it(model: quickstudy.Model) -> None:
    def batches() -> Iterator[list[str]]:
        yield ["a red dog"]
        raise OSError("the disk is gone")

    answers = model.translate_batches(batches())
    assert len(next(answers)) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(answers)


def test_batches_are_checked_as_lists_are(model: quickstudy.Model) -> None:
    with pytest.raises(OptionError, match="beam_size"):
        model.translate_batches([["a"]], beam_size=99)
    with pytest.raises(OptionError, match=r"text\[1\] is of type int"):
        list(model.translate_batches([["a", 5]]))  # type: ignore[list-item]


def test_windows_hold_so_many_texts_and_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "WINDOW_TEXTS", 3)
    monkeypatch.setattr(api, "WINDOW_CHARS", 10)
    texts = ["1", "2", "3", "4", "x" * 9, "y" * 11, "", "z"]
    windows = [["1", "2", "3"], ["4", "x" * 9], ["y" * 11], ["", "z"]]
    assert list(windows_of(texts)) == windows


def test_without_fallback_decoding_nothing_is_decoded_again(bundle: Bundle) -> None:
    with (
        quickstudy.load(bundle.path, threads=1, fallback_decoding=False) as hasty,
        quickstudy.load(bundle.path, threads=1) as model,
    ):
        assert model._scheduler._fallback
        assert not hasty._scheduler._fallback
        assert len(hasty.translate(["a red dog", "the old dog"])) == 2
