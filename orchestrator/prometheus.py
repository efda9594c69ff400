"""The fleet as Prometheus metrics, read from the broker at every scrape; nothing is kept here
but the runs seen lately, so that a finished run's last counts are scraped too.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from domain.fleet.heartbeats import QUEUES, Heartbeat, ListedRun
from domain.plan.jobs import STAGES
from orchestrator.run_state import State, read_state_on_broker, state_of_open_jobs
from storage.broker.connection import BROKER_AWAY, Client, connect, refusal_of_writes
from storage.broker.counts import CALL_BOUNDS_S, JOB_BOUNDS_S, read_calls, read_counts
from storage.broker.fleet import QueueFacts, read_listed_runs, read_queues, read_workers
from storage.broker.judge_limits import read_judge_meter

# A few scrapes: the last job of a run may be counted just before it is taken off the list.
REMEMBER_S = 300.0

OUTCOMES = {"jobs": "done", "failed": "failed", "again": "begun_again", "dead": "given_up"}

# A name alone is not enough: two people may both have a run called `demo`.
RUN = ("run", "run_id")

WORKER = ("worker", "kind", "host")
SAMPLES = "Samples in the run's plan, those of tests too; what orchestrate_samples_total grows to"
WAITING = "1 while no worker there may do the run's next job, or the broker takes none"
FAILED = "Calls of the judge that failed; most are made again"
AGE = "How long the oldest waiting job has waited"
OPEN = "Jobs that wait or that workers hold, paused runs left out; what autoscaling goes by"
BUSY = "Share of the last minute that a GPU worker's device computed, 0 to 1"
TOKENS = "Response tokens over the last minute, counted when a shard is finished"

# Name after orchestrate_ -> what it is, help, labels.
METRICS = {
    "samples": (CounterMetricFamily, "Samples that a stage is done with", (*RUN, "stage")),
    "response_tokens": (CounterMetricFamily, "Tokens of generated responses", RUN),
    "jobs": (CounterMetricFamily, "Jobs by how they ended", (*RUN, "stage", "outcome")),
    "judge_calls_failed": (CounterMetricFamily, FAILED, ()),
    "judge_usd": (CounterMetricFamily, "US dollars spent on the judge", RUN),
    "judge_budget_usd": (GaugeMetricFamily, "The run's --budget in US dollars", RUN),
    "run_samples": (GaugeMetricFamily, SAMPLES, (*RUN, "model")),
    "run_paused": (GaugeMetricFamily, "1 while the run waits", RUN),
    "run_waiting": (GaugeMetricFamily, WAITING, RUN),
    "queue_jobs": (GaugeMetricFamily, "Jobs that wait for a worker", (*RUN, "kind")),
    "queue_age_seconds": (GaugeMetricFamily, AGE, (*RUN, "kind")),
    "open_jobs": (GaugeMetricFamily, OPEN, ("kind",)),
    "worker_up": (GaugeMetricFamily, "1 for each worker", (*WORKER, "device", "model")),
    "worker_jobs": (GaugeMetricFamily, "Jobs in its hands", WORKER),
    "worker_busy_share": (GaugeMetricFamily, BUSY, WORKER),
    "worker_tokens_per_second": (GaugeMetricFamily, TOKENS, WORKER),
}

HISTOGRAMS = {
    "job_seconds": ("How long jobs took", (*RUN, "stage")),
    "judge_call_seconds": ("How long answered calls of the judge took", ()),
}

Counts = Mapping[str, float]


class FleetCollector(Collector):
    """Asks the broker whenever Prometheus asks us."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._seen: dict[str, tuple[float, ListedRun]] = {}

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of the first scrape: the broker need not be up when we start."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics; with no broker the one that says so."""
        up = GaugeMetricFamily("orchestrate_broker_up", "1 when the broker answers and takes jobs")
        try:
            with connect(self._url) as client:
                found = _Families(client, self._recent(read_listed_runs(client)))
                up.add_metric([], 0 if refusal_of_writes(client) else 1)
            yield from (*found.single.values(), *found.report_histograms.values())
        except BROKER_AWAY:
            up.add_metric([], 0)
        yield up

    def _recent(self, runs: list[ListedRun]) -> list[ListedRun]:
        now = time.monotonic()
        self._seen.update({run.run_id: (now, run) for run in runs})
        self._seen = {k: v for k, v in self._seen.items() if now - v[0] < REMEMBER_S}
        return [run for _, run in self._seen.values()]


