"""Protects what people watch: status, logs and metrics tell what real queues and workers did."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from cli.commands.extract import keep_extraction_log
from cli.screens.run_in_words import run_in_words
from cli.screens.status import run_status_screen
from cli.screens.tables import duration
from orchestrator.processes import orchestrate
from orchestrator.prometheus import FleetCollector
from storage.broker.connection import connect
from storage.broker.counts import job_counts, note_counts, read_counts
from storage.broker.embedded_redis import embedded_redis
from storage.broker.job_log import (
    KEPT,
    keep_log_lines,
    kept_log_lines,
    last_job_log_lines,
    read_log_lines,
)
from storage.record.run import Run, open_run
from storage.record.store import open_store
from tests.faults.fleet import wait_until
from tests.fleet import clean_environment, run_command, workers
from tests.simulated_runs import Silent, driver, make_run, simulated_workers

N_SAMPLES = 2 * 2 * 12 * 10
N_JOBS = 1 + 2 * (24 + 24 + 1)  # a negotiation, two traits


@dataclass(frozen=True)
class Watched:
    """A run in its middle, looked at from outside, and the same run at its end."""

    url: str
    run: Run
    middle: dict[str, object]
    metrics: dict[tuple[str, ...], float]
    shown: str
    end: dict[str, object]
    text: str


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


@pytest.fixture(scope="module")
def watched(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    run = make_run(folder / "runs" / "gemma", traits=2, shards=12)
    speed = ["--gpu", "2", "--seconds-per-job", "0.5"]
    registry = CollectorRegistry()
    registry.register(FleetCollector(broker))
    with simulated_workers(broker, *speed, logs=folder / "logs"):
        drives = driver(broker, run)
        drives.start()
        middle: dict[str, Any] = {}

        def both_devices_work() -> bool:
            middle.update(run_in_words(run, broker))
            at_work = [one for one in middle["workers"] if one["device"] and one["jobs"]]
            all_told = [one for one in at_work if one["busy"]]
            return middle["counts"].get("jobs.generate", 0) >= 4 and len(all_told) == 2

        wait_until(both_devices_work, timeout_s=120, what="work")
        shown = generate_latest(registry).decode()
        drives.watch(Silent())
        end = run_in_words(run, broker)
        # a job is recorded before its last line is sent, and these workers end by SIGKILL
        wait_until(lambda: n_jobs_done(broker, run) >= N_JOBS, timeout_s=60, what="the last line")
    return Watched(broker, run, middle, values(shown), draw(middle), end, shown)


def n_jobs_done(broker: str, run: Run) -> int:
    """By the lines of the run's log on the broker."""
    with connect(broker) as client:
        return sum(line.event == "job_done" for _, line in read_log_lines(client, run.run_id))


def command(broker: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **clean_environment(),
        "ORCHESTRATE_BROKER_URL": broker,
        "ORCHESTRATE_RUNS_DIR": str(folder / "runs"),
    }
    return subprocess.run(
        orchestrate(*arguments), env=environment, capture_output=True, text=True, check=True
    )


