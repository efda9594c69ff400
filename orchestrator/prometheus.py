"""The fleet as Prometheus metrics, read from the broker at every scrape; nothing is kept here
but the runs seen lately, so that a finished run's last counts are scraped too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from domain.fleet.heartbeats import QUEUES, Heartbeat, ListedRun
from domain.plan.jobs import STAGES
from storage.broker.connection import BROKER_AWAY, Client, connect
from storage.broker.fleet import QueueFacts, read_queues, read_runs, read_workers
from storage.broker.judge_limits import read_meter
from storage.broker.state import CALL_BOUNDS_S, JOB_BOUNDS_S, read_calls, read_counts

# A few scrapes: the last job of a run may be counted just before it is taken off the list.
REMEMBER_S = 300.0

OUTCOMES = {"jobs": "done", "failed": "failed", "again": "begun_again", "dead": "given_up"}

# A name alone is not enough: two people may both have a run called `demo`.
RUN = ["run", "run_id"]

Counts = Mapping[str, float]

Counted = Sequence[tuple[ListedRun, Counts]]
"""Runs with what each came to."""


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
        up = GaugeMetricFamily("orchestrate_broker_up", "1 when the broker answers")
        try:
            with connect(self._url) as client:
                found = list(self._collect(client))
            up.add_metric([], 1)
            yield from found
        except BROKER_AWAY:
            up.add_metric([], 0)
        yield up

    def _collect(self, client: Client) -> Iterator[Metric]:
        runs = self._recent(read_runs(client))
        counts = [(run, read_counts(client, run.run_id)) for run in runs]
        yield from _work(counts)
        yield from _job_seconds(counts)
        yield from _calls(read_calls(client))
        yield from _money(client, runs)
        yield from _runs(runs)
        yield from _queues(runs, read_queues(client, runs, QUEUES))
        yield from _workers(read_workers(client))

    def _recent(self, runs: list[ListedRun]) -> list[ListedRun]:
        now = time.monotonic()
        self._seen.update({run.run_id: (now, run) for run in runs})
        self._seen = {k: v for k, v in self._seen.items() if now - v[0] < REMEMBER_S}
        return [run for _, run in self._seen.values()]


def _who(run: ListedRun) -> list[str]:
    """The values of RUN's labels."""
    return [run.name, run.run_id]


def _work(counted: Counted) -> Iterator[Metric]:
    samples = CounterMetricFamily(
        "orchestrate_samples", "Samples that a stage is done with", labels=[*RUN, "stage"]
    )
    tokens = CounterMetricFamily(
        "orchestrate_response_tokens", "Tokens of generated responses", labels=RUN
    )
    jobs = CounterMetricFamily(
        "orchestrate_jobs", "Jobs by how they ended", labels=[*RUN, "stage", "outcome"]
    )
    for run, found in counted:
        who = _who(run)
        tokens.add_metric(who, sum(v for k, v in found.items() if k.startswith("tokens.")))
        # also those that nobody counted yet: Prometheus sees no rise in a series that begins at 1
        for stage in STAGES:
            samples.add_metric([*who, stage], found.get(f"samples.{stage}", 0.0))
            for name, outcome in OUTCOMES.items():
                jobs.add_metric([*who, stage, outcome], found.get(f"{name}.{stage}", 0.0))
    yield from (samples, tokens, jobs)


def _job_seconds(counted: Counted) -> Iterator[Metric]:
    family = HistogramMetricFamily(
        "orchestrate_job_seconds", "How long jobs took", labels=[*RUN, "stage"]
    )
    for run, found in counted:
        for name in found:
            what, _, stage = name.partition(".")
            if what == "jobs":
                buckets = _buckets(found, f"le.{stage}.", JOB_BOUNDS_S)
                seconds = found.get(f"seconds.{stage}", 0.0)
                family.add_metric([*_who(run), stage], buckets, seconds)
    yield family


def _calls(found: Counts) -> Iterator[Metric]:
    family = HistogramMetricFamily(
        "orchestrate_judge_call_seconds", "How long answered calls of the judge took"
    )
    family.add_metric([], _buckets(found, "le.", CALL_BOUNDS_S), found.get("seconds", 0.0))
    failed = CounterMetricFamily(
        "orchestrate_judge_calls_failed", "Calls of the judge that failed; most are made again"
    )
    failed.add_metric([], found.get("failed", 0.0))
    yield from (family, failed)


