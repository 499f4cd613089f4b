"""The bundle contract: what loads, what is refused and with which words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from export.runtime.bundle import (
    Bundle,
    BundleError,
    load_bundle,
    parse_manifest,
    update_metrics,
    write_bundle,
)
from export.runtime.card import render_card
from export.runtime.engines import TranslateOptions
from export.runtime.manifest import FORMALITY, SEARCH_OPTIONS, BundleInfo, Manifest, Metric


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def edit_manifest(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle.path / "manifest.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def test_a_bundle_says_what_it_is(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.source_lang, manifest.target_lang) == ("en", "de")
    assert [e.name for e in manifest.engines] == ["ctranslate2-int8", "ctranslate2-float32"]
    assert manifest.default_engine == "ctranslate2-int8"
    assert bundle.engine_path() == bundle.path / "engines/ctranslate2-int8"
    files = set(snapshot(bundle.path)) - {"manifest.json"}
    assert files == set(manifest.files)
    assert manifest.total_bytes == sum((bundle.path / name).stat().st_size for name in files)
    with pytest.raises(BundleError, match="choose one of ctranslate2-int8, ctranslate2-float32"):
        bundle.engine("onnx")


@pytest.mark.parametrize(
    ("kinds", "compute", "files", "sentence"),
    [
        (["onnx"], "float32", ["greedy.onnx"], "no engine here has a beam search or alternatives."),
        (["onnx"], "int8", ["greedy.onnx"], "more, which needs Quickstudy's compiled engine: "),
        (["onnx"], "int8", ["greedy.onnx", "beam.onnx"], "greedy unless a request asks for more."),
        (["onnx", "ctranslate2"], "int8", ["greedy.onnx"], "unless a request asks for more."),
    ],
)
def test_the_card_says_how_it_decodes(
    bundle: Bundle, kinds: list[str], compute: str, files: list[str], sentence: str
) -> None:
    manifest = bundle.manifest
    engine, file = manifest.engines[0], next(iter(manifest.files.values()))
    engines = [
        engine.model_copy(update={"name": kind, "kind": kind, "compute": compute}) for kind in kinds
    ]
    listed = {f"{engine.path}/{name}": file for name in files}
    changed = manifest.model_copy(update={"engines": engines, "files": listed})
    assert sentence in render_card(changed)
    assert render_card(changed).count("Decoding is") == 1


def test_the_options_of_a_search_are_those_of_decoding() -> None:
    assert {option.name for option in fields(TranslateOptions)} == SEARCH_OPTIONS | {
        FORMALITY,
        "return_scores",
    }


def test_the_schema_is_at_hand() -> None:
    schema = Manifest.model_json_schema()
    assert schema["additionalProperties"] is False
    assert {"files", "engines", "default_engine", "decoding"} <= set(schema["properties"])


def test_reading_a_bundle_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import export.cli"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "README.md").unlink(), "lacks README.md"),
        (lambda p: (p / "notes.txt").write_text("x"), "does not list: notes.txt"),
        (lambda p: (p / "engines/extra.bin").write_text("x"), "does not list: engines/extra.bin"),
        (lambda p: (p / "recipe.yaml").write_text("name: tinx\n"), "SHA-256"),
        (lambda p: (p / "recipe.yaml").write_text("name: tiny2\n"), "has 12 bytes"),
        (lambda p: (p / "manifest.json").unlink(), "is not a bundle"),
        (lambda p: (p / "manifest.json").write_text("{"), "not JSON"),
        (lambda p: (p / "manifest.json").write_text("[]"), "format_version is None"),
        (lambda p: (p / "link").symlink_to("recipe.yaml"), "is a link"),
        (lambda p: (p / "folder").symlink_to("engines"), "is a link"),
        (
            lambda p: [
                (p / "recipe.yaml").rename(p.parent / "elsewhere.yaml"),
                (p / "recipe.yaml").symlink_to(p.parent / "elsewhere.yaml"),
            ],
            "is a link",
        ),
    ],
)
def test_a_changed_folder_is_refused(
    bundle: Bundle, damage: Callable[[Path], object], message: str
) -> None:
    damage(bundle.path)
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=4), "format_version is 4, this quickstudy reads 1 to 3"),
        (lambda m: m.update(format_version=True), "format_version is True"),
        (lambda m: m.update(format_version="1"), "format_version is '1'"),
        (lambda m: m.update(surprise=1), "surprise: Extra inputs"),
        (lambda m: m.pop("licence"), "licence: Field required"),
        (lambda m: m.update(tokenizer="../tokenizer.model"), "tokenizer: .*not a plain relative"),
        (lambda m: m.update(tokenizer="/etc/passwd"), "not a plain relative"),
        (lambda m: m.update(recipe="a\\..\\b"), "not a plain relative"),
        (lambda m: m["files"].update({"../x": m["files"]["README.md"]}), "not a plain relative"),
        (lambda m: m["engines"][0].update(path="engines/../.."), "not a plain relative"),
        (lambda m: m["engines"][0].update(path="engines"), "must lie in engines/"),
        (lambda m: m["engines"][0].update(path="engines/none"), "nothing is listed under"),
        (lambda m: m["engines"][0].update(kind="pickle"), "kind"),
        (lambda m: m["engines"][1].update(name="ctranslate2-int8"), "names must differ"),
        (lambda m: m.update(default_engine="other"), "is none of"),
        (lambda m: m.update(total_bytes=1), "the files add up to"),
        (lambda m: m["files"].pop("recipe.yaml"), "recipe.yaml is not listed"),
        (lambda m: m["files"]["recipe.yaml"].update(sha256="00"), "sha256"),
    ],
)
def test_a_changed_manifest_is_refused(
    bundle: Bundle, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(bundle, change)
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle.path)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="quickstudy export"):
        load_bundle(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match=r"is a file: give a bundle's folder"):
        load_bundle(tmp_path / "file")


def test_a_folder_of_bundles_is_none(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=f"folder of bundles.*{bundle.path.name}"):
        load_bundle(bundle.path.parent)


def test_a_huge_manifest_is_not_read(bundle: Bundle) -> None:
    (bundle.path / "manifest.json").write_bytes(b" " * (2 << 20))
    with pytest.raises(BundleError, match="larger than"):
        load_bundle(bundle.path)


def test_the_manifest_is_frozen(bundle: Bundle) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        bundle.manifest.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("stage", ["fill", "verify"])
def test_a_failed_write_leaves_the_former_bundle(bundle: Bundle, stage: str) -> None:
    before = snapshot(bundle.path)
    fields = {name: getattr(bundle.manifest, name) for name in BundleInfo.model_fields}

    def fill(draft: Path) -> None:
        if stage == "fill":
            raise OSError("disk full")
        for name, content in before.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(content)
        (draft / "manifest.json").unlink()

    def verify(draft: Bundle) -> None:
        raise OSError("does not translate")

    with pytest.raises(OSError, match=r"disk full|does not translate"):
        write_bundle(bundle.path, BundleInfo(**fields), fill=fill, verify=verify)
    assert snapshot(bundle.path) == before
    assert [p.name for p in bundle.path.parent.iterdir()] == ["tiny"]


def test_a_folder_that_is_no_bundle_is_not_replaced(bundle: Bundle, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    fields = {name: getattr(bundle.manifest, name) for name in BundleInfo.model_fields}
    with pytest.raises(BundleError, match="is not a bundle"):
        write_bundle(precious, BundleInfo(**fields), fill=lambda _: None, verify=lambda _: None)
    assert (precious / "thesis.txt").read_text() == "mine"


def test_metrics_come_later(bundle: Bundle) -> None:
    metric = Metric(
        system="student",
        engine="ctranslate2-int8",
        precision="int8-7bit",
        decoding="greedy",
        dataset="flickr | 2016",
        metric="BLEU",
        score=31.415,
        signature="nrefs:1|case:mixed|version:2.6.0",
    )
    assert "Not evaluated yet" in (bundle.path / "README.md").read_text()
    before = snapshot(bundle.path)
    updated = update_metrics(bundle.path, [metric])
    assert updated.manifest.metrics == (metric,)
    card = (bundle.path / "README.md").read_text()
    assert "| 31.41 |" in card or "| 31.42 |" in card
    assert "flickr \\| 2016" in card
    after = snapshot(bundle.path)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"manifest.json", "README.md"}
    assert load_bundle(bundle.path).manifest == updated.manifest
    assert [p.name for p in bundle.path.parent.iterdir()] == ["tiny"]


def test_a_bundle_of_the_first_format_still_loads(bundle: Bundle) -> None:
    def as_first_format(manifest: dict[str, Any]) -> None:
        manifest["format_version"] = 1
        del manifest["gate"]
        for engine in manifest["engines"]:
            del engine["compute"], engine["shortlist"]

    edit_manifest(bundle, as_first_format)
    loaded = load_bundle(bundle.path)
    assert [engine.compute for engine in loaded.manifest.engines] == ["int8", "float32"]
    assert loaded.manifest.gate is None


def test_a_manifest_as_the_first_version_wrote_it_is_read() -> None:
    """The manifest of the first student that shipped, byte for byte."""
    data = (Path(__file__).parent / "manifest-format-1.json").read_bytes()
    assert json.loads(data)["format_version"] == 1
    manifest = parse_manifest(data, "manifest.json")
    assert (manifest.name, manifest.vocab_size, manifest.gate) == ("tatoeba-en-de", 6000, None)
    (engine,) = manifest.engines
    assert (engine.precision, engine.compute, engine.shortlist) == ("int8-7bit", "int8", False)
    assert manifest.total_bytes == 6_386_627
