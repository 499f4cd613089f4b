"""How cost scales along an axis: figures, and the exponent b of seconds = a · x^b."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.results import ScalingFit, ScalingPoint, Speed
from benchmarks.speed import RESAMPLES, SEED, figure, take_turns, tidy
from benchmarks.systems.base import WHOLE, System
from benchmarks.systems.process import SystemProcess, start_systems
from training.config.model import ModelConfig

LENGTHS = (4, 8, 16, 32, 64, 120)
DOCUMENTS = (1, 4, 16, 64, 256)
VOCABULARIES = (2000, 4000, 8000, 16000, 32000)
DEPTHS = (1, 2, 4, 8)
SENTENCES = 8
"""Made-up sentences that a random model translates a turn."""
WORDS_A_SENTENCE = 12
Count = Callable[[str], int]


@dataclass(frozen=True)
class Axis:
    """What is varied, in which unit, and what the seconds are of."""

    name: str
    unit: str
    of: str


LENGTH = Axis("sentence length", "source tokens", "a sentence alone")
DOCUMENT = Axis("document length", "sentences", "a document at once")
BATCH = Axis("batch size", "sentences", "a sentence")
THREADS = Axis("threads", "threads", "a sentence of a whole file")
VOCABULARY = Axis("vocabulary", "tokens", "a sentence alone, random weights")
DEPTH = Axis("decoder depth", "layers", "a sentence alone, random weights")


def fit_power_law(system: str, axis: Axis, measured: dict[float, list[float]]) -> ScalingFit | None:
    """Seconds of each round by x → the fit; None for fewer than two points.

    The interval of the exponent is of 95 %, from bootstrapping the rounds of every point.
    """
    if len(measured) < 2:
        return None
    xs = np.log([float(x) for x in measured])
    generator = np.random.default_rng(SEED)
    medians, resampled = [], []
    for values in measured.values():
        rounds = np.asarray(values)
        drawn = generator.integers(0, len(rounds), (RESAMPLES, len(rounds)))
        medians.append(np.median(rounds))
        resampled.append(np.median(rounds[drawn], axis=1))
    ys = np.log(medians)
    exponent, constant = np.polyfit(xs, ys, 1)
    low, high = np.quantile(np.polyfit(xs, np.log(np.stack(resampled)), 1)[0], [0.025, 0.975])
    rest = ys - (exponent * xs + constant)
    spread = float(((ys - ys.mean()) ** 2).sum())
    return ScalingFit(
        system=system,
        axis=axis.name,
        unit=axis.unit,
        of=axis.of,
        points=tuple(ScalingPoint(x=x, seconds=figure(values)) for x, values in measured.items()),
        exponent=tidy(float(exponent)),
        exponent_low=tidy(float(low)),
        exponent_high=tidy(float(high)),
        r_squared=tidy(1 - float((rest**2).sum()) / spread) if spread else 1.0,
    )


def from_speeds(speed: Sequence[Speed], system: str) -> list[ScalingFit]:
    """Fits along the batch size on one thread, and of whole files along threads."""
    own = [row for row in speed if row.system == system]

    def seconds(row: Speed) -> list[float]:
        return [1 / value for value in row.sentences_per_second.rounds]

    by_batch = {
        float(row.batch_size): seconds(row) for row in own if row.threads == 1 and row.batch_size
    }
    by_threads = {float(row.threads): seconds(row) for row in own if row.batch_size == WHOLE}
    fits = [fit_power_law(system, BATCH, by_batch), fit_power_law(system, THREADS, by_threads)]
    return [fit for fit in fits if fit is not None]


def along_text(
    running: SystemProcess, sentences: Sequence[str], count: Count, most_tokens: int, rounds: int
) -> list[ScalingFit]:
    """Fits of a system along sentence length and document length; points take turns."""
    texts = {
        float(length): cut_to_length(sentences, length, count)
        for length in LENGTHS
        if length <= most_tokens
    }
    lengths = {x: some for x, some in texts.items() if some}
    documents = {float(n): list(sentences[:n]) for n in DOCUMENTS if n <= len(sentences)}
    name = running.info.name
    by_length = _turns(running, lengths, 1, rounds, per_sentence=True)
    by_document = _turns(running, documents, WHOLE, rounds, per_sentence=False)
    fits = [fit_power_law(name, LENGTH, by_length), fit_power_law(name, DOCUMENT, by_document)]
    return [fit for fit in fits if fit is not None]


def cut_to_length(
    sentences: Sequence[str], length: int, count: Count, wanted: int = SENTENCES
) -> list[str]:
    """Real text cut into `wanted` stretches of at most `length` tokens, each as near as words
    allow; fewer where the text is too short."""
    words = [word for sentence in sentences for word in sentence.split()]
    stretches: list[str] = []
    start = 0
    while len(stretches) < wanted and start < len(words):
        end = start + 1
        while end < len(words) and count(" ".join(words[start : end + 1])) <= length:
            end += 1
        stretches.append(" ".join(words[start:end]))
        start = end
    return stretches


def _turns(
    running: SystemProcess,
    texts: dict[float, list[str]],
    batch_size: int,
    rounds: int,
    per_sentence: bool,
) -> dict[float, list[float]]:
    seconds_by_x: dict[float, list[float]] = {x: [] for x in texts}
    for number in range(rounds + 1):
        for x, some in texts.items():
            seconds = running.time(some, batch_size).seconds
            if number:  # the first one warms up
                seconds_by_x[x].append(seconds / len(some) if per_sentence else seconds)
    return seconds_by_x


def along_models(
    config: ModelConfig, vocab_size: int, rounds: int, quick: bool
) -> list[ScalingFit]:
    """Fits along vocabulary and decoder depth, of models of these dimensions with random
    weights that never end a translation by themselves, so that all write equally much."""
    vocabularies = VOCABULARIES[:2] if quick else VOCABULARIES
    depths = DEPTHS[:2] if quick else DEPTHS
    fits = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for axis, models in (
            (VOCABULARY, {float(v): (config, v) for v in vocabularies}),
            (DEPTH, {float(d): (_deep(config, d), vocab_size) for d in depths}),
        ):
            systems = {x: random_system(folder / f"{axis.name} {x}", *m) for x, m in models.items()}
            seconds = _models_turns(systems, rounds)
            label = f"random, {config.width} wide, ctranslate2-int8"
            if (fit := fit_power_law(label, axis, seconds)) is not None:
                fits.append(fit)
    return fits


def _deep(config: ModelConfig, layers: int) -> ModelConfig:
    return config.model_copy(update={"decoder_layers": layers})


def _models_turns(systems: dict[float, System], rounds: int) -> dict[float, list[float]]:
    failed: dict[str, str] = {}
    with start_systems(systems.values(), 1, failed) as running:
        turns = take_turns(running, list(made_up()), 1, rounds, failed)
    return {
        x: [1 / value for value in turns[system.info.name].sentences_per_second]
        for x, system in systems.items()
        if system.info.name in turns
    }


def made_up() -> Iterator[str]:
    """Sentences in the words of a made-up tokenizer."""
    for number in range(SENTENCES):
        yield " ".join(f"t{10 + number + place}" for place in range(WORDS_A_SENTENCE))


def random_system(folder: Path, config: ModelConfig, vocab_size: int) -> System:
    """A 7-bit CTranslate2 engine with random weights that writes to its limit."""
    import torch

    from benchmarks.systems.ours import bundle_systems
    from benchmarks.trainers import write_tokenizer
    from export.exporter import export_bundle
    from training.checkpoint import build_model
    from training.model.transformer import EOS

    folder.mkdir(parents=True)
    write_tokenizer(folder / "tokenizer.model", vocab_size)
    torch.manual_seed(SEED)
    model = build_model(config, vocab_size).eval()
    with torch.no_grad():
        model.output_bias[EOS] = -30.0  # beyond it, float32 scores are too coarse to check
    bundle = export_bundle(
        model=model,
        tokenizer_path=folder / "tokenizer.model",
        recipe_text="name: random\n",
        out=folder / "bundle",
        name="random",
        source_lang="en",
        target_lang="de",
        licence="none",
        attribution="",
        description="Random weights.",
        max_input_tokens=min(config.max_length - 1, 64),
    )
    return bundle_systems(bundle, (1,), prefix=f"random {folder.name}")[0]
