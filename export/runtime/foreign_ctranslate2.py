"""Check a CTranslate2 folder that another toolkit wrote, before CTranslate2 opens it.

```
model.bin                                             the weights: see foreign_variables
config.json                                           tokens, since CTranslate2 3.0
shared_vocabulary.json | .txt                         one token a line, or a list
source_vocabulary.… and target_vocabulary.…           … or one a side
```

CTranslate2 looks up an embedding for each token of a vocabulary without a look at how many there
are, and adds the unknown token to a vocabulary that lacks it: so both are compared first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.runtime.bundle import list_files, open_plain, read_small
from export.runtime.ctranslate2_format import CONFIG_FILE, MODEL_FILE
from export.runtime.foreign_variables import Variables, check_variables
from export.runtime.manifest import (
    MAX_TOKENIZER_BYTES,
    MAX_VOCAB_SIZE,
    BundleError,
    BundleInfo,
    EngineEntry,
    Manifest,
    printable,
    strict_json,
)

VOCABULARY_ENDINGS = (".json", ".txt")
SHARED, SOURCE, TARGET = "shared_vocabulary", "source_vocabulary", "target_vocabulary"
MAX_CONFIG_BYTES = 1 << 16
TOKENS = ("unk_token", "bos_token", "eos_token")
FLAGS = ("add_source_bos", "add_source_eos", "multi_query_attention")
CONFIG_KEYS = {*TOKENS, *FLAGS, "decoder_start_token", "layer_norm_epsilon"}
LANGUAGE_TOKEN = re.compile(
    r"__[a-z]{2,3}__|[a-z]{3}_[A-Z][a-z]{3}|[a-z]{2}_[A-Z]{2}|>>[^<>]{2,20}<<|<2[A-Za-z_-]{2,20}>"
)
"""A language as M2M100, NLLB, mBART, OPUS-MT and MADLAD write it."""
FILLER_TOKEN = re.compile(r"<?madeupword\d+>?|<blank>|<pad>|<mask>|<special\d+>|<extra_id_\d+>")
"""What fills a vocabulary up, or stands for nothing in a translation."""
LOST_LANGUAGE = "madeupword0"
"""What M2M100's converter fills its vocabulary up with."""
FAIRSEQ_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""How the vocabularies of fairseq begin: BART, mBART, M2M100, NLLB."""


@dataclass(frozen=True)
class Config:
    """Tokens with a role, and which of them CTranslate2 itself adds to a source.

    `decoder_start` is None where the caller's target prefix begins with it.
    """

    unk: str
    bos: str
    eos: str
    decoder_start: str | None
    add_bos: bool
    add_eos: bool


@dataclass(frozen=True)
class ForeignModel:
    """A folder that CTranslate2 can open: its files, configuration, vocabularies and variables."""

    files: tuple[str, ...]
    config: Config
    source_vocabulary: list[str]
    target_vocabulary: list[str]
    variables: Variables

    @property
    def needs_source_eos(self) -> bool:
        """Whether it was trained with `</s>` after the source, and CTranslate2 does not add it.

        Hugging Face's tokenizers add it themselves, so its converter leaves it to the caller:
        those are the models that start from a zero embedding (Marian) or have fairseq's
        vocabulary and start from `</s>` or a language (M2M100, NLLB, mBART).
        """
        if self.config.add_eos or self.config.eos not in self.source_vocabulary:
            return False
        first = tuple(self.source_vocabulary[: len(FAIRSEQ_SPECIAL)])
        starts = self.config.decoder_start in (self.config.eos, None)
        return self.variables.starts_from_zero or (first == FAIRSEQ_SPECIAL and starts)

    @property
    def needs_target_language(self) -> bool:
        """Whether the first token of a translation has to be its language."""
        first = tuple(self.target_vocabulary[: len(FAIRSEQ_SPECIAL)])
        languages = first == FAIRSEQ_SPECIAL and self._has_languages
        return self.config.decoder_start is None or languages

    @property
    def lost_languages(self) -> bool:
        """Whether it is an M2M100 without the tokens of its languages."""
        return LOST_LANGUAGE in self.target_vocabulary and not self._has_languages

    @property
    def _has_languages(self) -> bool:
        return any(map(LANGUAGE_TOKEN.fullmatch, self.target_vocabulary))


def read_foreign_model(folder: Path, names: Collection[str]) -> ForeignModel:
    """Check the folder's model and say what it is; `names` are the files in the folder.

    Raises BundleError with what is missing or does not fit.
    """
    try:
        files = model_files(names)
        for name in files:
            with open_plain(folder / name):
                pass
        vocabularies = [_vocabulary(folder / name) for name in files if _is_vocabulary(name)]
        source, target = vocabularies[0], vocabularies[-1]
        variables = check_variables(folder / MODEL_FILE, len(source), len(target))
        config = _config(folder, files, variables)
        _check_tokens(config, source, target)
    except BundleError:
        raise
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{printable(str(folder))} is no CTranslate2 translation model that can be served: "
            f"{printable(str(error))[:1000]}. Convert it again with CTranslate2 4.8"
        ) from error
    return ForeignModel(files, config, source, target, variables)


def model_files(names: Collection[str]) -> tuple[str, ...]:
    """The files of a folder that CTranslate2 reads: vocabularies first, source before target.

    Raises ValueError where one is missing, or two stand for one thing.
    """
    by_role = {
        role: [role + ending for ending in VOCABULARY_ENDINGS if role + ending in names]
        for role in (SHARED, SOURCE, TARGET)
    }
    several = [name for name in names if re.fullmatch(r"source_\d+_vocabulary\.(json|txt)", name)]
    if several:
        raise ValueError(f"{several[0]} is of a model with several source features")
    doubled = [files for files in by_role.values() if len(files) > 1]
    separate = by_role[SOURCE] + by_role[TARGET]
    if doubled or (by_role[SHARED] and separate):
        clash = doubled[0] if doubled else by_role[SHARED] + separate
        raise ValueError(f"it holds {' and '.join(clash)}: remove what is not the model's")
    if not by_role[SHARED] and not (by_role[SOURCE] and by_role[TARGET]):
        held = f", only {separate[0]}" if separate else ""
        raise ValueError(
            f"it has no {SHARED}.json or .txt, nor {SOURCE} and {TARGET} in one of these{held}"
        )
    if MODEL_FILE not in names:
        raise ValueError(f"it has no {MODEL_FILE}")
    config = (CONFIG_FILE,) if CONFIG_FILE in names else ()
    return (*(by_role[SHARED] or separate), *config, MODEL_FILE)


def _is_vocabulary(name: str) -> bool:
    return name.rsplit(".", 1)[0] in (SHARED, SOURCE, TARGET)


def _vocabulary(path: Path) -> list[str]:
    """Tokens in the order of their ids, as CTranslate2 reads them."""
    data = read_small(path, MAX_TOKENIZER_BYTES)
    if path.suffix == ".json":
        tokens = strict_json(data)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError(f"{path.name} is not a list of tokens")
    else:
        lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        if all(line.endswith(b"\r") for line in lines):
            lines = [line[:-1] for line in lines]
        try:
            tokens = [line.decode("utf-8") for line in lines]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path.name} is not UTF-8") from error
    if not 5 <= len(tokens) <= MAX_VOCAB_SIZE:
        raise ValueError(f"{path.name} has {len(tokens)} tokens, 5 to {MAX_VOCAB_SIZE:,} are read")
    return tokens


def _config(folder: Path, files: Sequence[str], variables: Variables) -> Config:
    raw: Any = {}
    if CONFIG_FILE in files:
        raw = strict_json(read_small(folder / CONFIG_FILE, MAX_CONFIG_BYTES))
        _check_config(raw)
    elif variables.binary_version >= 6:
        raise ValueError(f"it has no {CONFIG_FILE}")
    if variables.binary_version < 6:
        raw = {**raw, **_config_of_variables(variables)}
    if missing := [name for name in TOKENS if name not in raw]:
        raise ValueError(f"{CONFIG_FILE} has no {missing[0]}")
    return Config(
        unk=raw["unk_token"],
        bos=raw["bos_token"],
        eos=raw["eos_token"],
        decoder_start=raw.get("decoder_start_token", raw["bos_token"]),
        add_bos=raw.get("add_source_bos", False),
        add_eos=raw.get("add_source_eos", False),
    )


def _check_config(raw: Any) -> None:
    """Raise ValueError for a key that is not known or a value of another type."""
    if not isinstance(raw, dict):
        raise ValueError(f"{CONFIG_FILE} is not a JSON object")
    if unknown := sorted(set(raw) - CONFIG_KEYS):
        raise ValueError(f"{CONFIG_FILE} has {unknown[0][:100]}, which is not known")
    for name in TOKENS:
        value = raw.get(name, "<unk>")
        if not isinstance(value, str) or not 1 <= len(value) <= 100:
            raise ValueError(f"{CONFIG_FILE}: {name} is not a token")
    start = raw.get("decoder_start_token")
    if start is not None and (not isinstance(start, str) or not 1 <= len(start) <= 100):
        raise ValueError(f"{CONFIG_FILE}: decoder_start_token is not a token")
    for name in FLAGS:
        if not isinstance(raw.get(name, False), bool):
            raise ValueError(f"{CONFIG_FILE}: {name} is neither true nor false")
    epsilon = raw.get("layer_norm_epsilon")
    if epsilon is not None and not (isinstance(epsilon, float) and 0 < epsilon < 1):
        raise ValueError(f"{CONFIG_FILE}: layer_norm_epsilon must be between 0 and 1")


def _config_of_variables(variables: Variables) -> dict[str, Any]:
    """The configuration of binary versions before 6, with CTranslate2's defaults."""
    tokens = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", **variables.tokens}
    flags = variables.flags
    start: str | None = tokens["bos_token"]
    if flags.get("user_decoder_start_tokens", False):
        start = None
    elif not flags.get("with_target_bos", True):
        start = tokens["eos_token"]
    return {
        **tokens,
        "decoder_start_token": start,
        "add_source_bos": flags.get("with_source_bos", False),
        "add_source_eos": flags.get("with_source_eos", False),
    }


