"""The stages of a run: corpus → tokenizer → teacher → labels → student → export → evaluation.

What a stage is, and when it is skipped, is in `training.stage`.
"""

from __future__ import annotations

import string
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickstudy.atomic import atomic_folder, atomic_write
from quickstudy.progress import Ticker
from training.config.io import dump_recipe
from training.config.model import (
    CheckpointTeacher,
    MarianFolder,
    SeparateTokenizers,
    StartTokenizers,
    TrainedTeacher,
    members_of,
)
from training.config.recipe import FORMALITY_TAGS, RecipeError, SourceConfig, TokenizerConfig
from training.data.batching import map_table
from training.data.prepare import prepare, read_rows, render_report, train_shards
from training.data.tokenizer import Tokenizer, encode_rows, train_tokenizer, write_tokens
from training.pretrained.coverage import COMMON, missing_characters, written_in_bytes
from training.run import (
    Run,
    adopt_tokenizer,
    adopted_identity,
    held_out,
    max_pair_length,
    public_recipe,
    recipe_students,
    source_identity,
    student_stage,
    teacher_identity,
    write_source_tokenizer,
)
from training.stage import METADATA_FILE, Stage, file_digest, fingerprint_of, say
from training.teacher_files import SOURCE_TOKENIZER, read_json
from training.trainer import TrainingRun, train
from training.warm_start import (
    lent_start,
    lent_tokenizers,
    own_tokenizers,
    whole_start,
)

if TYPE_CHECKING:
    from export.lent_lexicon import LentLexicon
    from export.quality_gate import EvalSet
    from training.distill.teachers.compiled import EngineOpener

LEAST_TEACHER_BLEU = 1.0
"""A teacher with a validation BLEU below this has learned too little to be asked."""
WITHOUT_SPACES = frozenset(("bo", "dz", "ja", "km", "lo", "my", "th", "wuu", "yue", "zh"))
"""Languages written without spaces between words: BLEU of their words says little."""


def build_stages(run: Run) -> dict[str, Stage]:
    """Every stage of a run by name, in order; students other than `student` are baselines."""
    stages = [_prepare_stage(run), _tokenize_stage(run)]
    if isinstance(run.recipe.teacher, TrainedTeacher):
        stages.append(_teacher_stage(run, run.recipe.teacher))
    if run.recipe.needs_teacher:
        stages.append(_label_stage(run))
    stages += [student_stage(run, plan) for plan in recipe_students(run)]
    stages += [_export_stage(run), _evaluate_stage(run)]
    return {stage.name: stage for stage in stages}


# --- corpus and tokenizer ----------------------------------------------------------------------


def _source_files(source: SourceConfig, root: Path) -> list[str]:
    names = [name for name in (source.src, source.trg, source.path) if name is not None]
    return [file_digest(root / name) for name in names]


def _prepare_stage(run: Run) -> Stage:
    corpus = run.recipe.corpus
    folder = run.folder / "corpus"

    def inputs() -> Any:
        sources = [*corpus.train, corpus.validation, *corpus.test.values()]
        files = [_source_files(source, Path(corpus.root)) for source in sources]
        settings = [fingerprint_of(corpus, ("root", "licence", "attribution")), files]
        drawn = corpus.augment.active or corpus.formality
        return [*settings, run.recipe.seed] if drawn else settings

    def execute() -> None:
        metadata = (folder / METADATA_FILE).read_text()
        with Ticker("prepare", None, "pairs read") as tick:
            report = prepare(corpus, folder, tick, run.recipe.seed)
        atomic_write(folder / METADATA_FILE, metadata)
        say(render_report(report))

    return Stage(
        name="prepare",
        folder=folder,
        inputs=inputs,
        run=execute,
        outputs=lambda: [folder / "train", run.validation, *held_out(run)],
    )


def _training_pairs(run: Run) -> Any:
    for shard in train_shards(run.folder / "corpus"):
        yield from read_rows(shard)


def _write_tokenizers(run: Run) -> None:
    """Write the run's SentencePiece model, or its two."""
    config = run.recipe.tokenizer
    if isinstance(config, TokenizerConfig):
        train_tokenizer(_training_pairs(run), config, run.tokenizer, run.recipe.seed)
    elif isinstance(config, SeparateTokenizers):
        write_source_tokenizer(config, run.tokenizer.with_name(SOURCE_TOKENIZER))
        targets = ((None, trg) for _, trg in _training_pairs(run))
        train_tokenizer(targets, config.target, run.tokenizer, run.recipe.seed)
    elif isinstance(config, StartTokenizers):
        _write_lent_tokenizers(run, config)
    else:
        adopt_tokenizer(run.recipe, run.tokenizer)


