"""The Dockerfile as BentoML writes it from our template and bentofile.yaml."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from bentoml._internal.bento.build_config import CondaOptions, DockerOptions
from bentoml._internal.container.generate import generate_containerfile

from service.app import PATHS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dockerfile(tmp_path_factory: pytest.TempPathFactory) -> str:
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    envs = {one["name"]: one["value"] for one in bento["envs"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return generate_containerfile(
            DockerOptions(**bento["docker"], env=envs),
            str(ROOT),
            conda=CondaOptions(),
            bento_fs=tmp_path_factory.mktemp("bento"),
            enable_buildkit=False,
        )


def stages(dockerfile: str) -> list[str]:
    return re.split(r"^(?=FROM )", dockerfile, flags=re.MULTILINE)[1:]


def test_it_is_filled_in(dockerfile: str) -> None:
    assert not re.search(r"[{]{2}|[{]%|None", dockerfile)
    assert stages(dockerfile)[0].startswith("FROM docker.io/library/debian:bookworm-slim AS python")
    assert "ENV BENTOML_DO_NOT_TRACK=True" in dockerfile


def test_the_last_stage_only_copies(dockerfile: str) -> None:
    """So no package list, cache or compiler reaches the image."""
    last = stages(dockerfile)[-1]
    assert last.startswith("FROM python\n")
    assert not re.search(r"^(RUN|ADD)", last, re.MULTILINE)
    assert set(re.findall(r"^COPY (\S+)", last, re.MULTILINE)) == {"--from=packages", "--from=code"}


def test_it_runs_as_nobody_and_asks_for_its_health(dockerfile: str) -> None:
    last = stages(dockerfile)[-1]
    [user] = re.findall(r"^USER (\d+):\d+$", last, re.MULTILINE)
    deployment = yaml.safe_load((ROOT / "deploy/kubernetes/deployment.yaml").read_text())
    assert deployment["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == int(user) > 0
    [asked] = re.findall(r"c\.request\('GET', '([^']+)'\)", last)
    assert asked in PATHS
