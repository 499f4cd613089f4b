"""The model card of a bundle: everything in it follows from the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from export.runtime.manifest import (
    SEARCH_OPTIONS,
    Domain,
    GateRecord,
    Manifest,
    Metric,
    Origin,
    printable,
)

EXAMPLE = "A man is riding a bicycle."


def render_card(manifest: Manifest) -> str:
    """The card of a bundle. Everything in it follows from the manifest."""
    sections = (
        _front(manifest),
        _origin(manifest.origin),
        _engines(manifest),
        _gate(manifest.gate, "torch" if manifest.origin is None else "the reference"),
        _usage(manifest),
        _metrics(manifest.metrics) if manifest.metrics or not manifest.domains else "",
        _domains(manifest.domains),
        _data(manifest),
        _limitations(manifest),
    )
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def _front(manifest: Manifest) -> str:
    return f"""# {manifest.name}

{manifest.description}

Translates **{manifest.source_lang} → {manifest.target_lang}**: a Transformer of \
{manifest.parameters:,} parameters with {_vocabulary(manifest)}, {_maker(manifest)}; \
`manifest.json` holds the size and SHA-256 of every file."""


def _vocabulary(manifest: Manifest) -> str:
    if manifest.source_vocab_size is None:
        return f"a joint SentencePiece vocabulary of {manifest.vocab_size:,} pieces"
    return (
        f"SentencePiece vocabularies of {manifest.source_vocab_size:,} pieces for the source and "
        f"{manifest.vocab_size:,} for the target"
    )


def _maker(manifest: Manifest) -> str:
    """Who made the model; ends with what made it, for one of our own."""
    day = f"Quickstudy {manifest.quickstudy_version} on {manifest.created:%Y-%m-%d}"
    if manifest.origin is not None:
        return (
            f"trained by others and imported by {day}. Version {manifest.version}. "
            "Where it comes from is below"
        )
    return (
        f"made by {day}. Version {manifest.version}. `{manifest.recipe}` is the recipe that made it"
    )


ORIGINS = {
    "firefox": "a model of Firefox's translations",
    "marian": "a Marian model",
    "huggingface-marian": "a Marian model of Hugging Face Transformers",
    "argos": "an Argos Translate package",
    "ctranslate2": "a CTranslate2 folder",
}


def _origin(origin: Origin | None) -> str:
    """Where an imported model comes from, and what was changed; empty for one of our own."""
    if origin is None:
        return ""
    version = f", version {_plain(origin.version)}" if origin.version else ""
    changes = "\n".join(f"- {_plain(change)}" for change in origin.changes)
    changed = f"The import changed:\n\n{changes}" if changes else "The import changed nothing."
    rows = [(f"`{name}`", f"`{sha256}`") for name, sha256 in sorted(origin.files.items())]
    return f"""## Origin

It was {ORIGINS[origin.format]}: {_plain(origin.name)}{version}. Quickstudy did not train it, and \
has measured of it what this card says, no more. {changed}

{_table(("file that was read", "SHA-256"), rows)}"""


def _plain(text: str) -> str:
    return " ".join(printable(text).split())


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


def _gate(gate: GateRecord | None, reference: str) -> str:
    """What the gate found, as a table; empty where nothing was compared. `reference` is what the
    engines were held against, in a word."""
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
    theirs = f"{reference}'s"
    head = (
        *("engine", f"lines as {theirs}", "BLEU", f"BLEU less {theirs} (p)"),
        *(f"chrF2 less {theirs} (p)", "log-probability", "export gate"),
    )
    versions = ", ".join(f"{name} {number}" for name, number in gate.versions.items())
    place = " in torch" if reference == "torch" else ""
    bleu = f"{gate.torch_bleu:.2f} BLEU"
    if not gate.references:
        bleu = "BLEU and chrF2 are against its lines: there are no references"
    text = f"""## Against {"the model in torch" if place else "the reference"}

