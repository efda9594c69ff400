"""What `orchestrate status` shows: a run, or all runs of a folder, and the fleet below them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.screens.progress import styled_verdict
from domain.fleet.heartbeats import QUEUES, Heartbeat, ListedRun
from orchestrator.progress import StageCount, seconds_left, stage_rates
from orchestrator.runs import runs_place
from orchestrator.state import (
    FINISHED,
    RUNNING,
    RunState,
    by_record,
    decline_rows,
    fleet_rows,
    read_on_broker,
    run_state,
    snapshot_text,
    state_json,
)
from storage.broker.connection import Client, connect
from storage.broker.fleet import read_heartbeat, read_queues, read_runs, read_workers
from storage.record.artifacts import record_key
from storage.record.run import Run, open_run, read_schedule

BAR_WIDTH = 16

NARROW_BAR = 4


def screen(snapshot: dict[str, Any]) -> RenderableType:
    """The whole screen; what a broker would know is left out without one."""
    parts: list[RenderableType] = [_heading(snapshot), TraitTable(snapshot)]
    if "queues" in snapshot:
        workers = [read_heartbeat(row) for row in snapshot["workers"]]
        parts += [Text(""), _lines(snapshot), Text(""), FleetTable(workers)]
        parts += decline_lines(snapshot["refusals"])
        parts += _trouble(snapshot)
    return Group(*parts)


def duration(seconds: float) -> str:
    """1:02:03, or 12 s."""
    whole = int(seconds)
    if whole < 100:
        return f"{whole} s"
    clock = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{clock}" if whole >= 3600 else clock.lstrip("0")


def _heading(snapshot: dict[str, Any]) -> Text:
    text = Text(snapshot["name"], style="bold")
    text.append(f"  {snapshot['model']}", style="default")
    text.append(f"  {_state(snapshot)}", style="bold")
    if snapshot["priority"]:
        text.append(f"  priority {snapshot['priority']}", style="default")
    return text


def _state(snapshot: dict[str, Any]) -> str:
    if snapshot["state"] != RUNNING:
        return str(RunState(snapshot["state"], snapshot["state_why"]))
    stages = {stage: StageCount(**count) for stage, count in snapshot["stages"].items()}
    left = seconds_left(stages, stage_rates(snapshot["rates"], stages))
    return f"{RUNNING}, about {duration(left)} left" if left else RUNNING


@dataclass(frozen=True)
class TraitTable:
    """One row a trait, with bars where there is room; names may be folded, numbers never."""

    snapshot: dict[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        table = _traits(self.snapshot, with_bars=False)
        width = Measurement.get(console, options.update(max_width=1000), table).maximum
        if width + len(self.snapshot["stages"]) * (NARROW_BAR + 1) <= options.max_width:
            table = _traits(self.snapshot, with_bars=True)
        yield table
        if any(_is_unchecked(one) for one in self.snapshot["traits"]):
            yield Text("* not yet checked", style="dim")


def _traits(snapshot: dict[str, Any], *, with_bars: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    stages = list(snapshot["stages"])
    # only what may be folded is made narrower: the bars, or the names where there are none
    table.add_column("trait", overflow="fold", no_wrap=with_bars)
    for stage in stages:
        if with_bars:
            table.add_column("", min_width=NARROW_BAR, max_width=BAR_WIDTH)
        table.add_column(stage, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("contrast", justify="right", no_wrap=True)
    for one in snapshot["traits"]:
        contrast = one["contrast"]
        table.add_row(
            escape(one["trait"]),
            *_counts(one, stages, with_bars=with_bars),
            _verdict(one),
            "" if contrast is None else f"{contrast:.1f}",
        )
    if len(snapshot["traits"]) > 1:
        sums = _counts(snapshot["stages"], stages, with_bars=with_bars)
        table.add_row("all", *sums, "", "", style="bold")
    return table


def _verdict(one: dict[str, Any]) -> str:
    if one["verdict"] is None:
        return ""
    return styled_verdict(one["verdict"]) + ("*" if _is_unchecked(one) else "")


def _is_unchecked(one: dict[str, Any]) -> bool:
    return one["verdict"] is not None and not one["is_finished"]


def _counts(
    found: dict[str, Any], stages: list[str], *, with_bars: bool
) -> Iterable[RenderableType]:
    for stage in stages:
        done, of = (found[stage]["done"], found[stage]["total"]) if stage in found else (0, 0)
        if with_bars:
            yield ProgressBar(of, done) if of else ""
        yield f"{done}/{of}" if of else ""


def _lines(snapshot: dict[str, Any]) -> Table:
    rates, counts = snapshot["rates"], snapshot["counts"]
    by_stage = stage_rates(rates, snapshot["stages"])
    parts = [f"{stage} {rate:.1f}/s" for stage, rate in by_stage.items()]
    parts.append(f"{rates.get('tokens.generate', 0.0):.0f} tokens/s")
    sums = {
        word: int(sum(v for k, v in counts.items() if k.startswith(f"{name}.")))
        for name, word in (("again", "begun again"), ("dead", "given up"))
    }
    trouble = [f"{len(snapshot['failures'])} failed", *(f"{n} {word}" for word, n in sums.items())]
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(style="bold", min_width=8, no_wrap=True)
    table.add_column()
    for name, text in (
        ("rates", ", ".join(parts)),
        ("judge", snapshot_text(snapshot["judge"]).removeprefix("judge ")),
        ("jobs", ", ".join(_queue(snapshot, kind) for kind in snapshot["queues"])),
        ("trouble", ", ".join(trouble)),
    ):
        table.add_row(name, Text(text))
    return table


def _queue(snapshot: dict[str, Any], kind: str) -> str:
    waiting, held = snapshot["queues"][kind], snapshot["held"][kind]
    text = f"{kind} {waiting} waiting, {held} held"
    if waiting:
        text += f", the oldest for {duration(snapshot['oldest_s'][kind])}"
    return text.replace(", ", " · ")


def _trouble(snapshot: dict[str, Any]) -> list[RenderableType]:
    if not snapshot["last_errors"]:
        return []
    found: list[RenderableType] = [Text("")]
    for line in snapshot["last_errors"]:
        when = time.strftime("%H:%M:%S", time.localtime(line["at"]))
        text = Text(f"{when}  ", style="dim", overflow="ellipsis", no_wrap=True)
        text.append(line["text"], style="red" if line["level"] == "error" else "yellow")
        found.append(text)
    return found


Row = dict[str, Any]


class RunsOfFolder:
    """The runs of a folder, looked at as often as wanted; no run's artifacts are listed."""

    def __init__(self, runs_dir: str) -> None:
        self._store = runs_place(runs_dir)
        # a finished run stays so while nobody works on it: it is read once
        self._finished: dict[str, tuple[Run, Row]] = {}

    def look(self, broker_url: str | None) -> dict[str, Any]:
        """The runs by name; with a broker what each is doing, and the workers."""
        if not broker_url:
            return self._found([row for _, row in self._rows({})])
        with connect(broker_url) as client:
            listed = {one.run_id: one for one in read_runs(client)}
            rows, workers = self._rows(listed), read_workers(client)
            _add_doings(client, rows, listed, workers)
            declines = decline_rows(client, listed.values(), workers)
        found = self._found([row for _, row in rows])
        return {**found, "workers": fleet_rows(workers), "refusals": declines}

    def _found(self, rows: list[Row]) -> dict[str, Any]:
        names = [row["name"] for row in rows]
        return {"place": self._store.url, "runs": names, "standing": rows}

    def _rows(self, listed: Mapping[str, ListedRun]) -> list[tuple[Run, Row]]:
        found = []
        for name in sorted(self._store.folders()):
            known = self._finished.get(name)
            if known is None or known[0].run_id in listed:
                if not self._store.exists(f"{name}/run.json"):
                    continue
                run = open_run(self._store.at(name))
                known = run, _row(run)
            if known[1]["state"] == FINISHED:
                self._finished[name] = known
            found.append((known[0], dict(known[1])))
        return found


