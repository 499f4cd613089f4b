"""The benchmark itself: its parts by hand, and the whole harness on a tiny model."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.plan import (
    BenchRequest,
    TextSample,
    buckets,
    make_text,
    plan_bundle,
    rarity_of_counts,
    sample_of,
    thirds,
)
from benchmarks.quality import Comet
from benchmarks.report import write_report
from benchmarks.results import ReportPart, Results, ResultsError, load_results
from benchmarks.roofline import flops_per_sentence, part_of, parts_of, stop
from benchmarks.run import Options, measure
from benchmarks.scaling import LENGTH, cut_to_length, fit_power_law, from_speeds
from benchmarks.speed import figure, latencies, noise_of, range_of, take_turns
from benchmarks.systems.base import CLASSES, WHOLE, Unavailable, batches, missing
from benchmarks.systems.process import SystemFailed, SystemProcess
from export.metrics import (
    BLEU_SCORE,
    TER_SCORE,
    bleu_of,
    resampled_scores,
    statistics_of,
    ter_statistics_of,
)
from export.runtime.bundle import Bundle
from quickstudy.machine import process_tree, tree_cpu_seconds
from tests.benchmarks.bench_results import STUDENT, speed
from tests.benchmarks.echo_system import MODULE, Echo
from tests.export import tiny
from training.checkpoint import save_checkpoint
from training.config.recipe import ModelConfig

CONFIG = ModelConfig(
    width=32, heads=4, ffn=48, encoder_layers=2, decoder_layers=1, dropout=0.0, max_length=64
)
RECIPE = yaml.safe_dump({"name": "tiny", "student": {"model": CONFIG.model_dump()}})


# --- systems in processes of their own ------------------------------------------------------------


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `Echo` be one of the systems, here and in their processes."""
    monkeypatch.setitem(CLASSES, "Echo", MODULE)
    monkeypatch.setattr("benchmarks.systems.process.WORKER", MODULE)


@pytest.mark.usefixtures("echo")
def test_a_system_runs_in_its_own_process() -> None:
    with SystemProcess(Echo("a"), 1) as running:
        assert running.translate(["x", "y"], 2) == ["x 2", "y 2"]
        timing, calls = running.time_each(["x", "y", "z"])
        assert len(calls) == 3
        assert timing.seconds == pytest.approx(sum(calls))
        assert running.loaded.seconds > 0
        assert running.peak_bytes() >= running.loaded.bytes_after // 2 > 0
        assert running.pid in process_tree(running.pid)
        assert tree_cpu_seconds(running.pid) > 0


@pytest.mark.usefixtures("echo")
def test_what_goes_wrong_in_a_system_is_told() -> None:
    with pytest.raises(Unavailable, match="pip install it"):
        SystemProcess(Echo("a", fails="unavailable"), 1)
    with SystemProcess(Echo("a", fails="raise"), 1) as running:
        with pytest.raises(SystemFailed, match="ValueError: too long"):
            running.translate(["bad"], 1)
        assert running.translate(["x"], 1) == ["x 1"]


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(("fails", "told"), [("exit", "last words"), ("hang", "no answer in 1 s")])
def test_a_system_that_ends_or_hangs_is_given_up(fails: str, told: str) -> None:
    with SystemProcess(Echo("a", fails=fails), 1) as running:
        running.patience = 1.0
        with pytest.raises(SystemFailed, match=told):
            running.translate(["bad"], 1)


@pytest.mark.usefixtures("echo")
def test_systems_take_turns_and_a_broken_one_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    failed: dict[str, str] = {}
    with (
        SystemProcess(Echo("a", log=str(log)), 1) as a,
        SystemProcess(Echo("b", "raise", log=str(log)), 1) as b,
    ):
        log.write_text("")
        found = take_turns([a, b], ["x" * 9000, "bad"], 2, 2, failed)
        later = take_turns([a, b], ["x"], 8, 2, failed)
    assert list(found) == list(later) == ["a"]
    assert "too long" in failed["b"]
    assert len(found["a"].sentences_per_second) == 2


