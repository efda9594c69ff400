"""Protects what a broker's users may do, and that TLS to the broker is checked."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu.exceptions import OperationalError

from domain.errors import BrokerError
from storage.broker.connection import connect
from tasks.fleet.app import make_app
from tests.faults.conftest import Note
from tests.faults.disturbed_run import FINISHED, Scene
from tests.faults.fleet import Fleet
from tests.faults.redis_process import RedisProcess
from tests.faults.tls_front import Certificates, make_certificates, tls_front
from tests.fleet import by_text
from tests.http_judge import http_judge
from tests.tiny_models import save_tiny_model

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

GPU = ("gpu", "--device", "cpu", "--pinned", "cpu")
USERS = ("admin", "orchestrator", "worker")
SCRIPT = Path(__file__).parents[2] / "deploy" / "redis" / "make-acl.sh"
FORBIDDEN = [
    ("CONFIG", "GET", "requirepass"), ("CONFIG", "SET", "dir", "/tmp"), ("FLUSHALL",), ("FLUSHDB",),
    ("SHUTDOWN", "NOSAVE"), ("KEYS", "*"), ("ACL", "LIST"), ("MONITOR",), ("SAVE",),
    ("DEBUG", "JMAP"),
    ("REPLICAOF", "NO", "ONE"), ("CLIENT", "LIST"), ("MODULE", "LIST"), ("SCRIPT", "FLUSH"),
    ("GET", "somebody-elses-key"), ("SET", "somebody-elses-key", "x"),
    ("PUBLISH", "somebody-elses-channel", "x"),
]  # fmt: skip


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A server with the ACL file that deploy/redis writes."""
    folder = tmp_path_factory.mktemp("acl")
    for name in USERS:
        (folder / f"{name}.secret").write_text(f"password-of-{name}\n")
    written = subprocess.run(
        [str(SCRIPT)],
        env={**os.environ, "SECRETS": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "password-of" not in written
    (folder / "users.acl").write_text(written)
    server = RedisProcess(
        folder / "redis", user="admin", password="password-of-admin", users=folder / "users.acl"
    )
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("name", ["worker", "orchestrator"])
@pytest.mark.parametrize("command", FORBIDDEN, ids=lambda command: " ".join(command[:2]))
def test_programs_may_not_run_admin_commands_or_touch_other_keys(
    broker: RedisProcess, name: str, command: tuple[str, ...]
) -> None:
    client = redis.Redis(port=broker.port, username=name, password=f"password-of-{name}")

    with client, pytest.raises((redis.exceptions.NoPermissionError, redis.ResponseError)) as error:
        client.execute_command(*command)

    assert "permission" in str(error.value).lower()


def test_nobody_comes_in_without_a_user(broker: RedisProcess) -> None:
    with pytest.raises(BrokerError, match="user or password"):
        connect(f"redis://127.0.0.1:{broker.port}/0")
    with pytest.raises(BrokerError, match="user or password"):
        connect(f"redis://worker:wrong@127.0.0.1:{broker.port}/0")


def test_a_full_run_works_as_these_users_over_tls(
    broker: RedisProcess, certificates: Certificates, tmp_path: Path, note: Note
) -> None:
    """Workers need no admin commands, and TLS changes nothing.

    A full run as the users of deploy/redis/make-acl.sh, over TLS with a verified certificate.
    """
    model = save_tiny_model(tmp_path / "model", "llama")
    with tls_front(certificates, broker.port) as port, http_judge(by_text) as judge:
        ca = f"ssl_ca_certs={certificates.authority}"
        worker_url, orchestrator_url = (
            f"rediss://{name}:password-of-{name}@127.0.0.1:{port}/0?{ca}"
            for name in ("worker", "orchestrator")
        )
        fleet = Fleet(worker_url, tmp_path / "logs")
        with fleet.tended():
            for name, arguments in {
                "gpu-0": GPU,
                "judge-0": ("judge", "--no-embedded"),
                "reduce-0": ("reduce",),
            }.items():
                fleet.add(name, *arguments)
            asking = Fleet(orchestrator_url, tmp_path / "logs")
            run = Scene(asking, judge, model, tmp_path / "runs").run("guarded")
            assert run.finish(run.start()) == FINISHED
            deaths = fleet.deaths
        run.check("ACL users over TLS", at_most=0)

    assert deaths == 0
    note("seen", "nobody was refused or restarted")


def test_a_certificate_of_an_unknown_authority_is_refused(
    broker: RedisProcess, certificates: Certificates, tmp_path: Path
) -> None:
    with tls_front(certificates, broker.port) as port:
        url = f"rediss://worker:password-of-worker@127.0.0.1:{port}/0"
        with pytest.raises(BrokerError, match="certificate"):
            connect(url)
        with (
            make_app(url).connection_for_read() as connection,
            pytest.raises(OperationalError, match="certificate"),
        ):
            connection.default_channel.client.ping()