def runs_screen(found: dict[str, Any]) -> RenderableType:
    """The runs, and the workers below them."""
    parts: list[RenderableType] = [_table(found["standing"])]
    if not found["runs"]:
        parts = [Text(f"No runs in {found['place']}: start one with `orchestrate extract`.")]
    if "workers" in found:
        parts += decline_lines(found["refusals"], run="")
        parts += [Text(""), FleetTable([read_heartbeat(row) for row in found["workers"]])]
    return Group(*parts)


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("run", "traits", "model", "state"):
        table.add_column(heading, no_wrap=heading == "traits", overflow="fold")
    with_priority = any(row.get("priority") for row in rows)
    if with_priority:
        table.add_column("priority", justify="right", no_wrap=True)
    for row in rows:
        cells = [escape(row["name"]), f"{row['finished']}/{row['traits']}", escape(row["model"])]
        priority = [str(row.get("priority") or "")] if with_priority else []
        table.add_row(*cells, escape(row["state"]), *priority)
    return table


def _row(run: Run) -> Row:
    plan, traits = run.plan, run.spec.traits
    # the last job's record is what makes a trait finished
    finished = sum(run.store.exists(record_key(plan.last_job(trait))) for trait in traits)
    schedule = read_schedule(run.store)
    state = by_record(finished=finished == len(traits), paused=schedule.paused)
    return {
        "name": run.name,
        "run_id": run.run_id,
        "traits": len(traits),
        "finished": finished,
        "model": run.spec.model.model_id,
        **state_json(state),
        "paused": schedule.paused,
    }