def _write_lent_tokenizers(run: Run, config: StartTokenizers) -> None:
    target, source = lent_tokenizers(
        run.recipe,
        config,
        lambda: (src for src, _ in _training_pairs(run) if src is not None),
        lambda: (trg for _, trg in _training_pairs(run) if trg is not None),
    )
    if source is not None:
        atomic_write(run.tokenizer.with_name(SOURCE_TOKENIZER), source)
    atomic_write(run.tokenizer, target)


def _check_tags(run: Run) -> None:
    """Raise RecipeError where the source's tokenizer would cut a tag of `corpus.formality`."""
    import sentencepiece as spm

    from export.runtime.formality import is_one_piece

    if not run.recipe.corpus.formality:
        return
    path = run.source_tokenizer or run.tokenizer
    tokenizer = spm.SentencePieceProcessor(model_file=str(path))
    if cut := [tag for tag in FORMALITY_TAGS if not is_one_piece(tokenizer, tag)]:
        raise RecipeError(
            f"corpus.formality: the source's tokenizer cuts {' and '.join(cut)}, since its "
            "vocabulary could write them before tokenizer.add: start from a model without byte "
            "fallback whose pieces lack < or >, or leave corpus.formality out"
        )


def _encode_corpus(run: Run, longest: int) -> None:
    """Write the training text as token ids, pairs of `longest` tokens or more left out."""
    tokenizer = Tokenizer(run.tokenizer)
    source = Tokenizer(run.source_tokenizer) if run.source_tokenizer else None
    kept = too_long = unread = tokens = alone = 0
    with atomic_folder(run.folder / "tokens" / "train") as draft:
        for shard in train_shards(run.folder / "corpus"):
            encoded = encode_rows(map_table(shard), tokenizer, longest, source)
            write_tokens(draft / shard.name, encoded.table)
            lengths = encoded.table["trg"].combine_chunks().value_lengths().to_numpy()
            kept, tokens = kept + len(encoded.table), tokens + int(lengths.sum())
            too_long, unread = too_long + encoded.too_long, unread + encoded.unread
            alone += int((lengths == 0).sum())
    say(
        f"tokenize: {len(tokenizer)} pieces; {kept:,} pairs"
        + (f", of which {alone:,} without a reference" if alone else "")
        + f"; {tokens:,} target tokens"
        + (f"; {too_long:,} pairs over {longest} tokens left out" if too_long else "")
        + (f"; {unread:,} left out that the source's tokenizer cannot read" if unread else "")
    )


def _tokenize_stage(run: Run) -> Stage:
    config = run.recipe.tokenizer
    folder = run.folder / "tokens"
    longest = max_pair_length(run.recipe)

    def inputs() -> Any:
        settings = fingerprint_of(config, ("kind", "source"))
        adopted = [*adopted_identity(run.recipe), *source_identity(run.recipe)]
        return [settings, longest, run.recipe.seed, *adopted]

    def execute() -> None:
        _write_tokenizers(run)
        _check_tags(run)
        _encode_corpus(run, longest)

    return Stage(
        name="tokenize",
        folder=folder,
        inputs=inputs,
        run=execute,
        outputs=lambda: [
            run.tokenizer,
            *([run.source_tokenizer] if run.source_tokenizer else []),
            folder / "train",
        ],
        depends_on=("prepare",),
    )


# --- teacher and labels -----------------------------------------------------------------


def _teacher_stage(run: Run, teacher: TrainedTeacher) -> Stage:
    folder = run.folder / "teacher"
    job = TrainingRun(
        name="teacher",
        folder=folder,
        model=teacher.model,
        training=teacher.training,
        objective=teacher.objective,
        token_shards=[],
        labels=None,
        tokenizer=run.tokenizer,
        validation=run.validation,
        seed=run.recipe.seed,
        recipe_text=public_recipe(dump_recipe(run.recipe)),
    )
    return Stage(
        name="teacher",
        folder=folder,
        inputs=lambda: [fingerprint_of(teacher, ("kind",)), run.recipe.seed],
        run=lambda: _train(job, run),
        outputs=lambda: [run.teacher / "model.safetensors"],
        depends_on=("tokenize",),
        join=lambda: _train(job, run),
    )


