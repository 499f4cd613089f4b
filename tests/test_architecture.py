"""The import contracts in pyproject.toml name every module that they are meant to forbid.

`lint-imports` (in `make lint`) checks the contracts themselves.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
SHARED = ("errors", "atomic", "cluster", "form_of_address", "machine", "progress")
"""Modules of `quickstudy` that every package may import."""


def modules_of(package: str, *allowed: str) -> set[str]:
    """Modules and packages right below a package, without the allowed ones."""
    names = {
        path.stem
        for path in (ROOT / package).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    return {f"{package}.{name}" for name in names - {"__init__", *allowed}}


def forbidden_to(package: str) -> set[str]:
    """Everything that some contract forbids a package to import."""
    return {
        module
        for contract in CONTRACTS
        if package in contract["source_modules"]
        for module in contract["forbidden_modules"]
    }


@pytest.mark.parametrize("package", ["export.runtime", "service"])
def test_serving_is_kept_from_all_of_export_but_its_runtime(package: str) -> None:
    assert modules_of("export", "runtime") <= forbidden_to(package)


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("training", SHARED),
        ("export", SHARED),
        ("service", SHARED),
        ("benchmarks", (*SHARED, "pipeline")),
    ],
)
def test_packages_are_kept_from_what_composes_them(package: str, allowed: tuple[str, ...]) -> None:
    assert modules_of("quickstudy", *allowed) <= forbidden_to(package)
