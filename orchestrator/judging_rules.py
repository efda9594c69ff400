"""Judging rules: from a judge's evidence to a score, or to the reason why there is none.

Pure arithmetic; makes no calls. The scales are the seeds': `0_100` is persona_vectors' expected
value over the integer tokens 0..100, `0_10` over the digits 0..9, `binary` P(YES) / (P(YES) +
P(NO)), `binary_text` the word the judge wrote. Every value is then put on 0..100. No score when
the answers carry less than 0.25 of the mass.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from orchestrator.number_tokens import number_masses
from orchestrator.reply_text import is_refusal_text, is_refusal_token, parse_text
from orchestrator.scores import (
    Candidate,
    Evidence,
    Reply,
    Scale,
    Score,
    Unscored,
    UnscoredReason,
    Verdict,
)

MIN_NUMERIC_MASS = 0.25
# Of several votes at least half have to say something, or the mean is that of the odd ones out.
MIN_VOTE_SHARE = 0.5
TOP: dict[Scale, int] = {"0_100": 100, "0_10": 9, "binary": 1, "binary_text": 1}
"""The highest answer of each scale; the seeds' 0_10 reads the ten single digits."""


def verdict(evidence: Evidence) -> Verdict:
    """The verdict that the evidence supports, by its own mode and scale."""
    if not evidence.replies:
        return _lost(evidence)
    if evidence.mode == "logprob" and evidence.scale != "binary_text":
        return _from_masses(evidence)
    return _from_votes(evidence)


def answer_masses(
    candidates: Sequence[Candidate], scale: Scale, *, split: Sequence[Reply] | None = None
) -> tuple[dict[float, float], float]:
    """(answer -> probability, refusal mass) of first-token alternatives, answers as on the scale.

    `split`: the replies of a judge that writes numbers digit by digit.
    """
    refusal = math.fsum(c.probability for c in candidates if is_refusal_token(c.token))
    if scale in ("binary", "binary_text"):
        yes = math.fsum(c.probability for c in candidates if c.token.strip().upper() == "YES")
        no = math.fsum(c.probability for c in candidates if c.token.strip().upper() == "NO")
        return {1.0: yes, 0.0: no}, refusal
    return number_masses(candidates, top=TOP[scale], split=split), refusal


def _from_masses(evidence: Evidence) -> Verdict:
    reply = evidence.replies[0]
    if reply.refusal:
        return _unscored("refused", reply.text, evidence, refusal_mass=1.0)
    if not reply.candidates:
        return _unscored(_words_or_nothing(reply.text), reply.text, evidence)
    split = evidence.replies if evidence.digits == "split" else None
    found, refusal = answer_masses(reply.candidates, evidence.scale, split=split)
    mass = math.fsum(found.values())
    reason = _why_no_score(evidence, found, mass, refusal)
    if reason is not None:
        said = f"answers carry {mass:.2f} of the judge's first token, {MIN_NUMERIC_MASS} are needed"
        detail = reply.text if mass == 0 else said
        return _unscored(reason, detail, evidence, numeric_mass=mass, refusal_mass=refusal)
    value = math.fsum(v * p for v, p in found.items()) / mass * 100 / TOP[evidence.scale]
    return Score(value=value, numeric_mass=mass, refusal_mass=refusal, evidence=evidence)


def _why_no_score(
    evidence: Evidence, found: dict[float, float], mass: float, refusal: float
) -> UnscoredReason | None:
    text = evidence.replies[0].text
    if evidence.scale != "0_100" and refusal > max(found.values(), default=0.0):
        return "refused"
    if mass >= MIN_NUMERIC_MASS:
        return None
    if refusal > mass or is_refusal_text(text):
        return "refused"
    # not even an unlikely number: the judge answered in words
    return "unparseable" if mass == 0 and text.strip() else "low_mass"


def _from_votes(evidence: Evidence) -> Verdict:
    read = [
        "refused" if reply.refusal else parse_text(reply.text, evidence.scale)
        for reply in evidence.replies
    ]
    values = [v for v in read if isinstance(v, float)]
    asked = len(evidence.replies) + len(evidence.lost)
    numeric, refused = len(values) / asked, read.count("refused") / asked
    if numeric < MIN_VOTE_SHARE:
        reasons = [v for v in read if isinstance(v, str)]
        reason = _commonest([*reasons, *(lost.reason for lost in evidence.lost)])
        detail = next(
            (r.text for r, v in zip(evidence.replies, read, strict=True) if v == reason), ""
        )
        return _unscored(reason, detail, evidence, numeric_mass=numeric, refusal_mass=refused)
    value = math.fsum(values) / len(values) * 100 / TOP[evidence.scale]
    return Score(value=value, numeric_mass=numeric, refusal_mass=refused, evidence=evidence)


def _lost(evidence: Evidence) -> Unscored:
    if not evidence.lost:
        return _unscored("empty", "nothing was asked", evidence)
    reason = _commonest([lost.reason for lost in evidence.lost])
    detail = next(lost.detail for lost in evidence.lost if lost.reason == reason)
    return _unscored(reason, detail, evidence)


def _commonest(reasons: Iterable[UnscoredReason]) -> UnscoredReason:
    return Counter(reasons).most_common(1)[0][0]


def _words_or_nothing(text: str) -> UnscoredReason:
    if not text.strip():
        return "empty"
    return "refused" if is_refusal_text(text) else "unparseable"


def _unscored(
    reason: UnscoredReason,
    detail: str,
    evidence: Evidence,
    *,
    numeric_mass: float = 0.0,
    refusal_mass: float = 0.0,
) -> Unscored:
    return Unscored(
        reason=reason,
        detail=detail[:200],
        numeric_mass=numeric_mass,
        refusal_mass=refusal_mass,
        evidence=evidence,
    )
