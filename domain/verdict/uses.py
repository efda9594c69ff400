"""The two uses of a vector, reading and steering, and what a finding means for each.

A gate that concerns one use alone says nothing against the other. What is fatal for one is weak
where the other is shown; and where a use is shown that nothing weak concerns, what is weak for the
other is the doubt that the verdict names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from domain.verdict.reading import reads_use
from domain.verdict.record import (
    PARTS,
    Finding,
    Gate,
    Quality,
    Severity,
    TraitMetrics,
    Use,
    Uses,
    UseState,
)
from domain.verdict.steering import likelihood_shown, rise_shown, steering_gate

SHOWN = (UseState.YES, UseState.DOUBT)

READING_GATES = frozenset(
    {
        Gate.QUESTIONS_CHANCE,
        Gate.QUESTIONS_RANDOM,
        Gate.QUESTIONS_SHUFFLED,
        Gate.QUESTIONS_LOW,
        Gate.INSTRUCTIONS_CHANCE,
        Gate.INSTRUCTIONS_UNSURE,
        Gate.INSTRUCTIONS_LOW,
        Gate.PROBE_ACCURACY_LOW,
        Gate.EVALUATION_FEW,
        Gate.EVALUATION_CHANCE,
        Gate.EVALUATION_LOW,
        Gate.JUDGE_NOT_FOLLOWED,
        Gate.READING_NOT_SHOWN,
        Gate.READING_LOW,
    }
)
"""How well responses are told apart: of no concern to what the vector causes."""

STEERING_GATES = frozenset(
    {
        Gate.STEERING_UNREADABLE,
        Gate.STEERING_ONE_QUESTION,
        Gate.STEERING_UNSURE,
        Gate.STEERING_RANDOM,
        Gate.STEERING_LIKELIHOOD,
        Gate.LIKELIHOOD_CHANCE,
    }
)
"""What the vector causes: of no concern to what it tells apart."""


DIRECTION_GATES = frozenset({Gate.ANGLE_WIDE})
"""How near the direction is to that of other instructions and questions: a doubt of a vector that
is surely shown to do its work on such."""


def uses_of(quality: Quality) -> Uses:
    """Which uses are shown, each with the layer that serves it best."""
    return Uses(reads=reads_use(quality), steers=_steers_use(quality))


def use_layers(quality: Quality, method: str) -> tuple[int, int]:
    """The layers to read and to steer with a method's vectors at: where the tests of a use found
    it best, else where that method separates best in context."""
    uses, own = uses_of(quality), quality.best.by_method.get(method, quality.best.layer)
    reads = own if uses.reads.state == UseState.UNTESTED else uses.reads.layer
    tested = [one.method for one in (quality.causal, quality.likelihood) if one is not None]
    steers = uses.steers.layer if tested and method in (*tested, *PARTS) else own
    assert reads is not None and steers is not None
    return reads, steers


def _steers_use(quality: Quality) -> Use:
    """Shown by a judge; by the likelihood of texts alone, with a doubt."""
    causal, likelihood = quality.causal, quality.likelihood
    if causal is not None and rise_shown(quality):
        return Use(state=UseState.YES, layer=causal.layer)
    if likelihood is not None and likelihood_shown(quality):
        return Use(state=UseState.DOUBT, layer=likelihood.layer)
    is_open = causal is None or steering_gate(causal) == Gate.STEERING_ONE_QUESTION
    state = UseState.UNTESTED if is_open and likelihood is None else UseState.NO
    return Use(state=state, layer=quality.best.layer if causal is None else causal.layer)


def uses_that_stand(found: Iterable[Finding], uses: Uses) -> Uses:
    """The uses without those that something fatal is found against: of both, unless the other is
    surely shown and the finding is none of its concern."""
    shown = {name: use for name, use in uses if use.state in SHOWN}
    sure = {name for name, use in shown.items() if use.state == UseState.YES}
    against: set[str] = set()
    for one in found:
        if one.severity == Severity.FATAL:
            against |= _concerned(one) if sure - _concerned(one) else set(shown)
    fallen = {
        name: use.model_copy(update={"state": UseState.NO})
        for name, use in shown.items()
        if name in against
    }
    return uses.model_copy(update=fallen)


def use_findings(metrics: TraitMetrics, uses: Uses) -> Iterator[Finding]:
    """What steers by the likelihood of texts alone; and that neither use is shown, once nothing
    more is to be tested."""
    if uses.steers.state == UseState.DOUBT and metrics.quality and metrics.quality.causal is None:
        yield Finding(Gate.STEERING_LIKELIHOOD, Severity.DOUBT, uses.steers.layer)
    shows_use = metrics.checks.contexts or metrics.checks.causal
    is_to_come = metrics.is_to_be_checked and shows_use
    if not is_to_come and not any(use.state in SHOWN for use in (uses.reads, uses.steers)):
        yield Finding(Gate.NO_USE_SHOWN, Severity.WEAK, of=uses.reads.state, best=uses.steers.state)


def graded(found: Iterable[Finding], uses: Uses) -> Iterator[Finding]:
    """The findings as they count for the uses that are shown."""
    found = list(found)
    states = {"reads": uses.reads.state, "steers": uses.steers.state}
    known = {name for name, state in states.items() if state == UseState.YES}
    lowered = [
        replace(one, severity=Severity.WEAK)
        if one.severity == Severity.FATAL and known - _concerned(one)
        else one
        for one in found
    ]
    against = [one for one in lowered if one.severity in (Severity.FATAL, Severity.WEAK)]
    shown = {name for name, state in states.items() if state in SHOWN}
    sound = {name for name in shown if not any(name in _concerned(one) for one in against)}
    for one in lowered:
        is_doubt = one.severity == Severity.WEAK and (
            sound & known if one.gate in DIRECTION_GATES else sound
        )
        yield replace(one, severity=Severity.DOUBT) if is_doubt else one


def _concerned(finding: Finding) -> set[str]:
    if finding.gate in DIRECTION_GATES:
        return set()
    if finding.gate in READING_GATES:
        return {"reads"}
    return {"steers"} if finding.gate in STEERING_GATES else {"reads", "steers"}
