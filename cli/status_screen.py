"""A run's snapshot as a screen: traits, rates, queues, workers, the latest trouble."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.fleet_table import fleet_table
from cli.judge_meter import snapshot_text
from cli.progress import styled_verdict
from cli.refusal_lines import refusal_lines
from cli.run_snapshot import seconds_left
from orchestrator.fleet import WorkerCard
from storage.fleet import worker_card

BAR_WIDTH = 16
NARROW_BAR = 4


def screen(snapshot: dict[str, Any]) -> RenderableType:
    """The whole screen; what a broker would know is left out without one."""
    parts: list[RenderableType] = [_heading(snapshot), _traits(snapshot)]
    if "queues" in snapshot:
        parts += [Text(""), *_lines(snapshot), Text(""), _workers(snapshot)]
        parts += refusal_lines(snapshot["refusals"])
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
    if all(one["is_finished"] for one in snapshot["traits"]):
        return "finished"
    if snapshot["paused"]:
        return "paused: orchestrate resume goes on"
    if snapshot.get("cancelled"):
        return "cancelled: orchestrate resume goes on"
    if not snapshot.get("on_broker"):
        return "not running"
    left = seconds_left(snapshot)
    return "running" if left is None else f"running, about {duration(left)} left"


def _traits(snapshot: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    stages = list(snapshot["stages"])
    table.add_column("trait", no_wrap=True)
    for stage in stages:
        # what may wrap is made narrow first: on a narrow terminal the bars, never a verdict
        table.add_column("", min_width=NARROW_BAR, max_width=BAR_WIDTH)
        table.add_column(stage, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("contrast", justify="right", no_wrap=True)
    for one in snapshot["traits"]:
        contrast = one["contrast"]
        table.add_row(
            escape(one["trait"]),
            *_bars(one, stages),
            _verdict(one),
            "" if contrast is None else f"{contrast:.1f}",
        )
    if len(snapshot["traits"]) > 1:
        table.add_row("all", *_bars(snapshot["stages"], stages), "", "", style="bold")
    return table


def _verdict(one: dict[str, Any]) -> str:
    if one["verdict"] is None:
        return ""
    return styled_verdict(one["verdict"]) + ("" if one["is_finished"] else " (not yet checked)")


def _bars(found: dict[str, Any], stages: list[str]) -> Iterable[RenderableType]:
    for stage in stages:
        if stage in found:
            done, of = found[stage]["done"], found[stage]["total"]
            yield ProgressBar(of, done)
            yield f"{done}/{of}"
        else:
            yield from ("", "")


def _lines(snapshot: dict[str, Any]) -> Iterable[Text]:
    rates, counts = snapshot["rates"], snapshot["counts"]
    parts = [f"{stage} {rates.get(f'samples.{stage}', 0.0):.1f}/s" for stage in snapshot["stages"]]
    parts.append(f"{rates.get('tokens.generate', 0.0):.0f} tokens/s")
    yield _line("rates", ", ".join(parts))
    yield _line("judge", snapshot_text(snapshot["judge"]).removeprefix("judge "))
    yield _line("jobs", ", ".join(_queue(snapshot, kind) for kind in snapshot["queues"]))
    sums = {
        word: int(sum(v for k, v in counts.items() if k.startswith(f"{name}.")))
        for name, word in (("again", "begun again"), ("dead", "given up"))
    }
    trouble = [f"{len(snapshot['failures'])} failed", *(f"{n} {word}" for word, n in sums.items())]
    yield _line("trouble", ", ".join(trouble))


def _queue(snapshot: dict[str, Any], kind: str) -> str:
    waiting, held = snapshot["queues"][kind], snapshot["held"][kind]
    text = f"{kind} {waiting} waiting, {held} held"
    if waiting:
        text += f", the oldest for {duration(snapshot['oldest_s'][kind])}"
    return text.replace(", ", " · ")


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"{name:<9}", "bold"), text)


def _workers(snapshot: dict[str, Any]) -> Table:
    cards: list[WorkerCard] = [worker_card(row) for row in snapshot["workers"]]
    return fleet_table(cards)


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
