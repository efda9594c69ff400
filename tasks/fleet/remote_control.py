"""What a worker answers when it is asked: `about` for `orchestrate doctor`, and `drain` to leave.

Both are control commands of Celery. Draining, a worker finishes what it holds and takes no more.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.worker.control import control_command, inspect_command

from domain.errors import OrchestrateError
from domain.fleet.permissions import permissions
from domain.plan.spec import WIRE_VERSION
from storage.broker.connection import server_time
from storage.record.store import is_below, open_store
from tasks.fleet.kombu_internals import broker_client
from tasks.fleet.member import Member

PACKAGES = (
    "trait-vector-orchestrator",
    "celery",
    "kombu",
    "redis",
    "torch",
    "transformers",
    "accelerate",
    "numpy",
)

# The answer comes from the worker's main loop, which must not hang on a dead file server.
READ_TIMEOUT_S = 1.0

# Whoever may write to the broker asks: a worker writes in a doctor's own folder and nowhere else.
TOKEN_KEY = re.compile(r"(\.doctor-[0-9a-f]{16})/token")


def package_versions() -> dict[str, str]:
    """Versions of the packages that matter to results, those that are installed, and of Python."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def ask_workers(
    app: Celery, *, wait_s: float, store: str = "", key: str = "", token: str = ""
) -> dict[str, dict[str, Any]]:
    """Worker name -> its `about`, from all that answer within wait_s seconds.

    With a store, each also says whether the file under the key holds the token, and whether it can
    write beside it.
    """
    arguments = {"store": store, "key": key, "token": token}
    replies = app.control.broadcast("about", arguments=arguments, reply=True, timeout=wait_s) or []
    return {name: answer for reply in replies for name, answer in reply.items()}


def about(state: Any, store: str = "", key: str = "", token: str = "") -> dict[str, Any]:
    """What this worker is; Celery calls it with its own state."""
    consumer = state.consumer
    return {
        "versions": package_versions(),
        "wire": WIRE_VERSION,
        "skew_s": _skew_s(consumer),
        "queues": sorted(queue.name for queue in consumer.task_consumer.queues),
        "host": str(consumer.hostname).partition("@")[2],
        **(_sees_within_reason(store, key, token) if store else {"sees": None}),
    }


def register_about() -> None:
    """Make `about` known to the worker of this process."""
    inspect_command(name="about", args=[("store", str), ("key", str), ("token", str)])(about)


def _skew_s(consumer: Any) -> float:
    """This machine's clock minus the broker's."""
    with broker_client(consumer) as client:
        return time.time() - server_time(client)


def _sees_within_reason(store: str, key: str, token: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"sees": "no answer from the storage"}

    def look() -> None:
        answer.update(_sees(store, key, token))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(READ_TIMEOUT_S)
    return dict(answer)


def _sees(store: str, key: str, token: str) -> dict[str, Any]:
    """`sees` is `yes`, or why not; `writes` whether a file can be made in the folder of the one who
    asks. Says nothing of what a file holds beyond being the token."""
    folder = permissions(os.environ).only_runs_below
    try:
        if folder is not None and not is_below(store, folder):
            return {"sees": f"this worker opens runs below {folder} only"}
        if open_store(store).read(key) != token.encode():
            return {"sees": "another file"}
    except KeyError:
        return {"sees": "no such file"}
    except (OrchestrateError, OSError) as error:
        return {"sees": str(error)}
    own = TOKEN_KEY.fullmatch(key)
    try:
        if own:
            _write_below(store, own[1])
    except (OrchestrateError, OSError) as error:
        return {"sees": str(error), "writes": False}
    return {"sees": "yes"}


def _write_below(store: str, folder: str) -> None:
    key = f"{folder}/{secrets.token_hex(8)}"
    opened = open_store(store)
    opened.create(key, b"written by a worker")
    # who asks clears away what is left
    with contextlib.suppress(OrchestrateError):
        opened.delete(key)


def register_drain(member: Member) -> None:
    """Make `drain` known to the worker of this process."""

    def drain(state: Any) -> dict[str, int]:
        member.draining = True
        return {"holds": len(member.jobs.now())}

    control_command(name="drain")(drain)


def drain_workers(app: Celery, names: Sequence[str], *, wait_s: float) -> dict[str, int]:
    """Ask workers by name to drain; those that answered, with how many jobs they finish first."""
    replies = app.control.broadcast(
        "drain", destination=list(names), reply=True, timeout=wait_s, limit=len(names)
    )
    return {name: int(answer["holds"]) for one in replies or [] for name, answer in one.items()}
