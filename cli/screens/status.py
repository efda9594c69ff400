"""A run's snapshot as a screen: traits, rates, queues, workers, the latest trouble."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.screens.fleet import FleetTable, decline_lines
from cli.screens.progress import styled_verdict
from orchestrator.progress import StageCount, seconds_left, stage_rates
from orchestrator.state import RUNNING, RunState, snapshot_text
from storage.broker.fleet import read_heartbeat

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
