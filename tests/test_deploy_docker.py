"""Protects the images and the compose file: their tools accept them, rights are few."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path

import yaml

from tests.deploy_files import (
    DEPLOY,
    ROOT,
    compose,
    needs,
    run,
)

# what they come to the broker as, and the permission that commands do without
OF_WORKERS = {
    *("ORCHESTRATE_BROKER_USER", "ORCHESTRATE_BROKER_PASSWORD_FILE"),
    "ORCHESTRATE_ONLY_RUNS_BELOW",
}

# Docker


def test_compose_accepts_the_file_and_keeps_flower_on_loopback(tmp_path: Path) -> None:
    plugin = (
        run("docker", "compose", "version").returncode == 0 if shutil.which("docker") else False
    )
    tool = ["docker", "compose"] if plugin else [needs("docker-compose")]
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    folder = tmp_path / "deploy" / "compose"
    shutil.copy(folder / ".env.example", folder / ".env")
    profiles = "broker,reduce,judge,gpu-0,gpu-1,gpu-2,gpu-3,cpu,command"

    checked = run(
        *tool, "--file", str(folder / "compose.yaml"), "config", COMPOSE_PROFILES=profiles
    )

    assert checked.returncode == 0, checked.stderr
    services = yaml.safe_load(checked.stdout)["services"]
    assert len(services) == 11
    assert "127.0.0.1" in str(services["flower"]["ports"])
    assert "/shared/runs" in str(services["judge"]["volumes"])


def test_no_service_of_compose_keeps_rights_it_does_not_need() -> None:
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        # Redis starts as root to read its secret, and its entrypoint leaves root at once
        assert name == "redis" or "user" in service, name
        assert not service.get("privileged"), name
        assert all(port.startswith(("127.", "${BROKER_A")) for port in service.get("ports", []))


def test_the_service_for_commands_can_ask_the_judge_and_the_hub() -> None:
    services = compose()["services"]
    command = services["orchestrate"]

    for other in ("judge", "gpu-0"):
        secrets = set(services[other]["secrets"]) - {"redis_worker"}
        assert secrets <= set(command["secrets"])
        asked = {k: v for k, v in services[other]["environment"].items() if k not in OF_WORKERS}
        assert asked.items() <= command["environment"].items()
    assert services["gpu-0"]["volumes"] == command["volumes"]


def test_each_service_holds_the_secrets_of_its_role_and_the_permissions_are_set() -> None:
    services = compose()["services"]

    for name, service in services.items():
        environment, secrets = service.get("environment", {}), service["secrets"]
        works = service.get("command", [])[:2] == ["orchestrate", "worker"]
        assert ("redis_worker" in secrets) == works, name
        assert ("ORCHESTRATE_ONLY_RUNS_BELOW" in environment) == works, name
        holds_key = "judge_api_key" in secrets
        assert holds_key == (name in ("judge", "orchestrate")), name
        assert holds_key == ("ORCHESTRATE_ONLY_JUDGES_AT" in environment), name
    assert not any("redis_admin" in s["secrets"] for s in services.values())


def test_docker_makes_no_folder_of_roots_where_one_is_missing() -> None:
    binds = [
        volume
        for name, service in compose()["services"].items()
        for volume in service.get("volumes", [])
        # its own volume, and the file of settings beside the compose file
        if name != "redis"
    ]

    assert len(binds) >= 10
    # in the short form, a text, it does
    assert all(volume["type"] == "bind" for volume in binds)


def test_each_gpu_service_has_a_device_of_its_own() -> None:
    services = {n: s for n, s in compose()["services"].items() if n.startswith("gpu-")}

    devices = {
        name: service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, service in services.items()
    }

    assert devices == {f"gpu-{number}": [str(number)] for number in range(4)}


def test_every_image_ends_as_a_user_that_is_not_root_and_copies_what_exists() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    images = re.split(r"^FROM .* AS ", text, flags=re.MULTILINE)[2:]
    ignore = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:].rstrip("/") for line in ignore if line.startswith("!")}
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]

    assert [image.split()[0] for image in images] == ["judge", "reduce", "gpu"]
    assert [re.findall(r"^USER (.*)$", image, re.M) for image in images] == [["10001:10001"]] * 3
    assert {package.partition(".")[0] for package in listed["packages"]} <= kept
    assert {f"{module}.py" for module in listed["py-modules"]} <= kept
    assert all((ROOT / name).exists() for name in kept)


def test_the_judge_image_needs_no_torch() -> None:
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    left_out = re.search(r"\^\(([a-z|]+)\)", text)
    assert left_out is not None
    absent = [name for name in left_out.group(1).split("|")]
    code = (
        f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
        "import cli.commands.worker, cli.commands.flower, cli.commands.metrics\n"
        "import cli.commands.judge_server, cli.commands.doctor\n"
        "import tasks.fleet.worker, tasks.stages.judge, tasks.fleet.flower_app\n"
        "import workers.judge.server\n"
    )

    loaded = run(sys.executable, "-P", "-c", code)

    assert "torch" in absent
    assert loaded.returncode == 0, loaded.stderr


def test_the_entrypoint_reads_secrets_from_files_and_builds_the_broker_url(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("p@ss/w#rd\n")
    empty = tmp_path / "empty"
    empty.touch()

    shown = run(
        "sh",
        str(DEPLOY / "docker" / "entrypoint.sh"),
        "printenv",
        ORCHESTRATE_BROKER_HOST="redis",
        ORCHESTRATE_BROKER_PASSWORD_FILE=str(secret),
        ORCHESTRATE_FLOWER_AUTH_FILE=str(empty),
    )

    settings = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    assert settings["ORCHESTRATE_BROKER_URL"] == "redis://:p%40ss%2Fw%23rd@redis:6379/0"
    assert "ORCHESTRATE_FLOWER_AUTH" not in settings


def test_the_entrypoint_says_which_secret_is_missing() -> None:
    ended = run("sh", str(DEPLOY / "docker/entrypoint.sh"), "true", HF_TOKEN_FILE="/nowhere/token")

    assert ended.returncode == 2
    assert "HF_TOKEN_FILE names /nowhere/token" in ended.stderr