def _money(client: Client, runs: Iterable[ListedRun]) -> Iterator[Metric]:
    spent = CounterMetricFamily(
        "orchestrate_judge_usd", "US dollars spent on the judge", labels=RUN
    )
    budget = GaugeMetricFamily(
        "orchestrate_judge_budget_usd", "The run's --budget in US dollars", labels=RUN
    )
    for run in runs:
        meter = read_meter(client, run.run_id)
        if meter is not None:
            spent.add_metric(_who(run), meter.spent)
            if meter.cap is not None:
                budget.add_metric(_who(run), meter.cap)
    yield from (spent, budget)


def _runs(runs: Iterable[ListedRun]) -> Iterator[Metric]:
    planned = GaugeMetricFamily(
        "orchestrate_run_samples",
        "Samples in the run's plan, those of tests too; what orchestrate_samples_total grows to",
        labels=[*RUN, "model"],
    )
    paused = GaugeMetricFamily("orchestrate_run_paused", "1 while the run waits", labels=RUN)
    for run in runs:
        planned.add_metric([*_who(run), run.model], run.samples)
        paused.add_metric(_who(run), float(run.paused))
    yield from (planned, paused)


def _queues(runs: Iterable[ListedRun], queues: Iterable[QueueFacts]) -> Iterator[Metric]:
    by_id = {run.run_id: run for run in runs}
    waiting = GaugeMetricFamily(
        "orchestrate_queue_jobs", "Jobs that wait for a worker", labels=[*RUN, "kind"]
    )
    age = GaugeMetricFamily(
        "orchestrate_queue_age_seconds",
        "How long the oldest waiting job has waited",
        labels=[*RUN, "kind"],
    )
    open_jobs = GaugeMetricFamily(
        "orchestrate_open_jobs",
        "Jobs that wait or that workers hold, paused runs left out; what autoscaling goes by",
        labels=["kind"],
    )
    totals = dict.fromkeys(QUEUES, 0)
    for queue in queues:
        run = by_id[queue.run_id]
        waiting.add_metric([*_who(run), queue.kind], queue.waiting)
        age.add_metric([*_who(run), queue.kind], queue.oldest_s)
        totals[queue.kind] += queue.held + (0 if run.paused else queue.waiting)  # type: ignore[index]
    for kind, total in totals.items():
        open_jobs.add_metric([kind], total)
    yield from (waiting, age, open_jobs)


def _workers(workers: Iterable[Heartbeat]) -> Iterator[Metric]:
    labels = ["worker", "kind", "host"]
    up = GaugeMetricFamily(
        "orchestrate_worker_up", "1 for each worker", labels=[*labels, "device", "model"]
    )
    holds = GaugeMetricFamily("orchestrate_worker_jobs", "Jobs in its hands", labels=labels)
    busy = GaugeMetricFamily(
        "orchestrate_worker_busy_share",
        "Share of the last minute that a GPU worker's device computed, 0 to 1",
        labels=labels,
    )
    tokens = GaugeMetricFamily(
        "orchestrate_worker_tokens_per_second",
        "Response tokens over the last minute, counted when a shard is finished",
        labels=labels,
    )
    for worker in workers:
        who = [worker.name, worker.kind, worker.host]
        up.add_metric([*who, worker.device, worker.model], 1)
        holds.add_metric(who, len(worker.jobs))
        if worker.kind == "gpu":
            tokens.add_metric(who, worker.per_minute.tokens / 60)
            if worker.busy is not None:
                busy.add_metric(who, worker.busy)
    yield from (up, holds, busy, tokens)


def _buckets(found: Counts, prefix: str, bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    """Prometheus' cumulative buckets from single ones."""
    total, buckets = 0.0, []
    for bound in (*bounds, math.inf):
        total += found.get(f"{prefix}{bound:g}", 0.0)
        buckets.append(("+Inf" if bound == math.inf else f"{bound:g}", total))
    return buckets
