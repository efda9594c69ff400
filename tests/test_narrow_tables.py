"""Protects what people read in a narrow terminal: headings, numbers and words stand in full."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest
from rich.console import Console, RenderableType

from cli.commands.plan import PlanTable
from cli.screens.status import FleetTable, RunsTable, run_status_screen
from cli.screens.verdicts import (
    MOST_REMARK_LINES,
    VerdictTable,
    print_verdict_remarks,
    verdict_remark_lines,
)
from cli.using.estimate import TraitEstimate
from domain.fleet.heartbeats import Heartbeat, Rate
from domain.verdict.record import TraitMetrics, Use, Uses, UseState, VerdictName
from tests.quality_records import metrics

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


DOUBT = VerdictName.USABLE_WITH_A_DOUBT
TRAITS = ("manipulativeness", "overconfidence", "evil")


def verdict_of(trait: str) -> TraitMetrics:
    uses = Uses(reads=Use(state=UseState.DOUBT, layer=14), steers=Use(state=UseState.YES, layer=16))
    return metrics().model_copy(update={"trait": trait, "verdict": DOUBT, "uses": uses})


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_verdicts_keep_names_and_uses_and_lose_counts_before_they_break_a_word(
    width: int,
) -> None:
    lines = drawn(VerdictTable([verdict_of(trait) for trait in TRAITS]), width=width)

    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    headings = lines[0].split()
    assert headings[:4] == ["trait", "verdict", "reads", "steers"]
    assert {*TRAITS, "usable", "doubt", "@14", "@16"} <= set(words)
    assert ("unscored" in headings) == (width == 120)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_plan_and_a_list_of_runs_break_no_word_and_cut_no_number(width: int) -> None:
    estimates = [
        TraitEstimate(trait, 2312, 312, 240, 0, 0, 2312, 4624, 1_298_824, 231_200, 14_600)
        for trait in TRAITS
    ]
    runs = [
        {
            "name": "gemma-2-27b",
            "planned_at": "2026-11-26T23:46:10+00:00",
            "model": "google/gemma-2-27b-it",
            "responses": 25_432,
            "finished": 0,
            "traits": 11,
            "verdicts": {"usable": 10, "usable with a doubt": 1},
            "state": "waiting for gpu workers",
            "state_why": "orchestrate worker gpu",
        }
    ]
    plan = drawn(PlanTable(estimates), width=width)
    listed = drawn(RunsTable(runs), width=width)

    assert max(map(len, plan + listed)) <= width
    assert {*TRAITS, "2,312", "6,936", "4,624"} <= set(" ".join(plan).split())
    shown = set(" ".join(listed).split())
    assert {"gemma-2-27b", "23:46", "0/11", "waiting", "workers:"} <= shown
    assert "…" not in "".join(plan + listed)


def test_a_long_failure_takes_no_other_column_from_the_list_of_runs() -> None:
    why = f"negotiate failed: no judge answers at http://127.0.0.1/{'long/' * 20}v1: check that"
    run = {"name": "demo", "planned_at": None, "model": "demo", "responses": 512, "finished": 0}
    state = {"traits": 1, "verdicts": {"weak": 1}, "state": "not finished", "state_why": why}

    lines = drawn(RunsTable([run | state]), width=100)

    assert max(map(len, lines)) <= 100
    assert {"512", "weak", "negotiate"} <= set(" ".join(lines).split())


def test_what_several_traits_have_in_common_is_said_once_and_the_weightiest_first() -> None:
    common = "nothing tested it"
    words = "abcdef"
    named = [(f"t{k}", ["it failed", f"and {words[k]} too"], [common]) for k in range(6)]

    lines = verdict_remark_lines(named)

    assert [line.partition(": ")[2] for line in lines] == [
        "it failed",
        *(f"and {word} too" for word in words),
        common,
    ]
    assert "t0" in lines[0]
    assert "t5" not in lines[0]
    assert lines[1].startswith("t0:")


def test_what_differs_in_its_figures_alone_is_said_with_those_of_the_first() -> None:
    lines = verdict_remark_lines((f"t{k}", [f"AUROC 0.{k} is not over 0.7"], ()) for k in range(3))

    assert len(lines) == 1
    assert lines[0].startswith("t0, t1, t2: AUROC 0.0 is not over 0.7")
    assert lines[0].count("t0") == 2


@pytest.mark.parametrize("width", [60, 80])
def test_remarks_fill_ten_lines_of_a_terminal_and_a_log_has_them_all(width: int) -> None:
    sentence = "whole words of a sentence that goes on and on until its end"
    words = sentence.split()
    # no two alike but in a figure
    letters = [chr(ord("a") + k % 26) * (1 + k // 26) for k in range(30)]
    named = [(f"trait{k}", [f"{sentence} {letters[k]}"], ()) for k in range(30)]
    terminal = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    log = Console(width=width, file=io.StringIO())
    for console in (terminal, log):
        print_verdict_remarks(console, named)
    shown, kept = (c.file.getvalue().splitlines() for c in (terminal, log))  # type: ignore[attr-defined]

    assert len(shown) == MOST_REMARK_LINES + 1
    assert max(map(len, shown)) <= width
    assert set(" ".join(shown[:-1]).split()) <= {*words, *letters} | {
        f"trait{k}:" for k in range(30)
    }
    assert len(kept) == 30
