#!/usr/bin/env bash
# lightning-fabric 2.6.6 with torch 2.13.0: `import lightning_fabric` imports torch's compiler, torch._dynamo, and with it
# SymPy, though nothing is compiled: nearly as many modules again as torch itself, and as much CPU time. torch alone
# imports neither. Every process that a launcher of several processes starts pays for it once more.
# Seen (CPython 3.11, CPU build): torch 997 modules, 2.2 s of CPU time; lightning_fabric 934 more, 93 of them of
# torch._dynamo and 419 of SymPy, 2.1 s.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 lightning-fabric==2.6.6

"$folder/venv/bin/python" - <<'PYTHON'
import sys
import time


def imported(name: str) -> set[str]:
    before, began = set(sys.modules), time.process_time()
    __import__(name)
    new = set(sys.modules) - before
    parts = {part: sum(one.startswith(part) for one in new) for part in ("torch._dynamo", "sympy")}
    print(f"{name}: {len(new)} modules, {time.process_time() - began:.1f} s of CPU time, of them {parts}")
    return new


torch, fabric = imported("torch"), imported("lightning_fabric")
if {"torch._dynamo", "sympy"} & torch:
    sys.exit("changed: torch imports its compiler or SymPy by itself")
if not {"torch._dynamo.symbolic_convert", "sympy"} <= fabric:
    sys.exit("changed: lightning_fabric imports no compiler")
if len(fabric) < len(torch) / 2:
    sys.exit("changed: lightning_fabric imports fewer than half as many modules as torch")
PYTHON
echo "as described"