def _train(job: TrainingRun, run: Run) -> None:
    train(replace(job, token_shards=run.token_shards))


def _label_stage(run: Run) -> Stage:
    config = run.recipe.labels
    if not run.recipe.gives_distributions:
        config = config.model_copy(update={"paths": []})
    teacher = run.recipe.teacher
    assert teacher is not None, "a checked recipe without a teacher has no labels"
    given = not isinstance(teacher, TrainedTeacher)

    def execute() -> None:
        from export.ctranslate2 import to_ctranslate2
        from training.distill.labelling import choose_workers, label_corpus
        from training.distill.teachers import build_teacher

        workers = choose_workers(run.label_workers)
        _check_teacher(run)
        with Ticker(
            "label", sum(len(map_table(path)) for path in run.token_shards), "pairs"
        ) as tick:
            label_corpus(
                run.token_shards,
                run.labels,
                partial(build_teacher, run.teacher_job, to_ctranslate2, _label_engine(run)),
                config,
                Tokenizer(run.tokenizer),
                tick,
                workers,
            )

    def inputs() -> Any:
        asked = fingerprint_of(config, ("batch_tokens",))
        if isinstance(teacher, MarianFolder):
            # They were float32, whatever was asked for, before the engine made int8 ones.
            asked.pop("precision", None)
            asked |= {"computed": "int8"} if run.recipe.labels.translates_in_int8 else {}
        return [asked, *teacher_identity(teacher)] if given else asked

    return Stage(
        name="label",
        folder=run.labels,
        inputs=inputs,
        run=execute,
        outputs=lambda: [run.labels / "labels.json"],
        depends_on=("tokenize",) if given else ("teacher",),
    )


def _label_engine(run: Run) -> EngineOpener | None:
    """What opens the compiled engine for int8 labels of a `marian` teacher; None where torch makes
    them, which is said where int8 was asked for."""
    import torch

    from export.native import open_engine
    from export.runtime.native.library import NativeUnavailable, library

    if not isinstance(run.recipe.teacher, MarianFolder) or not run.recipe.labels.translates_in_int8:
        return None
    if torch.cuda.is_available():
        say("label: on a GPU torch labels, in float32; labels.precision int8 is for CPUs")
        return None
    try:
        library()
    except NativeUnavailable as error:
        say(f"label: {error}; until then torch labels, in float32 and more slowly")
        return None
    return open_engine


def _check_teacher(run: Run) -> None:
    """Raise RecipeError if a teacher's validation BLEU is too low; with --force, only warn.

    Teachers without a validation BLEU pass.
    """
    if run.recipe.corpus.trg_lang.split("-")[0] in WITHOUT_SPACES:
        return
    given = run.recipe.teacher
    assert given is not None
    if isinstance(given, TrainedTeacher):
        advice = (
            f"look at {run.teacher.parent}/log.jsonl and at the corpus, and train it longer or "
            "with another learning rate"
        )
        checkpoints = [("teacher", run.teacher)]
    else:
        advice = "give another teacher"
        checkpoints = [
            (place, Path(member.path))
            for place, member in members_of(given)
            if isinstance(member, CheckpointTeacher)
        ]
    for place, folder in checkpoints:
        metrics = read_json(folder / "checkpoint.json").get("metrics", {})
        bleu = metrics.get("validation_bleu")
        if bleu is None or bleu >= LEAST_TEACHER_BLEU:
            continue
        weak = f"{place}: its validation BLEU is {bleu:.2f}, so it translates next to nothing"
        if not run.label_anyway:
            raise RecipeError(
                f"{weak}, and students would learn just that; at least {LEAST_TEACHER_BLEU:g} is "
                f"wanted: {advice}, or ask it all the same with --force"
            )
        say(f"label: {weak}; asked all the same")


# --- export and evaluation ---------------------------------------------------------------------