def _check_tokens(config: Config, source: list[str], target: list[str]) -> None:
    """The tokens with a role have an embedding on the side where CTranslate2 looks them up."""
    needed = [(config.unk, source, "source"), (config.unk, target, "target")]
    needed.append((config.eos, target, "target"))
    if config.decoder_start is not None:
        needed.append((config.decoder_start, target, "target"))
    if config.add_bos:
        needed.append((config.bos, source, "source"))
    if config.add_eos:
        needed.append((config.eos, source, "source"))
    for token, vocabulary, side in needed:
        if token not in vocabulary:
            raise ValueError(f"its {side} vocabulary has no {token!r}, which {CONFIG_FILE} names")


# --- in a bundle -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Framing:
    """What belongs around the pieces of a sentence.

    `returned_prefix`: tokens of `target_prefix` that CTranslate2 gives back. `added` counts the
    tokens that a source has besides its pieces. `never` is what no translation may hold.
    `source_vocabulary`: the pieces that the model reads, where they may not be all of the
    tokenizer's.
    """

    source_prefix: tuple[str, ...] = ()
    source_suffix: tuple[str, ...] = ()
    target_prefix: tuple[str, ...] = ()
    returned_prefix: int = 0
    added: int = 1
    never: tuple[str, ...] = ()
    source_vocabulary: frozenset[str] | None = None


