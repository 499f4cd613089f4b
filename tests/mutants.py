"""Mutation testing: `make mutants` puts small faults into the files that matter most, one by one,
and counts how many of them the tests of that file notice.

Which files, and the tests that belong to each, stand in FILES. Faults that change nothing that a
caller can see stand in EQUIVALENT, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import random
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome

ROOT = Path(__file__).parents[1]
LOSSES = "training/distill/losses"
LOSS_TESTS = (
    "tests/training/distill/test_losses_by_hand.py",
    "tests/training/distill/test_kd.py",
    "tests/training/distill/test_losses.py",
)
FILES: dict[str, Sequence[str]] = {
    "training/distill/gates.py": ("tests/training/distill/test_gates.py",),
    f"{LOSSES}/base.py": LOSS_TESTS,
    f"{LOSSES}/hybrid.py": (*LOSS_TESTS, "tests/training/distill/test_gates.py"),
    f"{LOSSES}/kd.py": LOSS_TESTS,
    f"{LOSSES}/minimum_risk.py": ("tests/training/distill/test_minimum_risk.py",),
    f"{LOSSES}/selective_kd.py": LOSS_TESTS,
    "training/data/batching.py": (
        "tests/training/test_batching.py",
        "tests/training/test_columns.py",
    ),
    "export/quality_gate.py": (
        "tests/export/test_quality_gate_by_hand.py",
        "tests/export/test_quality_gate.py",
    ),
    "service/fair_queue.py": (
        "tests/service/test_fair_queue_by_hand.py",
        "tests/service/test_fair_queue.py",
    ),
    "service/auth.py": (
        "tests/service/test_auth_by_hand.py",
        "tests/service/test_auth.py",
    ),
    **dict.fromkeys(
        ("service/text/protected.py", "service/text/placeholders.py"),
        (
            "tests/service/text/test_protected.py",
            "tests/service/text/test_text_document.py",
            "tests/service/text/test_text_markup.py",
            "tests/service/text/test_text_hostile.py",
        ),
    ),
}
EQUIVALENT: dict[str, dict[str, str]] = {
    f"{LOSSES}/base.py": {
        "logp = F.log_softmax(logits, dim=1)": "logits have two dimensions: the last one is 1",
    },
    f"{LOSSES}/kd.py": {
        "teacher_logp = F.log_softmax(top_logp / tau, dim=1)": "there are two dimensions",
        "student_logp = F.log_softmax(student_logits / tau, dim=1).gather(1, top_ids)": (
            "there are two dimensions"
        ),
    },
    f"{LOSSES}/minimum_risk.py": {
        "return F.pad(ids, (0, 2), value=PAD).scatter(1, lengths, EOS)[:, :longest]": (
            "what is padded too much is cut off"
        ),
    },
    f"{LOSSES}/selective_kd.py": {
        "rank = min(max(int((1 - self.share) * len(filled)), -1), len(filled) - 1)": (
            "a share is at most 1, so no rank is below 0"
        ),
        "top_one = student.top.gather(1, best)[:, -1].exp()": "there is one column",
    },
    "training/data/batching.py": {
        "return [row if len(row) < longest else [*row[: longest - 1], EOS] for row in rows]": (
            "a row ends with EOS already"
        ),
    },
    "service/text/placeholders.py": {
        "if place == -1:": "what is put together of all its parts is what was given",
        "if place == 1:": "what is put together of all its parts is what was given",
    },
}
"""By file: a line as the fault leaves it, and why no caller can tell."""
OPERATORS = re.compile(
    r"core/(?:NumberReplacer|AddNot|ZeroIterationForLoop|ExceptionReplacer"
    r"|Replace(?:TrueWithFalse|FalseWithTrue|AndWithOr|OrWithAnd)"
    r"|Replace(?:BreakWithContinue|ContinueWithBreak)"
    r"|ReplaceUnaryOperator_Delete_(?:USub|Not|Invert)"
    r"|ReplaceBinaryOperator_(?:Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_Add|Pow_Mul"
    r"|BitAnd_BitOr|BitOr_BitAnd)"
    r"|ReplaceComparisonOperator_(?:Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is"
    r"|Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt))"
)
"""Faults as people make them. Others of the tool's, such as shifts of floats, raise a TypeError
that any test notices."""
AIM = 0.9
MEMORY_BYTES = 16 << 30
"""Address space of a test run: a fault that fills a list for ever ends itself."""
COPIED = ("benchmarks", "export", "quickstudy", "recipes", "service", "tests", "training")


@dataclass(frozen=True)
class Mutant:
    """A fault in a file: the line that it leaves behind, and what became of it."""

    file: str
    spec: MutationSpec
    line: str = ""
    outcome: str = "not run"

    @property
    def reason(self) -> str | None:
        """Why it is equivalent, if it is."""
        return EQUIVALENT.get(self.file, {}).get(self.line)

    @property
    def where(self) -> str:
        """The file, the line and the line's number."""
        return f"{self.file}:{self.spec.start_pos[0]}: {self.line}"


def annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where the annotations of a file begin and end: nothing runs there."""
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign | ast.arg):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.returns)
    return [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in found
        if node is not None
    ]


def mutants_of(file: str, most: int, seed: int) -> list[Mutant]:
    """The faults of a file, or so many of them, drawn by the seed."""
    spans = annotations((ROOT / file).read_text(encoding="utf-8"))
    with (
        tempfile.TemporaryDirectory() as folder,
        use_db(Path(folder) / "session.sqlite", WorkDB.Mode.create) as database,
    ):
        init([ROOT / file], database, {})
        specs = [item.mutations[0] for item in database.work_items]
    kept = [
        spec
        for spec in sorted(specs, key=lambda spec: (spec.start_pos, spec.operator_name))
        if OPERATORS.fullmatch(spec.operator_name)
        and not any(start <= tuple(spec.start_pos) < end for start, end in spans)
    ]
    if len(kept) > most:
        kept = random.Random(f"{seed} {file}").sample(kept, most)
    return [Mutant(file, spec) for spec in kept]


def copy_tree(folder: Path) -> Path:
    """A copy of the sources to put faults into. Its bytecode is checked by the sources' hashes, so
    that no fault is missed that is put in within a second of another."""
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", "results")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    compiling = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash"]
    subprocess.run([*compiling, *COPIED], cwd=folder, check=True)
    return folder


def testing(tree: Path, file: str) -> list[str]:
    """Runs a file's tests in a copy, up to the first that fails."""
    environment = ["env", "-C", str(tree), f"PYTHONPATH={tree}", "OMP_NUM_THREADS=1"]
    options = ["-x", "-q", "-p", "no:cacheprovider", "--basetemp", str(tree / ".tmp")]
    return [*environment, sys.executable, "-m", "pytest", *options, *FILES[file]]


def time_limit(tree: Path, file: str) -> float:
    """Seconds that the tests of a file may take, by what they take without a fault."""
    begun = time.monotonic()
    run = subprocess.run(testing(tree, file), capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"the tests of {file} fail without a fault in it:\n{run.stdout[-2000:]}")
    return 10 + 4 * (time.monotonic() - begun)


def try_out(mutant: Mutant, tree: Path, limit: float) -> Mutant:
    """Put a fault into a copy, run the tests, take it out again."""
    spec = mutant.spec
    there = MutationSpec(
        tree / mutant.file, spec.operator_name, spec.occurrence, spec.start_pos, spec.end_pos
    )
    command = shlex.join(testing(tree, mutant.file))
    result = mutate_and_test([there], command, limit)
    if result.test_outcome not in (TestOutcome.KILLED, TestOutcome.SURVIVED) or not result.diff:
        raise RuntimeError(f"{mutant.where}: {result.output}")
    changed = [line for line in result.diff.splitlines() if re.match(r"\+(?!\+\+ )", line)]
    line = changed[0][1:].strip() if changed else ""
    timed_out = result.output == "timeout"
    return replace(
        mutant, line=line, outcome="timed out" if timed_out else result.test_outcome.value
    )


