"""The served models: bundles with their engines, chosen by language pair.

A `ModelSet` never changes. To swap a bundle, load a new set and replace the old one: a request
keeps the set it began with, and the old set is freed after its last request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from export.runtime.bundle import Bundle, load_bundle, sha256_of
from export.runtime.engines import Engine, TranslateOptions, load_engine, usable_default
from export.runtime.manifest import FORMALITY, MANIFEST_FILE, BundleError, Manifest
from quickstudy.form_of_address import FORMS_OF, Formality
from service.fallback import AskedForm
from service.languages import match_language
from service.settings import Settings
from service.text.coverage import Coverage
from service.text.numerals import Numerals
from service.text.placeholders import EN_DE, PlaceholderWords, choose_placeholder_words

logger = logging.getLogger("quickstudy.service")

PIVOT = "en"
"""The language between two models where no model translates a pair directly."""
PROOF_SENTENCE = "A small test."
"""Translated before a model is served, to prove that it works."""


@dataclass(frozen=True)
class Model:
    """A bundle with a loaded engine. Two are equal if they have the same files and engine."""

    identity: str
    bundle: Bundle = field(compare=False)
    engine: Engine = field(compare=False, repr=False)
    engine_name: str = field(compare=False)
    placeholder_words: PlaceholderWords = field(default=EN_DE, compare=False, repr=False)
    coverage: Coverage | None = field(default=None, compare=False, repr=False)
    """What its vocabulary can read; None if it reads any text."""
    numerals: Numerals | None = field(default=None, compare=False, repr=False)
    """How its languages write numbers."""

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    @property
    def pair(self) -> tuple[str, str]:
        return self.manifest.source_lang, self.manifest.target_lang

    @property
    def adds_stop(self) -> bool:
        """Whether it gets a full stop after headings and labels.

        Without one, students that learnt from whole sentences alone repeat themselves. Imported
        models know headings, and make up text before an added stop ("STOP." → "STOP ( ( (").
        """
        return self.manifest.origin is None and not self.manifest.reads_fragments

    def supports(self, option: str) -> bool:
        """Whether its engine supports an option: `beam_size`, `alternatives` or `formality`."""
        return option in self.engine.supported_options

    def asked_form(self, formality: Formality | None) -> AskedForm | None:
        """The form of address that translations should have, the bundle's own if None; None where
        it has one form, or of a language whose forms cannot be told."""
        forms_of = FORMS_OF.get(self.manifest.target_lang.split("-")[0])
        if self.manifest.formality is None or forms_of is None:
            return None
        return AskedForm(formality or self.manifest.formality.default, forms_of)

    @classmethod
    def of(cls, bundle: Bundle, engine: Engine, settings: Settings) -> Model:
        """A bundle with its loaded engine."""
        name = _engine_name(bundle, settings)
        coverage = Coverage.of(engine)
        numerals = Numerals(
            bundle.manifest.source_lang,
            bundle.manifest.target_lang,
            keeps_form=settings.number_form == "source",
        )
        computed_by = engine.runtime.partition(" (")[0]  # every kernel gives the same
        identity = f"{_files_identity(bundle, name)}:{computed_by}"
        return cls(identity, bundle, engine, name, coverage=coverage, numerals=numerals)


def mean_chrf2(manifest: Manifest) -> float:
    """The mean chrF2 of a bundle's own translations over the domains of its card; 0 without."""
    scores = [domain.scores[0].chrf2 for domain in manifest.domains]
    return sum(scores) / len(scores) if scores else 0.0


