"""Given teachers in a recipe: paths, and every fault found before anything runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from quickstudy.pipeline import build_stages
from tests.training.distill.tiny_teachers import (
    MODEL,
    make_checkpoint,
    other_sentencepiece,
    our_tokenizer,
    pieces_of,
)
from training.config.io import dump_recipe, load_recipe, parse_recipe
from training.config.recipe import Recipe, RecipeError
from training.run import Run, public_recipe

TRAINING = {"max_steps": 10}
ADOPT = {"kind": "teacher"}
SENTENCE = {"kind": "sentence"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of teachers; of CTranslate2 and Hugging Face only what a check reads."""
    folder = tmp_path_factory.mktemp("recipes")
    make_checkpoint(folder / "own", our_tokenizer(folder / "spm.model"))
    make_checkpoint(folder / "other", our_tokenizer(folder / "other.model", 7))
    engine = folder / "ct2"
    engine.mkdir()
    (engine / "model.bin").write_bytes(b"weights")
    (engine / "config.json").write_text("{}")
    pieces = pieces_of(folder / "spm.model")
    (engine / "shared_vocabulary.json").write_text(json.dumps(pieces))
    for name, kind, files in (
        ("marian", "marian", ("source.spm", "target.spm")),
        ("m2m", "m2m_100", ("sentencepiece.bpe.model",)),
        ("bert", "bert", ()),
    ):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"model_type": kind}))
        for size, file in enumerate(files):
            other_sentencepiece(folder / name / file, vocab_size=150 + size)
        if name != "bert":
            (folder / name / "model.safetensors").write_bytes(b"weights")
    return folder


def recipe_tree(teacher: dict[str, Any], objective: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "given",
        "corpus": {
            "src_lang": "en",
            "trg_lang": "de",
            "train": [{"src": "train.en", "trg": "train.de"}],
            "validation": {"path": "val.tsv"},
        },
        "teacher": teacher,
        "student": {
            "model": {"width": 16, "heads": 2, "ffn": 32, "encoder_layers": 1, "decoder_layers": 1},
            "training": TRAINING,
            "objective": objective,
        },
        **more,
    }


def load(place: Path, tree: dict[str, Any]) -> Recipe:
    path = place / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_recipe(path)


def own(name: str = "own") -> dict[str, Any]:
    return {"kind": "checkpoint", "path": name}


def ct2(**more: Any) -> dict[str, Any]:
    return {"kind": "ctranslate2", "path": "ct2", "sentencepiece": "spm.model", **more}


def huggingface(name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "huggingface", "path": name, **more}


def ensemble(*members: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "ensemble", "members": list(members), **more}


M2M = huggingface("m2m", src_lang="en", trg_lang="de")


@pytest.mark.parametrize(
    "teacher", [own(), ct2(), M2M, ensemble(own(), ct2())], ids=lambda teacher: teacher["kind"]
)
def test_every_kind_loads_with_absolute_paths(place: Path, teacher: dict[str, Any]) -> None:
    for objective, tokenizer in (({"kind": "hybrid"}, ADOPT), (SENTENCE, {"vocab_size": 400})):
        recipe = load(place, recipe_tree(teacher, objective, tokenizer=tokenizer))
        assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
        assert recipe.gives_distributions == (tokenizer == ADOPT)
        assert str(place) in dump_recipe(recipe)
        public = public_recipe(dump_recipe(recipe))
        assert str(place) not in public
        assert public_recipe(public) == public
        assert set(build_stages(Run(recipe, place / "run"))) == {
            *("prepare", "tokenize", "label", "student", "export", "evaluate"),
        }