def all_tried(
    mutants: Sequence[Mutant], trees: Sequence[Path], deadline: float
) -> Iterator[Mutant]:
    """Every fault that there is time for, tried out, as many at once as there are copies."""
    free: SimpleQueue[Path] = SimpleQueue()
    for tree in trees:
        free.put(tree)
    with ThreadPoolExecutor(len(trees)) as pool:

        def limit(file: str) -> float:
            tree = free.get()
            try:
                return time_limit(tree, file)
            finally:
                free.put(tree)

        files = list(dict.fromkeys(mutant.file for mutant in mutants))
        limits = dict(zip(files, pool.map(limit, files), strict=True))

        def tried(mutant: Mutant) -> Mutant:
            if time.monotonic() > deadline:
                return mutant
            tree = free.get()
            try:
                return try_out(mutant, tree, limits[mutant.file])
            finally:
                free.put(tree)

        yield from pool.map(tried, mutants)


def report(mutants: Sequence[Mutant], seconds: float) -> tuple[str, float]:
    """The report as Markdown, and the share killed of all that are not equivalent."""
    lines = [
        f"{time.strftime('%Y-%m-%d')}, Cosmic Ray {version('cosmic-ray')}, Python "
        f"{sys.version.split()[0]}, {seconds / 60:.0f} minutes",
        "",
        "| file | mutants | equivalent | killed | share |",
        "| --- | --- | --- | --- | --- |",
    ]
    run = [mutant for mutant in mutants if mutant.outcome != "not run"]
    for file in [*dict.fromkeys(mutant.file for mutant in run), ""]:
        of_file = [mutant for mutant in run if file in ("", mutant.file)]
        survivors = [mutant for mutant in of_file if mutant.outcome == "survived"]
        equivalent = sum(mutant.reason is not None for mutant in survivors)
        killed, counted = len(of_file) - len(survivors), len(of_file) - equivalent
        share = killed / max(counted, 1)
        name = f"`{file}`" if file else "all"
        lines.append(f"| {name} | {len(of_file)} | {equivalent} | {killed} | {share:.0%} |")
    survivors = [mutant for mutant in run if mutant.outcome == "survived" and not mutant.reason]
    if survivors:
        lines += ["", "Survived:", "", *sorted(f"- `{mutant.where}`" for mutant in survivors)]
    if timed_out := sum(mutant.outcome == "timed out" for mutant in run):
        lines += ["", f"Of the killed, {timed_out} ran out of time."]
    if left := len(mutants) - len(run):
        lines += ["", f"{left} mutants were not tried: the time was up."]
    return "\n".join(lines) + "\n", share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="files of FILES; default: all")
    parser.add_argument("--per-file", type=int, default=24, help="most mutants of a file")
    parser.add_argument("--seed", type=int, default=1, help="which mutants of a file are drawn")
    parser.add_argument("--minutes", type=float, default=18, help="no mutant is begun after that")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.files) - set(FILES):
        sys.exit(f"{', '.join(sorted(unknown))}: add it to FILES in tests/mutants.py")
    begun = time.monotonic()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    by_file = [
        mutants_of(file, arguments.per_file, arguments.seed) for file in arguments.files or FILES
    ]
    # By turns, so that where the time is up every file has had its share of it.
    mutants = [one for turn in itertools.zip_longest(*by_file) for one in turn if one]
    print(f"{len(mutants)} mutants of {len(by_file)} files", flush=True)
    done: list[Mutant] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [copy_tree(Path(folder) / str(number)) for number in range(arguments.workers)]
        for mutant in all_tried(mutants, trees, begun + 60 * arguments.minutes):
            done.append(mutant)
            if mutant.outcome == "survived" and not mutant.reason:
                print(f"{len(done)}/{len(mutants)} survived: {mutant.where}", flush=True)
    text, share = report(done, time.monotonic() - begun)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(None if share >= AIM else f"{share:.0%} are killed, the aim is {AIM:.0%}")


if __name__ == "__main__":
    main()
