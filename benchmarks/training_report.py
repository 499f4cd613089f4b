"""The report of `benchmarks.training_speed` as Markdown, for docs/training.md."""

from __future__ import annotations

from typing import Any


def _range(value: dict[str, float], digits: int = 2) -> str:
    """`median (least – most)`."""
    median, least, most = (f"{value[key]:,.{digits}f}" for key in ("median", "least", "most"))
    return f"{median} ({least} – {most})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _setting(report: dict[str, Any]) -> str:
    model, machine = report["model"], report["machine"]
    lengths = report["mean_tokens"]
    return (
        f"{machine['processor']}, {report['cores_used']} cores ({machine['instructions']}), load "
        f"{machine['load_1min']} at the start, torch {machine['torch']}. Model: width "
        f"{model['width']}, heads {model['heads']}, ffn {model['ffn']}, "
        f"{model['encoder_layers']}-{model['decoder_layers']} layers, {report['vocabulary']:,} "
        f"pieces, dropout {model['dropout']}, {report['parameters']:,} parameters. "
        f"{report['text'].capitalize()} text of {lengths['source']} source and "
        f"{lengths['target']} target tokens a sentence; batches of {report['batch_tokens']:,} "
        f"target tokens. Medians of {report['rounds']} rounds that took turns (least – most)."
    )


def _trainers(report: dict[str, Any]) -> str:
    rows = [
        [
            row["trainer"],
            _range(row["target_tokens_per_second"], 0),
            _range(row["ratio_to_plain"]),
            f"{row['gflops']:,.0f}",
            f"{row['share_of_float32_products']:.0%}",
        ]
        for row in report["trainers"]
    ]
    head = ["trainer", "target tokens/s", "× plain torch loop", "GFLOP/s", "of float32 products"]
    return _table(head, rows)


def _objectives(report: dict[str, Any]) -> str:
    precisions = list(report["objectives"])
    by_name: dict[str, list[str]] = {}
    for precision in precisions:
        for row in report["objectives"][precision]["rows"]:
            cells = by_name.setdefault(row["objective"], [])
            cells += [
                _range(row["milliseconds_a_step"], 1),
                _range(row["ratio_to_nll"]),
            ]
    head = ["objective"]
    for precision in precisions:
        head += [f"ms a step, {precision}", "× nll"]
    return _table(head, [[name, *cells] for name, cells in by_name.items()])


def _skipped(report: dict[str, Any]) -> list[str]:
    found = dict(report["skipped"])
    for part in report["objectives"].values():
        found.update(part["skipped"])
    return [f"Not measured: {name}: {reason}" for name, reason in found.items()]


def markdown(report: dict[str, Any]) -> str:
    """What goes under `How fast`: setting, trainers, objectives, the machine's limit."""
    products = "; ".join(
        f"{name} {_range(value, 0)}" for name, value in report["gemm_gflops"].items()
    )
    limit = (
        f"A target token costs {report['flops_per_target_token'] / 1e6:.1f} million floating-point "
        f"operations in matrix products, its source tokens and the backward pass included. Matrix "
        f"products alone reach, in GFLOP/s: {products}."
    )
    parts = [
        "### Measured",
        _setting(report),
        _trainers(report),
        limit,
        "A step of each objective, on one thread, with its batch and labels read:",
        _objectives(report),
        *_skipped(report),
    ]
    return "\n\n".join(parts)
