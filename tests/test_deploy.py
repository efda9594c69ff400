"""Protects the files of deploy/: no secrets, real settings and commands, and what hosts run."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.doctor.services import check_broker
from domain.errors import BrokerError
from domain.fleet.heartbeats import QUEUES
from orchestrator.prometheus import HISTOGRAMS, METRICS
from storage.broker.embedded_redis import embedded_redis, find_redis_server
from tests.command_lines import parse
from tests.deploy_files import (
    DEPLOY,
    FILES,
    ROOT,
    SCRIPTS,
    UNITS,
    compose,
    containers,
    named,
    needs,
    of_kind,
    run,
)
from tests.fleet import run_command

NAME = re.compile(r"\b(?:ORCHESTRATE|HF)_[A-Z_]+\b")
SBATCH = sorted((DEPLOY / "slurm").glob("*.sbatch"))


# what no file may do


@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_file_holds_no_secret(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    # a password in a URL, after requirepass, or after a name that holds one
    written = re.findall(r"redis://:([^@\s]+)@", text) + re.findall(r"requirepass (\S+)", text)
    named_values = re.findall(r"(?:PASSWORD|KEY|TOKEN|AUTH)(?:=|: )([^\s#}]+)", text)

    # taken from the environment or a file, or a word in a secret's place
    allowed = re.compile(r'(?:\\")?\$|%s|CHANGE-ME$|orchestrate:CHANGE-ME$|""$|\(requirepass')
    assert [w for w in [*written, *named_values] if not allowed.match(w.strip("',"))] == []


@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_file_names_only_settings_that_something_reads(file: Path) -> None:
    code = "".join(
        f.read_text()
        for p in ("cli", "orchestrator", "tasks", "workers")
        for f in ROOT.glob(f"{p}/**/*.py")
    )
    twins = {
        "ORCHESTRATE_" + name.replace("-", "_").upper()
        for name in re.findall(r'"--([a-z-]+)"', code)
    }
    own = set(NAME.findall((DEPLOY / "docker" / "entrypoint.sh").read_text()))
    own |= {f"{name}_FILE" for name in own}
    # read by compose itself, by the job scripts, and by the Hub's client
    own |= {"ORCHESTRATE_UID", "ORCHESTRATE_GID", "ORCHESTRATE_VENV"}
    own |= {"ORCHESTRATE_HOME", "HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE"}

    used = set(NAME.findall(file.read_text(encoding="utf-8")))

    assert used - twins - own - set(NAME.findall(code)) == set()


@pytest.mark.parametrize(
    "path",
    [".env", "redis-password", "secret.env", "deploy/compose/.env"]
    + [f"deploy/compose/secrets/{name}" for name in compose()["secrets"]],
)
def test_a_secret_that_a_page_has_people_make_gets_into_no_commit(path: str) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")

    assert run("git", "check-ignore", "--quiet", path).returncode == 0


def command_lines() -> Iterator[str]:
    for service in compose()["services"].values():
        words = service.get("command", [])
        if words and words[0] == "orchestrate":
            yield " ".join(words)
    for file in [*UNITS, *SCRIPTS]:
        for found in re.findall(
            r"^(?:ExecStart=\S*/|exec )(orchestrate .*)$", file.read_text(), re.M
        ):
            yield found.replace("%i", "0")
    for manifest in of_kind("Deployment"):
        words = containers(manifest)[0]["args"]
        # one pod waits for people's commands
        if words[0] == "orchestrate":
            yield " ".join(words)
    for found in re.findall(r"^CMD (\[.*\])$", (DEPLOY / "docker/Dockerfile").read_text(), re.M):
        yield " ".join(json.loads(found))


def test_every_command_of_the_files_is_one_that_the_program_takes() -> None:
    found = list(command_lines())

    for command in found:
        parse(command)
    for kind in QUEUES:
        # compose (GPU workers: one a device), systemd, Slurm, Kubernetes, an image
        assert sum(f"worker {kind}" in command for command in found) >= 5


def test_flower_refuses_the_password_of_the_example() -> None:
    example = (DEPLOY / "orchestrate.env.example").read_text()
    (login,) = re.findall(r"^ORCHESTRATE_FLOWER_AUTH=(.+)$", example, re.M)

    with embedded_redis() as url:
        ended = run_command(
            "flower", broker_url=url, environment={"ORCHESTRATE_FLOWER_AUTH": login}
        )

    assert ended.returncode == 2
    assert "ORCHESTRATE_FLOWER_AUTH is still the example's" in ended.stderr


# Prometheus and Grafana


def test_promtool_accepts_the_rules_and_the_alarms_go_off_when_they_should() -> None:
    tool = needs("promtool")
    folder = DEPLOY / "prometheus"

    for arguments in (
        ("check", "rules", "rules.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "rules_test.yml"),
    ):
        checked = run(tool, *arguments[:-1], str(folder / arguments[-1]))
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    dashboard = json.loads((DEPLOY / "grafana" / "orchestrate.json").read_text())

    read = models.Dashboard.from_json(dashboard)

    # what Grafana's own types do not know is lost on the way
    assert lost(dashboard, json.loads(encoder.JSONEncoder().encode(read))) == []


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            one
            for key in before
            for one in (lost(before[key], after[key], f"{path}/{key}") if key in after else [key])
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            one
            for k, pair in enumerate(zip(before, after, strict=True))
            for one in lost(*pair, f"{path}/{k}")
        ]
    return [] if before == after else [path]


def test_dashboard_and_alarms_use_only_metrics_that_exist() -> None:
    rules = (DEPLOY / "prometheus" / "rules.yml").read_text()
    recorded = set(re.findall(r"record: (\S+)", rules))
    panels = json.loads((DEPLOY / "grafana" / "orchestrate.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    served = {f"orchestrate_{name}" for name in (*METRICS, *HISTOGRAMS, "broker_up")}
    served |= {f"{name}{end}" for name in served for end in ("_total", "_bucket", "_count", "_sum")}

    used = set(re.findall(r"orchestrate[:_][a-z0-9:_]+", "\n".join([*asked, rules])))

    assert used - served - recorded - {"orchestrate-rates", "orchestrate-alarms"} == set()


# systemd


@pytest.mark.parametrize("unit", UNITS, ids=named)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    tool = needs("systemd-analyze")
    # verify looks for the program, and for templates it wants an instance
    copy = tmp_path / unit.name.replace("@", "@0")
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.M))

    checked = run(tool, "verify", str(copy))

    assert checked.returncode == 0, checked.stderr
    assert copy.name not in checked.stderr


def test_no_unit_runs_as_root_or_holds_its_settings() -> None:
    for unit in UNITS:
        text = unit.read_text()
        assert "\nUser=orchestrate\n" in text, unit.name
        # systemd reads them as root; Redis takes its own file
        settings = (
            "LoadCredential=redis.conf:/etc/orchestrate/redis.conf"
            if "redis" in unit.name
            else "EnvironmentFile=/etc/orchestrate/orchestrate.env"
        )
        assert f"\n{settings}\n" in text, unit.name
        assert "\nNoNewPrivileges=yes\n" in text, unit.name


def test_what_workers_make_is_for_the_group_of_those_who_start_runs() -> None:
    writers = [unit for unit in UNITS if "ReadWritePaths=-/shared/runs" in unit.read_text()]

    assert len(writers) == len(QUEUES)
    # the units may not set setgid bits, so the rights have to come from the umask
    assert all("\nUMask=0002\n" in unit.read_text() for unit in writers)


def test_redis_starts_as_its_unit_says_from_the_file_that_the_page_has_people_make(
    tmp_path: Path,
) -> None:
    page = (ROOT / "docs" / "several-machines.md").read_text()
    (made,) = re.findall(r"^    (.*) > /etc/orchestrate/redis.conf\)$", page, re.M)
    with embedded_redis() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
    address = ('echo "bind 10.0.0.1"', f'echo "bind 127.0.0.1"; echo "port {port}"')
    assert address[0] in made
    unit = (DEPLOY / "systemd" / "orchestrate-redis.service").read_text()
    (arguments,) = re.findall(r"^ExecStart=/usr/bin/redis-server (.*)$", unit, re.M)

    written = run("sh", "-c", f"{made.replace(*address)} > {tmp_path}/redis.conf)")
    password = re.findall(r"^requirepass (\w{64})$", (tmp_path / "redis.conf").read_text(), re.M)[0]
    server = subprocess.Popen(
        ["sh", "-c", f"exec {find_redis_server()} {arguments}"],
        env={**os.environ, "CREDENTIALS_DIRECTORY": str(tmp_path)},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        findings = wait_for_findings(f"redis://:{password}@127.0.0.1:{port}/0")
    finally:
        server.terminate()
        server.wait(timeout=60)

    assert written.stderr == ""
    assert stat.S_IMODE((tmp_path / "redis.conf").stat().st_mode) == 0o600
    assert {finding.state for finding in findings} == {"ok"}
    assert (tmp_path / "appendonlydir").exists() or (tmp_path / "appendonly.aof").exists()


# Slurm and shells


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_the_shell_parses_the_script(script: Path) -> None:
    assert run("bash", "-n", str(script)).stderr == ""


def test_shellcheck_has_nothing_to_say() -> None:
    tool = needs("shellcheck")

    checked = run(tool, "-x", *map(str, SCRIPTS))

    assert checked.stdout == ""


@pytest.mark.parametrize("script", SBATCH, ids=named)
def test_slurm_would_take_the_job(script: Path) -> None:
    tool = needs("sbatch")
    if run("scontrol", "ping").returncode != 0:
        pytest.skip("no Slurm controller answers here")

    checked = run(tool, "--test-only", str(script))

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("script", SBATCH, ids=named)
def test_slurm_options_stand_before_the_first_command(script: Path) -> None:
    lines = script.read_text().splitlines()

    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))

    assert all(not line.startswith("#SBATCH") for line in lines[first:])
    assert any(line.startswith("#SBATCH --time=") for line in lines[:first])


def test_a_job_refuses_settings_that_others_can_read(tmp_path: Path) -> None:
    settings = tmp_path / "orchestrate.env"
    settings.write_text("ORCHESTRATE_BROKER_URL=redis://here\n")
    command = f'source "{DEPLOY}/slurm/environment.sh"; echo "$ORCHESTRATE_BROKER_URL"'

    settings.chmod(0o644)
    refused = run("bash", "-c", command, ORCHESTRATE_HOME=str(tmp_path))
    settings.chmod(stat.S_IRUSR | stat.S_IWUSR)
    taken = run("bash", "-c", command, ORCHESTRATE_HOME=str(tmp_path))

    assert refused.returncode == 1
    assert "chmod 600" in refused.stderr
    assert taken.stdout == "redis://here\n"


# the broker


def test_a_broker_with_our_settings_passes_the_doctor(tmp_path: Path) -> None:
    with embedded_redis() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
    lines = [
        (DEPLOY / "redis.conf").read_text(),
        f"port {port}",
        "requirepass x",
        f"dir {tmp_path}",
    ]
    server = subprocess.Popen(
        [str(find_redis_server()), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        assert server.stdin is not None
        server.stdin.write("\n".join(lines).encode())
        server.stdin.close()
        findings = wait_for_findings(f"redis://:x@127.0.0.1:{port}/0")
    finally:
        server.terminate()
        server.wait(timeout=60)

    assert {finding.check: finding.state for finding in findings} == {
        "broker": "ok",
        "broker memory": "ok",
        "broker disk": "ok",
        "clock": "ok",
    }


def wait_for_findings(url: str) -> list[Any]:
    deadline = time.monotonic() + 60
    while True:
        try:
            return list(check_broker(url))
        except BrokerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
