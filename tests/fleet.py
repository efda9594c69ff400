"""Runs the real command and real workers for tests, on a private broker."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.responses import Response

from orchestrator.processes import Child, Processes, orchestrate
from tests.http_judge import scoring


def run_command(
    *arguments: str,
    broker_url: str | None = None,
    mark: str = "",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 200.0,
) -> subprocess.CompletedProcess[str]:
    """Run `orchestrate` to its end; whatever it starts carries the mark in its environment."""
    whole = {**clean_environment(), "PYTHONTESTMARK": mark, **(environment or {})}
    if broker_url:
        whole["ORCHESTRATE_BROKER_URL"] = broker_url
    return subprocess.run(
        orchestrate(*arguments),
        cwd=cwd,
        env=whole,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


@contextlib.contextmanager
def workers(
    broker_url: str, *kinds: list[str], logs: Path, judge_key: str = ""
) -> Iterator[Processes]:
    """Run workers (`["gpu", "--device", "cpu"]` ...) while the context is open."""
    environment = {**clean_environment(), "ORCHESTRATE_BROKER_URL": broker_url}
    if judge_key:
        environment["OPENAI_API_KEY"] = judge_key
    children = [
        Child(
            f"{kind[0]} {number}",
            orchestrate("worker", *kind),
            environment,
            logs / f"{number}.log",
        )
        for number, kind in enumerate(kinds)
    ]
    with Processes(children).running() as processes:
        yield processes


def clean_environment() -> dict[str, str]:
    """This environment without settings that a developer may have, on one thread a process."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ORCHESTRATE_", "OPENAI_"))}
    # tests of the checks ask for them; the others do not pay for them
    unchecked = {"ORCHESTRATE_EVALUATION": "0", "ORCHESTRATE_CAUSAL": "0"}
    return {**kept, **unchecked, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def by_text(body: dict[str, Any], call: int) -> Response:
    """A judge whose score is a function of the text alone, spread over the whole scale."""
    text = body["messages"][0]["content"]
    if "**coherence**" in text:
        return scoring([("90", 0.8), ("70", 0.2)])
    number = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 101
    return scoring([(str(number), 1.0)])
