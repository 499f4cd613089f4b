"""What is in deploy/ fits its schemas, and names what the service and its metrics are called."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.app import PATHS
from service.observability import REGISTRY
from service.settings import Settings, unknown

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUSTOMIZATION = DEPLOY / "kubernetes" / "kustomization.yaml"
MANIFESTS = sorted(set(DEPLOY.glob("kubernetes/*.yaml")) - {KUSTOMIZATION})
SERVING = DEPLOY.parent / "docs" / "serving.md"
CLAIM = DEPLOY / "kubernetes" / "bundles" / "claim.yaml"
VERSIONS = ("1.30", "1.37")
"""Kubernetes' versions whose schemas the manifests have to fit."""


def load(path: str) -> Any:
    return yaml.safe_load((DEPLOY / path).read_text())


@pytest.fixture
def deployment() -> Any:
    return load("kubernetes/deployment.yaml")


@pytest.fixture
def pod(deployment: Any) -> Any:
    return deployment["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", [*MANIFESTS, CLAIM], ids=lambda path: path.stem)
def test_manifests_fit_the_schema(path: Path, version: str) -> None:
    kubernetes_validate.validate(yaml.safe_load(path.read_text()), version, strict=True)


def test_a_misspelt_field_does_not_fit(pod: Any, deployment: Any) -> None:
    pod["containers"][0]["livenessprobe"] = pod["containers"][0].pop("livenessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="livenessprobe"):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def test_the_deployment_patched_for_a_bundle_fits_the_schema(deployment: Any) -> None:
    patch = load("kubernetes/bundles/patch.yaml")["spec"]["template"]["spec"]
    patched = copy.deepcopy(deployment)
    spec = patched["spec"]["template"]["spec"]
    spec["volumes"] += patch["volumes"]
    for field in ("env", "volumeMounts"):
        spec["containers"][0][field] += patch["containers"][0][field]
    assert spec["containers"][0]["name"] == patch["containers"][0]["name"]
    kubernetes_validate.validate(patched, VERSIONS[-1], strict=True)
    [volume] = patch["volumes"]
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert claim == yaml.safe_load(CLAIM.read_text())["metadata"]["name"]


@pytest.fixture
def kustomization() -> Any:
    return load("kubernetes/kustomization.yaml")


def test_the_kustomization_has_every_manifest(kustomization: Any, pod: Any) -> None:
    assert sorted(kustomization["resources"]) == sorted(path.name for path in MANIFESTS)
    [container] = pod["containers"]
    [image] = kustomization["images"]
    assert image["name"] == container["image"].partition(":")[0]
    [settings] = kustomization["configMapGenerator"]
    [source] = container["envFrom"]
    assert settings["name"] == source["configMapRef"]["name"]
    component = load("kubernetes/bundles/kustomization.yaml")
    assert component["kind"] == "Component"
    files = [*component["resources"], *(patch["path"] for patch in component["patches"])]
    assert sorted(files) == sorted(
        path.name for path in CLAIM.parent.iterdir() if path.name != "kustomization.yaml"
    )


def documented_kustomization() -> Any:
    """The example of docs/serving.md: a folder beside the checkout."""
    fence = r"```yaml\n(# my-cluster/kustomization.yaml\n.*?)```"
    [example] = re.findall(fence, SERVING.read_text(), re.DOTALL)
    return yaml.safe_load(example)


def test_settings_of_the_kustomizations_can_be_used(
    kustomization: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in (kustomization, documented_kustomization()):
        [settings] = one["configMapGenerator"]
        given = dict(literal.split("=", 1) for literal in settings["literals"])
        assert unknown(given) == []
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        Settings()


KUSTOMIZE = next(
    (
        command
        for command in (["kustomize", "build"], ["kubectl", "kustomize"])
        if shutil.which(command[0])
    ),
    None,
)


@pytest.mark.skipif(KUSTOMIZE is None, reason="neither kustomize nor kubectl is installed")
def test_the_documented_kustomization_sets_image_settings_and_bundle(tmp_path: Path) -> None:
    assert KUSTOMIZE is not None
    shutil.copytree(DEPLOY, tmp_path / "quickstudy" / "deploy")
    (tmp_path / "my-cluster").mkdir()
    mine = documented_kustomization()
    (tmp_path / "my-cluster" / "kustomization.yaml").write_text(yaml.safe_dump(mine))
    built = subprocess.run(
        [*KUSTOMIZE, str(tmp_path / "my-cluster")], capture_output=True, text=True, check=True
    )
    made = {one["kind"]: one for one in yaml.safe_load_all(built.stdout)}
    for one in made.values():
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    kinds = {yaml.safe_load(path.read_text())["kind"] for path in (*MANIFESTS, CLAIM)}
    assert set(made) == kinds | {"ConfigMap"}
    settings = made["ConfigMap"]
    given = dict(literal.split("=", 1) for literal in mine["configMapGenerator"][0]["literals"])
    assert given.items() <= settings["data"].items()
    assert "QUICKSTUDY_LOG_LEVEL" in settings["data"]
    [container] = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    [image] = mine["images"]
    assert container["image"] == f"{image['newName']}:{image['newTag']}"
    [source] = container["envFrom"]
    assert source["configMapRef"]["name"] == settings["metadata"]["name"]
    assert "QUICKSTUDY_MODEL" in {one["name"] for one in container["env"]}


def test_the_compose_file_fits_the_schema() -> None:
    vendored = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text())
    jsonschema.validate(load("compose.yaml"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"quickstudy": {"readonly": True}}}, schema)