{gate.sentences} sentences of {gate.dataset}, greedy, against {gate.reference}{place} \
({bleu}); {versions}.

{_table(head, rows)}

{"  ".join(f"`{one}`" for one in gate.signatures)}. The last column but one is the largest \
difference of a line's mean log-probability, in nats."""
    if gate.forced:
        text += "\n\n**Published by force, although it broke a limit of the export gate.**"
    return text + _worst_lines(gate, reference)


def _worst_lines(gate: GateRecord, reference: str) -> str:
    rows = [
        (f"`{check.engine}`", line.source, line.torch, line.engine, f"{line.chrf:.0f}")
        for check in gate.engines
        for line in check.worst[:2]
    ]
    if not rows:
        return ""
    head = ("engine", "source", reference, "engine's", "chrF2")
    return "\n\nThe lines that changed most:\n\n" + _table(head, rows)


def _usage(manifest: Manifest) -> str:
    decoding = manifest.decoding
    return f"""## Use

Serve the bundle (`QUICKSTUDY_MODEL=path/to/this/folder make serve`), then:

```sh
curl -s http://127.0.0.1:3000/v1/translate \\
  -H 'Content-Type: application/json' \\
  -d '{{"text": "{EXAMPLE}", "source": "{manifest.source_lang}", \
"target": "{manifest.target_lang}"}}'
```

{_search(manifest)}{_formality(manifest)} Sentences of more than \
{decoding.max_input_tokens} tokens are split, and the output for n source tokens is at most \
{decoding.max_output_ratio:g} n + {decoding.max_output_constant} tokens long \
({decoding.max_output_tokens} at the most)."""


def _formality(manifest: Manifest) -> str:
    if manifest.formality is None:
        return ""
    return (
        f" The form of address is {manifest.formality.default} unless a request's `formality` asks "
        "for `formal` or `informal`."
    )


def _search(manifest: Manifest) -> str:
    beam_size = manifest.decoding.beam_size
    search = "greedy" if beam_size == 1 else f"beam {beam_size}"
    if any(SEARCH_OPTIONS & manifest.supported_options(one) for one in manifest.engines):
        return f"Decoding is {search} unless a request asks for more."
    if any(manifest.compiled_computes(one) for one in manifest.engines):
        return (
            f"Decoding is {search} unless a request asks for more, which needs Quickstudy's "
            "compiled engine: ONNX Runtime has no beam search or alternatives here."
        )
    return "Decoding is greedy: no engine here has a beam search or alternatives."


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


def _domains(domains: Sequence[Domain]) -> str:
    """Scores by domain; empty where none were measured."""
    rows = [
        (
            f"{_plain(domain.name)} ({domain.sentences:,})",
            _plain(score.system),
            _plain(score.engine or "–"),
            _plain(score.precision or "–"),
            _plain(score.decoding),
            f"{score.bleu:.2f} ({score.bleu_low:.2f}–{score.bleu_high:.2f})",
            f"{score.chrf2:.2f}",
            "–" if score.length_ratio is None else f"{score.length_ratio:.3f}",
        )
        for domain in domains
        for score in domain.scores
    ]
    if not rows:
        return ""
    signatures = dict.fromkeys(
        f"`{_plain(signature)}`"
        for domain in domains
        for signature in (domain.bleu_signature, domain.chrf2_signature)
    )
    head = (
        *("domain (sentences)", "system", "engine", "precision", "decoding"),
        *("BLEU (95 %)", "chrF2", "length"),
    )
    return f"""## Quality by domain

{_table(head, rows)}

Intervals by bootstrap over the sentences. Length: tokens of the translations over those of the \
references. {"  ".join(signatures)}"""


def _data(manifest: Manifest) -> str:
    if manifest.origin is not None:
        return f"""## Licence

Licence of the model, as its files or whoever imported it say: {manifest.licence}

{manifest.attribution}"""
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
