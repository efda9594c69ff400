"""What decides whether a vector steers: texts of the trait become likelier, and the judge sees it.

The first is measured without a judge, at every layer, against a thousand random directions; the
second at one layer, where people will push. A push that the judge confirms steers whatever the
first says; the first alone says that the model's own distribution moves the right way.
"""

from __future__ import annotations

from collections.abc import Iterator

from domain.verdict.record import CausalFigures, Finding, Gate, Quality, Severity

# One vector in twenty that means nothing is taken for one that steers.
P_SHOWN = 0.05

# Where answers do not change at all, half of the questions go one way: a quarter is worth knowing.
BACKWARDS_KNOWN = 0.25


def likelihood_shown(quality: Quality) -> bool | None:
    """Whether the vector makes texts of its trait likelier; None where that was not tested."""
    return None if quality.likelihood is None else quality.likelihood.p <= P_SHOWN


def rise_shown(quality: Quality) -> bool | None:
    """Whether the judge saw more of the trait under a push than without one, and than under random
    ones; None where nothing was steered."""
    return None if quality.causal is None else steering_gate(quality.causal) is None


def steering_findings(quality: Quality) -> Iterator[Finding]:
    """Failed gates on steering, and what else should be known of it."""
    causal, likelihood = quality.causal, quality.likelihood
    if likelihood is not None and not likelihood_shown(quality):
        severity = Severity.NOTE if rise_shown(quality) else Severity.WEAK
        layer, z = likelihood.layer, likelihood.z[likelihood.layer]
        yield Finding(Gate.LIKELIHOOD_CHANCE, severity, layer, z, limit=P_SHOWN, p=likelihood.p)
    if causal is None:
        return
    gate = steering_gate(causal)
    if gate is not None:
        rise, strength = causal.vector.rise, causal.vector.rise_at
        yield Finding(
            gate, Severity.WEAK, causal.layer, rise.value, *rise.interval, strength=strength
        )
    share, ends = causal.backwards.value, causal.backwards.interval
    if share is not None and share >= BACKWARDS_KNOWN:
        yield Finding(Gate.STEERING_BACKWARDS, Severity.NOTE, causal.layer, share, *ends)


def steering_gate(causal: CausalFigures) -> Gate | None:
    """Why the judged answers do not show that the vector steers; None where they do."""
    rise, over_random = causal.vector.rise, causal.rise_over_random.interval[0]
    if causal.vector.rise_at is None or rise.value is None:
        return Gate.STEERING_UNREADABLE
    if rise.interval[0] is None:
        return Gate.STEERING_ONE_QUESTION
    if rise.interval[0] <= 0:
        return Gate.STEERING_UNSURE
    return Gate.STEERING_RANDOM if over_random is not None and over_random <= 0 else None
