"""Push and pull: whole or not at all, nothing twice, nothing that was not declared."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from export import hub
from export.oci import TITLE
from export.runtime.bundle import Bundle, BundleError, load_bundle, write_bundle
from export.runtime.manifest import CARD_FILE, BundleInfo

ROOT = Path(__file__).parents[2]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def shelf(tmp_path: Path, pristine_bundle: Bundle) -> Path:
    """A layout that holds one bundle under `tiny-1`."""
    hub.push(pristine_bundle.path, str(tmp_path / "shelf"))
    return tmp_path / "shelf"


@pytest.fixture
def other_bundle(bundle: Bundle) -> Bundle:
    """A bundle that shares all files but recipe and card with the pristine one."""
    before = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    info = BundleInfo(**{n: getattr(bundle.manifest, n) for n in BundleInfo.model_fields})

    def fill(draft: Path) -> None:
        for name, content in before.items():
            if name != CARD_FILE:
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                (draft / name).write_bytes(content)
        (draft / "recipe.yaml").write_text("name: other\n")

    return write_bundle(bundle.path, info, fill=fill, verify=lambda _: None)


def blob(shelf: Path, data: bytes) -> dict[str, Any]:
    """Store bytes as a blob, whatever they are; their descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    (shelf / "blobs/sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def edit_index(shelf: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((shelf / "index.json").read_text())
    change(index)
    (shelf / "index.json").write_text(json.dumps(index))


def edit_image(shelf: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the image manifest, as a stranger can: its hash and size follow."""
    index = json.loads((shelf / "index.json").read_text())
    stored = shelf / "blobs/sha256" / index["manifests"][0]["digest"].removeprefix("sha256:")
    image = json.loads(stored.read_text())
    change(image)
    index["manifests"][0].update(blob(shelf, json.dumps(image).encode()))
    (shelf / "index.json").write_text(json.dumps(index))


def layer(image: dict[str, Any], title: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        one for one in image["layers"] if one["annotations"][TITLE] == title
    )
    return found


@pytest.mark.parametrize("kind", ["path", "file", "memory"])
def test_there_and_back(tmp_path: Path, pristine_bundle: Bundle, kind: str) -> None:
    place = {
        "path": str(tmp_path / "shelf"),
        "file": (tmp_path / "shelf").as_uri(),
        "memory": f"memory://{tmp_path.name}/shelf",
    }[kind]
    pushed = hub.push(pristine_bundle.path, place)
    assert pushed.files == len(pristine_bundle.manifest.files) + 1
    assert pushed.total_bytes > pushed.moved_bytes > 0
    again = hub.push(pristine_bundle.path, f"{place}#again")
    assert (again.moved_files, again.moved_bytes) == (0, 0)
    bundle, pulled = hub.pull(f"{place}#again", tmp_path / "back")
    assert bundle.manifest == pristine_bundle.manifest
    assert snapshot(tmp_path / "back") == snapshot(pristine_bundle.path)
    assert pulled.total_bytes == pushed.total_bytes
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "shelf") == ["back"]


def test_equal_files_are_stored_and_moved_once(
    shelf: Path, tmp_path: Path, pristine_bundle: Bundle, other_bundle: Bundle
) -> None:
    vocabularies = [n for n in pristine_bundle.manifest.files if n.endswith("vocabulary.json")]
    assert len(vocabularies) == 2
    stored = {p.name for p in (shelf / "blobs/sha256").iterdir()}
    hashes = {entry.sha256 for entry in pristine_bundle.manifest.files.values()}
    assert len(hashes) == len(pristine_bundle.manifest.files) - 2  # both engines' small files
    assert hashes < stored
    assert len(stored) == len(hashes) + 3  # manifest.json, the image manifest, the empty config
    pushed = hub.push(other_bundle.path, str(shelf), "other")
    assert pushed.moved_files == 2  # recipe and manifest; the card is the same
    hub.pull(f"{shelf}#tiny-1", tmp_path / "back")
    _, pulled = hub.pull(f"{shelf}#other", tmp_path / "back")
    assert pulled.moved_files == 2
    assert snapshot(tmp_path / "back") == snapshot(other_bundle.path)


def test_the_folder_is_an_oci_image_layout(shelf: Path, pristine_bundle: Bundle) -> None:
    assert json.loads((shelf / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((shelf / "index.json").read_text())
    (entry,) = index["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "tiny-1"}
    data = (shelf / "blobs/sha256" / entry["digest"].removeprefix("sha256:")).read_bytes()
    assert len(data) == entry["size"]
    image = json.loads(data)
    assert image["config"]["size"] == 2
    for one in [image["config"], *image["layers"]]:
        stored = (shelf / "blobs/sha256" / one["digest"].removeprefix("sha256:")).read_bytes()
        assert (len(stored), hashlib.sha256(stored).hexdigest()) == (one["size"], one["digest"][7:])
    titles = {one["annotations"][TITLE] for one in image["layers"]}
    assert titles == {"manifest.json", *pristine_bundle.manifest.files}


def test_what_is_not_ours_stays(shelf: Path, pristine_bundle: Bundle) -> None:
    foreign = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": "sha256:" + "0" * 64,
        "size": 3,
        "artifactType": "application/vnd.example",
        "annotations": {"org.opencontainers.image.ref.name": "theirs", "x": "y"},
    }
    edit_index(shelf, lambda index: index["manifests"].append(foreign))
    hub.push(pristine_bundle.path, str(shelf), "more")
    index = json.loads((shelf / "index.json").read_text())
    assert index["manifests"][1] == foreign
    with pytest.raises(BundleError, match="theirs names something else"):
        hub.push(pristine_bundle.path, str(shelf), "theirs")
    with pytest.raises(BundleError, match="it has tiny-1, more"):
        hub.pull(f"{shelf}#theirs", shelf.parent / "back")


class Flaky(LocalFileSystem):
    """Local files, where the n-th write stops in the middle."""

    protocol = "flaky"
    cachable = False
    writes_left = 10**9
    reads_left = 10**9
    kills = False

    def _write_half(self, data: bytes, path: str) -> None:
        Flaky.writes_left -= 1
        target = Path(self._strip_protocol(path))
        if Flaky.writes_left < 0:
            target.write_bytes(data[: len(data) // 2])
            raise OSError("the line is down")
        target.write_bytes(data)

    def put_file(self, path1: str, path2: str, callback: Any = None, **_: Any) -> None:
        self._write_half(Path(path1).read_bytes(), path2)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self._write_half(value, path)

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        Flaky.reads_left -= 1
        if Flaky.reads_left < 0:
            if Flaky.kills:
                os._exit(9)
            raise OSError("the line is down")
        return super()._open(path, mode, block_size, **kwargs)


@pytest.fixture
def flaky() -> Iterator[type[Flaky]]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    yield Flaky
    Flaky.writes_left = Flaky.reads_left = 10**9


def test_a_push_that_stops_anywhere_is_not_seen(
    shelf: Path,
    tmp_path: Path,
    pristine_bundle: Bundle,
    other_bundle: Bundle,
    flaky: type[Flaky],
) -> None:
    stops = 0
    while True:
        flaky.writes_left = stops
        try:
            hub.push(other_bundle.path, f"flaky://{shelf}#tiny-1")
            break
        except BundleError as error:
            stopped = str(error)
        assert "the line is down" in stopped
        stops += 1
        bundle, _ = hub.pull(str(shelf), tmp_path / "back")
        assert bundle.manifest == pristine_bundle.manifest
        assert not list(shelf.rglob("*.draft"))
    assert stops >= 3  # two files, the image manifest, the index; what was sent is not sent again
    bundle, _ = hub.pull(str(shelf), tmp_path / "back")
    assert bundle.manifest == other_bundle.manifest


@pytest.mark.parametrize("former", [False, True])
def test_a_pull_that_stops_anywhere_changes_nothing(
    shelf: Path, tmp_path: Path, other_bundle: Bundle, flaky: type[Flaky], former: bool
) -> None:
    out = tmp_path / "out/back"
    out.parent.mkdir()
    if former:
        other_bundle.path.rename(out)
    before = snapshot(out.parent)
    for reads in range(20):
        flaky.reads_left = reads
        try:
            hub.pull(f"flaky://{shelf}", out)
            break
        except BundleError as error:
            stopped = str(error)
        assert "the line is down" in stopped
        assert snapshot(out.parent) == before
        assert [p.name for p in out.parent.iterdir()] == (["back"] if former else [])
    assert reads >= (4 if former else 8)
    assert load_bundle(out).manifest.version == "1"


def test_what_a_killed_pull_left_goes_with_the_next(shelf: Path, tmp_path: Path) -> None:
    code = (
        "import fsspec, sys; from pathlib import Path; from export import hub\n"
        "from tests.export.test_hub import Flaky\n"
        "fsspec.register_implementation('flaky', Flaky)\n"
        "Flaky.reads_left, Flaky.kills = 5, True\n"
        "hub.pull(sys.argv[1], Path(sys.argv[2]))"
    )
    out = tmp_path / "out/back"
    command = [sys.executable, "-c", code, f"flaky://{shelf}", str(out)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    assert not out.exists()
    assert len(list(out.parent.iterdir())) == 1
    hub.pull(str(shelf), out)
    assert [p.name for p in out.parent.iterdir()] == ["back"]


def harmed(shelf: Path, name: str, change: Callable[[Path], object], bundle: Bundle) -> None:
    change(shelf / "blobs/sha256" / bundle.manifest.files[name].sha256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[::-1]), "is damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "is damaged"),
        (lambda p: p.write_bytes(p.read_bytes() + b"x" * 10_000_000), "more than the .* declared"),
        (lambda p: p.unlink(), "has no blobs/sha256/"),
        (lambda p: (p.unlink(), p.symlink_to("/dev/zero")), "is a link or no file"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "is a link or no file"),
    ],
)
def test_a_changed_blob_is_refused(
    shelf: Path,
    tmp_path: Path,
    pristine_bundle: Bundle,
    change: Callable[[Path], object],
    message: str,
) -> None:
    harmed(shelf, "engines/ctranslate2-int8/model.bin", change, pristine_bundle)
    with pytest.raises(BundleError, match=message):
        hub.pull(str(shelf), tmp_path / "out/back")
    assert list((tmp_path / "out").iterdir()) == []


EVIL = "../../evil"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i["manifests"][0].update(digest="sha256:../../../etc/passwd"), "no sense"),
        (lambda i: i["manifests"][0].update(digest="md5:" + "0" * 32), "no sense"),
        (lambda i: i["manifests"][0].update(size=-1), "no sense"),
        (lambda i: i["manifests"][0].update(size=1 << 33), "declares over"),
        (lambda i: i["manifests"][0].update(size=5), "more than the 5 bytes"),
        (lambda i: i["manifests"][0].update(digest="sha256:" + "0" * 64), "has no blobs/sha256/0"),
        (lambda i: i["manifests"].append(i["manifests"][0]), "holds 2 bundles"),
        (lambda i: i["manifests"].clear(), "holds 0 bundles"),
        (lambda i: i.update(manifests=5), "manifests"),
        (lambda i: i.update(manifests=["x"]), "manifests"),
        (lambda i: i.update(schemaVersion=1), "schemaVersion"),
    ],
)
def test_an_evil_index_is_refused(
    shelf: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_index(shelf, change)
    with pytest.raises(BundleError, match=message):
        hub.pull(str(shelf), tmp_path / "back")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shelf"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: layer(m, "recipe.yaml")["annotations"].update({TITLE: EVIL}), "its layers are"),
        (lambda m: layer(m, "recipe.yaml")["annotations"].clear(), "its layers are not the files"),
        (lambda m: layer(m, "recipe.yaml").update(size=3), "its layers are not the files"),
        (lambda m: layer(m, "recipe.yaml").update(size=5 << 30), "at most 4,294,967,296 are taken"),
        (lambda m: layer(m, "recipe.yaml").update(size=1 << 50), "holds no bundle"),
        (lambda m: layer(m, "recipe.yaml").update(digest="sha256:../x"), "holds no bundle"),
        (lambda m: m["layers"].append(layer(m, "recipe.yaml")), "comes twice"),
        (lambda m: m["layers"].remove(layer(m, "manifest.json")), "none is manifest.json"),
        (lambda m: m["layers"].extend([m["layers"][0]] * 2000), "at most 1001"),
        (lambda m: m.update(artifactType="application/vnd.example"), "holds no bundle"),
        (lambda m: layer(m, "manifest.json").update(layer(m, "recipe.yaml")), "comes twice"),
        (lambda m: layer(m, "manifest.json").update(size=2 << 20), "declares over"),
    ],
)
def test_an_evil_image_is_refused(
    shelf: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_image(shelf, change)
    with pytest.raises(BundleError, match=message):
        hub.pull(str(shelf), tmp_path / "back")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shelf"]


def test_an_evil_bundle_in_a_sound_layout_is_refused(shelf: Path, tmp_path: Path) -> None:
    """Path and layer agree with a manifest.json that leads outside."""

    def change(image: dict[str, Any]) -> None:
        own = layer(image, "manifest.json")
        stored = (shelf / "blobs/sha256" / own["digest"].removeprefix("sha256:")).read_text()
        layer(image, "recipe.yaml")["annotations"][TITLE] = EVIL
        own.update(blob(shelf, stored.replace('"recipe.yaml"', f'"{EVIL}"').encode()))

    edit_image(shelf, change)
    with pytest.raises(BundleError, match="not a plain relative path"):
        hub.pull(str(shelf), tmp_path / "a/b/back")
    assert not list(tmp_path.rglob("evil*"))


def test_mistakes_are_told(shelf: Path, tmp_path: Path, pristine_bundle: Bundle) -> None:
    path = pristine_bundle.path
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/manifest.json").write_text("{}")
    for place, message in (
        (str(tmp_path / "mine"), "holds other things"),
        (f"{shelf}#a/b", "cannot be a tag"),
        ("bogus://x", "Protocol not known"),
        ("bentoml:a b", "Write bentoml:NAME"),
    ):
        with pytest.raises(BundleError, match=message):
            hub.push(path, place)
    with pytest.raises(BundleError, match="is not a bundle"):
        hub.pull(str(shelf), tmp_path / "mine")
    with pytest.raises(BundleError, match="allow more with --max-gib"):
        hub.pull(str(shelf), tmp_path / "back", max_bytes=1000)
    with pytest.raises(BundleError, match="has no bundle 'none': it has tiny-1"):
        hub.pull(f"{shelf}#none", tmp_path / "back")
    with pytest.raises(BundleError, match="holds no bundles"):
        hub.pull(str(tmp_path / "nowhere"), tmp_path / "back")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "shelf"]
    assert snapshot(tmp_path / "mine") == {"manifest.json": b"{}"}


def test_a_damaged_bundle_is_not_pushed(tmp_path: Path, bundle: Bundle) -> None:
    (bundle.path / "recipe.yaml").write_text("name: tinx\n")
    with pytest.raises(BundleError, match="SHA-256"):
        hub.push(bundle.path, str(tmp_path / "shelf"))
    assert not (tmp_path / "shelf").exists()


@pytest.fixture
def model_store(tmp_path: Path) -> Iterator[Path]:
    """BentoML's model store in a folder of the test."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    (tmp_path / "models").mkdir()
    BentoMLContainer.model_store.set(ModelStore(tmp_path / "models"))
    yield tmp_path / "models"
    BentoMLContainer.model_store.reset()


def test_the_bentoml_store(
    model_store: Path, tmp_path: Path, pristine_bundle: Bundle, other_bundle: Bundle
) -> None:
    pushed = hub.push(pristine_bundle.path, "bentoml:")
    assert pushed.place == "bentoml:tiny:1"
    assert load_bundle(model_store / "tiny/1/bundle").manifest == pristine_bundle.manifest
    assert hub.push(pristine_bundle.path, "bentoml:tiny").moved_files == 0
    with pytest.raises(BundleError, match="already has another tiny:1"):
        hub.push(other_bundle.path, "bentoml:tiny:1")
    hub.push(other_bundle.path, "bentoml:tiny:12")
    with pytest.raises(BundleError, match="has no tiny:2"):
        hub.pull("bentoml:tiny:2", tmp_path / "back")
    bundle, _ = hub.pull("bentoml:tiny", tmp_path / "back")
    assert bundle.manifest == other_bundle.manifest
    bundle, _ = hub.pull("bentoml:tiny:1", tmp_path / "back")
    assert bundle.manifest == pristine_bundle.manifest
    with pytest.raises(BundleError, match="max-gib"):
        hub.pull("bentoml:tiny:1", tmp_path / "back", max_bytes=5)


def test_what_a_killed_push_left_in_the_bentoml_store(
    model_store: Path, tmp_path: Path, pristine_bundle: Bundle
) -> None:
    (model_store / "tiny/1/bundle").mkdir(parents=True)
    with pytest.raises(BundleError, match="bentoml models delete tiny:1"):
        hub.push(pristine_bundle.path, "bentoml:tiny:1")
    with pytest.raises(BundleError, match="tiny:1"):
        hub.pull("bentoml:tiny:1", tmp_path / "back")
    assert not (tmp_path / "back").exists()