class LanguageError(Exception):
    """A language pair that is not served; `field` is the request's field at fault."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class ModelSet:
    """Models by pair. Raises BundleError if there is none, or two for one pair."""

    def __init__(self, models: Iterable[Model]) -> None:
        self.models = tuple(models)
        if not self.models:
            raise BundleError("there is no model to serve: set QUICKSTUDY_MODEL to a bundle folder")
        self._by_pair: dict[tuple[str, str], Model] = {}
        for model in self.models:
            other = self._by_pair.setdefault(model.pair, model)
            if other is not model:
                raise BundleError(
                    f"{other.bundle.path} and {model.bundle.path} both translate "
                    f"{' → '.join(model.pair)}: serve one of them"
                )

    @property
    def default(self) -> Model:
        """The first model; its languages apply where a request names none."""
        return self.models[0]

    @cached_property
    def best(self) -> Model:
        """The model whose card shows the best translations, by its mean chrF2 over domains: a page
        begins with it. The first, where no card says."""
        return max(self.models, key=lambda model: mean_chrf2(model.manifest))

    @cached_property
    def targets(self) -> dict[str, list[str]]:
        """Source → targets, directly or through English; in the order of the models."""
        targets_of: dict[str, list[str]] = {}
        for source, target in self._by_pair:
            targets_of.setdefault(source, []).append(target)
        onward = targets_of.get(PIVOT, [])
        for source, targets in targets_of.items():
            if source != PIVOT and PIVOT in targets:
                targets.extend(one for one in onward if one != source and one not in targets)
        return targets_of

    @cached_property
    def languages(self) -> list[str]:
        """Every language served, sorted."""
        return sorted({code for pair in self._by_pair for code in pair})

    @property
    def pairs(self) -> str:
        """What is served, for messages."""
        return ", ".join(f"{src} → {trg}" for src, all_ in self.targets.items() for trg in all_)

    def has_alternatives(self, source: str, target: str) -> bool:
        """Whether `alternatives` may be asked of a served pair. Raises LanguageError."""
        return self.route(source, target)[-1].supports("alternatives")

    def has_formality(self, source: str, target: str) -> bool:
        """Whether a form of address may be asked of a served pair. Raises LanguageError."""
        return self.route(source, target)[-1].supports(FORMALITY)

    def sources_of(self, target: str) -> list[str]:
        """The languages that are translated to this one, in the order of the models."""
        return [source for source, targets in self.targets.items() if target in targets]

    def route(self, source: str, target: str) -> tuple[Model, ...]:
        """The models that translate one served language to another: one, or two through English.

        Raises LanguageError if there are none.
        """
        if direct := self._by_pair.get((source, target)):
            return (direct,)
        if target in self.targets.get(source, []):
            return (self._by_pair[source, PIVOT], self._by_pair[PIVOT, target])
        raise LanguageError(f"{source} → {target} is not served, but {self.pairs}", "target")

    def pair(self, source: str | None, target: str | None) -> tuple[str, str]:
        """The served pair that a client means; a language that it does not name is the first that
        fits.

        Raises LanguageError.
        """
        if source is not None:
            src = self._match(source, list(self.targets), "source")
            known = self.targets[src]
        else:
            src = ""
            known = list(dict.fromkeys(trg for targets in self.targets.values() for trg in targets))
        if target is not None:
            trg = self._match(target, known, "target")
        else:
            trg = self.default.pair[1] if self.default.pair[1] in known else known[0]
        return src or self.sources_of(trg)[0], trg

    def _match(self, code: str, known: Sequence[str], field: str) -> str:
        found = match_language(code, known)
        if found is None:
            raise LanguageError(
                f"`{field}` is {code[:35]!r}, but this service translates {self.pairs}: "
                f"give {' or '.join(map(repr, sorted(set(known))))}",
                field,
            )
        return found


def load_models(
    folders: Sequence[Path], settings: Settings, loaded: Sequence[Model] = ()
) -> ModelSet:
    """Check and load bundles, and prove that each translates.

    A bundle that equals one of `loaded`, file for file, is not loaded again. Where some bundles
    have the engine of the settings, the others are served by their default ones, which the log
    says. Raises BundleError.
    """
    bundles = [_open(folder) for folder in folders]
    _check_engine(bundles, settings)
    return ModelSet([_load(bundle, settings, loaded) for bundle in bundles])


def _open(folder: Path) -> Bundle:
    try:
        return load_bundle(folder)
    except OSError as error:
        raise BundleError(f"{str(folder)[:200]} cannot be read: {error.strerror}") from error


def _check_engine(bundles: Sequence[Bundle], settings: Settings) -> None:
    """Log which bundles lack the engine of the settings. Raises BundleError if all do."""
    wanted = settings.engine
    lacking = [bundle for bundle in bundles if _engine_name(bundle, settings) != wanted]
    if wanted is None or not lacking:
        return
    if len(bundles) == 1:
        bundles[0].engine(wanted)  # raises
    if len(lacking) == len(bundles):
        names = dict.fromkeys(one.name for bundle in bundles for one in bundle.manifest.engines)
        raise BundleError(
            f"no bundle has an engine {wanted!r}: choose one of {', '.join(names)}, or leave "
            "QUICKSTUDY_ENGINE unset"
        )
    for bundle in lacking:
        default = _engine_name(bundle, settings)
        logger.warning("%s has no engine %s: serving it by %s", bundle.path, wanted, default)


def _engine_name(bundle: Bundle, settings: Settings) -> str:
    """The engine of the settings, or the default one of a bundle that lacks it."""
    names = [engine.name for engine in bundle.manifest.engines]
    wanted = settings.engine
    return wanted if wanted in names else usable_default(bundle)


def _load(bundle: Bundle, settings: Settings, loaded: Sequence[Model]) -> Model:
    name = _engine_name(bundle, settings)
    identity = _files_identity(bundle, name)
    for model in loaded:
        if model.identity.startswith(f"{identity}:"):
            return replace(model, bundle=bundle)
    engine = load_engine(
        bundle,
        name,
        inter_threads=settings.inter_threads,
        intra_threads=settings.intra_threads,
        max_batch_tokens=settings.max_batch_tokens,
        prefer_native=True,
    )
    logger.info("%s: engine %s, computed by %s", bundle.path, name, engine.runtime)
    engine.translate_batch([PROOF_SENTENCE], TranslateOptions())
    model = Model.of(bundle, engine, settings)
    if model.pair == ("en", "de") and model.manifest.origin is None:
        return model
    return replace(model, placeholder_words=_find_placeholder_words(engine, model.coverage))


def _files_identity(bundle: Bundle, engine_name: str) -> str:
    """The hash of the manifest (hence of all files) with the engine's name. With what computes it,
    it is a model's identity, and part of the cache's keys."""
    return f"{sha256_of(bundle.path / MANIFEST_FILE)}:{engine_name}"


def _find_placeholder_words(engine: Engine, coverage: Coverage | None) -> PlaceholderWords:
    """The placeholder words that an engine copies, found by trial; for our own en → de they are
    known."""

    def translate(texts: list[str]) -> list[str]:
        short = [text for text in texts if engine.count_tokens(text) <= engine.max_input_tokens]
        found = engine.translate_batch(short, TranslateOptions())
        known = dict(zip(short, (one.text for one in found), strict=True))
        return [known.get(text, "") for text in texts]

    return choose_placeholder_words(translate, coverage)
