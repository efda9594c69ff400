"""What a few dozen responses say of a trait's definition: whether its sides differ, which of its
instructions and questions are at fault, and what to change.

So few responses give no vector worth keeping. They can show a definition that does not work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Any

import numpy as np

from domain.plan.samples import POLARITIES, Polarity
from domain.plan.spec import FilterSpec
from domain.scoring.scores import Score, Unscored
from domain.verdict.gates import CONTRAST_USABLE, CONTRAST_WEAK
from storage.record.results import SampleResult
from traitlens.stats.crossed import crossed_interval, weighted_difference

# Of the responses: more than so many make a side's mean one of something else.
MOST_SPOILT = 0.1
# A cut response still shows most traits; half of them cut are another kind of text.
MOST_CUT = 0.5
# Times that one side may be longer than the other.
MOST_LONGER = 1.5
SIDES: Mapping[Polarity, str] = {"positive": "pos", "negative": "neg"}


class Kind(StrEnum):
    """What can be said of a pilot."""

    DIFFER = "differ"
    DIFFER_LITTLE = "differ_little"
    NO_DIFFERENCE = "no_difference"
    WRONG_WAY = "wrong_way"
    UNSURE = "unsure"
    ONE_PAIR = "one_pair"
    NOTHING_SCORED = "nothing_scored"
    NOT_SHOWN = "not_shown"
    ALWAYS_SHOWN = "always_shown"
    WEAK_PAIR = "weak_pair"
    DEAD_QUESTION = "dead_question"
    INCOHERENT = "incoherent"
    CUT = "cut"
    REFUSED = "refused"
    UNSCORED = "unscored"
    LENGTH = "length"


SHOWS = (Kind.DIFFER, Kind.DIFFER_LITTLE)


@dataclass(frozen=True)
class Remark:
    """One thing said of a pilot, and what to change about it; `where` is a place in the file."""

    kind: Kind
    words: str
    where: str = ""


@dataclass(frozen=True)
class Level:
    """Mean trait scores under an instruction pair, or of a question; None without any."""

    where: str
    text: str
    positive: float | None
    negative: float | None

    @property
    def contrast(self) -> float | None:
        """Positive less negative."""
        if self.positive is None or self.negative is None:
            return None
        return self.positive - self.negative


@dataclass(frozen=True)
class Pilot:
    """What was measured: the contrast with its interval, and of what it is made."""

    n: int
    n_scored: int
    contrast: tuple[float, float, float] | None
    pairs: tuple[Level, ...]
    questions: tuple[Level, ...]
    remarks: tuple[Remark, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def piloted(
    samples: Sequence[SampleResult], filter_spec: FilterSpec, *, places: Sequence[int]
) -> Pilot:
    """What the responses say; `places` are those of the asked questions in the trait's file."""
    scored = [one for one in samples if isinstance(one.trait, Score)]
    pairs = _levels(scored, lambda one: one.sample.instruction, _pair_place, _pair_text)
    # scenarios have no instruction, and their file's key says which side is shown
    key = "questions" if any(one.instruction for one in samples) else "positive"
    questions = _levels(
        scored, lambda one: one.sample.question, lambda k: f"{key}[{places[k]}]", _question_text
    )
    pilot = Pilot(len(samples), len(scored), _contrast(scored), pairs, questions)
    remarks = tuple(_remarks(pilot, samples, filter_spec))
    return Pilot(pilot.n, pilot.n_scored, pilot.contrast, pairs, questions, remarks)


def _score(one: SampleResult) -> float:
    assert isinstance(one.trait, Score)
    return one.trait.value


def _of_side(samples: Sequence[SampleResult], polarity: Polarity) -> list[SampleResult]:
    return [one for one in samples if one.sample.polarity == polarity]


def _mean(samples: Sequence[SampleResult]) -> float | None:
    return fmean(map(_score, samples)) if samples else None


