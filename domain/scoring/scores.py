"""A scoring: a score or the reason why there is none, with the evidence behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from domain.plan.spec import Frozen

UnscoredReason = Literal["refused", "low_mass", "unparseable", "empty", "http", "timeout", "budget"]
Mode = Literal["logprob", "structured", "text"]
Scale = Literal["0_100", "0_10", "binary", "binary_text"]
Digits = Literal["whole", "split"]
"""Whether the judge writes a number as one token or digit by digit."""

METRICS = ("trait", "coherence")


class Candidate(Frozen):
    """One alternative for a token of the judge's reply, and its probability."""

    token: str
    probability: float


class Position(Frozen):
    """A later token of the reply: the one that was taken, and what could have stood there."""

    token: str
    candidates: tuple[Candidate, ...] = ()


class Reply(Frozen):
    """One answer of the judge as it came, and what it cost; usd is None when no price is known.

    candidates are the alternatives of the token where the answer begins; following holds the
    positions after it when the judge writes a number in several tokens.
    """

    text: str
    candidates: tuple[Candidate, ...] = ()
    following: tuple[Position, ...] = ()
    refusal: bool = False
    finish: str = "stop"
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    attempts: int = 1
    cached: bool = False


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
    """A number between 0 and 100 and the evidence behind it."""

    value: float
    numeric_mass: float
    refusal_mass: float
    evidence: Evidence


class Unscored(Frozen):
    """No usable score, and why: never a 0, never an empty value, never dropped in silence."""

    reason: UnscoredReason
    detail: str = ""
    numeric_mass: float = 0.0
    refusal_mass: float = 0.0
    evidence: Evidence | None = None


Scoring = Score | Unscored


def candidates_from_logprobs(pairs: Sequence[tuple[str, float]]) -> tuple[Candidate, ...]:
    """Candidates from (token, log probability) pairs as the API lists them."""
    return tuple(Candidate(token=t, probability=math.exp(min(lp, 0.0))) for t, lp in pairs)
