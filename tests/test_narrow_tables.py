"""Protects what people read in a terminal of 80 columns: headings and numbers stand in full."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest
from rich.console import Console, RenderableType

from cli.screens.status import FleetTable, run_status_screen
from domain.fleet.heartbeats import Heartbeat, Rate

JOB = ("gemma", "overconfidence/generate/positive-003", 123.4)
WORKERS = (
    Heartbeat(
        "gpu-cuda:0-14711@gpu-server-one",
        "gpu",
        "gpu-server-one",
        model="google/gemma-2-27b-it bfloat16",
        jobs=(JOB, JOB),
        busy=0.97,
        per_minute=Rate(112.3, 600, 150_000),
    ),
    Heartbeat("reduce-4713@lab", "reduce", "lab"),
)
STAGES = {"generate": (11_000, 19_800), "judge": (9_900, 19_800), "verify": (0, 11)}


def drawn(what: RenderableType, *, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(what)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def snapshot(workers: Sequence[Heartbeat] = WORKERS) -> dict[str, Any]:
    stages = {stage: {"done": n, "total": of} for stage, (n, of) in STAGES.items()}
    one = {**stages, "is_finished": False, "verdict": "do not use", "contrast": 45.6}
    return {
        "name": "gemma",
        "model": "google/gemma-2-27b-it",
        "state": "running",
        "state_why": "",
        "priority": 0,
        "stages": stages,
        "traits": [{"trait": trait, **one} for trait in ("manipulativeness", "evil")],
        "queues": {"gpu": 123, "judge": 4, "reduce": 0},
        "held": {"gpu": 6, "judge": 2, "reduce": 0},
        "oldest_s": {"gpu": 3333.0, "judge": 2.0, "reduce": 0.0},
        "counts": {},
        "rates": {},
        "workers": [asdict(worker) for worker in workers],
        "refusals": [],
        "failures": [],
        "judge": {"model": "m", "url": "u", "money": None, "down_for_s": None, "rejected": 0},
        "last_errors": [],
    }


def test_the_trait_table_loses_no_heading_and_no_number_at_80_columns() -> None:
    lines = drawn(run_status_screen(snapshot()), width=80)

    heading = next(line for line in lines if line.startswith("trait"))
    assert heading.split() == ["trait", "generate", "judge", "verify", "verdict", "contrast"]
    row = next(line for line in lines if line.startswith("manipulativeness"))
    assert row.split() == [
        *("manipulativeness", "11000/19800", "9900/19800", "0/11"),
        *("✗", "do", "not", "use*", "45.6"),
    ]
    assert "* not yet checked" in lines
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_worker_table_shows_every_heading_and_the_seconds_at_any_width(width: int) -> None:
    lines = drawn(FleetTable(WORKERS), width=width)

    words = " ".join(lines)
    headings = ("worker", "serves", "holds", "longest job", "for", "jobs/min", "tokens/s", "busy")
    assert all(heading in words for heading in headings)
    assert all(text in words for text in ("123 s", "112.3", "2500", "97%", JOB[1]))
    assert "…" not in words
    assert max(map(len, lines)) <= width


def test_bars_fill_what_room_there_is_and_cut_no_name() -> None:
    narrow, wide = (drawn(run_status_screen(snapshot()), width=width) for width in (80, 100))

    row = next(line for line in wide if line.startswith("manipulativeness "))
    assert "━" in row
    assert not any("━" in line for line in narrow)
