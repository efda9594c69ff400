"""Protects the Kubernetes manifests: schemas, guards, and names that fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from domain.fleet.heartbeats import QUEUES
from orchestrator.prometheus import FleetCollector
from storage.broker.embedded_redis import embedded_redis
from tests.deploy_files import (
    DEPLOY,
    MANIFESTS,
    containers,
    manifests,
    named,
    needs,
    of_kind,
    run,
)

KUBERNETES_VERSION = "1.33"


# Kubernetes


@pytest.mark.parametrize("file", MANIFESTS, ids=named)
def test_kubernetes_knows_every_field_of_the_manifest(file: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for manifest in yaml.safe_load_all(file.read_text()):
        if not manifest["apiVersion"].startswith(("keda.sh", "kustomize")):
            validator.validate(manifest, KUBERNETES_VERSION, strict=True)


def test_kubectl_renders_every_manifest_but_the_example_of_the_secret() -> None:
    tool = needs("kubectl")

    rendered = run(tool, "kustomize", str(DEPLOY / "kubernetes"))

    assert rendered.returncode == 0, rendered.stderr
    found = [(m["kind"], m["metadata"]["name"]) for m in yaml.safe_load_all(rendered.stdout)]
    expected = [
        (m["kind"], m["metadata"]["name"])
        for m in manifests()
        if m["kind"] not in ("Kustomization", "Secret")
    ]
    assert sorted(found) == sorted(expected)
    assert "registry.example/orchestrate-gpu:0.1.0" in rendered.stdout


def test_no_pod_runs_as_root_or_may_become_it() -> None:
    workloads = of_kind("Deployment", "StatefulSet")

    for workload in workloads:
        assert workload["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in containers(workload):
            guard = container["securityContext"]
            assert guard["allowPrivilegeEscalation"] is False
            assert guard["readOnlyRootFilesystem"] is True
            assert guard["capabilities"] == {"drop": ["ALL"]}
    assert len(workloads) == 7


def test_pods_find_the_secret_the_claims_and_the_broker_that_they_name() -> None:
    keys = set(of_kind("Secret")[0]["stringData"])
    claims = {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim")}
    services = {service["metadata"]["name"] for service in of_kind("Service")}

    for workload in of_kind("Deployment", "StatefulSet"):
        for variable in containers(workload)[0]["env"]:
            if "valueFrom" in variable:
                assert variable["valueFrom"]["secretKeyRef"]["key"] in keys
            elif variable["name"] == "ORCHESTRATE_BROKER_HOST":
                assert variable["value"] in services
        for volume in workload["spec"]["template"]["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_the_pod_for_commands_can_ask_the_judge_and_the_hub() -> None:
    pods = {one["metadata"]["name"]: containers(one)[0] for one in of_kind("Deployment")}

    for other in ("judge", "gpu"):
        names = {variable["name"] for variable in pods[other]["env"]}
        has = {variable["name"] for variable in pods["command"]["env"]}
        assert names <= has | {"ORCHESTRATE_ONLY_RUNS_BELOW"}
    assert pods["gpu"]["volumeMounts"] == pods["command"]["volumeMounts"]


def environments() -> dict[str, dict[str, str]]:
    """Deployment -> its variables, with the value or the secret's key."""
    return {
        one["metadata"]["name"]: {
            variable["name"]: variable.get("value") or variable["valueFrom"]["secretKeyRef"]["key"]
            for variable in containers(one)[0]["env"]
        }
        for one in of_kind("Deployment")
    }


def test_each_pod_holds_the_secrets_of_its_role_and_the_permissions_are_set() -> None:
    pods = environments()

    holders = {name for name, found in pods.items() if "ORCHESTRATE_JUDGE_API_KEY" in found}
    assert holders == {"judge", "command"}
    assert all("ORCHESTRATE_ONLY_JUDGES_AT" in pods[name] for name in holders)
    for name, found in pods.items():
        user = found["ORCHESTRATE_BROKER_USER"]
        assert user == ("worker" if name in QUEUES else "orchestrator")
        assert found["ORCHESTRATE_BROKER_PASSWORD"] == f"{user.upper()}_PASSWORD"
        assert (name not in QUEUES) or found["ORCHESTRATE_ONLY_RUNS_BELOW"] == "/runs"


def test_only_pods_that_need_it_have_a_way_out() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind("NetworkPolicy")}
    (chosen,) = policies["outside"]["podSelector"]["matchExpressions"]

    assert policies["orchestrate"]["podSelector"] == {"matchLabels": {"app": "orchestrate"}}
    assert "Egress" in policies["orchestrate"]["policyTypes"]
    assert sorted(chosen["values"]) == ["command", "gpu", "judge"]
    (rule,) = policies["outside"]["egress"]
    assert "169.254.0.0/16" in rule["to"][0]["ipBlock"]["except"]


def test_the_brokers_users_are_the_same_everywhere() -> None:
    embedded = next(m for m in of_kind("ConfigMap"))["data"]["make-acl.sh"]

    assert embedded == (DEPLOY / "redis" / "make-acl.sh").read_text()


def test_each_kind_of_worker_scales_by_a_number_that_the_exporter_gives() -> None:
    registry = CollectorRegistry()
    deployments = {one["metadata"]["name"] for one in of_kind("Deployment")}
    service = next(s for s in of_kind("Service") if s["metadata"]["name"] == "metrics")

    with embedded_redis() as broker:
        registry.register(FleetCollector(broker))
        shown = generate_latest(registry).decode()

    scaled = {one["metadata"]["name"]: one["spec"] for one in of_kind("ScaledObject")}
    assert set(scaled) == set(QUEUES) <= deployments
    for kind, spec in scaled.items():
        (trigger,) = spec["triggers"]
        assert spec["scaleTargetRef"]["name"] == kind
        assert f"{trigger['metadata']['valueLocation']} 0.0" in shown.splitlines()
        port = service["spec"]["ports"][0]["port"]
        assert trigger["metadata"]["url"] == f"http://metrics.orchestrate.svc:{port}/metrics"


def test_the_brokers_settings_are_the_same_everywhere() -> None:
    def settings(text: str) -> set[str]:
        return {line for line in text.splitlines() if line and not line.startswith("#")}

    embedded = next(m for m in of_kind("ConfigMap"))["data"]["redis.conf"]

    assert settings(embedded) == settings((DEPLOY / "redis.conf").read_text())