def _levels(
    scored: Sequence[SampleResult],
    level_of: Callable[[SampleResult], int],
    place: Callable[[int], str],
    text_of: Callable[[SampleResult], str],
) -> tuple[Level, ...]:
    found = []
    for level in sorted({level_of(one) for one in scored}):
        own = [one for one in scored if level_of(one) == level]
        means = [_mean(_of_side(own, polarity)) for polarity in POLARITIES]
        found.append(Level(place(level), text_of(own[0]), *means))
    return tuple(found)


def _pair_place(k: int) -> str:
    return f"instruction[{k}]"


def _pair_text(one: SampleResult) -> str:
    return one.instruction


def _question_text(one: SampleResult) -> str:
    return one.question


def _contrast(scored: Sequence[SampleResult]) -> tuple[float, float, float] | None:
    """The contrast and its 95 % interval over instructions and questions, whose ends are NaN where
    there is one of both; None where a side has no score."""
    is_pos = np.array([one.sample.polarity == "positive" for one in scored])
    if is_pos.all() or not is_pos.any():
        return None
    scores = np.array(list(map(_score, scored)))
    interval = crossed_interval(
        weighted_difference(scores, is_pos),
        np.array([one.sample.instruction for one in scored]),
        np.array([one.sample.question for one in scored]),
    )
    return float(interval.value), float(interval.low), float(interval.high)


def _remarks(
    pilot: Pilot, samples: Sequence[SampleResult], filter_spec: FilterSpec
) -> Iterator[Remark]:
    if pilot.contrast is None:
        yield Remark(
            Kind.NOTHING_SCORED,
            "No side can be compared: the judge scored too few responses. Read them in the report, "
            "and ask the judge another way or another judge.",
        )
    else:
        yield _difference(*pilot.contrast)
        if len(pilot.pairs) == 1 and pilot.pairs[0].text and np.isfinite(pilot.contrast[1]):
            yield Remark(
                Kind.ONE_PAIR,
                "All scores are of one instruction pair, so the interval is over questions alone: "
                "write more pairs to see whether others do the same.",
            )
        yield from _overall(pilot, filter_spec)
        yield from _weak_levels(pilot, filter_spec)
    yield from _spoilt(samples, filter_spec)


def _difference(value: float, low: float, high: float) -> Remark:
    if not np.isfinite(low):
        return Remark(
            Kind.UNSURE,
            f"The sides differ by {value:.0f} points, and nothing says how sure that is: ask at "
            "least two questions under two instruction pairs.",
        )
    ends = f"{value:.0f} points ({low:.0f} to {high:.0f})"
    if high < 0:
        return Remark(
            Kind.WRONG_WAY,
            f"The sides differ by {ends}, the wrong way round: pos gets the lower scores. Exchange "
            "pos and neg, or have the judge's prompt rate the opposite.",
        )
    if low <= 0:
        return Remark(
            Kind.NO_DIFFERENCE,
            f"No difference between the sides is shown: {ends}. An extraction would cost its price "
            "and give nothing.",
        )
    if value < CONTRAST_USABLE:
        return Remark(
            Kind.DIFFER_LITTLE,
            f"The sides differ by {ends}; a good vector wants {CONTRAST_USABLE:.0f}.",
        )
    return Remark(Kind.DIFFER, f"The sides differ by {ends}.")


def _overall(pilot: Pilot, filter_spec: FilterSpec) -> Iterator[Remark]:
    means = [
        [one for level in pilot.pairs if (one := getattr(level, side)) is not None]
        for side in POLARITIES
    ]
    positive, negative = map(fmean, means)
    if positive < filter_spec.threshold:
        yield Remark(
            Kind.NOT_SHOWN,
            f"Asked for the trait, the model hardly shows it: pos scores {positive:.0f} on "
            "average. Say in pos what to write, more strongly, or take a larger model.",
        )
    if negative >= 100 - filter_spec.threshold:
        yield Remark(
            Kind.ALWAYS_SHOWN,
            f"Asked for the opposite, the model still shows the trait: neg scores {negative:.0f} "
            "on average. Say in neg what to do instead, or count less as the trait in the judge's "
            "prompt.",
        )