def _add_doings(
    client: Client,
    rows: list[tuple[Run, Row]],
    listed: Mapping[str, ListedRun],
    workers: Sequence[Heartbeat],
) -> None:
    """What each run is doing by the broker."""
    queues = read_queues(client, listed.values(), QUEUES)
    for run, row in rows:
        one, finished = listed.get(run.run_id), row["state"] == FINISHED
        row["priority"] = None if one is None else one.priority
        if one is not None or not finished:
            facts = read_on_broker(client, run, queues=queues, workers=workers)
            row |= state_json(run_state(facts, finished=finished, paused=row["paused"]))


@dataclass(frozen=True)
class FleetTable:
    """One row a worker; where that is too wide, the job it holds longest stands in a table below.

    Names may go over two lines, numbers and headings never.
    """

    workers: Sequence[Heartbeat]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        whole = _workers(self.workers, with_jobs=True)
        if Measurement.get(console, options.update(max_width=1000), whole).maximum <= (
            options.max_width
        ):
            yield whole
            return
        yield _workers(self.workers, with_jobs=False)
        if any(one.jobs for one in self.workers):
            yield Text("")
            yield _longest(self.workers)


def _workers(workers: Sequence[Heartbeat], *, with_jobs: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("worker", "serves"):
        table.add_column(heading, overflow="fold")
    table.add_column("holds", justify="right", no_wrap=True)
    if with_jobs:
        _add_job_columns(table)
    for heading in ("jobs/min", "tokens/s", "busy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for worker in workers:
        table.add_row(
            escape(worker.name),
            escape("leaving" if worker.draining else worker.model),
            str(len(worker.jobs)) if worker.jobs else "-",
            *(_longest_of(worker) if with_jobs else ()),
            f"{worker.per_minute.jobs:.1f}",
            f"{worker.per_minute.tokens / 60:.0f}" if worker.kind == "gpu" else "",
            "" if worker.busy is None else f"{worker.busy:.0%}",
        )
    if not workers:
        table.add_row("none is connected")
    return table


def _longest(workers: Sequence[Heartbeat]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("worker", overflow="fold")
    _add_job_columns(table)
    for worker in workers:
        if worker.jobs:
            table.add_row(escape(worker.name), *_longest_of(worker))
    return table


def _add_job_columns(table: Table) -> None:
    table.add_column("longest job", overflow="fold")
    table.add_column("for", justify="right", no_wrap=True)


def _longest_of(worker: Heartbeat) -> tuple[str, str]:
    return (escape(worker.jobs[0][1]), f"{worker.jobs[0][2]:.0f} s") if worker.jobs else ("", "")


def decline_lines(rows: Iterable[Mapping[str, str]], *, run: str = "this run") -> list[Text]:
    """`host-2 gpu-cpu-17: cannot serve this run: ...`, or each run by its name when `run` is
    empty."""
    return [
        Text(
            f"{row['host']} {row['worker'].partition('@')[0]}: cannot serve "
            f"{run or row['run']}: {row['reason']}",
            style="yellow",
        )
        for row in rows
    ]