@pytest.mark.usefixtures("echo")
def test_turns_are_interleaved(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        SystemProcess(Echo("a", log=str(log), slow=0.3), 1) as a,
        SystemProcess(Echo("b", log=str(log), slow=0.3), 1) as b,
    ):
        log.write_text("")
        take_turns([a, b], ["x"], 8, 2, {})
        assert log.read_text() == "ababab"  # warm-up, then two rounds
        found = take_turns([a, b], ["x"], 8, 9, {}, seconds=0.1)
    assert len(found["a"].sentences_per_second) == 3


@pytest.mark.usefixtures("echo")
def test_a_system_that_does_not_start_is_told_with_its_last_words() -> None:
    """The other side takes no class but those it knows, whatever it is sent."""
    CLASSES["Stranger"] = __name__
    try:
        with pytest.raises(SystemFailed, match="'Stranger' is none of the systems"):
            SystemProcess(Stranger("a"), 1)
    finally:
        del CLASSES["Stranger"]


class Stranger(Echo):
    """A system that only this process takes for one."""


def test_batches() -> None:
    assert batches("abcde", 2) == ["ab", "cd", "e"]
    assert batches("abc", WHOLE) == ["abc"]
    with pytest.raises(ValueError, match="1 or more"):
        batches("abc", -1)


def test_what_is_missing_is_named_with_the_command() -> None:
    assert missing("pip install x", ["json"], ["sh"]) is None
    found = missing("pip install x", ["json", "no_such_module"], ["no-such-program"])
    assert found == "no_such_module, no-such-program are not installed: pip install x"


# --- figures --------------------------------------------------------------------------------------


def test_a_figure_is_a_median_with_an_interval() -> None:
    found = figure([1.0, 3.0, 2.0])
    assert found.median == 2
    assert (found.low, found.high) == (1, 3)
    assert found.rounds == (1, 3, 2)
    with pytest.raises(ValueError, match="no rounds"):
        figure([])


def test_a_power_law_is_found_again() -> None:
    measured = {x: [0.5 * x**1.5] * 3 for x in (2.0, 4.0, 8.0, 16.0)}
    found = fit_power_law("s", LENGTH, measured)
    assert found is not None
    assert found.exponent == pytest.approx(1.5, abs=1e-4)
    assert found.r_squared == pytest.approx(1)
    assert found.exponent_low <= found.exponent <= found.exponent_high
    assert fit_power_law("s", LENGTH, {1.0: [1.0]}) is None


def test_growth_with_batch_size_follows_from_speeds() -> None:
    rows = [speed(STUDENT, [100.0 * n, 100.0 * n], n) for n in (1, 8, 32)]
    (found,) = from_speeds(rows, STUDENT)
    assert found.axis == "batch size"
    assert found.exponent == pytest.approx(-1, abs=1e-3)


def test_text_is_cut_to_length_to_lengths() -> None:
    found = cut_to_length(["a b c", "d e f g"], 3, lambda text: len(text.split()), wanted=2)
    assert found == ["a b c", "d e f"]


def test_operations_of_a_translation_by_hand() -> None:
    """D 4, F 8, V 10, one layer each; two source and three target tokens.

    Encoder 2 · (4·32 + 128 + 4·2·4) = 576; keys and values of the source 2 · 64 = 128; three steps
    of 6·32 + 128 + 4·2·4 = 352, and attention to 1, 2 and 3 steps 4·4·6 = 96; output 3 · 80 = 240.
    """
    model = CONFIG.model_copy(
        update={"width": 4, "heads": 1, "ffn": 8, "encoder_layers": 1, "decoder_layers": 1}
    )
    src, trg = np.array([2]), np.array([3])
    assert flops_per_sentence(model, 10, src, trg) == 576 + 128 + 3 * 352 + 96 + 240
    beam = 576 + 128 + 2 * (3 * 352 + 96 + 240)
    assert flops_per_sentence(model, 10, src, trg, beam_size=2) == beam


def test_latency_percentiles_are_of_each_round_and_third() -> None:
    sample = TextSample(["a", "b", "c"], np.array([1, 2, 3]), np.array([0, 1, 2]))
    found = latencies("s", [[0.001, 0.002, 0.009, 0.003, 0.002, 0.009]], sample, 1)
    assert [one.third for one in found] == [None, 0, 1, 2]
    assert found[1].p50_ms.median == pytest.approx(2)
    assert found[3].p99_ms.median == pytest.approx(9)


