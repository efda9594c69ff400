"""What `orchestrate status` shows: a run, or all runs of a folder, and the fleet below them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from textwrap import fill
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from cli.screens.progress import TraitTable
from cli.screens.run_in_words import MOST_LISTED, judge_in_words, shortened, state_in_words
from cli.screens.tables import (
    duration,
    first_table_that_fits,
    number_column,
    table_fits,
    table_of,
    text_column,
)
from domain.errors import StoreError, UsageError
from domain.fleet.heartbeats import QUEUES, Heartbeat, ListedRun
from domain.plan.spec import TraitRef
from domain.verdict.record import VerdictName
from orchestrator.progress import StageCount, seconds_left, stage_rates
from orchestrator.run_state import (
    State,
    decline_rows,
    judge_down_s,
    read_state_on_broker,
    recorded_failures,
    run_state,
)
from orchestrator.runs import runs_place
from storage.broker.connection import Client, connect
from storage.broker.fleet import HEARTBEAT, listed_run, read_listed_runs, read_queues, read_workers
from storage.record.artifacts import DamagedArtifactError, load_record
from storage.record.attended import read_attended
from storage.record.run import Run, open_run, read_run_schedule

log = logging.getLogger(__name__)


def run_status_screen(snapshot: dict[str, Any]) -> RenderableType:
    """The whole screen; what a broker would know is left out without one."""
    parts: list[RenderableType] = [
        _heading(snapshot),
        TraitTable(snapshot["stages"], snapshot["traits"]),
    ]
    if "queues" in snapshot:
        workers = [HEARTBEAT.validate_python(row) for row in snapshot["workers"]]
        parts += [Text(""), _lines(snapshot), Text(""), FleetTable(workers)]
        parts += decline_lines(snapshot["refusals"])
        parts += [Text(""), *map(_trouble, snapshot["last_errors"])]
    elif len(snapshot["last_errors"]) > 1:
        # the latest alone stands in the heading
        parts += [Text(""), *map(_trouble, snapshot["last_errors"])]
    return Group(*parts)


def _heading(snapshot: dict[str, Any]) -> Text:
    text = Text(snapshot["name"], style="bold")
    text.append(f"  {snapshot['model']}", style="default")
    text.append(f"  {_state(snapshot)}", style="bold")
    if snapshot["priority"]:
        text.append(f"  priority {snapshot['priority']}", style="default")
    return text


def _state(snapshot: dict[str, Any]) -> str:
    named, why = snapshot["state"], snapshot["state_why"]
    if named != State.RUNNING:
        return f"{named}: {why}" if why else str(named)
    stages = {stage: StageCount(**count) for stage, count in snapshot["stages"].items()}
    left = seconds_left(stages, stage_rates(snapshot.get("rates", {}), stages))
    parts = [named, f"about {duration(left)} left" if left else "", why]
    return ", ".join(filter(None, parts))


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
        ("judge", "; ".join([snapshot["judge"]["model"], *judge_in_words(snapshot["judge"])])),
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


def _trouble(line: dict[str, Any]) -> Text:
    when = time.strftime("%H:%M:%S", time.localtime(line["at"]))
    text = Text(f"{when}  ", style="dim", overflow="ellipsis", no_wrap=True)
    return text.append(
        shortened(line["text"]), style="red" if line["level"] == "error" else "yellow"
    )


Row = dict[str, Any]


class FolderStatus:
    """The runs of a folder, looked at as often as wanted; no run's artifacts are listed."""

    def __init__(self, runs_dir: str, *, since: datetime | None = None) -> None:
        self._store = runs_place(runs_dir)
        self._since = since
        # a finished run stays so while nobody works on it: it is read once
        self._finished: dict[str, tuple[Run, Row]] = {}
        self._unreadable: set[str] = set()

    def look(self, broker_url: str | None) -> dict[str, Any]:
        """The runs, those planned last first; with a broker what each is doing, and the workers."""
        if not broker_url:
            return self._found(self._rows({}))
        with connect(broker_url) as client:
            listed = {one.run_id: one for one in read_listed_runs(client)}
            rows, workers = self._rows(listed), read_workers(client)
            _add_doings(client, rows, listed, workers)
            declines = decline_rows(client, listed.values(), workers)
        fleet = {"workers": [asdict(one) for one in workers], "refusals": declines}
        return {**self._found(rows), **fleet}

    def _found(self, rows: list[tuple[Run, Row]]) -> dict[str, Any]:
        standing = [row for _, row in rows]
        names = [row["name"] for row in standing]
        return {"place": self._store.url, "runs": names, "standing": standing}

    def _rows(self, listed: Mapping[str, ListedRun]) -> list[tuple[Run, Row]]:
        found = []
        for name in sorted(self._store.folders()):
            known = self._finished.get(name)
            if known is None or known[0].run_id in listed:
                known = self._read(name)
            if known is None:
                continue
            if known[1]["state"] == State.FINISHED:
                self._finished[name] = known
            if self._since is None or _is_since(known[0].planned_at, self._since):
                found.append((known[0], dict(known[1])))
        return sorted(found, key=lambda one: one[0].planned_at or "", reverse=True)

    def _read(self, name: str) -> tuple[Run, Row] | None:
        """A run as it stands; None where there is none, and where it cannot be read, which is told
        once and hides no other run."""
        try:
            if not self._store.exists(f"{name}/run.json"):
                return None
            run = open_run(self._store.at(name))
            return run, _row(run)
        except UsageError:
            return None  # removed between our two looks
        except StoreError as error:
            if name not in self._unreadable:
                log.warning("%s is left out: %s", name, error)
            self._unreadable.add(name)
            return None


