"""The paper's axes: does token-level distillation gain on sentence-level where things are simpler?

By size of the student, noise in the text, length and rarity of the source, and decoding, from
teacher forcing to beam search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.study.config import OWN, Study
from benchmarks.study.table import Row, Setting, StudyTable, group_label, share_seeds
from export.metrics import Paired, two_sided

TOKEN_LEVEL = {"token": "", "token-hypothesis": " along ŷ"}
"""Methods that are compared with sentence-level distillation, and how they are told apart."""
SENTENCE_LEVEL = "sentence"
FALSE_ALARM = 0.05
"""How likely any axis may be called a change that is none; shared among them (Bonferroni)."""


@dataclass(frozen=True)
class Advantage:
    """Of one method over another at one point of an axis."""

    where: str
    paired: Paired

    def __str__(self) -> str:
        seeds = "one seed" if self.paired.seeds == 1 else f"{self.paired.seeds} seeds"
        p_value = f"p = {self.paired.p_value:.3f}, {seeds}"
        return f"{self.where}: {self.paired.difference:+.2f} ({p_value})"


def advantages(
    table: StudyTable,
    points: list[str],
    rows_at: Callable[[str, str], list[Row]],
    setting: Setting,
    methods: tuple[str, str],
) -> list[Advantage]:
    """`methods[0]` over `methods[1]` at every point of an axis where both were trained."""
    rows = []
    for point in points:
        one, other = (rows_at(point, method) for method in methods)
        if share_seeds(one, other):
            rows.append(Advantage(point, table.compare(one, other, setting)))
    return rows


@dataclass(frozen=True)
class Axis:
    """Points from the simple end to the complex one, or the other way."""

    name: str
    points: list[Advantage]
    grows: bool
    """Whether the paper has token-level gain along it."""

    @property
    def change(self) -> float:
        """From end to end, BLEU."""
        return self.points[-1].paired.difference - self.points[0].paired.difference

    @property
    def p_value(self) -> float:
        """Of that change."""
        first, last = self.points[0].paired, self.points[-1].paired
        return two_sided(last.resampled - first.resampled, self.change)


def axes(table: StudyTable, study: Study, setting: Setting) -> list[Axis]:
    """Every axis on which the rows have two points or more."""
    return [
        axis
        for method in TOKEN_LEVEL
        for axis in _axes_of(table, study, setting, method)
        if len(axis.points) > 1
    ]


def _axes_of(table: StudyTable, study: Study, setting: Setting, method: str) -> Iterator[Axis]:
    methods, (base_text, base) = (method, SENTENCE_LEVEL), _base_group(table, method)
    suffix = TOKEN_LEVEL[method]
    sizes = advantages(
        table,
        list(table.sizes(OWN)),
        lambda student, method: table.of(OWN, student, method),
        setting,
        methods,
    )
    yield Axis(f"larger students (simpler){suffix}", sizes, grows=True)
    for kind, texts in noise_axes(study).items():
        noisy = advantages(
            table, texts, lambda text, method: table.of(text, base, method), setting, methods
        )
        yield Axis(f"harder text (source words: {kind}){suffix}", noisy, grows=False)
    one, other = (table.of(base_text, base, each) for each in methods)
    if not share_seeds(one, other):
        return
    if base_text != OWN:
        suffix += f", {group_label(base_text, base)}"
    for name, column in (("longer sources", 0), ("rarer source words", 1)):
        thirds = [
            Advantage(
                f"{which} third",
                table.compare(one, other, setting, table.bucket(setting, column, third)),
            )
            for third, which in enumerate(("first", "second", "last"))
        ]
        yield Axis(f"{name}{suffix}", thirds, grows=False)
    yield _decoding(table, one, other, suffix)


def _base_group(table: StudyTable, method: str) -> tuple[str, str]:
    """Text and student that other texts and decodings are compared with: the recipe's own, or the
    first that have rows of both methods, the recipe's text before others."""
    groups = sorted(table.groups(), key=lambda group: (group[0] != OWN, group[1] != OWN))
    for text, student in groups:
        if share_seeds(*(table.of(text, student, each) for each in (method, SENTENCE_LEVEL))):
            return text, student
    return OWN, OWN


def noise_axes(study: Study) -> dict[str, list[str]]:
    """The recipe's own text and those with ever more noise, by the kind of noise."""
    shares: dict[str, dict[str, float]] = {}
    for name, assignments in study.texts.items():
        set_to = dict(one.split("=", 1) for one in assignments)
        if "corpus.noise" in set_to:
            kind = set_to.get("corpus.noise_kinds", "mixed").strip("[] ")
            shares.setdefault(kind, {})[name] = float(set_to["corpus.noise"])
    return {kind: [OWN, *sorted(texts, key=texts.__getitem__)] for kind, texts in shares.items()}


def _decoding(table: StudyTable, one: list[Row], other: list[Row], suffix: str) -> Axis:
    """From teacher forcing to the widest beam, where that was measured; else from greedy decoding
    on, the wider beam being the easier."""
    settings = sorted(table.settings(), key=lambda setting: setting.beam)
    test = table.settings()[0].test
    points = [
        Advantage(setting.label, table.compare(one, other, setting))
        for setting in settings
        if setting.test == test
    ]
    if settings[0].beam == 0:
        return Axis(f"harder decoding (teacher forcing to beam){suffix}", points, grows=False)
    return Axis(f"beam search (easier decoding){suffix}", points, grows=True)


def axis_claims(found: list[Axis]) -> list[str]:
    """Whether token-over-sentence grows, or shrinks, along each axis as the paper claims."""
    return [_claim(axis, FALSE_ALARM / len(found)) for axis in found]


def _claim(axis: Axis, threshold: float) -> str:
    first, last = axis.points[0].paired, axis.points[-1].paired
    points = "; ".join(str(one) for one in axis.points)
    size = f"{axis.change:+.2f} from end to end, p = {axis.p_value:.3f}"
    direction = "more" if axis.change > 0 else "less"
    agrees = f"{'' if (axis.change > 0) == axis.grows else 'not '}the paper's direction"
    if min(first.seeds, last.seeds) == 1:
        said = f"single runs show a change of token-level less sentence-level ({size}), {agrees}"
    elif axis.p_value >= threshold:
        said = f"token-level less sentence-level does not change significantly ({size})"
    else:
        said = f"token-level gains {direction} on sentence-level ({size}), which is {agrees}"
    return f"- Along {axis.name}, {said}. Token less sentence, {points}."