_WHY = {
    "low": ("its pos is not obeyed", "no answer to it shows the trait"),
    "high": ("its neg is not obeyed", "every answer to it shows the trait"),
    "alike": ("its two sides are much alike", "its answers are much alike"),
}
"""Why a pair is weak, and why a question."""


def _weak_levels(pilot: Pilot, filter_spec: FilterSpec) -> Iterator[Remark]:
    """Pairs and questions with little contrast where the others have more."""
    assert pilot.contrast is not None
    few = min(CONTRAST_WEAK, pilot.contrast[0] / 2)
    for kind, levels in ((Kind.WEAK_PAIR, pilot.pairs), (Kind.DEAD_QUESTION, pilot.questions)):
        for one in levels:
            if one.contrast is None or one.contrast >= few or len(levels) == 1:
                continue
            assert one.positive is not None and one.negative is not None
            scores = f"pos {one.positive:.0f}, neg {one.negative:.0f}"
            is_low = one.positive < filter_spec.threshold
            is_high = one.negative >= 100 - filter_spec.threshold
            pair, question = _WHY["low" if is_low else "high" if is_high else "alike"]
            words = f"{one.where} is weak ({scores}): {pair}. Rewrite it."
            if kind == Kind.DEAD_QUESTION:
                words = f"{one.where} does not elicit it ({scores}): {question}. Ask another."
            yield Remark(kind, words, one.where)


def _spoilt(samples: Sequence[SampleResult], filter_spec: FilterSpec) -> Iterator[Remark]:
    """What makes responses something else than answers with and without the trait."""
    for polarity, side in SIDES.items():
        own = _of_side(samples, polarity)
        incoherent = [
            one
            for one in own
            if isinstance(one.coherence, Score) and one.coherence.value < filter_spec.coherence
        ]
        refused = [one for one in own if _reason(one) == "refused"]
        if len(incoherent) > MOST_SPOILT * len(own):
            yield Remark(
                Kind.INCOHERENT,
                f"{len(incoherent)} of {len(own)} {side} responses are incoherent: have {side} ask "
                "for whole sentences, lower --temperature, or take a larger model.",
            )
        if len(refused) > MOST_SPOILT * len(own):
            yield Remark(
                Kind.REFUSED,
                f"{len(refused)} of {len(own)} {side} responses decline to answer: soften {side}, "
                "and ask about less delicate matters.",
            )
    yield from _cut(samples)
    other = [one for one in samples if (why := _reason(one)) and why != "refused"]
    if len(other) > MOST_SPOILT * len(samples):
        reasons = ", ".join(sorted({str(_reason(one)) for one in other}))
        yield Remark(
            Kind.UNSCORED,
            f"{len(other)} of {len(samples)} responses have no score ({reasons}): end the judge's "
            "prompt with the number that it is to reply with.",
        )
    yield from _length(samples)


def _cut(samples: Sequence[SampleResult]) -> Iterator[Remark]:
    counts = []
    for polarity, side in SIDES.items():
        own = _of_side(samples, polarity)
        n = sum(one.response.finish == "length" for one in own)
        if n > MOST_CUT * len(own):
            counts.append(f"{n} of {len(own)} {side}")
    if counts:
        yield Remark(
            Kind.CUT,
            f"{' and '.join(counts)} responses are cut at --max-new-tokens: raise it if the trait "
            "shows late.",
        )


def _length(samples: Sequence[SampleResult]) -> Iterator[Remark]:
    lengths = {p: fmean(one.n_tokens for one in _of_side(samples, p)) for p in POLARITIES}
    shorter, longer = sorted(lengths.values())
    if longer > MOST_LONGER * shorter:
        long = max(lengths, key=lambda polarity: lengths[polarity])
        yield Remark(
            Kind.LENGTH,
            f"{SIDES[long]} responses are {longer / max(shorter, 1):.1f} times as long as the "
            "others: a vector would hold length too. Unless that is the trait, ask both sides for "
            "the same number of sentences.",
        )


def _reason(one: SampleResult) -> str:
    return one.trait.reason if isinstance(one.trait, Unscored) else ""