def values(text: str) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of their names) -> value."""
    return {
        (one.name, *(one.labels[name] for name in sorted(one.labels))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def draw(snapshot: dict[str, object]) -> str:
    console = Console(width=130, record=True, file=io.StringIO())
    console.print(run_status_screen(snapshot))
    return console.export_text()


def test_the_screen_shows_traits_rates_queues_and_workers(watched: Watched) -> None:
    lines = watched.shown.splitlines()

    assert lines[0].startswith("gemma  simulated  running, about ")
    assert sum(line.startswith("trait") for line in lines) == 3  # the heading and two traits
    assert any(line.startswith("rates") and "tokens/s" in line for line in lines)
    assert any("gpu-00@" in line and re.search(r"trait.* [1-9][0-9]*%", line) for line in lines)
    assert any(line.startswith("trouble  0 failed") for line in lines)


def test_status_at_the_end_agrees_with_the_record(watched: Watched) -> None:
    by_record = run_in_words(watched.run, None)

    assert by_record["traits"] == watched.end["traits"]
    assert {one["verdict"] for one in by_record["traits"]} == {"usable"}
    assert draw(by_record).startswith("gemma  simulated  finished")


@pytest.mark.slow
def test_a_finished_run_that_nobody_watched_is_ended_by_the_command_that_status_names(
    broker: str, tmp_path: Path
) -> None:
    size = ["--questions", "2", "--instructions", "1", "--rollouts", "1", "--shard-samples", "8"]
    fleet = (["gpu", "--device", "cpu"], ["judge"], ["reduce"])
    place: dict[str, Any] = {"broker_url": broker, "cwd": tmp_path}

    with workers(broker, *fleet, logs=tmp_path):
        sent = run_command("extract", "--traits", "evil", "--run", "r", "--detach", *size, **place)
        early = run_command("status", "r", **place)
        wait_until(lambda: is_finished(broker, tmp_path), timeout_s=100, what="the run's end")
    status = run_command("status", "r", **place)
    # without any worker
    resumed = run_command("resume", "r", **place)

    last = "orchestrate resume r"
    assert last in sent.stdout
    assert last not in early.stdout
    assert status.stdout.rstrip().endswith(last)
    assert resumed.returncode == 3, resumed.stderr
    run = tmp_path / "runs" / "r"
    assert all((run / name).is_file() for name in ("report.html", "metrics.json", KEPT))
    assert last not in run_command("status", "r", **place).stdout


def is_finished(broker: str, folder: Path) -> bool:
    run = open_run(open_store(str(folder / "runs" / "r")))
    return all(trait["is_finished"] for trait in run_in_words(run, broker)["traits"])


def test_the_exporter_counts_what_the_run_does(watched: Watched) -> None:
    found = watched.metrics
    # a simulated run's id is its name
    run = ("gemma", "gemma")
    samples = found["orchestrate_samples_total", *run, "generate"]

    assert 40 <= samples < N_SAMPLES
    assert found["orchestrate_response_tokens_total", *run] == 200 * samples
    assert found["orchestrate_run_samples", "simulated", *run] == N_SAMPLES
    assert found["orchestrate_queue_jobs", "gpu", *run] > 0
    assert found["orchestrate_queue_age_seconds", "gpu", *run] > 0
    assert found["orchestrate_job_seconds_count", *run, "generate"] == samples / 10
    assert sum(v for k, v in found.items() if k[0] == "orchestrate_worker_up") == 4
    assert found["orchestrate_broker_up",] == 1


def test_promtool_finds_no_fault_with_the_metrics(watched: Watched) -> None:
    from tests.deploy_files import needs

    checked = subprocess.run(
        [needs("promtool"), "check", "metrics"],
        input=watched.text,
        capture_output=True,
        text=True,
    )

    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_exporter_says_when_the_broker_is_gone() -> None:
    with embedded_redis() as url:
        collector = FleetCollector(url)

    (found,) = collector.collect()

    assert (found.name, found.samples[0].value) == ("orchestrate_broker_up", 0)


def test_logs_tell_the_story_of_one_job_from_all_machines(watched: Watched) -> None:
    with connect(watched.url) as client:
        lines = [line for _, line in read_log_lines(client, watched.run.run_id)]
        story = [x for x in lines if x.job == "trait1/judge/negative-003"]
        trouble = last_job_log_lines(client, watched.run.run_id, levels=("error",), n=5)

    assert [line.event for line in story] == ["job_begun", "job_done"]
    assert story[0].worker.startswith("judge-00@")
    assert n_jobs_done(watched.url, watched.run) == N_JOBS  # every job ended in the log
    assert trouble == []


def test_logs_can_be_asked_for_a_pattern_and_as_json(watched: Watched) -> None:
    folder = Path(watched.run.store.url).parent.parent

    shown = command(watched.url, folder, "logs", "gemma", "trait0/reduce", "--json").stdout

    assert [json.loads(line)["event"] for line in shown.splitlines()] == ["job_begun", "job_done"]


def test_logs_are_kept_with_the_run_and_read_without_a_broker(watched: Watched) -> None:
    store = watched.run.store
    with connect(watched.url) as client:
        keep_log_lines(store, client, watched.run.run_id)
        keep_log_lines(store, client, watched.run.run_id)
        on_broker = [line for _, line in read_log_lines(client, watched.run.run_id)]
    store.write(KEPT, store.read(KEPT) + b"torn off in the mid")
    folder = Path(store.url).parent.parent

    shown = command("", folder, "logs", "gemma", "trait0/reduce", "--json").stdout

    assert sorted(kept_log_lines(store), key=repr) == sorted(on_broker, key=repr)
    assert [json.loads(line)["event"] for line in shown.splitlines()] == ["job_begun", "job_done"]


def test_a_line_that_another_program_wrote_hides_no_other_and_spoils_no_log(
    broker: str, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path))
    ours = {"at": 2.5, "level": "info", "worker": "w", "job": "j", "event": "e", "text": "ours"}
    newer = {**ours, "at": 3, "text": "newer", "host": "field of a newer version"}
    odd_levels: list[object] = [[], {}, 1]
    strange = [
        *({**ours, "at": at} for at in ("x", None, 1e300, float("nan"))),
        *({**ours, "level": level} for level in odd_levels),
        *([], 7, {}, "line", {"text": "no time"}),
    ]
    texts = ["torn {", *map(json.dumps, [*strange, newer, ours])]
    store.write(KEPT, "\n".join(texts).encode())

    with connect(broker) as client:
        client.xadd("orchestrate:odd:log", {"other": "field"})
        for text in [*texts, json.dumps({**ours, "at": 4, "text": "half \ud800 pair"})]:
            client.xadd("orchestrate:odd:log", {"line": text})
        keep_log_lines(store, client, "odd")
        latest = last_job_log_lines(client, "odd", levels=("info",), n=9)

    assert [line.text for line in kept_log_lines(store)] == ["ours", "newer", "half ? pair"]
    assert [line.text for line in latest] == ["half ? pair", "ours", "newer"]


def test_a_log_that_cannot_be_kept_spoils_no_result(
    broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "unkept", traits=1, shards=1)
    with connect(broker) as client:
        client.set(f"orchestrate:{run.run_id}:log", "no stream")

    keep_extraction_log(Console(), driver(broker, run))

    assert "was not kept with the run" in capsys.readouterr().out


def test_counts_of_two_jobs_fall_into_the_buckets_of_their_durations(broker: str) -> None:
    with connect(broker) as client:
        note_counts(client, "counted", job_counts("judge", 0.7, samples=100, tokens=0))
        note_counts(client, "counted", job_counts("judge", 2000.0, samples=100, tokens=0))
        found = read_counts(client, "counted")

    assert found["samples.judge"] == 200
    assert (found["le.judge.1"], found["le.judge.inf"]) == (1, 1)


@pytest.mark.parametrize(("seconds", "shown"), [(12.4, "12 s"), (130, "2:10"), (4000, "1:06:40")])
def test_a_duration_is_short_to_read(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_what_cannot_be_read_on_the_broker_hides_nothing_else(broker: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "readable", traits=1, shards=1)
    driver(broker, run).start()
    with connect(broker) as client:
        client.hset("orchestrate:runs", "other-version", '{"color": "red"}')
        client.hset("orchestrate:workers", "stranger", "[")
        client.rpush("judge.readable", b"\xff")
        client.hset("unacked", "tag", "{}")

        snapshot = run_in_words(run, broker)

        for key in ("orchestrate:runs", "orchestrate:workers", "unacked", "judge.readable"):
            client.delete(key)
    assert snapshot["on_broker"]
    assert snapshot["queues"]["judge"] == 2
