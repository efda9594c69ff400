"""`orchestrate dynamics`: when traits commit over a response's tokens, and how long they last."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.table import Table

from cli.options.settings import json_option
from cli.options.using import files_argument
from cli.screens.tables import number_column, number_text, table_of, text_column
from cli.screens.terminal import Screen
from domain.errors import UsageError
from storage.files.scored import ScoredResponse, read_scored_responses
from traitlens.errors import NonFiniteError

if TYPE_CHECKING:
    from traitlens.dynamics.change_point import NeutralSteps
    from traitlens.dynamics.trajectory import AlignedAverage

BARS = "▁▂▃▄▅▆▇█"

# A step counts as a commitment when so few trajectories without a step show one as clear.
CLEAR = 0.05

EVENTS = ("commitment", "documents", "decision", "peak")


@click.command()
@files_argument
@click.option("--traits", default="all", show_default=True, metavar="LIST")
@click.option(
    "--null",
    "null_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Scores of neutral responses to compare steps with.  [default: simulated ones]",
)
@click.option(
    "--align",
    default="commitment",
    show_default=True,
    metavar="EVENT",
    help="Average around: commitment, documents, decision, peak, or where a regular expression "
    "first matches the text.",
)
@click.option("--before", default=5, show_default=True, type=click.IntRange(0))
@click.option("--after", default=20, show_default=True, type=click.IntRange(1))
@click.option(
    "--output",
    metavar="FILE.json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the records with their dynamics, which `orchestrate view` opens.",
)
@click.option(
    "--averages",
    metavar="FILE.csv",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the averages around the event: trait, offset, mean, low, high, count.",
)
@json_option
def dynamics(**values: Any) -> None:
    """Velocity, acceleration, commitment and persistence of trait scores; no model is needed.

    FILE is what `orchestrate monitor` or `screen` wrote with --output scores.json. The seed
    documents' measures keep their names and their absolute thresholds. Beside them: a step in
    level, in standard deviations, with a p-value against trajectories that have none, and the
    half-life of the peak; they do not depend on the size of the scores.

    \b
    orchestrate monitor demo --prompts prompts.txt --output scores.json
    orchestrate dynamics scores.json --output dynamics.json
    orchestrate dynamics scores.json --traits refusal --align "cannot|won't"
    orchestrate dynamics scores.json --null neutral.json --averages around.csv
    """
    responses = [one for path in values["files"] for one in read_scored_responses(path)]
    traits = _traits(responses, values["traits"])
    null = None
    if values["null_file"] is not None:
        null = _neutral(read_scored_responses(values["null_file"]), traits)
    # torch is not loaded for --help
    from traitlens.dynamics.trajectory import event_aligned_average

    found = [_measures(one, traits, null) for one in responses]
    common = {trait: _in_common([one[trait] for one in found]) for trait in traits}
    averages = {}
    for trait in traits:
        events = [
            _event(values["align"], one.tokens, one.scores[trait], measures[trait])
            for one, measures in zip(responses, found, strict=True)
        ]
        scores = [np.asarray(one.scores[trait], float) for one in responses]
        averages[trait] = event_aligned_average(
            scores, events, before=values["before"], after=values["after"]
        )
    records = [one.body | {"dynamics": d} for one, d in zip(responses, found, strict=True)]
    if values["output"]:
        _write(values["output"], json.dumps(records, ensure_ascii=False))
    if values["averages"]:
        from cli.using.monitored_output import csv_text

        rows = [row for trait, one in averages.items() for row in _rows(trait, one)]
        _write(values["averages"], csv_text(rows))
    if values["as_json"]:
        around = {trait: _rows(trait, one) for trait, one in averages.items()}
        click.echo(json.dumps({"traits": common, "averages": around}))
        return
    console = Screen(highlight=False)
    console.print(_measures_table(common))
    console.print("step: responses with a clear one; else medians, in tokens or in sd")
    table = _averages_table(averages, values["align"])
    if table.row_count:
        console.print()
        console.print(table)


def _traits(responses: list[ScoredResponse], asked: str) -> list[str]:
    """The traits to work on, which every response must have scores of."""
    shared = [t for t in responses[0].scores if all(t in one.scores for one in responses)]
    if asked == "all":
        return shared
    chosen = [name.strip() for name in asked.split(",") if name.strip()]
    missing = [name for name in chosen if name not in shared]
    if missing or not chosen:
        raise UsageError(f"--traits {asked!r}: the files have scores of {', '.join(shared)}")
    return chosen


def _neutral(responses: list[ScoredResponse], traits: list[str]) -> dict[str, NeutralSteps]:
    from traitlens.dynamics.change_point import NeutralSteps

    return {
        trait: NeutralSteps(
            [np.array(one.scores[trait], float) for one in responses if trait in one.scores]
        )
        for trait in traits
        if any(trait in one.scores for one in responses)
    }


def _measures(
    response: ScoredResponse, traits: list[str], null: Mapping[str, NeutralSteps] | None
) -> dict[str, Any]:
    """The documents' measures and the scale-free ones of each trait, ready for JSON."""
    from traitlens.dynamics.trajectory import trait_dynamics

    found = {}
    for trait in traits:
        if null is not None and trait not in null:
            raise UsageError(f"the null file has no scores of {trait}: choose other --traits")
        neutral = None if null is None else null[trait]
        try:
            found[trait] = trait_dynamics(response.scores[trait], null=neutral)
        except NonFiniteError as error:
            raise UsageError(f"{trait}: {error}") from error
    return found