def _export_stage(run: Run) -> Stage:
    recipe = run.recipe

    def execute() -> None:
        from export.exporter import export_bundle
        from export.runtime.manifest import FormalityTags
        from training.checkpoint import load_checkpoint
        from training.data.dataset import translated_pairs

        checkpoint = load_checkpoint(run.student_folder("student") / "checkpoint")
        formal, informal = FORMALITY_TAGS
        tags = FormalityTags(formal=formal, informal=informal)
        bundle = export_bundle(
            model=checkpoint.model,
            tokenizer_path=checkpoint.tokenizer,
            source_tokenizer_path=checkpoint.source_tokenizer,
            recipe_text=public_recipe(dump_recipe(recipe)),
            out=run.bundle,
            name=recipe.name,
            version=recipe.export.version,
            source_lang=recipe.corpus.src_lang,
            target_lang=recipe.corpus.trg_lang,
            engines=list(recipe.export.engines),
            licence=recipe.corpus.licence,
            attribution=recipe.corpus.attribution,
            description=recipe.description,
            metrics=[],
            beam_size=recipe.export.beam_size,
            coarser_embeddings=recipe.export.coarser_embeddings,
            max_input_tokens=recipe.export.max_input_tokens,
            held_out=_validation_text(run),
            limits=recipe.export.gate,
            force=run.publish_anyway,
            reads_fragments=recipe.corpus.augment.no_final_stop > 0,
            missing=_hardly_learnt(run, checkpoint.tokenizer, checkpoint.source_tokenizer),
            translated_text=lambda: translated_pairs(
                run.token_shards, run.labels if recipe.needs_teacher else None
            ),
            lexicon=_lexicon_of_start(run, checkpoint.tokenizer, checkpoint.source_tokenizer),
            formality=tags if recipe.corpus.formality else None,
        )
        size = sum(path.stat().st_size for path in run.bundle.rglob("*") if path.is_file())
        say(f"export: {bundle.path} ({size / 1e6:.1f} MB)")

    words = [recipe.name, recipe.description, recipe.corpus.licence, recipe.corpus.attribution]
    return Stage(
        name="export",
        folder=run.folder / "export",
        inputs=lambda: [fingerprint_of(recipe.export), words],
        run=execute,
        outputs=lambda: [run.bundle / "manifest.json"],
        depends_on=("student",),
    )


def _hardly_learnt(run: Run, tokenizer: Path, source_tokenizer: Path | None) -> str | None:
    """Common characters that a student has seen in passing, if at all: those that it does not read,
    or in bytes, letters that it writes in bytes, and what the model that it started from lacked.
    None where there are none. The letters of ASCII it always knows."""
    own, source_bytes = tokenizer.read_bytes(), (source_tokenizer or tokenizer).read_bytes()
    lacking = set(filter(str.isalpha, written_in_bytes(own))) | set(written_in_bytes(source_bytes))
    lacking -= set(string.ascii_letters)
    if source_tokenizer is not None:
        lacking |= set(missing_characters(source_bytes))
    if isinstance(run.recipe.tokenizer, StartTokenizers):
        started_from, source = own_tokenizers(lent_start(run.recipe))
        lacking |= set(missing_characters(source or started_from))
    return "".join(one for one in dict.fromkeys(COMMON) if one in lacking) or None


def _lexicon_of_start(
    run: Run, tokenizer: Path, source_tokenizer: Path | None
) -> LentLexicon | None:
    """That of the pretrained model whose words the student has; None where there is none."""
    from export.lent_lexicon import lent_lexicon
    from training.pretrained.reader import read_pretrained

    folder = whole_start(run.recipe)
    if folder is None or not isinstance(run.recipe.tokenizer, StartTokenizers):
        return None
    source = source_tokenizer.read_bytes() if source_tokenizer else None
    return lent_lexicon(read_pretrained(folder), tokenizer.read_bytes(), source)


def _validation_text(run: Run) -> EvalSet:
    from export.quality_gate import EvalSet
    from training.data.prepare import read_pairs

    pairs = list(islice(read_pairs(run.validation), run.recipe.export.gate.sentences))
    return EvalSet("validation", [src for src, _ in pairs], [trg for _, trg in pairs])


def _evaluate_stage(run: Run) -> Stage:
    folder = run.folder / "evaluation"
    trained = ("teacher",) if isinstance(run.recipe.teacher, TrainedTeacher) else ()

    def execute() -> None:
        from benchmarks.evaluate import evaluate_run

        evaluate_run(run, folder)

    return Stage(
        name="evaluate",
        folder=folder,
        inputs=lambda: [sorted(run.recipe.corpus.test), *teacher_identity(run.recipe.teacher)],
        run=execute,
        outputs=lambda: [folder / "evaluation.json"],
        depends_on=(*trained, "export", *run.recipe.baselines),
    )
