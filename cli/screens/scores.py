"""What people see of scores in a terminal: text with marked tokens, and tables by trait."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cli.screens.tables import number_column, number_text, table_of, text_column
from traitlens.dynamics.baseline import HeldOut
from workers.monitor.monitor import ProjectedToken
from workers.monitor.trajectory import TraitScale, Trajectory
from workers.monitor.trajectory_records import trajectory_summary

MOST_ROWS = 10
LONGEST_PROMPT = 40
NARROWEST_COLUMN = 26

# Which trait a marked token belongs to; told apart in the common kinds of color blindness.
STYLES = ("black on yellow", "white on blue", "black on cyan", "white on red", "black on green")


class TokenMarks:
    """The text of a token, marked where a trait's z exceeds what the highest token of few neutral
    responses reaches, whichever the trait: few neutral responses have a mark at all."""

    def __init__(self, scale: TraitScale) -> None:
        self._scale = scale
        self.seen: set[int] = set()
        self._longest, self._limit = 0, np.inf
        if scale.baseline is not None:
            # how long the response becomes is not known yet: the highest of the longest
            self._longest = scale.baseline.longest(scale.false_alarm)
            limits = scale.baseline.threshold(scale.false_alarm, self._longest, "highest")
            self._limit = float(limits[-1])

    def marked(self, token: ProjectedToken) -> Text:
        """Plain without a baseline, and beyond its lengths."""
        if self._scale.baseline is None or token.index >= self._longest:
            return Text(token.text)
        z = self._scale.baseline.token_z(token.projections)
        k = int(np.argmax(z))
        if z[k] <= self._limit:
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
    over = scale.thresholds(trajectory)
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
    """Many responses: a row per trait and one for any of them, with how many are flagged and what
    share of held-out neutral responses of the middle length is."""
    counts = map(number_column, ("layer", "mean", "mean z", "highest z", "flagged", "neutral"))
    table = table_of(text_column("trait"), *counts, gap=2)
    held = [one for one in trajectories if one.tokens]
    judged = [one for one in held if scale.thresholds(one) is not None]
    neutral = _held_out(scale, judged)
    for k, trait in enumerate(scale.traits):
        means = [float(one.mean[k]) for one in held]
        zs = [z[k] for z in (scale.response_z(one) for one in judged) if z is not None]
        flagged = sum(trait in scale.flagged(one) for one in judged)
        table.add_row(
            trait,
            str(scale.about[trait]["layer"]),
            number_text(float(np.mean(means)) if means else None, ".2f"),
            number_text(float(np.mean(zs)) if zs else None),
            number_text(float(np.max(zs)) if zs else None),
            f"{flagged}/{len(judged)}" if zs else "-",
            "-" if neutral is None else f"{neutral[1].share.value[k]:.1%}",
        )
    if neutral is not None:
        flags = f"{sum(map(scale.is_flagged, judged))}/{len(judged)}"
        table.add_row("any trait", "", "", "", "", flags, f"{neutral[1].share.value[-1]:.1%}")
    return table


def _held_out(scale: TraitScale, judged: Sequence[Trajectory]) -> tuple[int, HeldOut] | None:
    """The middle length of these responses, and what share of held-out neutral responses of that
    length is flagged; None without a baseline or responses."""
    if scale.baseline is None or not judged:
        return None
    n_tokens = int(np.median([len(one.tokens) for one in judged]))
    return n_tokens, scale.baseline.held_out_rate(scale.false_alarm, n_tokens)


def _calibration(scale: TraitScale, trajectories: Sequence[Trajectory]) -> str:
    """What flags stand on: the rate that was asked for, that reached by neutral responses that were
    held out, and how many responses were too long to be held against anything."""
    held = [one for one in trajectories if one.tokens]
    judged = [one for one in held if not scale.is_beyond(one)]
    found, lines = _held_out(scale, judged), []
    if found is not None:
        n_tokens, tested = found
        value, low, high = (end[-1] for end in vars(tested.share).values())
        lines.append(
            f"Flags are meant for {scale.false_alarm:.0%} of neutral responses: of {tested.n} that "
            f"were held out, cut at {n_tokens} tokens, {value:.1%} ({low:.1%} to {high:.1%}) were "
            "flagged by any trait."
        )
    if scale.baseline is not None and len(judged) < len(held):
        longest = scale.baseline.longest(scale.false_alarm)
        lines.append(
            f"{len(held) - len(judged)} of {len(held)} responses are longer than the {longest} "
            "tokens that enough neutral responses have: nothing is flagged there."
        )
    return "\n".join(lines)


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
    """Mean z, and the flagged share, of each trait by the value of a fact; a dash where every
    response is longer than the baseline can judge."""
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
            judged = [one for one in group if scale.thresholds(one) is not None]
            zs = [float(z[k]) for z in map(scale.response_z, judged) if z is not None]
            share = sum(trait in scale.flagged(one) for one in judged) / max(1, len(judged))
            cells.append(f"{np.mean(zs):.1f} ({share:.0%})" if zs else "-")
        table.add_row(trait, *cells)
    return table


def print_scores_side_by_side(
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


def print_scores(console: Console, scale: TraitScale, trajectories: Sequence[Trajectory]) -> None:
    """The tables for one response, or for many."""
    if len(trajectories) == 1:
        console.print(_response_table(scale, trajectories[0]))
        console.print(_calibration(scale, trajectories))
        return
    flagged = _flagged_table(scale, trajectories)
    if flagged is not None:
        console.print(flagged)
        console.print()
    console.print(_trait_table(scale, trajectories))
    console.print(_calibration(scale, trajectories))


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
