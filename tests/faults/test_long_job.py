"""Protects leases: a dead worker's job moves on at once, a living worker's job never does.

All times are one twentieth of the defaults: 30 s of visibility timeout are 1.5 s, a job of 30
minutes takes 90 s, and "elsewhere within a minute" means within 3 s and what does not shrink.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Note
from tests.faults.disturbed_run import FINISHED, PATIENCE_S, Scene
from tests.faults.fleet import Fleet, wait_until
from tests.faults.redis_process import RedisProcess
from tests.fleet import by_text
from tests.http_judge import http_judge
from tests.tiny_models import save_tiny_model

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

SCALE = 20
TIMEOUT_S = 30 / SCALE
LONG_S = 30 * 60 / SCALE
MINUTE_S = 60 / SCALE
# Of what does not shrink with the times: workers look twice a second, heartbeats come every two.
UNSCALED_S = 2.5
GPU = ("gpu", "--device", "cpu", "--pinned", "cpu")


def test_a_killed_workers_jobs_run_elsewhere_and_half_an_hours_job_is_delivered_once(
    tmp_path: Path, note: Note
) -> None:
    """A killed GPU worker's job runs elsewhere within 60 s; a job of 30 minutes is delivered once.

    All times divided by 20: a GPU worker is killed, the other runs its two jobs for 90 s each while
    a third one waits for work.
    """
    broker = RedisProcess(tmp_path / "redis")
    broker.start()
    slow = {"ODD_SLOW_S": str(LONG_S), "ORCHESTRATE_VISIBILITY_TIMEOUT": str(TIMEOUT_S)}
    fleet = Fleet(broker.url, tmp_path / "logs", {"ORCHESTRATE_VISIBILITY_TIMEOUT": str(TIMEOUT_S)})
    model = save_tiny_model(tmp_path / "model", "llama")
    shards = ["--shard-samples", "24"]  # one job a side, both on one worker
    with http_judge(by_text) as judge:
        fleet.add("gpu-first", *GPU, module="tests.faults.odd_worker", environment=slow)
        fleet.add("judge-0", "judge", "--no-embedded")
        fleet.add("reduce-0", "reduce")
        run = Scene(fleet, judge, model, tmp_path / "runs").run("long")
        process = run.start([*run.command(), *shards])
        try:
            wait_until(lambda: len(generations(fleet)) == 2, timeout_s=120, what="both jobs")
            fleet.add("gpu-second", *GPU, module="tests.faults.odd_worker", environment=slow)
            second = fleet.workers["gpu-second"]
            wait_until(lambda: "ready." in second.log(), timeout_s=120, what="the other worker")
            time.sleep(2 * TIMEOUT_S)  # it has been there long enough to take what is abandoned

            fleet.kill("gpu-first")
            waited = wait_until(
                lambda: len(generations(fleet)) == 4, timeout_s=60, what="both jobs elsewhere"
            )
            fleet.add("gpu-third", *GPU, module="tests.faults.odd_worker", environment=slow)

            assert run.finish(process, timeout_s=LONG_S + PATIENCE_S) == FINISHED
        finally:
            process.kill()
            for name in list(fleet.workers):
                fleet.remove(name)
            broker.kill()

    took = re.findall(r"Finished \S+/generate/\S+ in ([0-9.]+) s", second.log())
    seen = f"elsewhere after {waited:.1f} s, which stands for {SCALE * waited:.0f} s; then once"
    note("seen", seen)
    assert waited <= MINUTE_S + UNSCALED_S
    assert [float(t) >= LONG_S for t in took] == [True, True]
    assert sorted(generations(fleet)) == sorted(2 * list(dict.fromkeys(generations(fleet))))


def generations(fleet: Fleet) -> list[str]:
    """Generate jobs as often as they were begun."""
    return [job for job in fleet.begun({}) if "/generate/" in job]
