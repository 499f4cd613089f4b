"""Quality by domain: its picture, and the figures that a bundle's card shows.

A domain is a test set that was given by a name. Every system is scored on each of them; speed is
measured on the first test set alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.plots import LIGHT, MARKERS, as_svg, new_figure, svg_style
from benchmarks.results import (
    BundleRecord,
    Quality,
    Results,
    ResultsError,
    ScoreRecord,
    TextRecord,
)
from benchmarks.systems.base import SystemInfo
from benchmarks.tables import decoding
from export.runtime.bundle import Bundle, load_bundle, update_domains
from export.runtime.manifest import CARD_FILE, Domain, DomainScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOMAINS_TITLE = "BLEU by domain"

# --- the picture ----------------------------------------------------------------------------------


def bleu_by_domain(results: Results) -> str | None:
    """BLEU of every system with its interval, a panel a domain, as SVG; None without domains."""
    domains = results.domains
    names = results.scored_on(domains)
    if not names:
        return None
    tooltips: dict[str, str] = {}
    places = range(len(names) - 1, -1, -1)  # the first system on top
    with svg_style():
        width, height = max(7.9, 2.4 + 1.7 * len(domains)), 0.9 + 0.27 * len(names)
        figure, axes = new_figure(width, height, len(domains))
        for panel, (axis, text) in enumerate(zip(axes, domains, strict=True)):
            for place, name in zip(places, names, strict=True):
                group = f"domain-{panel}-{place}"
                bleu = _mark(axis, place, results, name, text, group)
                if bleu is not None:
                    tooltips[group] = f"{name}, {text.name}: {bleu.score:.2f} BLEU"
            axis.set_title(text.name, fontsize=9, parse_math=False)
            axis.set(xlabel="BLEU", ylim=(-0.6, len(names) - 0.4))
            labels = names if panel == 0 else [""] * len(names)
            axis.set_yticks(places, labels, parse_math=False, color=LIGHT["ink"])
            axis.grid(axis="x")
            axis.set_axisbelow(True)
        for label in axes[0].get_yticklabels():
            if label.get_text() == results.main_system:
                label.set_fontweight("bold")
        return as_svg(figure, f"{DOMAINS_TITLE}; to the right is better", tooltips)


def _mark(
    axis: Axes, place: int, results: Results, name: str, text: TextRecord, group: str
) -> ScoreRecord | None:
    """Draw a system's BLEU on a domain, if there is one, as the group of that id."""
    row = results.quality_of(name, text.name)
    bleu = row.score("BLEU") if row else None
    if bleu is None:
        return None
    role = results.system(name).role
    interval = [[bleu.score - bleu.low], [bleu.high - bleu.score]]
    axis.errorbar(bleu.score, place, xerr=interval, fmt="none", ecolor=LIGHT[role], alpha=0.45)
    (marker,) = axis.plot(bleu.score, place, MARKERS[role], color=LIGHT[role], ms=6)
    marker.set_gid(group)
    return bleu


# --- the card of a bundle -------------------------------------------------------------------------


def bundle_record(bundle: Bundle) -> BundleRecord:
    """What results say of the bundle that they are of."""
    manifest = bundle.manifest
    lines = (
        f"{entry.sha256}  {path}\n"
        for path, entry in sorted(manifest.files.items())
        if path != CARD_FILE
    )
    digest = sha256("".join(lines).encode()).hexdigest()
    return BundleRecord(name=manifest.name, version=manifest.version, sha256=digest)


def write_to_card(results: Results, path: Path, only: Sequence[str] = ()) -> Bundle:
    """Put the scores by domain into a bundle's manifest and card, in place of former ones.

    `only` are patterns of systems to be shown beside the shipped one; none: all that were scored.
    Raises ResultsError where the results are of another bundle, quick, or without domains.
    """
    bundle = load_bundle(path)
    _check_that_it_is_theirs(results, bundle)
    if not results.domains:
        raise ResultsError(
            "the results have no domains: measure with `quickstudy bench … --domain NAME=SRC,REF`"
        )
    if results.settings.quick:
        raise ResultsError("a quick run scores a few sentences alone: measure without --quick")
    scored = results.scored_on(results.domains)
    for pattern in only:
        if not any(fnmatch(name, pattern) for name in scored):
            raise ResultsError(f"--only {pattern}: no system fits; scored: {', '.join(scored)}")
    names = [
        name
        for name in scored
        if not only or name == results.main_system or any(fnmatch(name, one) for one in only)
    ]
    return update_domains(path, [_domain(results, text, names) for text in results.domains])


def _check_that_it_is_theirs(results: Results, bundle: Bundle) -> None:
    if results.bundle is None:
        raise ResultsError(
            "the results do not say which bundle they are of, as those of older versions do not: "
            "measure again with `quickstudy bench`"
        )
    found = bundle_record(bundle)
    if results.bundle.sha256 != found.sha256:
        raise ResultsError(
            f"the results are of {results.bundle.name}, version {results.bundle.version}, and "
            f"{bundle.path} ({found.name}, version {found.version}) has other files: measure it "
            "with `quickstudy bench`"
        )


def _domain(results: Results, text: TextRecord, names: Sequence[str]) -> Domain:
    """A domain as the manifest has it. Raises ResultsError where the shipped system, which the card
    is of, was not scored, or two systems were scored by other settings."""
    found = {name: results.quality_of(name, text.name) for name in names}
    rows = {
        name: (row, bleu, chrf)
        for name, row in found.items()
        if row and (bleu := row.score("BLEU")) and (chrf := row.score("chrF2"))
    }
    if results.main_system not in rows:
        raise ResultsError(
            f"{results.main_system} was not scored on {text.name}: measure with --parts quality"
        )
    signatures = {(bleu.signature, chrf.signature) for _, bleu, chrf in rows.values()}
    if len(signatures) > 1:
        raise ResultsError(f"systems were scored by other settings on {text.name}: measure again")
    ((bleu_signature, chrf2_signature),) = signatures
    return Domain(
        name=text.name,
        sentences=text.sentences,
        text_sha256=text.sha256,
        bleu_signature=bleu_signature,
        chrf2_signature=chrf2_signature,
        scores=tuple(
            _score(results.system(name), row, bleu, chrf)
            for name, (row, bleu, chrf) in rows.items()
        ),
    )


def _score(system: SystemInfo, row: Quality, bleu: ScoreRecord, chrf: ScoreRecord) -> DomainScore:
    return DomainScore(
        system=system.name,
        engine=system.engine,
        precision=system.precision,
        decoding=decoding(system.beam_size),
        bleu=bleu.score,
        bleu_low=bleu.low,
        bleu_high=bleu.high,
        chrf2=chrf.score,
        length_ratio=row.length_ratio,
    )
