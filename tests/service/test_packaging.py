"""What travels: the Bento's packages are those of pyproject.toml, and serving needs no torch."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMMAND_LINE_ONLY = {"rich>=13.7", "typer>=0.15", "pyyaml>=6.0"}


def test_the_bento_has_the_packages_that_serving_needs() -> None:
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(bento["python"]["packages"]) == set(project["dependencies"]) - COMMAND_LINE_ONLY


def test_the_bento_includes_what_the_service_imports(tmp_path: Path) -> None:
    """Copy what bentofile.yaml names to an empty folder, and import the service there."""
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    for pattern in bento["include"]:
        for path in ROOT.glob(f"{pattern}/*" if pattern.endswith("**") else pattern):
            if path.is_file():
                target = tmp_path / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.modules['torch'] = None; "
        "sys.modules['training'] = None; import service.app as app; "
        f"assert app.__file__.startswith({str(tmp_path)!r}); "
        "app.create_app(app.Settings()).openapi()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
