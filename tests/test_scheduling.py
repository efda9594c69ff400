"""Protects several runs on one fleet: fair shares, priority, pause, models, and leaving workers.

Real queues, Redis and Celery workers; devices are simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from cli.commands.worker import drain_and_wait
from domain.errors import UsageError
from orchestrator.driver import Driver
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from storage.broker.fleet import put_listed_run, read_listed_runs, read_workers
from storage.record.artifacts import jobs_with_artifacts
from storage.record.run import Run, Schedule, write_run_schedule
from tests.faults.fleet import wait_until
from tests.simulated_runs import Silent, driver, make_run, simulated_workers

JOB_S = 0.05


@pytest.fixture
def broker() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


@pytest.fixture
def client(broker: str) -> Iterator[redis.Redis]:
    with connect(broker) as found:
        yield found


def n_done(run: Run, stage: str = "generate") -> int:
    names = [trait.name for trait in run.spec.traits]
    return sum(f"/{stage}/" in job for job in jobs_with_artifacts(run.store, names))


def done_at(run: Run) -> list[float]:
    """When each sample job was recorded, in order: by files, for no look comes at its moment."""
    files = Path(run.store.url).glob("traits/*/generate/*.json")
    return sorted(file.stat().st_mtime for file in files)


def n_between(run: Run, since: float, until: float) -> int:
    return sum(since < at < until for at in done_at(run))


def started(broker: str, *runs: Run) -> list[Driver]:
    drivers = [driver(broker, run) for run in runs]
    for one in drivers:
        one.start()
    return drivers


def schedule(client: redis.Redis, run: Run, **values: object) -> None:
    write_run_schedule(run.store, Schedule.model_validate(values))
    put_listed_run(client, run)


def until(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, timeout_s=120, what=what)


def test_runs_share_the_workers_though_one_came_first_with_much_more(
    broker: str, tmp_path: Path
) -> None:
    large = make_run(tmp_path / "large", traits=2, shards=100)
    small = make_run(tmp_path / "small", traits=1, shards=10)

    with simulated_workers(broker, "--seconds-per-job", str(JOB_S), logs=tmp_path / "logs"):
        started(broker, large)
        until(lambda: n_done(large) > 5, "the large run")
        (drives,) = started(broker, small)
        drives.watch(Silent())

    begun = (tmp_path / "small" / "negotiate.json").stat().st_mtime
    first, *_, last = done_at(small)
    # turn by turn: while the small one's 20 jobs were done, about as many of the large one's
    assert 10 <= n_between(large, first, last) <= 30
    # and it did not wait until the large one's 400 were done
    assert n_between(large, begun, first) <= 200


def test_a_run_of_higher_priority_goes_first_and_a_paused_one_waits(
    broker: str, client: redis.Redis, tmp_path: Path
) -> None:
    usual = make_run(tmp_path / "usual", traits=1, shards=200)
    urgent = make_run(tmp_path / "urgent", traits=1, shards=15)
    write_run_schedule(urgent.store, Schedule(priority=5))

    with simulated_workers(broker, "--seconds-per-job", str(JOB_S), logs=tmp_path / "logs"):
        started(broker, usual)
        until(lambda: n_done(usual) > 5, "the usual run")
        started(broker, urgent)
        until(lambda: n_done(urgent) == 30, "the urgent run's end")
        schedule(client, usual, paused=True)
        until(lambda: not any(worker.jobs for worker in read_workers(client)), "what was in hand")
        paused_at = n_done(usual)
        schedule(client, usual, paused=False)
        until(lambda: n_done(usual) > paused_at, "the paused run to go on")

    first, *_, last = done_at(urgent)
    # what was in hand when the urgent one came, and what its last jobs left room for
    assert n_between(usual, first, last) <= 12
    assert paused_at < 400


def test_models_get_workers_of_their_own_and_no_worker_goes_to_and_fro(
    broker: str, client: redis.Redis, tmp_path: Path
) -> None:
    runs = [make_run(tmp_path / m, traits=1, shards=40, model=m) for m in ("one", "other")]
    speed = ["--gpu", "3", "--seconds-per-job", str(JOB_S), "--load-seconds", "0.3"]

    # both wait before anybody chooses
    drivers = started(broker, *runs)
    with simulated_workers(broker, *speed, logs=tmp_path / "logs"):
        for drives in drivers:
            drives.watch(Silent())

    logs = [file.read_text() for file in (tmp_path / "logs").glob("gpu-*.log")]
    one, other = map(done_at, runs)
    # both at once; at most one change a worker, when its first model is finished
    assert max(one[0], other[0]) < min(one[-1], other[-1])
    assert sum(log.count("Serves ") for log in logs) <= 2 * len(logs)
    assert read_listed_runs(client) == []


def test_the_one_worker_that_may_serve_a_model_does_while_others_go_on_with_theirs(
    broker: str, tmp_path: Path
) -> None:
    large = make_run(tmp_path / "large", traits=1, shards=1, model="/models/large")
    small = make_run(tmp_path / "small", traits=1, shards=20, model="small")
    write_run_schedule(large.store, Schedule(priority=5))
    speed = ["--gpu", "3", "--seconds-per-job", str(JOB_S)]

    drivers = started(broker, large, small)
    # the last by name is the only one for the urgent run
    models = "small;small;/models/*"
    with simulated_workers(broker, *speed, logs=tmp_path / "logs", models=models):
        for one in drivers:
            one.watch(Silent())

    served = {f.name: f.read_text() for f in (tmp_path / "logs").glob("gpu-*.log")}
    assert (n_done(large), n_done(small)) == (2, 40)
    assert "Serves /models/large" in served["gpu-2.log"]
    assert "Serves small" in served["gpu-0.log"] + served["gpu-1.log"]


def test_a_drained_worker_finishes_what_it_holds_and_leaves_while_others_go_on(
    broker: str, client: redis.Redis, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", traits=1, shards=20)
    speed = ["--gpu", "2", "--seconds-per-job", "0.1"]

    with simulated_workers(broker, *speed, logs=tmp_path / "logs"):
        (drives,) = started(broker, run)
        until(lambda: n_done(run) > 3, "work")
        with pytest.raises(UsageError, match="there are: gpu-00@"):
            drain_and_wait(broker, ["nowhere"], wait_s=1)
        drain_and_wait(broker, ["gpu-00@*"], wait_s=20)
        left = {worker.name.partition("@")[0] for worker in read_workers(client)}
        drives.watch(Silent())

    log = (tmp_path / "logs" / "gpu-0.log").read_text()
    assert left == {"gpu-01", "judge-00", "reduce-00"}
    assert log.count("Begins ") == log.count("Finished ")
    assert n_done(run) == 40