@pytest.mark.parametrize(
    ("teacher", "objective", "more", "message"),
    [
        (own(), {"kind": "token"}, {}, r"student\.objective: token needs the teacher's distrib"),
        (own(), {"kind": "hybrid"}, {}, r"student\.objective: hybrid needs .*tokenizer\.kind teac"),
        (
            own(),
            SENTENCE,
            {"baselines": {"kl": {"kind": "token", "path": "hypothesis"}}},
            r"baselines\.kl: token needs",
        ),
        (
            huggingface("marian"),
            {"kind": "hybrid"},
            {"tokenizer": ADOPT},
            r"teacher\.path: distributions .* one SentencePiece model .* source\.spm, target\.spm",
        ),
        (
            ct2(target_sentencepiece="other.model"),
            {"kind": "hybrid"},
            {"tokenizer": ADOPT},
            r"with teacher\.target_sentencepiece only sentence-level",
        ),
        (
            ct2(sentencepiece="m2m/sentencepiece.bpe.model"),
            {"kind": "hybrid"},
            {"tokenizer": ADOPT},
            r"teacher\.sentencepiece: the model in .* knows \d+% of its pieces",
        ),
        (ct2(sentencepiece="none.model"), SENTENCE, {}, r"teacher\.sentencepiece: .* is no file"),
        (own("ct2"), SENTENCE, {}, r"teacher\.path: .* no checkpoint, model\.safetensors is miss"),
        (own("nowhere"), SENTENCE, {}, r"teacher\.path: .*nowhere is no folder"),
        (huggingface("own"), SENTENCE, {}, r"teacher\.path: no Hugging Face model: .*config\.json"),
        (
            huggingface("bert"),
            SENTENCE,
            {},
            r"of type 'bert'; known are Marian.*no \*\.safetensors",
        ),
        (huggingface("m2m"), SENTENCE, {}, r"teacher\.src_lang: M2M100 or NLLB needs it"),
        (
            ensemble(own(), own("other")),
            SENTENCE,
            {},
            r"teacher\.members\.1: its SentencePiece model differs from the first member's",
        ),
        (ensemble(own(), huggingface("marian")), SENTENCE, {}, r"teacher\.members\.1\.path: "),
        (ensemble(own()), SENTENCE, {}, r"teacher\.ensemble\.members: "),
        (ensemble(own(), ct2(), weights=[1.0]), SENTENCE, {}, "1 of them for 2 members"),
        (ensemble(own(), ensemble(own(), own())), SENTENCE, {}, "members"),
        ({"kind": "oracle"}, SENTENCE, {}, r"teacher: .*'oracle'"),
    ],
)
def test_faults_are_found_by_the_check(
    place: Path,
    teacher: dict[str, Any],
    objective: dict[str, Any],
    more: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(place, recipe_tree(teacher, objective, **more))
    assert re.search(message, str(caught.value).replace("\n", " ")), caught.value


def test_a_student_starts_only_from_layers_it_can_copy(place: Path) -> None:
    tree = recipe_tree(own(), {"kind": "hybrid"}, tokenizer=ADOPT)
    tree["student"]["start"] = "teacher"
    run = Run(load(place, tree), place / "run")
    assert run.teacher_checkpoint == place / "own"
    tree["student"]["model"]["ffn"] = 48
    with pytest.raises(RecipeError, match=r"needs student\.model\.ffn to be the teacher's"):
        load(place, tree)
    tree["student"]["model"]["ffn"] = 32
    for teacher, tokenizer in ((ct2(), ADOPT), (own(), {"vocab_size": 400})):
        changed = {**tree, "teacher": teacher, "tokenizer": tokenizer}
        changed["student"] = {**tree["student"], "objective": SENTENCE}
        with pytest.raises(
            RecipeError, match=r"student\.start = teacher needs teacher\.kind train"
        ):
            load(place, changed)


def test_a_student_holds_what_its_checkpoint_teacher_writes(place: Path) -> None:
    tree = recipe_tree(own(), {"kind": "hybrid"}, tokenizer=ADOPT, export={"max_input_tokens": 16})
    tree["student"]["model"]["max_length"] = MODEL.max_length - 1
    with pytest.raises(RecipeError, match=r"student\.model\.max_length 63 must be at least"):
        load(place, tree)
    assert load(place, {**tree, "tokenizer": {}, "teacher": ct2(), **_sentence(tree)})


def _sentence(tree: dict[str, Any]) -> dict[str, Any]:
    return {"student": {**tree["student"], "objective": SENTENCE}}


def test_a_trained_teacher_has_no_tokenizer_to_adopt() -> None:
    tree = recipe_tree({"model": {}, "training": TRAINING}, SENTENCE, tokenizer=ADOPT)
    with pytest.raises(RecipeError, match=r"tokenizer\.kind teacher needs a given teacher"):
        parse_recipe(tree)
    assert parse_recipe({**tree, "tokenizer": {}}).teacher.kind == "train"


def test_faults_of_default_kinds_name_the_field_as_written() -> None:
    tree = recipe_tree({"model": {"width": 3}}, SENTENCE, tokenizer={"vocab": 3})
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tree)
    fields = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
    assert fields == ["tokenizer.vocab", "teacher.model.width", "teacher.training"]