def open_framing(
    folder: Path, manifest: Manifest, engine: EngineEntry, pieces: Collection[str]
) -> Framing:
    """Check an imported bundle's folder against its manifest; what belongs around a sentence.

    `pieces` are those of the target's SentencePiece model that stand for text. Raises BundleError.
    """
    files = set(list_files(folder))
    model = read_foreign_model(folder, files)
    try:
        if extra := sorted(files - set(model.files)):
            raise ValueError(f"it holds {extra[0]}, which the model does not read")
        _check_manifest(model, manifest, engine)
    except ValueError as error:
        raise BundleError(
            f"{folder} is not the model of its manifest ({printable(str(error))}): import it again"
        ) from error
    return framing_of(model, manifest, pieces)


def _check_manifest(model: ForeignModel, manifest: Manifest, engine: EngineEntry) -> None:
    sizes = (manifest.source_vocab_size or manifest.vocab_size, manifest.vocab_size)
    actual = (len(model.source_vocabulary), len(model.target_vocabulary))
    if sizes != actual:
        raise ValueError(f"its vocabularies have {actual} tokens, the manifest says {sizes}")
    if model.variables.precision != engine.precision:
        raise ValueError(
            f"its weights are {model.variables.precision}, the manifest says {engine.precision}"
        )
    tokens, config = manifest.special_tokens, model.config
    if (tokens.unk, tokens.bos, tokens.eos) != (config.unk, config.bos, config.eos):
        raise ValueError(f"its tokens are {config.unk} {config.bos} {config.eos}")
    check_framing(model, manifest)
    check_room(model, manifest)


