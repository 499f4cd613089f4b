"""Cache, queue and fallback decoding together, over an engine that does as it is told."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from export.runtime.engines import TranslateOptions, Translation
from export.runtime.manifest import SEARCH_OPTIONS, Formality
from quickstudy.form_of_address import forms_of_german
from service.batching import ClosedError, DeadlineError, QueueFullError
from service.fair_queue import Priority
from service.fallback import AskedForm
from service.observability import exposition
from service.scheduler import CheckedTranslation, Scheduler
from service.settings import Settings

GREEDY = TranslateOptions()
LOOP = "da da da da"


class FakeEngine:
    """Upper-cases. A sentence with `loops` loops until beam search, one with `stuck` until the
    penalty, one with `lost` for ever; `bad` raises. Waits while `held`."""

    max_input_tokens = 100
    runtime = "stub"
    reads_all_text = True

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], TranslateOptions]] = []
        self.supported_options = SEARCH_OPTIONS
        self._free = threading.Event()
        self._free.set()

    def hold(self) -> None:
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    @property
    def sentences(self) -> list[str]:
        return [sentence for batch, _ in self.calls for sentence in batch]

    def count_tokens(self, sentence: str) -> int:
        return len(sentence.split())

    def unknown_spans(self, sentence: str) -> list[tuple[int, int]]:
        return []

    def output_limit(self, source_tokens: int) -> int:
        return 100

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        self.calls.append((list(sentences), options))
        assert self._free.wait(60)
        if any("bad" in sentence for sentence in sentences):
            raise RuntimeError("bad sentence")
        return [self._translation(sentence, options) for sentence in sentences]

    def _translation(self, sentence: str, options: TranslateOptions) -> Translation:
        loops = (
            "lost" in sentence
            or ("loops" in sentence and options.beam_size == 1)
            or ("stuck" in sentence and options.repetition_penalty == 1)
        )
        score = -0.5 if options.return_scores else None
        return Translation(LOOP if loops else sentence.upper(), len(sentence.split()), score)


@dataclass(frozen=True)
class FakeModel:
    identity: str
    engine: FakeEngine = field(compare=False)
    form: AskedForm | None = field(default=None, compare=False)

    def asked_form(self, formality: Formality | None) -> AskedForm | None:
        return self.form


class Scene:
    """A scheduler over a fake engine."""

    def __init__(self, **settings: Any) -> None:
        self.engine = FakeEngine()
        self.model = FakeModel("model", self.engine)
        self.scheduler = Scheduler(Settings(inter_threads=1, **settings))

    async def texts(self, *sentences: str, **arguments: Any) -> list[str]:
        found = await self.scheduler.translate(self.model, sentences, GREEDY, **arguments)
        return [one.translation.text for one in found]

    def start(self, *sentences: str, **arguments: Any) -> asyncio.Task[list[str]]:
        return asyncio.ensure_future(self.texts(*sentences, **arguments))


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 90))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_sentence_is_translated_once() -> None:
    async def scenario() -> None:
        scene = Scene()
        assert await scene.texts("a", "b", "a") == ["A", "B", "A"]
        assert await scene.texts("b", "c") == ["B", "C"]
        assert sorted(scene.engine.sentences) == ["a", "b", "c"]
        assert await scene.texts("a|b") == ["A|B"]
        assert await scene.texts() == []
        await scene.scheduler.close()

    run(scenario)


def test_equal_sentences_in_the_making_are_joined() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.hold()
        first, second = scene.start("a", "b"), scene.start("a", "b", "c")
        await until(lambda: scene.engine.calls)
        scene.engine.release()
        assert (await first, await second) == (["A", "B"], ["A", "B", "C"])
        assert sorted(scene.engine.sentences) == ["a", "b", "c"]
        await scene.scheduler.close()

    run(scenario)


def test_a_one_liner_does_not_join_a_document() -> None:
    async def scenario() -> None:
        scene = Scene(max_batch_sentences=4)
        document = scene.start(*(f"s{index}" for index in range(100)))
        assert await scene.texts("s99") == ["S99"]
        assert not document.done()
        assert (await document)[99] == "S99"
        await scene.scheduler.close()

    run(scenario)


def test_who_joined_goes_on_when_the_maker_gives_up() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.hold()
        blocker = scene.start("blocker")
        await until(lambda: scene.engine.calls)
        maker, joined = scene.start("a"), scene.start("a")
        await until(lambda: scene.scheduler.batcher.waiting == 1)
        maker.cancel()
        await asyncio.sleep(0.001)
        scene.engine.release()
        assert await joined == ["A"]
        assert await blocker == ["BLOCKER"]
        assert scene.engine.sentences == ["blocker", "a"]
        await scene.scheduler.close()

    run(scenario)


def test_models_share_neither_batches_nor_translations() -> None:
    async def scenario() -> None:
        scene = Scene()
        other = FakeModel("other", FakeEngine())
        scene.engine.hold()
        blocker = scene.start("blocker")
        await until(lambda: scene.engine.calls)
        first = scene.start("a", "b")
        second = asyncio.ensure_future(scene.scheduler.translate(other, ["a", "c"], GREEDY))
        await until(lambda: scene.scheduler.batcher.waiting == 4)
        scene.engine.release()
        await asyncio.gather(blocker, first, second)
        assert scene.engine.sentences == ["blocker", "a", "b"]
        assert other.engine.sentences == ["a", "c"]
        same = FakeModel("model", FakeEngine())  # the same files, loaded again
        await scene.scheduler.translate(same, ["a"], GREEDY)
        assert same.engine.sentences == []
        await scene.scheduler.close()

    run(scenario)


def test_tokens_are_counted_once_and_long_texts_off_the_loop() -> None:
    counted: Counter[str] = Counter()
    threads: set[int] = set()

    class CountingEngine(FakeEngine):
        def count_tokens(self, sentence: str) -> int:
            counted[sentence] += 1
            threads.add(threading.get_ident())
            return 1

    async def scenario() -> None:
        scene = Scene()
        scene.model = FakeModel("model", CountingEngine())
        await scene.texts("short")
        assert threads == {threading.get_ident()}
        threads.clear()
        await scene.texts(*(f"long {index} " + "x" * 100 for index in range(50)))
        assert threading.get_ident() not in threads
        assert set(counted.values()) == {1}
        await scene.scheduler.close()

    run(scenario)


def test_without_a_cache_everything_is_translated() -> None:
    async def scenario() -> None:
        scene = Scene(cache_bytes=0)
        assert await scene.texts("a") + await scene.texts("a") == ["A", "A"]
        assert scene.engine.sentences == ["a", "a"]
        await scene.scheduler.close()

    run(scenario)


def test_what_looks_wrong_is_tried_again() -> None:
    async def scenario() -> None:
        scene = Scene()
        sentences = ["fine x", "loops x", "stuck x", "lost x"]
        found = await scene.scheduler.translate(scene.model, sentences, GREEDY)
        assert [one.translation.text for one in found] == ["FINE X", "LOOPS X", "STUCK X", LOOP]
        assert [[w.code for w in one.warnings] for one in found] == [[], [], [], ["repetition"]]
        tried = [(batch, o.beam_size, o.repetition_penalty) for batch, o in scene.engine.calls]
        assert tried == [
            (sentences, 1, 1.0),
            (["loops x", "stuck x", "lost x"], 4, 1.0),
            (["stuck x", "lost x"], 4, 1.3),
        ]
        again = await scene.scheduler.translate(scene.model, sentences, GREEDY)
        assert again == found
        assert len(scene.engine.calls) == 3  # the best of three tries is what the cache keeps
        await scene.scheduler.close()

    run(scenario)


class GermanEngine(FakeEngine):
    """Translates three sentences; greedily into the first of these."""

    GERMAN: ClassVar = {
        "Wait!": ("Warte bitte!", "Wartet!", "Warten Sie!", "Warten Sie doch!"),
        "Wait, wait.": ("Warte bitte!", "Sie Sie Sie warten auf Sie.", "Wartet.", "Wart."),
        "Rain.": ("Regen.", "Der Regen.", "Ein Regen.", "Es regnet."),
        "Your name": ("Gib Ihren Namen ein", "Gib den Namen ein", "Namen eingeben", "Name"),
    }

    def translate_batch(
        self, sentences: Sequence[str], options: TranslateOptions
    ) -> list[Translation]:
        self.calls.append((list(sentences), options))
        texts = [self.GERMAN[sentence] for sentence in sentences]
        return [
            Translation(first, 3, -0.3, alternatives=others[: options.alternatives])
            for first, *rest in texts
            for others in [tuple(rest)]
        ]


@pytest.mark.parametrize("alternatives", [0, 2])
def test_the_other_form_of_address_gives_way_to_the_asked_one(alternatives: int) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine = GermanEngine()
        scene.model = FakeModel("german", scene.engine, AskedForm("formal", forms_of_german))
        options = TranslateOptions(alternatives=alternatives)
        sentences = ["Wait!", "Wait, wait.", "Rain."]
        found = await scene.scheduler.translate(scene.model, sentences, options)
        texts = [one.translation.text for one in found]
        assert texts == ["Warten Sie!", "Warte bitte!", "Regen."], "what is worse is not taken"
        assert not any(one.warnings for one in found)
        others = [one.translation.alternatives for one in found]
        assert others[0] == ("Warte bitte!", "Wartet!")[:alternatives]
        assert others[1] == ("Sie Sie Sie warten auf Sie.", "Wartet.")[:alternatives]
        [_, (again, search)] = scene.engine.calls
        assert again == ["Wait!", "Wait, wait."], "who addresses nobody is not asked again"
        assert (search.beam_size, search.alternatives) == (4, 3)
        assert await scene.scheduler.translate(scene.model, sentences, options) == found
        assert len(scene.engine.calls) == 2
        await scene.scheduler.close()

    run(scenario)


def test_one_that_mixes_both_forms_gives_way_to_one_that_has_none() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine = GermanEngine()
        scene.model = FakeModel("german", scene.engine, AskedForm("formal", forms_of_german))
        assert await scene.texts("Your name") == ["Namen eingeben"]
        await scene.scheduler.close()

    run(scenario)


@pytest.mark.parametrize(
    ("form", "is_on", "supported"),
    [
        ("informal", True, SEARCH_OPTIONS),
        ("formal", False, SEARCH_OPTIONS),
        ("formal", True, {"beam_size"}),
    ],
)
def test_a_form_is_not_looked_for_in_vain(
    form: Formality, is_on: bool, supported: set[str]
) -> None:
    """Where it is there, fallback decoding is off, or the engine has no alternatives."""

    async def scenario() -> None:
        scene = Scene(fallback_decoding=is_on)
        scene.engine = GermanEngine()
        scene.engine.supported_options = frozenset(supported)
        scene.model = FakeModel("german", scene.engine, AskedForm(form, forms_of_german))
        assert await scene.texts("Wait!") == ["Warte bitte!"]
        assert len(scene.engine.calls) == 1
        await scene.scheduler.close()

    run(scenario)


@pytest.mark.parametrize("by_settings", [False, True])
def test_fallback_decoding_can_be_switched_off(by_settings: bool) -> None:
    async def scenario() -> None:
        scene = Scene(fallback_decoding=not by_settings)
        found = await scene.scheduler.translate(
            scene.model, ["loops x"], GREEDY, fallback=by_settings
        )
        assert found[0].translation.text == LOOP
        assert [warning.code for warning in found[0].warnings] == ["repetition"]
        assert [options for _, options in scene.engine.calls] == [GREEDY]
        if not by_settings:
            assert await scene.texts("loops x") == ["LOOPS X"]  # the cache tells them apart
        await scene.scheduler.close()

    run(scenario)


def test_scores_are_shown_only_when_asked() -> None:
    async def scenario() -> None:
        scene = Scene()
        plain = await scene.scheduler.translate(scene.model, ["a"], GREEDY)
        scored = await scene.scheduler.translate(
            scene.model, ["a"], TranslateOptions(return_scores=True)
        )
        assert (plain[0].translation.score, scored[0].translation.score) == (None, -0.5)
        assert scene.engine.sentences == ["a"]
        await scene.scheduler.close()

    run(scenario)


@pytest.mark.parametrize(
    ("supported", "searches"),
    [
        ({"beam_size"}, [(1, 1.0), (4, 1.0)]),
        ({"repetition_penalty"}, [(1, 1.0), (1, 1.3)]),
        (set(), [(1, 1.0)]),
    ],
)
def test_fallbacks_are_those_that_the_engine_has(
    supported: set[str], searches: list[tuple[int, float]]
) -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.supported_options = frozenset(supported)
        found = await scene.scheduler.translate(scene.model, ["lost"], GREEDY)
        assert [warning.code for warning in found[0].warnings] == ["repetition"]
        assert [(o.beam_size, o.repetition_penalty) for _, o in scene.engine.calls] == searches
        await scene.scheduler.close()

    run(scenario)


def test_a_model_that_was_swapped_out_is_let_go() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.texts("stuck")
        former = weakref.ref(scene.engine)
        scene.engine = FakeEngine()
        scene.model = FakeModel("another", scene.engine)
        await scene.texts("a")
        await scene.texts("b")
        gc.collect()
        assert former() is None
        await scene.scheduler.close()

    run(scenario)


def test_a_stream_gives_each_sentence_in_order_and_goes_on_after_a_fault() -> None:
    async def scenario() -> None:
        scene = Scene(max_batch_sentences=2)
        await scene.texts("c")
        sentences = ["a", "loops x", "bad", "c", "d", "a", "e"]
        async with scene.scheduler.stream(scene.model, sentences, GREEDY) as outcomes:
            found = [one async for one in outcomes]
        shown = [
            one.translation.text if isinstance(one, CheckedTranslation) else str(one)
            for one in found
        ]
        assert shown == ["A", "LOOPS X", "bad sentence", "C", "D", "A", "E"]
        with pytest.raises(RuntimeError, match="bad sentence"):
            await scene.texts("f", "bad")
        await scene.scheduler.close()

    run(scenario)


def test_deadlines_and_closing_end_a_request() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.hold()
        maker = scene.start("a")
        await until(lambda: scene.engine.calls)
        for sentences in (["a"], ["b"], ["a", "b"]):  # joined, own, both
            with pytest.raises(DeadlineError):
                await scene.texts(*sentences, within_s=0.003)
        waits = scene.start("b")
        await until(lambda: scene.scheduler.batcher.waiting == 1)
        await scene.scheduler.close(0.001)
        for task in (maker, waits):
            with pytest.raises(ClosedError):
                await task
        with pytest.raises(ClosedError):
            await scene.texts("new")
        scene.engine.release()

    run(scenario)


def test_a_full_queue_is_told_when_entering_and_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        scene = Scene(queue_size=1)
        scene.engine.hold()
        first = scene.start("first")
        await until(lambda: scene.engine.calls)
        second = scene.start("second")
        await until(lambda: scene.scheduler.batcher.waiting == 1)
        with pytest.raises(QueueFullError):
            async with scene.scheduler.stream(scene.model, ["third"], GREEDY):
                raise AssertionError("must not be entered")
        scene.engine.release()
        assert (await first, await second) == (["FIRST"], ["SECOND"])
        assert await scene.texts("third") == ["THIRD"]
        await scene.scheduler.close()

    run(scenario)


def test_fallbacks_of_a_document_do_not_crowd_out_one_liners() -> None:
    async def scenario() -> None:
        scene = Scene(max_batch_sentences=4)
        document = scene.start(*(f"lost {index}" for index in range(40)), priority=Priority.BULK)
        for number in range(10):
            before = len(scene.engine.calls)
            assert await scene.texts(f"line {number}") == [f"LINE {number}"]
            assert len(scene.engine.calls) - before <= 5
        assert await document == [LOOP] * 40
        assert all(scene.engine.sentences.count(f"lost {index}") == 3 for index in range(40))
        await scene.scheduler.close()

    run(scenario)


def test_bulk_goes_by_length_and_is_decoded_again_all_at_once() -> None:
    async def scenario() -> None:
        scene = Scene(max_batch_sentences=4)
        sentences = [f"{' '.join('abcdefghi'[: row * 7 % 10])} loops {row}" for row in range(10)]
        expected = [sentence.upper() for sentence in sentences]
        assert await scene.texts(*sentences, priority=Priority.BULK) == expected
        greedy = [call for call, options in scene.engine.calls if options.beam_size == 1]
        again = [call for call, options in scene.engine.calls if options.beam_size > 1]
        by_length = sorted(sentences, key=scene.engine.count_tokens, reverse=True)
        assert [sentence for call in greedy for sentence in call] == by_length
        assert [len(call) for call in again] == [4, 4, 2]
        assert [call for call, _ in scene.engine.calls] == [*greedy, *again]
        await scene.scheduler.close()

    run(scenario)


def test_a_bulk_request_fails_as_its_first_bad_sentence_does() -> None:
    async def scenario() -> None:
        scene = Scene()
        with pytest.raises(RuntimeError, match="bad sentence"):
            await scene.texts("good", "a bad one", "fine", priority=Priority.BULK)
        assert await scene.texts("good", "fine", priority=Priority.BULK) == ["GOOD", "FINE"]
        await scene.scheduler.close()

    run(scenario)


def test_metrics_count_with_few_labels() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.texts("lost y", "secret words")
        await scene.texts("secret words")
        await scene.scheduler.close()

    run(scenario)
    text = exposition().decode()
    for name in (
        'quickstudy_cache_lookups_total{result="hit"}',
        'quickstudy_cache_lookups_total{result="miss"}',
        'quickstudy_warnings_total{code="repetition"}',
        'quickstudy_second_tries_total{result="dropped"}',
        "quickstudy_queue_seconds_count",
        "quickstudy_batch_tokens_sum",
        "quickstudy_tokens_total",
    ):
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert float(line.rpartition(" ")[2]) > 0
    assert "secret" not in text


def test_many_clients_that_leave_one_after_the_other_harm_nobody() -> None:
    """Each that takes over the sentence of the one before is given up, too."""

    async def scenario() -> None:
        scene = Scene()
        scene.engine.hold()
        first = scene.start("another sentence")
        await until(lambda: scene.engine.calls)
        leaving = [scene.start("the same", *[f"own {row}"][: row % 2]) for row in range(400)]
        await asyncio.sleep(0.05)
        staying = scene.start("the same")
        await asyncio.sleep(0.01)
        for task in leaving:
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*leaving, return_exceptions=True)
        scene.engine.release()
        assert await staying == ["THE SAME"]
        assert await first == ["ANOTHER SENTENCE"]
        assert all(task.cancelled() for task in leaving)
        assert scene.engine.sentences.count("the same") == 1

    run(scenario)


def test_all_clients_that_leave_at_once_harm_nobody() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.engine.hold()
        first = scene.start("another sentence")
        await until(lambda: scene.engine.calls)
        leaving = [scene.start("the same", "and more") for _ in range(400)]
        await asyncio.sleep(0.05)
        staying = scene.start("the same")
        await asyncio.sleep(0.01)
        for task in leaving:
            task.cancel()
        scene.engine.release()
        assert await staying == ["THE SAME"]
        assert await first == ["ANOTHER SENTENCE"]

    run(scenario)
