"""What people see of scores in a terminal: text with marked tokens, and tables by trait."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cli.screens.tables import number_column, number_text, table_of, text_column
from workers.monitor.monitor import ProjectedToken
from workers.monitor.trajectory import TraitScale, Trajectory, trajectory_summary

MOST_ROWS = 10
LONGEST_PROMPT = 40
NARROWEST_COLUMN = 26

# Which trait a marked token belongs to; told apart in the common kinds of color blindness.
STYLES = ("black on yellow", "white on blue", "black on cyan", "white on red", "black on green")


class TokenMarks:
    """The text of a token, marked where a trait's z exceeds what few neutral tokens reach."""

    def __init__(self, scale: TraitScale) -> None:
        self._scale = scale
        baseline = scale.baseline
        self.seen: set[int] = set()
        self._over = None if baseline is None else baseline.token_threshold(scale.false_alarm)

    def marked(self, token: ProjectedToken) -> Text:
        """Plain without a baseline."""
        if self._scale.baseline is None or self._over is None:
            return Text(token.text)
        excess = self._scale.baseline.token_z(token.projections) - self._over
        k = int(np.argmax(excess))
        if excess[k] <= 0:
            return Text(token.text)
        self.seen.add(k)
        return Text(token.text, style=STYLES[k % len(STYLES)])

    def legend(self) -> Text:
        """Whose marks were seen."""
        line = Text("marked: ")
        for k in sorted(self.seen):
            line.append(f" {self._scale.traits[k]} ", style=STYLES[k % len(STYLES)]).append(" ")
        return line


def _response_table(scale: TraitScale, trajectory: Trajectory) -> Table:
    """One response: a row per trait."""
    counts = map(number_column, ("layer", "mean", "cosine", "z", "flagged over"))
    table = table_of(text_column("trait"), *counts, text_column("highest token"), gap=2)
    found = trajectory_summary(scale, trajectory)
    over = None
    if scale.baseline is not None:
        over = scale.baseline.response_threshold(scale.false_alarm)
    for k, trait in enumerate(scale.traits):
        one = found[trait]
        peak = int(np.argmax(trajectory.projections[:, k])) if trajectory.tokens else None
        z = number_text(one["z"])
        table.add_row(
            trait,
            str(scale.about[trait]["layer"]),
            number_text(one["mean"], ".2f"),
            number_text(one["mean_cosine"], ".3f"),
            Text(z, style="bold red") if one["flagged"] else z,
            "-" if over is None else number_text(float(over[k])),
            "-" if peak is None else f"{peak} {trajectory.tokens[peak]!r}",
        )
    return table


def _trait_table(scale: TraitScale, trajectories: Sequence[Trajectory]) -> Table:
    """Many responses: a row per trait, with how many are flagged and what chance would flag."""
    counts = map(number_column, ("layer", "mean", "mean z", "highest z", "flagged", "neutral"))
    table = table_of(text_column("trait"), *counts, gap=2)
    held = [one for one in trajectories if one.tokens]
    for k, trait in enumerate(scale.traits):
        means = [float(one.mean[k]) for one in held]
        zs = [z[k] for z in (scale.response_z(one) for one in held) if z is not None]
        flagged = sum(trait in scale.flagged(one) for one in held)
        table.add_row(
            trait,
            str(scale.about[trait]["layer"]),
            number_text(float(np.mean(means)) if means else None, ".2f"),
            number_text(float(np.mean(zs)) if zs else None),
            number_text(float(np.max(zs)) if zs else None),
            f"{flagged}/{len(held)}" if zs else "-",
            f"{scale.false_alarm:.0%} or fewer" if zs else "-",
        )
    return table


def _flagged_table(scale: TraitScale, trajectories: Sequence[Trajectory]) -> Table | None:
    """The flagged responses, the most extreme first; None without any."""
    rows = []
    for one in trajectories:
        z = scale.response_z(one)
        flagged = scale.flagged(one)
        if z is not None and flagged:
            by_trait = dict(zip(scale.traits, z, strict=True))
            flagged.sort(key=lambda trait: -by_trait[trait])
            what = ", ".join(f"{trait} {by_trait[trait]:.1f}" for trait in flagged[:2])
            rows.append((by_trait[flagged[0]], one, what))
    if not rows:
        return None
    rows.sort(key=lambda row: -row[0])
    texts = map(text_column, ("flagged (z)", "prompt", "response"))
    table = table_of(number_column(""), *texts, gap=2)
    for _, one, what in rows[:MOST_ROWS]:
        table.add_row(str(one.id), what, _cut(one.prompt), _cut(one.response))
    if len(rows) > MOST_ROWS:
        table.caption = f"{len(rows) - MOST_ROWS} more"
    return table


def group_table(scale: TraitScale, trajectories: Sequence[Trajectory], *, by: str) -> Table:
    """Mean z, and the flagged share, of each trait by the value of a fact."""
    groups: dict[str, list[Trajectory]] = {}
    for one in trajectories:
        if one.tokens:
            groups.setdefault(str(one.facts.get(by, "-")), []).append(one)
    headings = [f"{name} ({len(group)})" for name, group in groups.items()]
    first = Column(f"trait: mean z (flagged) by {by}")
    table = table_of(first, *(Column(one, justify="right") for one in headings), gap=2)
    for k, trait in enumerate(scale.traits):
        cells = []
        for group in groups.values():
            zs = [float(z[k]) for z in map(scale.response_z, group) if z is not None]
            share = sum(trait in scale.flagged(one) for one in group) / len(group)
            cells.append(f"{np.mean(zs):.1f} ({share:.0%})")
        table.add_row(trait, *cells)
    return table


def side_by_side(
    console: Console, scale: TraitScale, variants: Sequence[Trajectory], *, traits: Collection[str]
) -> None:
    """One prompt's responses, unsteered first: columns where they fit, else one below another.

    Under each text, the scores of the traits that are steered.
    """
    console.print(Text(variants[0].prompt, style="bold"))
    headings = [str(one.facts.get("steering", "unsteered")) for one in variants]
    texts = [Text(one.response) for one in variants]
    scores = [Text(_scores(scale, one, traits), style="dim") for one in variants]
    if len(variants) * NARROWEST_COLUMN > console.width:
        for heading, text, score in zip(headings, texts, scores, strict=True):
            console.print(Text(f"\n{heading}", style="underline"), text, score, sep="\n")
    else:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="underline", expand=True)
        for heading in headings:
            table.add_column(heading, ratio=1, justify="left")
        table.add_row(*texts)
        table.add_row(*scores)
        console.print(table)
    console.print()


def print_summary(console: Console, scale: TraitScale, trajectories: Sequence[Trajectory]) -> None:
    """The tables for one response, or for many."""
    if len(trajectories) == 1:
        console.print(_response_table(scale, trajectories[0]))
        return
    flagged = _flagged_table(scale, trajectories)
    if flagged is not None:
        console.print(flagged)
        console.print()
    console.print(_trait_table(scale, trajectories))


def _scores(scale: TraitScale, trajectory: Trajectory, traits: Collection[str]) -> str:
    found = trajectory_summary(scale, trajectory)
    return ", ".join(
        f"{trait} mean {number_text(one['mean'])}, z {number_text(one['z'])}"
        for trait, one in found.items()
        if trait in traits
    )


def _cut(text: str) -> Text:
    line = " ".join(text.split())
    return Text(line if len(line) <= LONGEST_PROMPT else f"{line[: LONGEST_PROMPT - 1]}…")
