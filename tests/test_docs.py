"""The documentation is held to the code: its links, its map, its recipe reference."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from training.config.io import recipe_reference

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("training", "export", "service", "benchmarks")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(rf"`((?:{'|'.join(FOLDERS)}|recipes|docs|tests|web)/[\w./-]*)`")


def test_the_recipe_reference_is_that_of_the_schema() -> None:
    written = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert written == recipe_reference(), "run: quickstudy recipe reference > docs/recipes.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


@pytest.mark.parametrize(("page", "least"), [("docs/map.md", 40), ("CONTRIBUTING.md", 20)])
def test_pages_about_the_code_name_files_that_exist(page: str, least: int) -> None:
    names = NAMED.findall((ROOT / page).read_text(encoding="utf-8"))
    assert len(names) > least
    for name in names:
        assert (ROOT / name).exists(), f"{page} names {name}, which does not exist"


def test_the_map_leaves_no_file_out() -> None:
    names = set(NAMED.findall((ROOT / "docs" / "map.md").read_text(encoding="utf-8")))
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if path.stat().st_size and name not in names:
                pytest.fail(f"docs/map.md has no line for {name}")


def test_the_map_has_every_file_once() -> None:
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    counts = Counter(name for cell in rows for name in NAMED.findall(cell))
    assert [name for name, count in counts.items() if count > 1] == []
