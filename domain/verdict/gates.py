"""The verdict on a trait's vectors, from written gates; what fails, what no gate saw, what to know.

The gates that are often quoted for such vectors, and where one cannot mean what it says:
* "probe accuracy over 90 %" is training accuracy there, which 2304 numbers for 200 responses
  reach on noise; here it is the accuracy on questions that were held out, or the AUROC on
  questions that were left out where no probe was asked for.
* "norm 15 to 40 for normalized vectors": a normalized vector has norm 1, and the norm of a raw
  one grows with the model's width and depth. What can fail is a difference that is no longer
  than its own sampling noise, so the gate is on the angle to the true direction. The norm is
  reported relative to the residual stream.

A vector has two uses, each with a gate of its own: it reads the trait in texts, whatever stands
before them, and it steers a model. Gates on how well responses are told apart (left-out questions
and instructions, the probe, the evaluation questions, the judge's scores) concern reading alone:
fatal where nothing else is shown, weak where the vector is shown to steer. Gates on what steering
does concern steering alone. What is kept, the contrast and an angle that may be anything
concern both; one that is wide is a doubt of a vector whose use is surely shown, on questions that
it was not made from, and weak without. A weak finding
that concerns one use is a doubt where the other is shown and nothing weak concerns it. A vector of
which no use is shown is weak. A use that something fatal is found against is not shown, whatever
its own test says, so that a vector that is not to be used has no use. A gate that has nothing to
look at fails nothing: without the findings of what is untested, `usable` would say more than was
tested. A vector that is usable, and would not be were missing scores those that speak against it,
is usable with that doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from domain.plan.spec import DEFAULT_POSITION
from domain.verdict.reading import reading_findings
from domain.verdict.record import (
    Estimates,
    Finding,
    Gate,
    Quality,
    Severity,
    TraitMetrics,
    Uses,
    VerdictName,
)
from domain.verdict.sentences import finding_text
from domain.verdict.steering import steering_findings
from domain.verdict.unscored import at_worst
from domain.verdict.uses import graded, use_findings, uses_of, uses_that_stand

FATAL, WEAK, DOUBT, UNTESTED, NOTE = Severity

VERDICTS = {
    FATAL: VerdictName.DO_NOT_USE,
    WEAK: VerdictName.WEAK,
    DOUBT: VerdictName.USABLE_WITH_A_DOUBT,
}
"""By the worst severity of a finding that speaks against the vector."""

# The usual rule for a good vector, on the judge's 0-100 scale.
CONTRAST_USABLE = 40.0

# A contrast under it is too low to repair by anything but better instructions.
CONTRAST_WEAK = 20.0

# Fewer kept responses leave the mean of a side to a handful of prompts.
KEPT_USABLE = 10

KEPT_WEAK = 2

# Beyond this the kept responses are those the judge happened to answer for.
UNSCORED_USABLE = 0.1

CHANCE = 0.5

# Three times in ten a negative response lies above a positive one. Whether a vector means anything
# is decided by what chance reaches on the same responses; this and the next only say how much.
LEFT_OUT_USABLE = 0.7

# The familiar "over 90 %": single responses can be told apart.
LEFT_OUT_SHARP = 0.9

# Of what means nothing, one in twenty may do as well.
P_USABLE = 0.05

# Near one half the best of many layers is chance, whatever its own interval says.
LEFT_OUT_WEAK = 0.6

# Each is one observation: with fewer even a perfect AUROC cannot be told from chance.
FEWEST_INSTRUCTIONS = 4

# Scores that hardly differ but by their instruction are within them much the judge's own noise, so
# that nothing need go with them there.
WITHIN_TOLD = 0.1

# cos 45 degrees: less than half of the squared length is the truth's.
ANGLE_USABLE = 45.0

ANGLE_UNKNOWN = 90.0

# A covariate that surely tells the sides apart this well is named, whether or not the vector
# follows it within the sides: where the two always go together, nothing within the sides shows it.
CONFOUND_AUROC = 0.7

CONFOUND_CORRELATION = 0.3

MEASURES = {("refusal_words", "refusal"), ("response_length", "verbosity")}
"""Covariates that a trait is measured by rather than confounded with."""


def with_verdict(metrics: TraitMetrics) -> TraitMetrics:
    """The metrics with the verdict that follows from their figures, its findings and sentences."""
    found, uses = _graded_findings(metrics)
    found = (*_hangs_on_unscored(metrics, _name(found)), *found)
    text = {s: tuple(finding_text(f) for f in found if f.severity == s) for s in Severity}
    notes = tuple(finding_text(f) for f in found if f.severity in (UNTESTED, NOTE))
    return metrics.model_copy(
        update={
            "verdict": _name(found),
            "uses": uses,
            "findings": found,
            "reasons": text[FATAL] + text[WEAK] + text[DOUBT],
            "notes": notes,
            "untested": text[UNTESTED],
        }
    )


def _graded_findings(metrics: TraitMetrics) -> tuple[tuple[Finding, ...], Uses]:
    raw = gate_findings(metrics)
    uses = uses_of(metrics.quality) if metrics.quality is not None else Uses()
    uses = uses_that_stand(raw, uses)
    return tuple(graded(raw, uses)), uses


def _name(found: Iterable[Finding]) -> VerdictName:
    severities = {one.severity for one in found}
    worst = next((s for s in (FATAL, WEAK, DOUBT) if s in severities), NOTE)
    return VERDICTS.get(worst, VerdictName.USABLE)


def _hangs_on_unscored(metrics: TraitMetrics, name: VerdictName) -> Iterator[Finding]:
    """Why a verdict that calls the vector usable would be worse, were the scores that are missing
    those that speak against it."""
    from_best = list(VerdictName)
    if name not in (VerdictName.USABLE, VerdictName.USABLE_WITH_A_DOUBT):
        return
    for worst in at_worst(metrics):
        otherwise = _name(_graded_findings(worst.metrics)[0])
        if from_best.index(otherwise) > from_best.index(name):
            yield Finding(
                Gate.UNSCORED_DECIDE,
                DOUBT,
                value=worst.value,
                low=worst.lowest,
                of=worst.name,
                best=otherwise,
            )
            name = otherwise


def gate_findings(metrics: TraitMetrics) -> tuple[Finding, ...]:
    """Failed gates first, then the tests that were not made and what else should be known."""
    found = [*_kept(metrics), *_contrast(metrics)]
    if metrics.magnitude is not None and not metrics.magnitude > 0:
        found.append(Finding(Gate.DIFFERENCE_ZERO, FATAL))
    elif metrics.quality is not None:
        found += [*_angle(metrics.quality), *_left_out(metrics.quality)]
        found += _probe(metrics, metrics.quality)
    if metrics.quality is not None:
        found += [*_evaluation(metrics.quality), *steering_findings(metrics.quality)]
        found += reading_findings(metrics, metrics.quality)
        found += use_findings(metrics, uses_of(metrics.quality))
    share = sum(metrics.n_unscored.values()) / max(metrics.n_generated, 1)
    if share > UNSCORED_USABLE:
        found.append(Finding(Gate.UNSCORED_MANY, WEAK, value=share, limit=UNSCORED_USABLE))
    found += _not_tested(metrics)
    if metrics.quality is not None:
        found += _notes(metrics, metrics.quality)
    return tuple(sorted(found, key=lambda one: one.severity in (UNTESTED, NOTE)))


def _kept(metrics: TraitMetrics) -> Iterator[Finding]:
    for polarity, n in metrics.n_kept:
        if n < KEPT_WEAK:
            yield Finding(Gate.KEPT_TOO_FEW, FATAL, of=polarity, value=n, limit=KEPT_WEAK)
        elif n < KEPT_USABLE:
            yield Finding(Gate.KEPT_FEW, WEAK, of=polarity, value=n, limit=KEPT_USABLE)


def _is_judged(metrics: TraitMetrics) -> bool:
    return metrics.judging is None or metrics.judging.judge.scores


def _contrast(metrics: TraitMetrics) -> Iterator[Finding]:
    value, interval = metrics.contrast, metrics.contrast_interval
    if not _is_judged(metrics):
        # so that no verdict is better than usable with a doubt
        yield Finding(Gate.NOT_JUDGED, DOUBT)
    elif value is None:
        yield Finding(Gate.CONTRAST_UNKNOWN, FATAL)
    elif value <= CONTRAST_WEAK:
        yield Finding(Gate.CONTRAST_LOW, FATAL, value=value, limit=CONTRAST_WEAK)
    elif value <= CONTRAST_USABLE:
        yield Finding(Gate.CONTRAST_LOW, WEAK, value=value, limit=CONTRAST_USABLE)
    low = interval[0] if interval else None
    if low is not None and low <= 0:
        more = metrics.contrast_spread.narrows_most if metrics.contrast_spread else None
        yield Finding(Gate.CONTRAST_CHANCE, FATAL, value=value, low=low, of=more)


def _is_difference(quality: Quality) -> bool:
    """Whether the mean difference is judged: it is the best, or no other vector is tested by
    itself."""
    method = quality.best.method
    return method == "mean_diff" or quality.methods[method].held_out_half is None


def _angle(quality: Quality) -> Iterator[Finding]:
    layer = quality.best.layer
    upper = quality.mean_difference.angle_upper_degrees[layer]
    more = quality.spread.narrows_most if quality.spread else None
    if upper is None:
        yield Finding(Gate.ANGLE_UNKNOWN, WEAK)
    elif upper >= ANGLE_UNKNOWN:
        # says nothing of a direction that another method found
        severity = FATAL if _is_difference(quality) else WEAK
        yield Finding(Gate.ANGLE_NOISE, severity, layer, upper, limit=ANGLE_UNKNOWN, of=more)
    elif upper > ANGLE_USABLE:
        yield Finding(Gate.ANGLE_WIDE, WEAK, layer, upper, limit=ANGLE_USABLE, of=more)


def _left_out_questions(quality: Quality) -> tuple[float, float] | None:
    half = quality.methods[quality.best.method].held_out_half
    if half is not None and not _is_difference(quality):
        return _known(half.auroc, quality.best.layer)
    return _known(quality.mean_difference.leave_one_question_out_auroc, quality.best.layer)


def _left_out_instructions(quality: Quality) -> tuple[float, float] | None:
    """On readable answers to the evaluation questions where there are such; those that a vector is
    made from the judge has chosen, which flatters."""
    layer, tested = quality.best.layer, quality.evaluation
    if tested is not None and (found := _known(tested.left_out_instruction_auroc, layer)):
        return found
    return _known(quality.mean_difference.leave_one_instruction_out_auroc, layer)


def _left_out(quality: Quality) -> Iterator[Finding]:
    layer, is_difference = quality.best.layer, _is_difference(quality)
    questions = _left_out_questions(quality)
    if questions is not None:
        value, low = questions
        if low <= CHANCE or value <= LEFT_OUT_WEAK:
            yield Finding(Gate.QUESTIONS_CHANCE, FATAL, layer, value, low=low)
        else:
            yield from _low(Gate.QUESTIONS_LOW, layer, value)
        yield from _beaten_by_chance(quality, value)
    instructions = _left_out_instructions(quality)
    if instructions is None:
        return
    value, low = instructions
    if value <= LEFT_OUT_WEAK:
        severity = FATAL if is_difference else WEAK
        yield Finding(Gate.INSTRUCTIONS_CHANCE, severity, layer, value, low=low)
    elif low <= CHANCE and quality.n_instructions >= FEWEST_INSTRUCTIONS:
        # few instructions are a wide interval: that alone makes a vector weak, never useless
        yield Finding(Gate.INSTRUCTIONS_UNSURE, WEAK, layer, value, low=low)
    elif value <= LEFT_OUT_USABLE:
        yield Finding(Gate.INSTRUCTIONS_LOW, WEAK, layer, value, limit=LEFT_OUT_USABLE)


def _low(gate: Gate, layer: int, value: float) -> Iterator[Finding]:
    """An AUROC that is low, or no more than worth knowing."""
    if value <= LEFT_OUT_USABLE:
        yield Finding(gate, WEAK, layer, value, limit=LEFT_OUT_USABLE)
    elif value <= LEFT_OUT_SHARP:
        yield Finding(gate, NOTE, layer, value, limit=LEFT_OUT_SHARP)


def _beaten_by_chance(quality: Quality, value: float) -> Iterator[Finding]:
    """Whether directions that mean nothing do as well on left-out questions too often."""
    layer, difference = quality.best.layer, quality.mean_difference
    half = quality.methods[quality.best.method].held_out_half
    random, shuffled = difference.random_p, difference.shuffled_p
    if half is not None and not _is_difference(quality):
        random, shuffled = half.random_p, None
    ranks = ((Gate.QUESTIONS_RANDOM, random), (Gate.QUESTIONS_SHUFFLED, shuffled))
    for gate, by_layer in ranks:
        p = by_layer[layer] if by_layer else None
        if by_layer and p is None:
            yield Finding(Gate.QUESTIONS_NOT_SHUFFLED, UNTESTED)
        elif p is not None and p > P_USABLE:
            yield Finding(gate, FATAL, layer, value, limit=P_USABLE, p=p)


def _probe(metrics: TraitMetrics, quality: Quality) -> Iterator[Finding]:
    if "probe" not in metrics.methods:
        return
    layer = quality.best.by_method["probe"]
    accuracy = metrics.methods["probe"][quality.position]["held_out_acc"][layer]
    if accuracy is not None and accuracy <= LEFT_OUT_SHARP:
        yield Finding(Gate.PROBE_ACCURACY_LOW, NOTE, layer, accuracy, limit=LEFT_OUT_SHARP)


def _evaluation(quality: Quality) -> Iterator[Finding]:
    if quality.evaluation is None:
        return
    layer, own = quality.best.layer, quality.evaluation.methods[quality.best.method]
    if own.between_instructions is None:
        yield Finding(Gate.EVALUATION_FEW, WEAK)
    elif held_out := _known(own.between_instructions.auroc, layer):
        value, low = held_out
        if low <= CHANCE or value <= LEFT_OUT_WEAK:
            yield Finding(Gate.EVALUATION_CHANCE, FATAL, layer, value, low=low)
        else:
            yield from _low(Gate.EVALUATION_LOW, layer, value)
    follows, share = _known(own.correlation_within, layer), quality.evaluation.score_within
    if follows is None or follows[1] > 0:
        return
    if share is not None and share < WITHIN_TOLD:
        yield Finding(Gate.CORRELATION_RANGE, UNTESTED, value=share, limit=WITHIN_TOLD)
    else:
        # between instructions both differ, whatever the judge sees; within them this asks the judge
        value, low = follows
        yield Finding(Gate.JUDGE_NOT_FOLLOWED, FATAL, layer, value, low=low)


def held_out_findings(n_shared: int, n_parted: int) -> Iterator[Finding]:
    """What of a trait's questions is not held out as its file says."""
    if n_shared:
        yield Finding(Gate.EVALUATION_SHARED, UNTESTED, value=n_shared)
    if n_parted:
        yield Finding(Gate.EVALUATION_PARTED, NOTE, value=n_parted)


