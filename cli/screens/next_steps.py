"""What to do next: with a trait's vectors or about them, and with a run that nobody ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domain.verdict.record import Gate, Severity, TraitMetrics
from domain.verdict.uses import SHOWN
from orchestrator.run_state import State
from storage.record.dead_letters import dead_letters
from storage.record.run import REPORT, Run

MOST = 4

# What a run is doing that goes on by no means but a command.
AT_A_STAND = (
    State.NOT_FINISHED,
    State.NOT_RUNNING,
    State.PAUSED,
    State.CANCELLED,
    State.FAILED,
)

_KEPT = "Too few responses count: more --rollouts, or `orchestrate refilter {run} --threshold 40`."
_CONTRAST = (
    "The instructions hardly change what the model says: read the answers, sharpen the pairs, or "
    "take a model that follows them."
)
_PAIRS = "The direction depends on which instructions were asked: add instruction pairs."
_QUESTIONS = "It does not hold on other questions: add questions, and see the answers it misses."
_JUDGE = "Projection and judge disagree: sort the answers by projection and read both ends."
_STEERING = "Compare steered answers strength by strength: the push may be too weak or too strong."
_UNSCORED = "`orchestrate rejudge {run} --only unscored`, or another judge."

# A gate that failed, or a test that was not made -> what to do about it.
ADVICE = {
    Gate.KEPT_TOO_FEW: _KEPT,
    Gate.KEPT_FEW: _KEPT,
    Gate.READING_FEW: _KEPT,
    Gate.CONTRAST_UNKNOWN: _UNSCORED,
    Gate.UNSCORED_MANY: _UNSCORED,
    Gate.CONTRAST_LOW: _CONTRAST,
    Gate.CONTRAST_CHANCE: _CONTRAST,
    Gate.DIFFERENCE_ZERO: _CONTRAST,
    Gate.ANGLE_UNKNOWN: _PAIRS,
    Gate.ANGLE_NOISE: _PAIRS,
    Gate.ANGLE_WIDE: _PAIRS,
    Gate.INSTRUCTIONS_CHANCE: _PAIRS,
    Gate.INSTRUCTIONS_UNSURE: _PAIRS,
    Gate.INSTRUCTIONS_LOW: _PAIRS,
    Gate.QUESTIONS_CHANCE: _QUESTIONS,
    Gate.QUESTIONS_RANDOM: _QUESTIONS,
    Gate.QUESTIONS_SHUFFLED: _QUESTIONS,
    Gate.QUESTIONS_LOW: _QUESTIONS,
    Gate.EVALUATION_CHANCE: _QUESTIONS,
    Gate.EVALUATION_LOW: _QUESTIONS,
    Gate.JUDGE_NOT_FOLLOWED: _JUDGE,
    Gate.STEERING_UNREADABLE: _STEERING,
    Gate.STEERING_UNSURE: _STEERING,
    Gate.STEERING_RANDOM: _STEERING,
    Gate.STEERING_BACKWARDS: _STEERING,
    Gate.EVALUATION_OFF: "Test it on held-out questions: extract with --evaluation 2.",
    Gate.STEERING_OFF: "Test whether it steers: extract with --causal 40.",
    Gate.READING_OFF: "Test whether it reads texts or instructions: extract with --contexts 120.",
}


def next_steps(run: str, metrics: TraitMetrics) -> list[str]:
    """Sentences, at most MOST: how to use what is shown, then what mends what is not."""
    uses, found = metrics.uses, []
    if uses.steers.state in SHOWN:
        found.append(f"Steer: `orchestrate steer {run} --add {metrics.trait}=1`.")
    if uses.reads.state in SHOWN:
        found.append(f'Read: `orchestrate monitor {run} --prompt "How are you?"`.')
    said = [f for f in metrics.findings if f.severity != Severity.NOTE and f.gate in ADVICE]
    found += [ADVICE[finding.gate].format(run=run) for finding in said]
    return [*dict.fromkeys(found)][:MOST]


def next_step(run: str, metrics: Sequence[TraitMetrics]) -> str:
    """A command that uses what was made: it steers where steering is shown, else it reads; empty
    where nothing is shown."""
    for one in metrics:
        if one.uses.steers.state in SHOWN:
            return f'Next: orchestrate steer {run} --add {one.trait}=1 --prompt "How are you?"'
    if any(one.uses.reads.state in SHOWN for one in metrics):
        return f'Next: orchestrate monitor {run} --prompt "How are you?"'
    return ""


def last_step(run: Run, snapshot: Mapping[str, Any]) -> str:
    """What goes on with a run that nobody works on, or ends a finished one without a report, as
    detached runs are; empty for others."""
    if snapshot["state"] == State.BUDGET_REACHED:
        return f"Go on with: orchestrate resume {run.name} --budget MORE"
    if snapshot["state"] in AT_A_STAND:
        # what was given up stays so in a resumption; a pause ends with that alone
        retried = snapshot["state"] != State.PAUSED and dead_letters(run.store)
        command = f"retry {run.name} --dead" if retried else f"resume {run.name}"
        return f"Go on with: orchestrate {command}"
    finished = all(trait["is_finished"] for trait in snapshot["traits"])
    return last_step_of(run.name) if finished and not run.store.exists(REPORT) else ""


def last_step_of(name: str) -> str:
    """The command that ends a detached run, and what for."""
    return f"For the verdicts and report.html of the finished run: orchestrate resume {name}"