def test_thirds_and_rarity() -> None:
    assert thirds(np.array([5, 1, 3])).tolist() == [2, 0, 1]
    rarity = rarity_of_counts(np.array([8, 1, 1]))
    assert rarity[0] < rarity[1] == rarity[2]
    assert buckets([[0], [0, 0], [1, 1, 1]], rarity).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_ter_and_bleu_resample_around_their_scores() -> None:
    references = ["a b c d e f"] * 20
    outputs = ["a b c d e f", "a x c d e f"] * 10
    statistics = ter_statistics_of(outputs, references)
    assert TER_SCORE.score(statistics.sum(0)) == pytest.approx(100 * 1 / 12)
    bleu = statistics_of(outputs, references)
    resampled = resampled_scores(bleu, BLEU_SCORE)
    assert resampled.min() < bleu_of(bleu) < resampled.max()


def test_noise_is_put_in_words() -> None:
    assert noise_of(0.1, 0.0, [figure([1.0, 1.1])]) == []
    busy, stolen, unsteady = noise_of(3.0, 0.2, [figure([1.0, 2.0])])
    assert "3.0" in busy
    assert "20%" in stolen
    assert "1 of 1" in unsteady
    assert range_of(figure([1.0, 2.0, 3.0])) == 1


def test_perf_lines_are_gathered_into_parts() -> None:
    lines = [
        "    60.00%  [JIT] tid 12875                   [.] 0x00007f6bd36ed06c",
        "    10.00%  libctranslate2-a7a60d30.so.4.8.5  [.] ctranslate2::cpu::quantize_s8<2>",
        "    10.00%  libctranslate2-a7a60d30.so.4.8.5  [.] dnnl::impl::cpu::x64::gemm_kernel<int>",
        "    10.00%  libpython3.11.so.1.0              [.] _PyEval_EvalFrameDefault",
        "     5.00%  _sentencepiece.cpython-311.so     [.] Encode",
        "     5.00%  libother.so                       [.] something",
        "            |--1.26%--0x7fd677cdd6c0",
    ]
    found = {part.name: part.share for part in parts_of(lines)}
    assert found["matrix products"] == 0.7
    assert found["quantising"] == found["Python"] == 0.1
    assert found["tokenising"] == found["rest of libother"] == 0.05
    assert part_of("[kernel.kallsyms]", "futex") == "system calls"
    assert part_of("libctranslate2.so", "dequantize_gemm_output") == "quantising"


def test_lines_that_perf_pads_are_read_in_no_time() -> None:
    """Its lines are all as long as the longest name of C++, thousands of characters."""
    padded = [f"     0.01%  [JIT] tid 1   [.] 0x{n:016x}{' ' * 8000}-      -   " for n in range(50)]
    begin = time.process_time()
    [part] = parts_of([*padded, "    1%" + " " * 8000 + "x"])
    assert part == ReportPart(name="matrix products", share=1.0)
    assert time.process_time() - begin < 1  # minutes, if the pattern looked back


# --- the whole harness ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.train_tokenizer(tmp_path_factory.mktemp("bench") / "tokenizer.model")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Bundle:
    folder = tmp_path_factory.mktemp("bench-bundle")
    model = tiny.barely_trained_model(tokenizer_path)
    save_checkpoint(
        folder / "checkpoint", model.state_dict(), CONFIG, tokenizer_path, RECIPE, {"steps": 1}
    )
    return tiny.make_bundle(
        folder / "tiny",
        tokenizer_path,
        model=model,
        recipe_text=RECIPE,
        engines=["ctranslate2-int8"],
    )


@pytest.fixture
def text(tmp_path: Path) -> tuple[Path, Path]:
    lines = "".join(f"{line}\n" for line in tiny.sentences()[:24])
    for name in ("test.en", "test.de"):
        (tmp_path / name).write_text(lines)
    return tmp_path / "test.en", tmp_path / "test.de"


