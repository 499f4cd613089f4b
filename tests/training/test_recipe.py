"""Recipes: strict, explained, overridable, and every shipped one loads."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

from tests.shipped_recipes import lacks_another_run_alone
from training.config.io import dump_recipe, load_recipe, parse_recipe, recipe_schema
from training.config.recipe import Recipe, RecipeError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(
    path for path in (ROOT / "recipes").glob("**/*.yaml") if not path.name.startswith("study-")
)


def minimal():
    training = {"max_steps": 10}
    return {
        "name": "small",
        "corpus": {
            "src_lang": "en",
            "trg_lang": "de",
            "train": [{"src": "train.en", "trg": "train.de"}],
            "validation": {"path": "val.tsv"},
        },
        "teacher": {"model": {}, "training": training},
        "student": {"model": {}, "training": training},
    }


def write(tmp_path, tree):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_minimal_recipe_has_the_documented_defaults():
    recipe = parse_recipe(minimal())
    assert recipe.student.objective.kind == "sentence"
    assert recipe.corpus.clean.max_ratio == 4.0
    assert recipe.needs_teacher


def test_column_numbers_may_be_written_as_numbers():
    tree = minimal()
    tree["corpus"]["train"] = [{"path": "a.tsv", "src_field": 0, "trg_field": 2}]
    source = parse_recipe(tree).corpus.train[0]
    assert (source.src_field, source.trg_field) == ("0", "2")


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ((), "naem"),
        (("corpus",), "train_files"),
        (("corpus", "validation"), "filed"),
        (("student", "training"), "lr"),
    ],
)
def test_unknown_keys_are_refused_by_name(section, key):
    tree = minimal()
    place = tree
    for name in section:
        place = place[name]
    place[key] = 1
    with pytest.raises(RecipeError, match=rf"{'.'.join([*section, key])}: there is no such field"):
        parse_recipe(tree)


def test_all_faults_are_told_at_once_each_with_its_field():
    tree = minimal()
    tree["name"] = "Not A Name"
    tree["corpus"]["train"][0] = {"src": "only"}
    tree["corpus"]["clean"] = {"max_chars": 0}
    tree["teacher"]["model"] = {"width": 100, "heads": 3}
    tree["student"]["training"] = {}
    tree["student"]["objective"] = {"kind": "token", "temperature": 0}
    tree["extra"] = 1
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tree, "my.yaml")
    text = str(caught.value)
    assert text.startswith("my.yaml: 7 fault(s)")
    fields = [line.split(":")[0].strip() for line in text.splitlines()[1:]]
    assert sorted(fields) == sorted(
        [
            *("name", "corpus.train.0", "corpus.clean.max_chars", "teacher.model"),
            *("student.training", "student.objective.token.temperature", "extra"),
        ]
    )


def test_faults_between_sections():
    tree = minimal()
    tree["baselines"] = {"kl": {"kind": "token", "path": "reference", "temperature": 2.0}}
    with pytest.raises(RecipeError, match=r"labels\.paths; .*labels\.top_k = 0"):
        parse_recipe(tree)
    tree["labels"] = {"paths": ["hypothesis", "reference"], "top_k": 0}
    assert set(parse_recipe(tree).objectives()) == {"student", "kl"}


def test_distillation_by_the_start_needs_one():
    tree = minimal()
    tree["student"]["objective"] = {"kind": "start-token"}
    with pytest.raises(RecipeError, match="teaches by the model that the student starts from"):
        parse_recipe(tree)
    tree["student"]["start"] = {"checkpoint": "taught"}
    parse_recipe(tree)
    tree["student"]["objective"] = {"kind": "start-states"}
    parse_recipe(tree)
    tree["student"]["training"]["sampled_softmax"] = 100
    with pytest.raises(RecipeError, match=r"scores no words: leave out student"):
        parse_recipe(tree)


def test_risk_is_for_a_student_that_has_been_taught():
    tree = minimal()
    tree["student"]["objective"] = {"kind": "risk"}
    with pytest.raises(RecipeError, match=r"student \(risk\) .* it is for a student with"):
        parse_recipe(tree)
    tree["student"]["start"] = {"checkpoint": "taught"}
    parse_recipe(tree)
    tree["baselines"] = {"by-risk": {"kind": "risk"}}
    with pytest.raises(RecipeError, match=r"by-risk \(risk\) .* not for baselines"):
        parse_recipe(tree)


def separate():
    """A recipe that transfers a pretrained model, without a teacher."""
    tree = minimal()
    tree["teacher"] = None
    tree["tokenizer"] = {"kind": "separate", "source": {"pretrained": "enpt"}}
    tree["student"] |= {
        "objective": {"kind": "nll"},
        "start": {"pretrained": "enpt"},
        "freeze": {"encoder": 0.5, "source_embedding": 1.0},
    }
    return tree


def test_a_student_of_references_needs_no_teacher():
    recipe = parse_recipe(separate())
    assert recipe.teacher is None
    assert not recipe.needs_teacher
    assert recipe.tokenizer.target.vocab_size == 6000


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("student", "objective"), {"kind": "sentence"}, r"student \(sentence\) needs a teacher"),
        (("baselines",), {"kd": {"kind": "hybrid"}}, r"kd \(hybrid\) needs a teacher"),
        (("tokenizer",), {"kind": "teacher"}, "tokenizer.kind teacher needs a given teacher"),
        (("student", "start"), "teacher", "student.start = teacher needs a teacher"),
        (("teacher",), minimal()["teacher"], "tokenizer.kind separate needs a given teacher"),
        (("tokenizer",), {}, "student.start.pretrained needs tokenizer.kind start or separate"),
        (
            ("tokenizer",),
            {},
            "student.freeze.source_embedding needs tokenizer.kind separate",
        ),
        (("student", "start"), "random", "student.freeze keeps what a student starts with"),
    ],
)
def test_faults_of_a_transfer(place, value, fault):
    tree = separate()
    *parents, last = place
    section = tree
    for parent in parents:
        section = section[parent]
    section[last] = value
    with pytest.raises(RecipeError, match=fault):
        parse_recipe(tree)


def test_paths_to_a_pretrained_model_start_from_the_recipe(tmp_path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, separate()))
    for field in ("tokenizer.source.pretrained", "student.start.pretrained"):
        assert f"{field}: {tmp_path / 'enpt'} is no folder" in str(caught.value)


def test_text_without_references():
    tree = minimal()
    tree["corpus"]["train"].append({"src": "mono.en", "trg": None})
    recipe = parse_recipe(tree)
    assert recipe.corpus.has_monolingual
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    tree["labels"] = {"paths": ["reference"]}
    tree["student"]["objective"] = {"kind": "token", "path": "reference"}
    with pytest.raises(RecipeError, match=r"add `hypothesis` to labels\.paths"):
        parse_recipe(tree)
    tree["student"]["objective"] = {"kind": "nll"}
    parse_recipe(tree)
    tree["corpus"]["train"] = [{"path": "mono.jsonl", "trg_field": None}]
    with pytest.raises(RecipeError, match=r"corpus\.train needs text with references"):
        parse_recipe(tree)


def test_assignments_override_fields(tmp_path):
    path = write(tmp_path, minimal())
    sets = [
        *("seed=7", "student.training.max_steps=99", "corpus.clean.check_language=true"),
        *(
            "export.engines=[ctranslate2-float32, ctranslate2-int8]",
            "student.objective={kind: nll}",
        ),
    ]
    recipe = load_recipe(path, sets)
    assert recipe.seed == 7
    assert recipe.student.training.max_steps == 99
    assert recipe.teacher.training.max_steps == 10
    assert recipe.corpus.clean.check_language
    assert recipe.export.engines == ["ctranslate2-float32", "ctranslate2-int8"]
    assert not recipe.needs_teacher


@pytest.mark.parametrize(
    ("place", "key", "nearest"),
    [
        ((), "studnet", "student"),
        (("corpus", "train", 0), "source", "src"),
        (("corpus", "test", "news"), "trg_feild", "trg_field"),
        (("corpus", "clean"), "max_char", "max_chars"),
        (("teacher", "model"), "encoder_layer", "encoder_layers"),
        (("teacher", "training"), "learn_rate", "learning_rate"),
        (("student", "objective"), "kdrate", "kd_rate"),
        (("student", "objective", "gate"), "intial", "initial"),
        (("student", "start"), "checkpiont", "checkpoint"),
        (("baselines", "plain"), "smoothing", "label_smoothing"),
    ],
)
def test_a_mistyped_key_comes_with_the_nearest_one(place, key, nearest):
    tree = minimal()
    tree["teacher"] = copy.deepcopy(tree["teacher"])
    source = {"src": "a.en", "trg": "a.de"}
    tree["corpus"] |= {"train": [dict(source)], "test": {"news": dict(source)}, "clean": {}}
    tree["student"]["objective"] = {"kind": "hybrid", "gate": {"kind": "token"}}
    tree["student"]["start"] = {"checkpoint": "x"}
    tree["baselines"] = {"plain": {"kind": "nll"}}
    section = tree
    for part in place:
        section = section[part]
    section[key] = 1
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tree)
    (line,) = [line for line in str(caught.value).splitlines() if f".{key}:" in f".{line.strip()}"]
    assert line.endswith(f"{key}: there is no such field; did you mean `{nearest}`?")


def test_a_key_like_no_other_comes_with_those_that_there_are():
    tree = minimal()
    tree["labels"] = {"xyz": 1}
    with pytest.raises(
        RecipeError, match=r"labels\.xyz: .* there are beam_size, n_best, .*precision"
    ):
        parse_recipe(tree)


def test_assignments_that_cannot_be(tmp_path):
    path = write(tmp_path, minimal())
    for assignment, message in [
        ("seed", "FIELD=VALUE"),
        ("=2", "FIELD=VALUE"),
        ("name.first=x", "name is not a section"),
        ("student.trainng.max_steps=3", r"student\.trainng: .* did you mean `training`"),
        ("seed=-1", "seed: "),
    ]:
        with pytest.raises(RecipeError, match=message):
            load_recipe(path, [assignment])


def test_root_starts_from_the_recipe_or_from_data(tmp_path):
    tree = minimal()
    tree["corpus"]["root"] = "text"
    path = write(tmp_path, tree)
    assert load_recipe(path).corpus.root == str((tmp_path / "text").resolve())
    assert load_recipe(path, data=tmp_path / "else").corpus.root == str(tmp_path / "else")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="cannot be read as YAML"):
        load_recipe(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        load_recipe(tmp_path / "list.yaml")


def test_recipes_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        parse_recipe(minimal()).seed = 3


def test_dump_and_parse_round_trip():
    recipe = parse_recipe(minimal())
    again = parse_recipe(yaml.safe_load(dump_recipe(recipe)))
    assert again == recipe
    assert dump_recipe(again) == dump_recipe(recipe)


def _sections(schema):
    yield "Recipe", schema
    yield from schema["$defs"].items()


def test_schema_describes_every_field():
    schema = json.loads(recipe_schema())
    assert set(schema["properties"]) == set(Recipe.model_fields)
    bare = [
        f"{name}.{field}"
        for name, section in _sections(schema)
        for field, content in section["properties"].items()
        if not (content.get("description") or "$ref" in content or "const" in content)
    ]
    assert bare == []
    assert [name for name, section in _sections(schema) if not section.get("description")] == []


def test_there_are_recipes():
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path):
    try:
        recipe = load_recipe(path)
    except RecipeError as error:
        if not lacks_another_run_alone(str(error)):
            raise
        recipe = parse_recipe(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert recipe.name == path.stem
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    assert re.search(r"\S", recipe.description)
