"""Runs for simulated workers: any traits, any number of samples, no texts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from domain.plan.spec import ChecksSpec, JudgeSpec, ModelSpec, RunSpec, TraitRef
from orchestrator.driver import Driver
from orchestrator.progress import TraitCount
from storage.broker.state import broker_state
from storage.record.dead_letters import Failure
from storage.record.run import Run, create_run
from storage.record.store import open_store
from tasks.fleet.app import make_app
from tests.fleet import clean_environment

ROOT = Path(__file__).parent.parent


def make_run(
    folder: Path,
    *,
    traits: int,
    shards: int,
    shard_samples: int = 10,
    model: str = "simulated",
    planned_at: str | None = None,
) -> Run:
    """A run with that many shards a side of each trait; its id is the folder's name."""
    refs = tuple(
        TraitRef(name=f"trait{k}", fingerprint="none", n_instructions=1, n_questions=shards)
        for k in range(traits)
    )
    spec = RunSpec(
        traits=refs,
        model=ModelSpec(model_id=model),
        judge=JudgeSpec(model="simulated", url="http://nowhere"),
        rollouts=shard_samples,
        shard_samples=shard_samples,
        # nothing that the simulated devices cannot do
        checks=ChecksSpec(contexts=0),
    )
    return create_run(
        open_store(str(folder)),
        spec,
        run_id=folder.name,
        definitions={},
        provenance={"planned_at": planned_at},
    )


@contextlib.contextmanager
def simulated_workers(
    broker_url: str, *arguments: str, logs: Path, models: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """Run tests/simulated_fleet.py while the context is open."""
    environment = {
        **clean_environment(),
        "ORCHESTRATE_BROKER_URL": broker_url,
        "SIMULATED_MODELS": models,
    }
    command = [sys.executable, "-m", "tests.simulated_fleet", "--logs", str(logs), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def driver(broker_url: str, run: Run) -> Driver:
    """The orchestrator of a run on a broker."""
    state = broker_state(broker_url, run.run_id)
    return Driver(make_app(broker_url), broker_url, run, state, lambda: None)


class Silent:
    """A view that shows nothing."""

    def update(self, counts: list[TraitCount], failures: list[Failure]) -> None:
        """See orchestrator.driver.View."""


def is_alive(pid: int) -> bool:
    """Whether a process exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