def _is_since(planned_at: str | None, since: datetime) -> bool:
    return planned_at is not None and datetime.fromisoformat(planned_at) >= since


def runs_status_screen(found: dict[str, Any]) -> RenderableType:
    """The runs, and the workers below them."""
    parts: list[RenderableType] = [RunsTable(found["standing"])]
    if not found["runs"]:
        parts = [Text(f"No runs in {found['place']}: start one with `orchestrate extract`.")]
    if "workers" in found:
        parts += decline_lines(found["refusals"], run="")
        parts += [
            Text(""),
            FleetTable([HEARTBEAT.validate_python(row) for row in found["workers"]]),
        ]
    return Group(*parts)


# Characters on a line of what a run is doing, so that it leaves room for the other columns.
STATE_WIDTH = 30

# Of the columns, in the order in which a narrow terminal loses them.
LESS_WANTED = ("responses", "model", "verdicts")


@dataclass(frozen=True)
class RunsTable:
    """One row a run; what does not fit is left out, and texts are broken between words."""

    rows: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        tables = [self._table(LESS_WANTED[:n]) for n in range(len(LESS_WANTED) + 1)]
        yield first_table_that_fits(tables, console, options)

    def _table(self, without: Collection[str]) -> Table:
        columns = {
            "run": text_column("run", fold=True),
            "planned_at": number_column("planned, UTC"),
            "model": text_column("model", fold=True),
            "responses": number_column("responses"),
            "traits": number_column("traits"),
            "verdicts": text_column("verdicts", fold=True),
            "state": text_column("state", fold=True),
        }
        if any(row.get("priority") for row in self.rows):
            columns["priority"] = number_column("priority")
        shown = {name: column for name, column in columns.items() if name not in without}
        table = table_of(*shown.values(), gap=2)
        for row in self.rows:
            why = shortened(row["state_why"], MOST_LISTED)
            state = f"{row['state']}: {why}" if why else row["state"]
            cells = {
                "run": escape(row["name"]),
                "planned_at": (row["planned_at"] or "-")[: len("2026-01-01T00:00")].replace(
                    "T", " "
                ),
                "model": escape(row["model"].rpartition("/")[2]),
                "responses": str(row["responses"]),
                "traits": f"{row['finished']}/{row['traits']}",
                "verdicts": ", ".join(f"{n} {v}" for v, n in row["verdicts"].items()) or "-",
                "state": escape(fill(state, STATE_WIDTH, break_on_hyphens=False)),
                "priority": str(row.get("priority") or ""),
            }
            table.add_row(*(cells[name] for name in shown))
        return table


