"""Protects docs/several-machines.md: six hosts with addresses of their own, set up as it says.

Each host is a network namespace with a host name and a working folder with the page's `.env`; the
commands are the page's. One folder stands for the shared one.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from domain.traits.definition import BUNDLED_TRAITS
from orchestrator.processes import orchestrate
from storage.broker.embedded_redis import die_with_parent
from storage.record.run import open_run
from storage.record.store import open_store
from tests.faults.fleet import wait_until
from tests.faults.hosts import Hosts, hosts
from tests.faults.redis_process import RedisProcess
from tests.fleet import clean_environment

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

SIZE = ["--questions", "10", "--instructions", "4", "--rollouts", "3", "--shard-samples", "30"]
SIZE += ["--evaluation", "0", "--causal", "0"]
FLOWER_LOGIN = "someone:a-password"


@dataclass
class Machines:
    """The hosts, and what was started on each."""

    net: Hosts
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, host: str, *arguments: str) -> list[str]:
        """A command as it runs on a host that knows its name."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', host]
        return [*self.net.prefix(host), *named, *arguments]

    def start(self, host: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start an `orchestrate` command in the host's folder; its log lies beside."""
        home = self.folder / host
        log = (home / f"{'-'.join(arguments[:2])}.log").open("wb")
        process = subprocess.Popen(
            self.command(host, *orchestrate(*arguments)),
            cwd=home,
            env={**clean_environment(), "ORCHESTRATE_FLOWER_AUTH": FLOWER_LOGIN},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def ask(self, host: str, *arguments: str) -> str:
        """What a command on a host prints."""
        ended = subprocess.run(
            self.command(host, *arguments),
            cwd=self.folder / host,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def status(self, *arguments: str) -> dict[str, Any]:
        """`orchestrate status --json` on the orchestrator's host."""
        found: dict[str, Any] = json.loads(
            self.ask("lab", *orchestrate("status", *arguments, "--json"))
        )
        return found

    def log(self, host: str, name: str) -> str:
        """What a command on a host has said."""
        return (self.folder / host / f"{name}.log").read_text(errors="replace")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    names = ("broker", "lab", "gpu1", "gpu2", "gpu3", "judge")
    with hosts(*names) as net:
        broker = RedisProcess(
            tmp_path / "redis", host=net.address_of("broker"), prefix=net.prefix("broker")
        )
        broker.start()
        made = Machines(net, tmp_path)
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / ".env").write_text(
                f"ORCHESTRATE_BROKER_URL={broker.url}\nORCHESTRATE_RUNS_DIR={tmp_path}/shared\n"
            )
        try:
            yield made
        finally:
            for process in made.started:
                process.terminate()
            for process in made.started:
                process.wait(timeout=60)
            broker.kill()


def flower(machines: Machines, path: str) -> Any:
    """Flower's API, asked on the broker's own loopback as the page says."""
    login = base64.b64encode(FLOWER_LOGIN.encode()).decode()
    url = f"http://127.0.0.1:5555/api/{path}"
    return json.loads(
        machines.ask("broker", "curl", "-sf", "-H", f"Authorization: Basic {login}", url)
    )


def workers_of(found: dict[str, Any], kind: str) -> list[str]:
    return sorted(w["host"] for w in found["workers"] if w["kind"] == kind)


def test_eleven_traits_run_on_five_hosts_while_a_sixth_joins_and_one_leaves(
    machines: Machines,
) -> None:
    start: Sequence[tuple[str, ...]] = (
        ("broker", "flower"),
        ("gpu1", "worker", "gpu", "--device", "cpu"),
        ("gpu2", "worker", "gpu", "--device", "cpu"),
        ("judge", "worker", "judge"),
        ("lab", "worker", "reduce"),
    )
    for host, *arguments in start:
        machines.start(host, *arguments)
    extract = machines.start("lab", "extract", "--traits", "all", "--run", "demo", *SIZE)
    wait_until(
        lambda: machines.log("gpu1", "worker-gpu").count("Finished ") >= 2,
        timeout_s=300,
        what="work on gpu1",
    )

    # a third GPU host joins
    began = time.monotonic()
    machines.start("gpu3", "worker", "gpu", "--device", "cpu")
    wait_until(
        lambda: "Begins " in machines.log("gpu3", "worker-gpu"), timeout_s=120, what="gpu3 at work"
    )
    joined = time.monotonic() - began
    wait_until(
        lambda: "Finished " in machines.log("gpu3", "worker-gpu"), timeout_s=120, what="gpu3's work"
    )
    finished = time.monotonic() - began
    middle = machines.status("demo")

    # one is drained and leaves
    began = time.monotonic()
    drained = machines.ask("lab", *orchestrate("worker", "drain", "gpu1"))
    left = time.monotonic() - began
    after = machines.status("demo")
    extract.wait(timeout=700)
    print(  # noqa: T201
        f"\njoined and took work after {joined:.1f} s, had done some after {finished:.1f} s, "
        f"left {left:.1f} s after drain"
    )

    assert extract.returncode in (0, 3), machines.log("lab", "extract---traits")
    assert workers_of(middle, "gpu") == ["gpu1", "gpu2", "gpu3"]
    assert workers_of(after, "gpu") == ["gpu2", "gpu3"]
    assert "Gone: gpu-cpu-" in drained
    assert machines.started[1].wait(timeout=30) == 0  # its launcher too, by itself
    agree(machines)


def agree(machines: Machines) -> None:
    """Status, the record and Flower tell of the same traits, jobs and workers."""
    run = open_run(open_store(str(machines.folder / "shared" / "demo")))
    end = machines.status("demo")
    tasks = flower(machines, "tasks?limit=10000")
    succeeded = [t["kwargs"] for t in tasks.values() if t["state"] == "SUCCESS"]

    assert [t["trait"] for t in end["traits"]] == list(BUNDLED_TRAITS)
    assert all(t["is_finished"] for t in end["traits"])
    assert {text.split(" (run ")[0] for text in succeeded} == {job.key for job in run.plan.jobs()}
    alive = {name for name, one in flower(machines, "workers?status=1").items() if one}
    assert alive >= {w["name"] for w in end["workers"]}
