"""The page's JavaScript, called from Python through Node.js."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
SCRIPT = Path(__file__).parent / "web" / "call.mjs"

needs_node = pytest.mark.skipif(NODE is None, reason="needs Node.js (Debian: apt install nodejs)")


def call(name: str, **arguments: Any) -> Any:
    """What a function of `web/call.mjs` returns."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, str(SCRIPT), name],
        input=json.dumps(arguments).encode(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)