def check_framing(model: ForeignModel, manifest: BundleInfo) -> None:
    """Raise ValueError where a prefix or suffix is not in the vocabulary, or none is given where
    the model needs one."""
    for name, vocabulary in (
        ("source_prefix", model.source_vocabulary),
        ("source_suffix", model.source_vocabulary),
        ("target_prefix", model.target_vocabulary),
    ):
        for token in getattr(manifest, name):
            if token not in vocabulary:
                raise ValueError(f"{name}: its vocabulary has no {token!r}")
    if model.config.decoder_start is None and not manifest.target_prefix:
        raise ValueError("target_prefix: its decoder starts with a token that has to be given")


def check_room(model: ForeignModel, manifest: BundleInfo) -> None:
    """Raise ValueError where a side has fewer positions than the decoding limits ask for."""
    limits, framing = manifest.decoding, framing_of(model, manifest, ())
    needed = {
        "encoder": limits.max_input_tokens + framing.added,
        "decoder": limits.max_output_tokens + len(framing.target_prefix) + 1,
    }
    for side, tokens in needed.items():
        room = model.variables.positions[side]
        if room is not None and room < tokens:
            raise ValueError(f"the {side} has room for {room} tokens, {tokens} are needed")


def framing_of(model: ForeignModel, manifest: BundleInfo, pieces: Collection[str]) -> Framing:
    """What belongs around a sentence, by the manifest's prefixes and the model's configuration."""
    config = model.config
    framed = len(manifest.source_prefix) + len(manifest.source_suffix)
    return Framing(
        source_prefix=manifest.source_prefix,
        source_suffix=manifest.source_suffix,
        target_prefix=manifest.target_prefix,
        returned_prefix=len(manifest.target_prefix) - (config.decoder_start is None),
        added=framed + config.add_bos + config.add_eos,
        never=_never(model, manifest, pieces),
        source_vocabulary=frozenset(model.source_vocabulary),
    )


def _never(model: ForeignModel, manifest: BundleInfo, pieces: Collection[str]) -> tuple[str, ...]:
    """Tokens of the target vocabulary that are no text: special ones, prefixes, languages."""
    config = model.config
    special = {config.bos, config.decoder_start}
    framing = {*manifest.source_prefix, *manifest.source_suffix, *manifest.target_prefix}
    return tuple(
        dict.fromkeys(
            token
            for token in model.target_vocabulary
            if token not in (config.eos, config.unk)
            and (
                token in special
                or (
                    token not in pieces
                    and (
                        token in framing
                        or LANGUAGE_TOKEN.fullmatch(token)
                        or FILLER_TOKEN.fullmatch(token)
                    )
                )
            )
        )
    )