def _in_common(found: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """One trait over n responses; medians are over those that have the measure, else None."""
    free = [one["scale_free"] for one in found]
    clear = [one for one in free if _is_clear(one)]
    return {
        "n": len(found),
        "committed": len(clear),
        "commitment": _median([one["commitment_point"] for one in clear]),
        "height_sd": _median([one["height_sd"] for one in clear]),
        "half_life": _median([one["half_life"] for one in free]),
        "documents_commitment": _median([one["commitment_point"] for one in found]),
        "documents_persistence": _median([one["persistence"] for one in found]),
        "peak_velocity": _median([one["peak_velocity"] for one in found]),
    }


def _is_clear(scale_free: Mapping[str, Any]) -> bool:
    return scale_free["p_value"] is not None and scale_free["p_value"] <= CLEAR


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _event(
    event: str, tokens: Sequence[str], scores: Sequence[float], measures: Mapping[str, Any]
) -> int | None:
    """The token at which the event happens, None where it does not.

    "commitment": the clear step of the scale-free measures; "documents": the documents' commitment
    point; "decision": seed 002's rule; "peak": the highest score; anything else is a regular
    expression, and the event is the token in which its first match begins.
    """
    from traitlens.dynamics.trajectory import find_decision_point

    if event == "commitment":
        free = measures["scale_free"]
        return free["commitment_point"] if _is_clear(free) else None
    if event == "documents":
        point: int | None = measures["commitment_point"]
        return point
    if event == "decision":
        return find_decision_point(scores)
    if event == "peak":
        return int(np.argmax(scores)) if len(scores) else None
    try:
        match = re.search(event, "".join(tokens))
    except re.error as error:
        known = ", ".join(EVENTS)
        raise UsageError(
            f"--align {event!r} is neither {known} nor a regular expression: {error}"
        ) from error
    if match is None:
        return None
    ends = np.cumsum([len(token) for token in tokens])
    # `$` matches behind the last token, where nothing begins
    place = int(np.searchsorted(ends, match.start(), side="right"))
    return place if place < len(tokens) else None


def _measures_table(common: dict[str, dict[str, float | None]]) -> Table:
    headings = ("step", "at", "height", "half-life", "doc. commit", "doc. persist")
    shown = ("commitment", "height_sd", "half_life", "documents_commitment")
    table = table_of(text_column("trait"), *map(number_column, headings), gap=2)
    for trait, one in common.items():
        figures = [number_text(one[name]) for name in (*shown, "documents_persistence")]
        table.add_row(trait, f"{one['committed']}/{one['n']}", *figures)
    return table


def _averages_table(averages: dict[str, AlignedAverage], event: str) -> Table:
    counts = map(number_column, ("responses", "lowest", "highest"))
    table = table_of(
        text_column("trait"), *counts, text_column(f"mean around {event} (at |)"), gap=2
    )
    for trait, one in averages.items():
        known = one.mean[np.isfinite(one.mean)]
        if len(known):
            count = str(int(one.count.max()))
            table.add_row(trait, count, f"{known.min():.1f}", f"{known.max():.1f}", _bars(one))
    return table


def _bars(average: AlignedAverage) -> str:
    """The average as a row of bars, a line before the event's token."""
    known = average.mean[np.isfinite(average.mean)]
    low, size = float(known.min()), float(np.ptp(known)) or 1.0
    bars = [
        BARS[round((value - low) / size * (len(BARS) - 1))] if np.isfinite(value) else " "
        for value in average.mean
    ]
    event = int(np.flatnonzero(average.offsets == 0)[0])
    return "".join([*bars[:event], "|", *bars[event:]])


def _rows(trait: str, average: AlignedAverage) -> list[dict[str, Any]]:
    """A row per offset; what no response reaches is empty."""
    rows: list[dict[str, Any]] = []
    for k, offset in enumerate(average.offsets):
        figures = {"mean": average.mean[k], "low": average.low[k], "high": average.high[k]}
        known = {n: float(v) if np.isfinite(v) else None for n, v in figures.items()}
        row = {"trait": trait, "offset": int(offset), **known}
        rows.append(row | {"count": int(average.count[k])})
    return rows


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    click.echo(f"Wrote {path}", err=True)