def _not_tested(metrics: TraitMetrics) -> Iterator[Finding]:
    """The tests, on evaluation questions or by steering, that were not made."""
    quality = metrics.quality
    yield from held_out_findings(metrics.n_shared_questions, metrics.n_parted_questions)
    if not metrics.n_eval_questions:
        yield Finding(Gate.EVALUATION_NO_QUESTIONS, UNTESTED)
        return
    if quality is None:
        return
    if quality.evaluation is None:
        gate = Gate.EVALUATION_PENDING if metrics.checks.evaluation else Gate.EVALUATION_OFF
        yield Finding(gate, UNTESTED)
    elif (own := quality.evaluation.methods[quality.best.method]).between_instructions is not None:
        # that too few can be read is a gate of its own
        if _known(own.between_instructions.auroc, quality.best.layer) is None:
            yield Finding(Gate.EVALUATION_ONE_QUESTION, UNTESTED)
        if _is_judged(metrics) and _known(own.correlation_within, quality.best.layer) is None:
            yield Finding(Gate.CORRELATION_FEW, UNTESTED)
    if quality.causal is not None:
        tested, best = quality.causal.method, quality.best.method
        if tested != best:
            yield Finding(Gate.STEERING_OTHER_METHOD, UNTESTED, of=tested, best=best)
    elif not metrics.checks.causal:
        yield Finding(Gate.STEERING_OFF, UNTESTED)
    elif metrics.is_steered_with_others:
        yield Finding(Gate.STEERING_OTHERS, UNTESTED)
    else:
        gate = Gate.STEERING_NOT_WORTH if metrics.is_checked else Gate.STEERING_PENDING
        yield Finding(gate, UNTESTED)


