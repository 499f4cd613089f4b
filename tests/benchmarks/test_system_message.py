"""Systems on their way to another process: nothing but JSON, and no class that is not known."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from benchmarks.systems.base import CLASSES, SystemInfo
from benchmarks.systems.firefox import Bergamot
from benchmarks.systems.onnx_steps import OnnxSteps
from benchmarks.systems.ours import BundleEngine, LabellingTeacher
from benchmarks.systems.process import DECODERS, from_json, settings_of, to_json
from training.config.recipe import Recipe
from training.run import Run

ROOT = Path(__file__).parents[2]
INFO = SystemInfo("ü", "peer", "e", "int8", 1, "en", "de", None, 7, {"numpy": "2"}, "a note", False)


@pytest.mark.parametrize("name", CLASSES)
def test_every_system_is_plain_data(name: str) -> None:
    kind = getattr(import_module(CLASSES[name]), name)
    settings = settings_of(kind)
    assert settings[0].name == "info"
    assert {str(one.type) for one in settings} <= DECODERS.keys()
    assert all(one.name.startswith("_") or one.init for one in settings)


@pytest.mark.parametrize(
    "system",
    [
        BundleEngine(INFO, Path("a b/bundle"), "ctranslate2-int8"),
        OnnxSteps(INFO, Path("folder"), Path("tokenizer.model"), 64),
        Bergamot(INFO, {"model": "m.bin"}, ("node", "translate.mjs")),
    ],
)
def test_a_system_arrives_as_it_was(system: BundleEngine | OnnxSteps | Bergamot) -> None:
    line = to_json(system)
    assert "\n" not in line
    assert json.loads(line)["class"] == type(system).__name__
    assert from_json(line) == system


def test_a_labelling_teacher_arrives_with_its_job() -> None:
    from pydantic import TypeAdapter

    from training.distill.teachers import TeacherJob

    tree = yaml.safe_load((ROOT / "recipes" / "multi30k-en-de.yaml").read_text())
    tree["teacher"] = {
        "kind": "ensemble",
        "members": [{"kind": "ctranslate2", "path": "/a", "sentencepiece": "/b"}] * 2,
    }
    tree["tokenizer"] = {"kind": "teacher"}
    tree["student"].pop("start", None)
    job = Run(Recipe.model_validate(tree), Path("runs/x")).teacher_job
    adapter = TypeAdapter(TeacherJob)
    sent = LabellingTeacher(INFO, adapter.dump_python(job, mode="json"), 63)
    found = from_json(to_json(sent))
    assert isinstance(found, LabellingTeacher)
    assert adapter.validate_python(found.job) == job
    assert found.job["labels"]["length_penalty"] == job.labels.length_penalty


def test_other_classes_are_not_made() -> None:
    with pytest.raises(ValueError, match="'Popen' is none of the systems"):
        from_json('{"class": "Popen", "settings": {"args": "true"}}')
    with pytest.raises(TypeError, match="OnnxSteps has the settings"):
        from_json('{"class": "OnnxSteps", "settings": {"folder": "x"}}')


def test_a_class_that_is_not_known_is_not_sent() -> None:
    class OnnxSteps(Bergamot):
        """Named as another one is."""

    with pytest.raises(ValueError, match="may not be sent"):
        to_json(OnnxSteps(INFO, {}, ()))
    with pytest.raises(TypeError, match="no plain data"):
        to_json(Bergamot(INFO, {"model": object()}, ()))  # type: ignore[dict-item]
