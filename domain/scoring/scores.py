"""A scoring: a score or the reason why there is none, with the evidence behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from domain.plan.spec import Frozen
from domain.thoughts import MARKS

UnscoredReason = Literal[
    "refused",
    "low_mass",
    "unparseable",
    "empty",
    # nobody is asked about a response whose thought did not end
    "no_answer",
    # the endpoint objects to this text, and not to others
    "filtered",
    "too_long",
    "objected",
    "http",
    "timeout",
    "budget",
    # nobody was asked
    "no_judge",
]
Mode = Literal["logprob", "structured", "text"]
Scale = Literal["0_100", "0_10", "binary", "binary_text"]
Digits = Literal["whole", "split"]
"""Whether the judge writes a number as one token or digit by digit."""

Metric = Literal["trait", "coherence"]
METRICS: tuple[Metric, ...] = ("trait", "coherence")

# Points between the bounds of a score that is taken for certain.
MOST_APART = 3.0

# Servers that do not part a model's reasoning from its answer leave it in the text, some of them
# without the mark where it begins.
_PARTING = [marks for marks in MARKS if not marks.ends_turns]
REASONING_BEGINS = tuple(marks.opens for marks in _PARTING)
REASONING_ENDS = tuple(marks.closes for marks in _PARTING)


class Candidate(Frozen):
    """One alternative for a token of the judge's reply, and its probability."""

    token: str
    probability: float = Field(ge=0, le=1)


class Position(Frozen):
    """A later token of the reply: the one that was taken, and what could have stood there."""

    token: str
    candidates: tuple[Candidate, ...] = ()


class Reply(Frozen):
    """One answer of the judge as it came, and what it cost; usd is None when no price is known.

    candidates are the alternatives of the token where the answer begins; following holds the
    positions after it when the judge writes a number in several tokens. Tokens are the most that
    the request could use where the server states none.
    """

    text: str
    candidates: tuple[Candidate, ...] = ()
    following: tuple[Position, ...] = ()
    refusal: bool = False
    finish: str = "stop"
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usage_stated: bool = True
    usd: float | None = None
    attempts: int = 1
    cached: bool = False

    @property
    def said(self) -> str:
        """The text without the reasoning before it; empty when it is all reasoning."""
        ends = (self.text.rfind(mark) + len(mark) for mark in REASONING_ENDS if mark in self.text)
        answer = self.text[max(ends, default=0) :]
        return "" if answer.lstrip().startswith(REASONING_BEGINS) else answer


class LostReply(Frozen):
    """An answer that was asked for and never came."""

    reason: UnscoredReason
    detail: str = ""
    usd: float | None = None
    attempts: int = 0


class Evidence(Frozen):
    """Everything a scoring rests on, so that it can be computed again without a call."""

    replies: tuple[Reply, ...] = ()
    lost: tuple[LostReply, ...] = ()
    mode: Mode = "logprob"
    scale: Scale = "0_100"
    digits: Digits = "whole"

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the question, over all replies."""
        return sum(reply.prompt_tokens for reply in self.replies)

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answers, over all replies."""
        return sum(reply.completion_tokens for reply in self.replies)

    @property
    def attempts(self) -> int:
        """Calls made, failed ones included; a cached reply made none."""
        asked = sum(reply.attempts for reply in self.replies if not reply.cached)
        return asked + sum(lost.attempts for lost in self.lost)

    @property
    def usd(self) -> float | None:
        """What this run paid for it; None when the price is unknown."""
        costs = [0.0 if reply.cached else reply.usd for reply in self.replies]
        costs += [lost.usd if lost.attempts else 0.0 for lost in self.lost]
        known = [cost for cost in costs if cost is not None]
        return math.fsum(known) if len(known) == len(costs) else None


class Score(Frozen):
    """A number between 0 and 100 and the evidence behind it.

    `bounds`: what it could be if the probability that nobody saw lay on the lowest or the highest
    answers; None where these are no more than MOST_APART points from one another.
    """

    value: float
    numeric_mass: float
    refusal_mass: float
    evidence: Evidence
    bounds: tuple[float, float] | None = None


class Unscored(Frozen):
    """No usable score, and why: never a 0, never an empty value, never dropped in silence."""

    reason: UnscoredReason
    detail: str = ""
    numeric_mass: float = 0.0
    refusal_mass: float = 0.0
    evidence: Evidence | None = None


Scoring = Score | Unscored


def score_value(scoring: object) -> float | None:
    """The number of a scoring; None where there is none."""
    return scoring.value if isinstance(scoring, Score) else None


def candidates_from_logprobs(pairs: Sequence[tuple[str, object]]) -> tuple[Candidate, ...]:
    """Candidates from (token, log probability) pairs as APIs list them: null, -9999, infinities and
    what is no number stand for a token that cannot come."""
    return tuple(Candidate(token=t, probability=_probability(lp)) for t, lp in pairs)


def _probability(logprob: object) -> float:
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return 0.0
    # rounding lifts a certain token a little above 0; NaN is neither
    return math.exp(min(logprob, 0.0)) if -1e6 < logprob < 0.1 else 0.0