class _Families:
    """The metrics of one scrape by their names, filled from what the broker holds."""

    def __init__(self, client: Client, runs: list[ListedRun]) -> None:
        self.single = {
            name: family(f"orchestrate_{name}", text, labels=labels)
            for name, (family, text, labels) in METRICS.items()
        }
        self.report_histograms = {
            name: HistogramMetricFamily(f"orchestrate_{name}", text, labels=labels)
            for name, (text, labels) in HISTOGRAMS.items()
        }
        for run in runs:
            self._run(client, run)
        queues, workers = read_queues(client, runs, QUEUES), read_workers(client)
        self._queues(runs, queues)
        for run in runs:
            facts = read_state_on_broker(client, run, queues=queues, workers=workers)
            is_out = any(facts.waiting.values()) or any(facts.held.values())
            waits = is_out and not run.paused and state_of_open_jobs(facts).state != State.RUNNING
            self._add("run_waiting", [run.name, run.run_id], float(waits))
        for worker in workers:
            self._worker(worker)
        calls = read_calls(client)
        self._timed("judge_call_seconds", [], calls, bounds=CALL_BOUNDS_S)
        self._add("judge_calls_failed", [], calls.get("failed", 0.0))

    def _add(self, name: str, labels: list[str], value: float) -> None:
        self.single[name].add_metric(labels, value)

    def _timed(
        self, name: str, labels: list[str], found: Counts, *, bounds: tuple[float, ...]
    ) -> None:
        """Prometheus' cumulative buckets from single ones; a stage, if any, is the last label."""
        stage = f"{labels[-1]}." if labels else ""
        total, buckets = 0.0, []
        for bound in (*bounds, math.inf):
            total += found.get(f"le.{stage}{bound:g}", 0.0)
            buckets.append(("+Inf" if bound == math.inf else f"{bound:g}", total))
        seconds = found.get(f"seconds.{stage}".rstrip("."), 0.0)
        self.report_histograms[name].add_metric(labels, buckets, seconds)

    def _run(self, client: Client, run: ListedRun) -> None:
        who, found = [run.name, run.run_id], read_counts(client, run.run_id)
        tokens = sum(v for k, v in found.items() if k.startswith("tokens."))
        self._add("response_tokens", who, tokens)
        # also those that nobody counted yet: Prometheus sees no rise in a series that begins at 1
        for stage in STAGES:
            self._add("samples", [*who, stage], found.get(f"samples.{stage}", 0.0))
            for name, outcome in OUTCOMES.items():
                self._add("jobs", [*who, stage, outcome], found.get(f"{name}.{stage}", 0.0))
            if f"jobs.{stage}" in found:
                self._timed("job_seconds", [*who, stage], found, bounds=JOB_BOUNDS_S)
        meter = read_judge_meter(client, run.run_id)
        if meter is not None:
            self._add("judge_usd", who, meter.spent)
            if meter.cap is not None:
                self._add("judge_budget_usd", who, meter.cap)
        self._add("run_samples", [*who, run.model], run.samples)
        self._add("run_paused", who, float(run.paused))

    def _queues(self, runs: Iterable[ListedRun], queues: Iterable[QueueFacts]) -> None:
        by_id = {run.run_id: run for run in runs}
        open_jobs = Counter[str](dict.fromkeys(QUEUES, 0))
        for queue in queues:
            run = by_id[queue.run_id]
            self._add("queue_jobs", [run.name, run.run_id, queue.kind], queue.waiting)
            self._add("queue_age_seconds", [run.name, run.run_id, queue.kind], queue.oldest_s)
            open_jobs[queue.kind] += queue.held + (0 if run.paused else queue.waiting)
        for kind, n in open_jobs.items():
            self._add("open_jobs", [kind], n)

    def _worker(self, worker: Heartbeat) -> None:
        who = [worker.name, worker.kind, worker.host]
        self._add("worker_up", [*who, worker.device, worker.model], 1)
        self._add("worker_jobs", who, len(worker.jobs))
        if worker.kind == "gpu":
            self._add("worker_tokens_per_second", who, worker.per_minute.tokens / 60)
            if worker.busy is not None:
                self._add("worker_busy_share", who, worker.busy)
