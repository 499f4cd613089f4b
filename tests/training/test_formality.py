"""Sources tagged with the form of address of their targets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from quickstudy.pipeline import build_stages
from tests.training.test_prepare import folder, plain, prepared, write  # noqa: F401
from training.config.io import parse_recipe
from training.config.recipe import RecipeError
from training.data.formality import NEUTRAL, UNTAGGED, FormalityTagger
from training.data.prepare import read_pairs, render_report
from training.run import Run
from training.stage import fingerprint

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


FORMAL, INFORMAL, NEITHER = "Wie geht es Ihnen?", "Hast du Zeit?", "Sie lacht."
MANY = [(f"source {n}", trg) for n, trg in enumerate([FORMAL, INFORMAL, NEITHER] * 1000)]


def tagged(rows, seed=1):
    tagger = FormalityTagger("de-AT", seed)
    return [row for batch in tagger.batches([rows]) for row in batch], tagger.counts


def tag_of(src):
    return src.split()[0] if src.startswith("<") else None


def test_most_sources_get_the_tag_of_their_target_and_others_any():
    rows, counts = tagged(MANY)
    assert counts == {"formal": 1000, "informal": 1000, "none": 1000}
    tags = {
        trg: Counter(tag_of(src) for src, other in rows if other == trg)
        for trg in (FORMAL, INFORMAL, NEITHER)
    }
    for text, tag in ((FORMAL, "<formal>"), (INFORMAL, "<informal>")):
        assert set(tags[text]) == {tag, None}
        assert tags[text][None] == pytest.approx(1000 * UNTAGGED, abs=40)
    for form, share in NEUTRAL.items():
        assert tags[NEITHER][f"<{form}>"] == pytest.approx(1000 * share, abs=60)


def test_a_tag_stands_before_the_source_and_nothing_else_changes():
    rows, _ = tagged(MANY)
    for (src, trg), (new_src, new_trg) in zip(MANY, rows, strict=True):
        assert new_src in (src, f"<formal> {src}", f"<informal> {src}")
        assert new_trg == trg


def test_source_text_alone_stays():
    rows, counts = tagged([("alone", None), *MANY[:3]])
    assert rows[0] == ("alone", None)
    assert counts == {"formal": 1, "informal": 1, "none": 1}
    assert rows[1:] == tagged(MANY[:3])[0]


def test_batches_do_not_matter_and_seeds_do():
    whole, counts = tagged(MANY)
    tagger = FormalityTagger("de", 1)
    parts = [MANY[start : start + 7] for start in range(0, len(MANY), 7)]
    assert [row for batch in tagger.batches([[], *parts]) for row in batch] == whole
    assert tagger.counts == counts
    assert tagged(MANY, seed=2)[0] != whole
    with pytest.raises(KeyError):
        FormalityTagger("fr", 1)


def test_prepared_text(folder):  # noqa: F811
    pairs = [(f"Click button {n}.", f"Klicken Sie auf {n}.") for n in range(40)]
    write(folder, "val", [("You there.", "Du da.")])
    write(folder, "many", pairs)
    out, report, rows = prepared(folder, train=[plain("many")], formality=True)
    assert rows == tagged(pairs)[0] != pairs
    assert report["formality"] == {"formal": 40, "informal": 0, "none": 0}
    assert (
        render_report(report).splitlines()[-1] == "form of address: formal 40, informal 0, none 0"
    )
    held_out = [row for path in out.glob("*.arrow") for row in read_pairs(path)]
    assert ("You there.", "Du da.") in held_out
    assert not any(tag_of(src) for src, _ in held_out)


def recipe(tags=("<formal>", "<informal>"), trg_lang="de", formality=True, seed=1):
    """The tiny recipe, for a student that starts from another model, and its tokenizer."""
    tree = yaml.safe_load(TINY.read_text())
    root = str(TINY.parent / tree["corpus"].get("root", "."))
    tree["corpus"] |= {"formality": formality, "trg_lang": trg_lang, "root": root}
    tree["student"] |= {"objective": {"kind": "nll"}, "start": {"pretrained": "enpt"}}
    tree |= {"tokenizer": {"kind": "start", "add": list(tags)}, "teacher": None, "baselines": {}}
    return parse_recipe({**tree, "seed": seed})


def test_faults_of_a_recipe():
    assert recipe(trg_lang="de-CH").corpus.formality
    for changes, fault in (
        ({"trg_lang": "fr"}, "corpus.formality: only German forms of address"),
        ({"tags": ()}, "needs <formal>, <informal> in tokenizer.add"),
        ({"tags": ["<formal>"]}, "needs <informal> in tokenizer.add"),
    ):
        with pytest.raises(RecipeError, match=fault):
            recipe(**changes)
    tree = yaml.safe_load(TINY.read_text())
    tree["corpus"]["formality"] = True
    with pytest.raises(RecipeError, match=r"needs <formal>, <informal> in tokenizer\.add"):
        parse_recipe(tree)


def test_the_seed_makes_the_tags(tmp_path):
    def prepare_stage(**changes):
        stages = build_stages(Run(recipe(**changes), tmp_path))
        return fingerprint(stages["prepare"], stages)

    untagged = prepare_stage(formality=False)
    assert untagged == prepare_stage(formality=False, seed=2)
    assert len({untagged, prepare_stage(), prepare_stage(seed=2)}) == 3