def test_every_manifest_is_about_the_same_pods(deployment: Any) -> None:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert load("kubernetes/service.yaml")["spec"]["selector"].items() <= labels.items()
    assert load("kubernetes/network.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    assert load("kubernetes/disruption.yaml")["spec"]["selector"]["matchLabels"] == labels
    target = load("kubernetes/autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }


def test_ports_and_paths_are_the_services(deployment: Any, pod: Any) -> None:
    [container] = pod["containers"]
    [port] = container["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in PATHS
        assert container[probe]["httpGet"]["port"] == port["name"]
    assert load("kubernetes/service.yaml")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert load("kubernetes/network.yaml")["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]
    scraped = deployment["spec"]["template"]["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == str(port["containerPort"])
    assert scraped["prometheus.io/path"] in PATHS


def test_pods_keep_to_the_restricted_profile(pod: Any) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        assert field not in pod
    for volume in pod["volumes"]:
        assert set(volume) - {"name"} <= {"emptyDir", "persistentVolumeClaim"}
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_pods_have_time_to_stop(pod: Any) -> None:
    """The pause before, then the drain, twice the grace and 5 s, see service/supervisor.py."""
    pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = Settings().drain_s + 2 * Settings().shutdown_grace_s + 5
    assert pod["terminationGracePeriodSeconds"] >= pause + needed
    composed = load("compose.yaml")["services"]["quickstudy"]["stop_grace_period"]
    assert int(composed.removesuffix("s")) >= needed


def test_settings_exist() -> None:
    known = {f"QUICKSTUDY_{name.upper()}" for name in Settings.model_fields}
    for path in DEPLOY.rglob("*.yaml"):
        assert set(re.findall(r"QUICKSTUDY_[A-Z_]+", path.read_text())) <= known, path.name


def series() -> set[str]:
    """Names of the series at /metrics; labels have to have been seen before they are listed."""
    kinds = {
        "counter": ("_total",),
        "gauge": ("",),
        "histogram": ("_bucket", "_sum", "_count"),
    }
    return {metric.name + suffix for metric in REGISTRY.collect() for suffix in kinds[metric.type]}


def test_alerts_and_the_autoscaler_ask_for_metrics_that_exist() -> None:
    rules = [rule for group in load("monitoring/alerts.yaml")["groups"] for rule in group["rules"]]
    [custom] = load("monitoring/prometheus-adapter.yaml")["rules"]["custom"]
    asked = " ".join([custom["seriesQuery"], custom["metricsQuery"], *(r["expr"] for r in rules)])
    names = set(re.findall(r"quickstudy_\w+", asked))
    assert len(names) >= 6
    assert names <= series()
    [metric] = load("kubernetes/autoscaler.yaml")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == custom["name"]["as"]
    assert re.fullmatch(r"\^\w+\$", custom["name"]["matches"])
    assert custom["name"]["matches"].strip("^$") == custom["seriesQuery"].partition("{")[0]