def test_a_sample_is_spread_over_lengths(bundle: Bundle) -> None:
    import sentencepiece as spm

    tokenizer = spm.SentencePieceProcessor(model_file=str(bundle.tokenizer_path))
    pairs = [(line, line) for line in tiny.sentences()]
    made = make_text("toy", pairs, tokenizer, np.ones(tokenizer.get_piece_size()))
    sample = sample_of(made, 12, lambda tokens: tokens < 30)
    assert len(set(sample.sentences)) <= len(sample.sentences) == 12
    assert sample.lengths.max() < 30
    assert sample.lengths.min() == made.lengths.min()
    assert np.bincount(sample.thirds).tolist() == [4, 4, 4]
    assert sample.sentences == sample_of(made, 12, lambda tokens: tokens < 30).sentences
    with pytest.raises(ResultsError, match="no sentences"):
        make_text("empty", [], tokenizer, np.ones(1))


def test_a_bundle_without_a_text_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="--src FILE and --ref FILE"):
        plan_bundle(bundle.path, BenchRequest(), tmp_path)


@pytest.mark.slow
def test_the_whole_harness(
    bundle: Bundle, text: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts on a tiny model, the student's and the teacher's weights being the same."""
    monkeypatch.setattr("benchmarks.scaling.VOCABULARIES", (320, 640))
    monkeypatch.setattr("benchmarks.run.usable_cores", lambda: 1)
    checkpoint = bundle.path.parent / "checkpoint"
    request = BenchRequest(
        beams=(1,), only=("teacher torch",), teacher=checkpoint, src=text[0], ref=text[1]
    )
    plan = plan_bundle(bundle.path, request, tmp_path)
    assert [one.info.name for one in plan.systems] == [plan.main, "teacher torch"]
    options = Options(
        rounds=1,
        batch_sizes=(1, 8, WHOLE),
        threads=(1,),
        beams=(1,),
        quick=True,
        alone=3,
        batched=8,
        whole=12,
        peak_seconds=0.01,
        profile_seconds=0.2,
        comet=Comet(tmp_path / "none" / "checkpoints" / "model.ckpt"),
    )
    lines: list[str] = []
    found = measure(plan, options, lines.append)
    page = write_report(found, tmp_path / "out")
    assert load_results(tmp_path / "out" / "results.json") == found
    _check(found)
    assert [one.name for one in found.skipped] == ["COMET"]
    assert "A quick run" in page.read_text()
    assert any("sentences/s" in line for line in lines)


def _check(found: Results) -> None:
    """Everything that was asked for is there, and agrees with itself."""
    student, teacher = found.quality
    assert [one.metric for one in student.scores] == ["BLEU", "chrF2", "TER"]
    assert all(one.low <= one.score <= one.high for one in student.scores)
    assert student.against == "teacher torch"
    assert student.scores[0].score == pytest.approx(teacher.scores[0].score, abs=8)
    assert len(student.buckets) == 6
    assert len(found.speed) == 2 * 3
    assert len(found.ratios) == 3
    for ratio in found.ratios:
        fast = found.speed_of(found.main_system, 1, ratio.batch_size)
        slow = found.speed_of("teacher torch", 1, ratio.batch_size)
        assert fast is not None
        assert slow is not None
        quotient = fast.sentences_per_second.median / slow.sentences_per_second.median
        assert ratio.times.median == pytest.approx(quotient, rel=1e-3)
    assert {one.third for one in found.latency} == {None, 0, 1, 2}
    assert all(one.bytes_peak >= one.bytes_loaded > one.bytes_before for one in found.cost)
    assert {one.precision for one in found.peaks} == {"float32", "int8"}
    assert {one.system for one in found.shares} == {found.main_system, "teacher torch"}
    assert all(0 < (one.share_of_float32 or 0) < 1 for one in found.shares)
    axes = {one.axis for one in found.growth}
    assert {"sentence length", "batch size", "document length", "vocabulary"} <= axes
    assert "decoder depth" in axes


def test_a_recorder_that_misses_the_first_signal_is_ended() -> None:
    deaf = "import signal, sys, time; left = [None]\n"
    deaf += "signal.signal(signal.SIGINT, lambda *_: left.pop() if left else sys.exit())\n"
    deaf += "print('up', flush=True)\nwhile True: time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", deaf], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as recorder:
        assert recorder.stdout is not None
        recorder.stdout.readline()
        stop(recorder)
        assert recorder.returncode == 0
