"""The model card: Markdown made from a bundle's manifest, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from export.manifest import GateRecord, Manifest, Metric

EXAMPLE = "A man is riding a bicycle."


def render_card(manifest: Manifest) -> str:
    """The card of a bundle. Everything in it follows from the manifest."""
    sections = (
        _front(manifest),
        _engines(manifest),
        _gate(manifest.gate),
        _usage(manifest),
        _metrics(manifest.metrics),
        _data(manifest),
        _limitations(manifest),
    )
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def _front(manifest: Manifest) -> str:
    return f"""# {manifest.name}

{manifest.description}

Translates **{manifest.source_lang} → {manifest.target_lang}**: a Transformer of \
{manifest.parameters:,} parameters with a joint SentencePiece vocabulary of \
{manifest.vocab_size:,} pieces, made by Quickstudy {manifest.quickstudy_version} on \
{manifest.created:%Y-%m-%d}. Version {manifest.version}. `{manifest.recipe}` is the recipe that \
made it; `manifest.json` holds the size and SHA-256 of every file."""


def _engines(manifest: Manifest) -> str:
    rows = [
        (
            f"`{engine.name}`" + (" (default)" if engine.name == manifest.default_engine else ""),
            engine.kind,
            engine.precision_label,
            f"{manifest.engine_bytes(engine) / 1e6:.2f} MB",
        )
        for engine in manifest.engines
    ]
    return "## Engines\n\n" + _table(("name", "kind", "precision", "size"), rows)


def _gate(gate: GateRecord | None) -> str:
    """What the export gate found, as a table; empty where nothing was compared."""
    if gate is None:
        return ""
    rows = [
        (
            f"`{check.engine}`",
            f"{check.identical:.1%}",
            f"{check.bleu:.2f}",
            f"{check.bleu_difference:+.2f} ({check.bleu_p:.3f})",
            f"{check.chrf_difference:+.2f} ({check.chrf_p:.3f})",
            "–" if check.score_difference is None else f"{check.score_difference:.1e}",
            "; ".join(check.faults) or "passed",
        )
        for check in gate.engines
    ]
    head = (
        *("engine", "lines as torch's", "BLEU", "BLEU less torch's (p)", "chrF2 less torch's (p)"),
        *("log-probability", "export gate"),
    )
    versions = ", ".join(f"{name} {number}" for name, number in gate.versions.items())
    text = f"""## Against the model in torch

{gate.sentences} sentences of {gate.dataset}, greedy, against {gate.reference} in torch \
({gate.torch_bleu:.2f} BLEU); {versions}.

{_table(head, rows)}

{"  ".join(f"`{one}`" for one in gate.signatures)}. The last column but one is the largest \
difference of a line's mean log-probability, in nats."""
    if gate.forced:
        text += "\n\n**Published by force, although it broke a limit of the export gate.**"
    return text + _worst_lines(gate)


def _worst_lines(gate: GateRecord) -> str:
    rows = [
        (f"`{check.engine}`", line.source, line.torch, line.engine, f"{line.chrf:.0f}")
        for check in gate.engines
        for line in check.worst[:2]
    ]
    if not rows:
        return ""
    head = ("engine", "source", "torch", "engine's", "chrF2")
    return "\n\nThe lines that changed most:\n\n" + _table(head, rows)


def _usage(manifest: Manifest) -> str:
    decoding = manifest.decoding
    search = "greedy" if decoding.beam_size == 1 else f"beam {decoding.beam_size}"
    return f"""## Use

Serve the bundle (`QUICKSTUDY_MODEL=path/to/this/folder make serve`), then:

```sh
curl -s http://127.0.0.1:3000/v1/translate \\
  -H 'Content-Type: application/json' \\
  -d '{{"text": "{EXAMPLE}", "source": "{manifest.source_lang}", \
"target": "{manifest.target_lang}"}}'
```

Decoding is {search} unless a request asks for more. Sentences of more than \
{decoding.max_input_tokens} tokens are split, and the output for n source tokens is at most \
{decoding.max_output_ratio:g} n + {decoding.max_output_constant} tokens long \
({decoding.max_output_tokens} at the most)."""


def _metrics(metrics: Iterable[Metric]) -> str:
    rows = [
        (
            metric.system,
            metric.engine or "–",
            metric.precision or "–",
            metric.decoding,
            metric.dataset,
            metric.metric,
            f"{metric.score:.2f}",
            f"`{metric.signature}`",
        )
        for metric in metrics
    ]
    if not rows:
        return "## Quality\n\nNot evaluated yet."
    head = ("system", "engine", "precision", "decoding", "test set", "metric", "score", "signature")
    return "## Quality\n\n" + _table(head, rows)


def _data(manifest: Manifest) -> str:
    return f"""## Training data and licence

Licence of the training data and of this model: {manifest.licence}

{manifest.attribution}"""


def _limitations(manifest: Manifest) -> str:
    return f"""## Limitations

- It knows what its training data talks about. Outside of that, and for names, numbers, technical
  terms and rare words, expect mistakes, some of them fluent.
- It sees one sentence at a time: a pronoun or a form of address may not fit the sentences around.
- It translates {manifest.source_lang} → {manifest.target_lang} only. Text in another language is
  neither detected nor refused, and what comes out means nothing.
- Biases of the training data come through, for instance in the gender of professions.
- Do not rely on it where an error does harm (medicine, law, safety) without a person's check."""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
