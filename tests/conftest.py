"""What all tests share: one thread a process, since the matrices here are tiny, and slow files
first, so that no process is left alone with one in the end."""

import os
from collections import Counter

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
