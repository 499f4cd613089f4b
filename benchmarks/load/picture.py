"""The picture of a load run: latency against throughput."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STYLES = {"native": ("#0b6e99", "-", "/v1/translate"), "libretranslate": ("#d98f2b", "--", "/translate")}  # fmt: skip # noqa: E501
LINES = (("p50", "o"), ("p95", "^"))


def draw(report: dict[str, Any], path: Path) -> bool:
    """Write a PNG of the open loop; False if there was none."""
    found = report["services"].get("no cache", {}).get("open-loop")
    if not found:
        return False
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axis = figure.subplots()
    for shape, (colour, line, label) in STYLES.items():
        for name, marker in LINES:
            axis.plot(
                [row["per_s"] for row in found[shape]],
                [row[name] for row in found[shape]],
                f"{line}{marker}",
                color=colour,
                alpha=1.0 if name == "p50" else 0.55,
                label=f"{label}, {name}",
            )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="requests answered a second, one sentence each (log scale)",
        ylabel="ms from when a request was due (log scale)",
    )
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_formatter(ScalarFormatter())
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    draft = path.with_suffix(".tmp.png")
    figure.savefig(draft, dpi=130)
    draft.replace(path)
    return True