def _row(run: Run) -> Row:
    plan, traits = run.plan, run.spec.traits
    verdicts = [verdict for trait in traits if (verdict := _verdict(run, trait)) is not None]
    finished = len(verdicts)
    schedule = read_run_schedule(run.store)
    attended = read_attended(run.store)
    is_finished = finished == len(traits)
    state = run_state(
        None,
        finished=is_finished,
        paused=schedule.paused,
        attended=attended,
        recorded=[] if is_finished or attended else recorded_failures(run),
    )
    return {
        "name": run.name,
        "run_id": run.run_id,
        "traits": len(traits),
        "finished": finished,
        "planned_at": run.planned_at,
        "responses": sum(plan.n_samples(trait) + plan.n_checked(trait) for trait in traits),
        "verdicts": {one.value: verdicts.count(one) for one in VerdictName if one in verdicts},
        "model": run.spec.model.model_id,
        **state_in_words(state),
        "paused": schedule.paused,
    }


def _verdict(run: Run, trait: TraitRef) -> str | None:
    """A finished trait's; None while it is not, for the last job's record makes it so, and where
    that is damaged and about to be made again."""
    with contextlib.suppress(KeyError, DamagedArtifactError):
        return str(load_record(run.store, run.plan.last_job(trait)).info.get("verdict"))
    return None


def _add_doings(
    client: Client,
    rows: list[tuple[Run, Row]],
    listed: Mapping[str, ListedRun],
    workers: Sequence[Heartbeat],
) -> None:
    queues = read_queues(client, listed.values(), QUEUES)
    for run, row in rows:
        one, finished = listed.get(run.run_id), row["state"] == State.FINISHED
        row["priority"] = None if one is None else one.priority
        if one is not None or not finished:
            facts = read_state_on_broker(
                client,
                one or listed_run(run, since=0.0),
                queues=queues,
                workers=workers,
                judge_down_s=judge_down_s(client, run),
            )
            state = run_state(
                facts,
                finished=finished,
                paused=row["paused"],
                attended=read_attended(run.store),
                recorded=() if finished else recorded_failures(run),
            )
            row |= state_in_words(state)


@dataclass(frozen=True)
class FleetTable:
    """One row a worker; where that is too wide, the job it holds longest stands in a table below.

    Names may go over two lines, numbers and headings never.
    """

    workers: Sequence[Heartbeat]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        whole = _workers(self.workers, with_jobs=True)
        if table_fits(whole, console, options):
            yield whole
            return
        yield _workers(self.workers, with_jobs=False)
        jobs = table_of(text_column("worker", fold=True), *_job_columns())
        for one in self.workers:
            if one.jobs:
                jobs.add_row(escape(one.name), *_longest_job(one))
        if jobs.rows:
            yield Text("")
            yield jobs


def _workers(workers: Sequence[Heartbeat], *, with_jobs: bool) -> Table:
    table = table_of(
        *(
            text_column("worker", fold=True),
            text_column("serves", fold=True),
            number_column("holds"),
        ),
        *(_job_columns() if with_jobs else ()),
        *map(number_column, ("jobs/min", "tokens/s", "busy")),
    )
    for worker in workers:
        table.add_row(
            escape(worker.name),
            escape("leaving" if worker.draining else worker.model),
            str(len(worker.jobs)) if worker.jobs else "-",
            *(_longest_job(worker) if with_jobs else ()),
            f"{worker.per_minute.jobs:.1f}",
            f"{worker.per_minute.tokens / 60:.0f}" if worker.kind == "gpu" else "",
            "" if worker.busy is None else f"{worker.busy:.0%}",
        )
    if not workers:
        table.add_row("none is connected")
    return table


def _job_columns() -> tuple[Column, Column]:
    return text_column("longest job", fold=True), number_column("for")


def _longest_job(worker: Heartbeat) -> tuple[str, str]:
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