def _notes(metrics: TraitMetrics, quality: Quality) -> Iterator[Finding]:
    """What fails no gate and should be known: what could not be measured, and confounds."""
    best = quality.best
    if quality.position != DEFAULT_POSITION:
        yield Finding(Gate.FROM_PROMPTS, NOTE)
    instructions = _left_out_instructions(quality)
    if instructions is None:
        gate = Gate.INSTRUCTIONS_NOT_LEFT_OUT
        if metrics.scenarios is not None:
            gate = Gate.INSTRUCTIONS_NONE
        elif metrics.n_instructions == 1:
            gate = Gate.INSTRUCTIONS_ONE
        yield Finding(gate, UNTESTED)
    if _left_out_questions(quality) is None:
        yield Finding(Gate.QUESTIONS_NOT_LEFT_OUT, UNTESTED)
    if instructions is not None and quality.n_instructions < FEWEST_INSTRUCTIONS:
        n = quality.n_instructions
        yield Finding(Gate.INSTRUCTIONS_FEW, NOTE, value=n, limit=FEWEST_INSTRUCTIONS)
    fits = metrics.methods.get(best.method, {}).get(quality.position, {})
    if "converged" in fits and not fits["converged"][best.layer]:
        yield Finding(Gate.NOT_CONVERGED, NOTE, of=best.method, layer=best.layer)
    for name in quality.confounds:
        if (name, metrics.trait) not in MEASURES:
            yield from _confound(quality, name)


