"""Whether a judge can tell its ends apart: a small labelled set, scored the way a run scores.

The set, `labelled.json`, was written for this: answers that plainly show a bundled trait or plainly
do not, some between, and texts that are coherent or are not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as validated

from domain.errors import JudgeError
from domain.scoring.prices import Charged, Cost, Failed
from domain.scoring.scores import Score, Scoring
from domain.traits.definition import TraitDefinition
from domain.traits.judge_prompt import coherence_prompt
from traitlens.stats.separation import auroc, auroc_interval
from workers.judge.client import JudgeClient
from workers.judge.judge import Judge, Slots
from workers.judge.negotiate import negotiate

COHERENCE = "coherence"
Label = Literal["low", "middle", "high"]

# What high labels must outscore low ones by in each kind of question, and the largest share without
# a score. Traits have 24 answers at either end and coherence 10: a judge that answers at random
# passes the first in 2 of 10,000 cases, the second in 1 of 100, both in 2 of a million.
LEAST_AUROC = 0.8
MOST_UNSCORED = 0.2

# And how far their means must lie apart: thresholds are points of the scale.
LEAST_APART = 20.0


@validated(frozen=True)
class Labelled:
    """One answer and what a judge should make of it."""

    metric: str
    label: Label
    question: str
    answer: str


@dataclass(frozen=True)
class MetricCheck:
    """How one metric, or all traits together, came out: AUROC of high against low labels with its
    95 % interval, mean scores by label, and how many of `n` got no score."""

    metric: str
    auroc: float | None
    interval: tuple[float, float] | None
    means: Mapping[Label, float | None]
    n: int
    n_unscored: int

    @property
    def objection(self) -> str:
        """What is wrong with the judge here; empty where nothing is."""
        if self.n_unscored > MOST_UNSCORED * self.n:
            return f"{self.n_unscored} of {self.n} answers got no score"
        if self.auroc is None:
            return "one end got no score"
        if self.auroc < 1 - LEAST_AUROC:
            return f"it answers the wrong way round (AUROC {self.auroc:.2f})"
        if self.auroc < LEAST_AUROC:
            return f"it does not tell high from low (AUROC {self.auroc:.2f}, 0.5 is chance)"
        low, high = self.means["low"] or 0.0, self.means["high"] or 0.0
        if high - low < LEAST_APART:
            return f"high and low lie {high - low:.0f} points apart ({high:.0f} and {low:.0f})"
        return ""


@dataclass(frozen=True)
class JudgeCheck:
    """A judge's figures by metric; `traits` and `coherence` are what it is accepted by."""

    model: str
    mode: str
    by_metric: Sequence[MetricCheck]
    traits: MetricCheck
    coherence: MetricCheck

    @property
    def objections(self) -> list[str]:
        """Why it should not judge a run; none for one that may."""
        named = (("traits", self.traits), (COHERENCE, self.coherence))
        return [f"{name}: {one.objection}" for name, one in named if one.objection]


class _Open:
    """A limiter for one that asks alone, and little."""

    async def admit(self, cost: Cost) -> None:
        """See Limiter."""

    def answered(self, cost: Cost, result: Charged) -> None:
        """See Limiter."""

    async def failed(self, cost: Cost, result: Failed) -> bool:
        """See Limiter."""
        return False

    async def flush(self) -> None:
        """See Limiter."""


def labelled_set() -> list[Labelled]:
    """The set."""
    text = files("workers").joinpath("judge", "labelled.json").read_text(encoding="utf-8")
    return TypeAdapter(list[Labelled]).validate_python(json.loads(text))


def check_judge(client: JudgeClient, model: str, *, max_in_flight: int) -> JudgeCheck:
    """Ask the judge for all scores of the set; closes the client.

    Raises JudgeError for a judge that gives no score in any mode, or stops answering.
    """
    return asyncio.run(_check(client, model, max_in_flight))


async def _check(client: JudgeClient, model: str, max_in_flight: int) -> JudgeCheck:
    asked = labelled_set()
    prompts = [_prompt(one) for one in asked]
    try:
        found = await negotiate(client, model, {COHERENCE: prompts[-1]})
        judge = Judge(
            client, model, profile=found.profile, slots=Slots(max_in_flight), limiter=_Open()
        )
        judged = await judge.scorings(prompts)
    finally:
        await client.close()
    if judged.stopped is not None:
        raise JudgeError(f"the judge {model} stopped answering: {judged.stopped}")
    return checked(model, found.profile.summary(), asked, judged.scorings)


def checked(
    model: str, mode: str, asked: Sequence[Labelled], scorings: Sequence[Scoring | None]
) -> JudgeCheck:
    """The figures of scorings, in the order of what was asked."""
    scores = [one.value if isinstance(one, Score) else None for one in scorings]
    rows = list(zip(asked, scores, strict=True))
    metrics = list(dict.fromkeys(one.metric for one in asked))
    return JudgeCheck(
        model,
        mode,
        tuple(_of(name, [r for r in rows if r[0].metric == name]) for name in metrics),
        _of("traits", [r for r in rows if r[0].metric != COHERENCE]),
        _of(COHERENCE, [r for r in rows if r[0].metric == COHERENCE]),
    )


def _of(name: str, rows: Sequence[tuple[Labelled, float | None]]) -> MetricCheck:
    by_label: dict[Label, list[float]] = {"low": [], "middle": [], "high": []}
    for one, score in rows:
        if score is not None:
            by_label[one.label].append(score)
    high, low = by_label["high"], by_label["low"]
    value, interval = None, None
    if high and low:
        values = np.array([*high, *low], dtype=np.float64)[:, None]
        sizes = np.array([len(high)], dtype=np.float64), np.array([len(low)], dtype=np.float64)
        ends = auroc_interval(values, len(high), sizes)
        value = float(auroc(values[: len(high)], values[len(high) :])[0])
        interval = float(ends.low[0]), float(ends.high[0])
    means = {k: float(np.mean(v)) if v else None for k, v in by_label.items()}
    return MetricCheck(name, value, interval, means, len(rows), sum(s is None for _, s in rows))


def _prompt(one: Labelled) -> str:
    if one.metric == COHERENCE:
        return coherence_prompt(one.question, one.answer)
    return _bundled(one.metric).judge_prompt(one.question, one.answer)


@cache
def _bundled(trait: str) -> TraitDefinition:
    path = files("domain").joinpath("traits", "bundled", f"{trait}.json")
    return TraitDefinition.from_json(trait, json.loads(path.read_text(encoding="utf-8")))