def _confound(quality: Quality, name: str) -> Iterator[Finding]:
    found, layer = quality.confounds[name], quality.best.layer
    if found.auroc is None or found.correlation is None:
        return
    low, high = found.auroc.interval
    if low is None or high is None or (low <= CONFOUND_AUROC and high >= 1 - CONFOUND_AUROC):
        return
    told = Finding(Gate.CONFOUND, NOTE, layer, found.auroc.value, low, high, of=name)
    correlation = found.correlation[layer]
    along = (correlation or 0.0) * (1 if low > CONFOUND_AUROC else -1)
    alike = _known(found.matched_auroc, layer)
    if found.n_matched is not None and alike is None:
        yield replace(told, gate=Gate.CONFOUND_NOT_IDENTIFIABLE, n_pairs=found.n_matched)
    elif alike is not None and (alike[1] <= CHANCE or alike[0] <= LEFT_OUT_WEAK):
        yield replace(told, gate=Gate.CONFOUND_EXPLAINS, alike=alike[0], n_pairs=found.n_matched)
    elif along > CONFOUND_CORRELATION:
        yield replace(told, gate=Gate.CONFOUND_WITHIN, correlation=correlation)
    else:
        yield told


def _known(found: Estimates | None, layer: int) -> tuple[float, float] | None:
    """A layer's value and the low end of its interval, where both are known."""
    if found is None:
        return None
    value, low = found.value[layer], found.interval[layer][0]
    return None if value is None or low is None else (value, low)
