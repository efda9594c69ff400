"""The verdict on a trait's vectors, from written gates, each failed gate named in words.

The gates on a vector's own quality, each in words, and what is worth knowing beside them.

The seeds' gates, and where one cannot mean what it says:
* "probe accuracy over 90 %" is training accuracy there, which 2304 numbers for 200 responses
  reach on noise; here it is the accuracy on questions that were held out, or the AUROC on
  questions that were left out where no probe was asked for.
* "norm 15 to 40 for normalized vectors": a normalized vector has norm 1, and the norm of a raw
  one grows with the model's width and depth. What can fail is a difference that is no longer
  than its own sampling noise, so the gate is on the angle to the true direction. The norm is
  reported relative to the residual stream.

The gates on what a vector does on responses of its own: held-out questions, and steering.

A vector that reads the trait and does not cause it is good for watching and not for steering, so
nothing in the causal check makes a vector useless by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

VerdictName = Literal["usable", "weak", "do not use"]

# The seeds' rule for a good vector, on the judge's 0-100 scale.
CONTRAST_USABLE = 40.0

# Seed 003 calls a contrast under 20 too low to repair by anything but better instructions.
CONTRAST_WEAK = 20.0

# Fewer kept responses leave the mean of a side to a handful of prompts.
KEPT_USABLE = 10

KEPT_WEAK = 2

# Beyond this the kept responses are those the judge happened to answer for.
UNSCORED_USABLE = 0.1


@dataclass(frozen=True)
class Rise:
    """What steering adds to the trait score, at a strength that keeps answers readable; `strength`
    is None when none does."""

    strength: float | None
    value: float | None
    low: float | None
    over_random_low: float | None


@dataclass(frozen=True)
class CheckFacts:
    """What the gates look at, at the best layer; None where not measured.

    `held_out` is the AUROC on the evaluation questions, `follows` the correlation of the projection
    with the judge's trait score there, both with the low end of their interval; `too_few` says that
    evaluation was asked for and one side has too few responses.
    """

    layer: int
    held_out: tuple[float, float] | None
    follows: tuple[float, float] | None
    too_few: bool
    rise: Rise | None


@dataclass(frozen=True)
class LeftOut:
    """AUROC on what was left out, with the low end of its 95 % interval."""

    auroc: float
    low: float


@dataclass(frozen=True)
class VectorFacts:
    """What the gates look at, at the best layer; None where not measurable.

    `has_converged` is of the best method, and so is `question` where that was tested on questions
    that it was not made from. Otherwise that is of the mean difference, as are angle, instructions
    and shuffled labels always.
    """

    layer: int
    is_mean_difference: bool
    n_instructions: int
    question: LeftOut | None
    instruction: LeftOut | None
    angle_upper: float | None
    shuffled: float | None
    probe_accuracy: float | None
    has_converged: bool | None


def contrast(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Mean positive minus mean negative trait score over all scored responses, kept or not.

    Over the kept alone it would be large by construction: the thresholds push the sides apart.
    """
    if not positive or not negative:
        return None
    return sum(positive) / len(positive) - sum(negative) / len(negative)


@dataclass(frozen=True)
class VerdictInputs:
    """What the gates look at; contrast is None when a side has no scores.

    `contrast_low` is the low end of its 95 % interval; `vector` is None when no vector was made,
    and `checks` where it is not tested on responses of its own.
    """

    n_generated: int
    n_unscored: int
    n_kept_positive: int
    n_kept_negative: int
    contrast: float | None
    magnitude: float | None
    contrast_low: float | None = None
    vector: VectorFacts | None = None
    checks: CheckFacts | None = None


def verdict(found: VerdictInputs) -> tuple[VerdictName, list[str]]:
    """The verdict and a sentence for each failed gate."""
    fatal, weak = _kept_gates(found)
    if found.contrast is None:
        fatal.append("one side has no scored response, so the contrast is unknown")
    elif found.contrast <= CONTRAST_WEAK:
        fatal.append(f"contrast {found.contrast:.1f} is not over {CONTRAST_WEAK:g}")
    elif found.contrast <= CONTRAST_USABLE:
        weak.append(f"contrast {found.contrast:.1f} is not over {CONTRAST_USABLE:g}")
    if found.contrast_low is not None and found.contrast_low <= 0:
        fatal.append("chance alone may explain the contrast: its 95 % interval reaches 0")
    if found.magnitude is not None and not found.magnitude > 0:
        fatal.append("the mean difference is zero at every layer")
    elif found.vector is not None:
        more_fatal, more_weak = vector_gates(found.vector)
        fatal, weak = fatal + more_fatal, weak + more_weak
    if found.checks is not None:
        check_fatal, check_weak = check_gates(found.checks)
        fatal, weak = fatal + check_fatal, weak + check_weak
    share = found.n_unscored / max(found.n_generated, 1)
    if share > UNSCORED_USABLE:
        weak.append(f"{share:.0%} of the responses are unscored, over {UNSCORED_USABLE:.0%}")
    name: VerdictName = "do not use" if fatal else "weak" if weak else "usable"
    return name, fatal + weak


def _kept_gates(found: VerdictInputs) -> tuple[list[str], list[str]]:
    fatal: list[str] = []
    weak: list[str] = []
    sides = (("positive", found.n_kept_positive), ("negative", found.n_kept_negative))
    for side, n_kept in sides:
        if n_kept < KEPT_WEAK:
            fatal.append(f"{n_kept} {side} responses passed the thresholds, {KEPT_WEAK} are needed")
        elif n_kept < KEPT_USABLE:
            weak.append(f"only {n_kept} {side} responses passed the thresholds")
    return fatal, weak


CHANCE = 0.5

# The seeds' "over 90 %", on what was left out.
LEFT_OUT_USABLE = 0.9

HELD_OUT_ACCURACY_USABLE = 0.9

# Near one half the best of many layers is chance, whatever its own interval says.
LEFT_OUT_WEAK = 0.6

# Instructions are few and differ, so less is asked; below it the words of the instructions
# explain much of the direction.
LEFT_OUT_INSTRUCTION_USABLE = 0.7

# Each is one observation: with fewer even a perfect AUROC cannot be told from chance.
FEWEST_INSTRUCTIONS = 4

SHUFFLED_MEANS_LITTLE = 0.9

# Where directions drawn at random separate as well as this, AUROC cannot rank vectors.
RANDOM_SEPARATES = 0.95

# cos 45 degrees: less than half of the squared length is the truth's.
ANGLE_USABLE = 45.0

ANGLE_UNKNOWN = 90.0

# A covariate that surely tells the sides apart this well is named, whether or not the vector
# follows it within the sides: where the two always go together, nothing within the sides shows it.
CONFOUND_AUROC = 0.7

CONFOUND_CORRELATION = 0.3

CONFOUND_WORDS = {
    "response_length": ("are longer than", "are shorter than"),
    "instruction_words": (
        "repeat more of their instruction's words than",
        "repeat fewer of their instruction's words than",
    ),
    "refusal_words": (
        "begin with words of refusal more often than",
        "begin with words of refusal less often than",
    ),
}

LEFT_OUT_NAMES = {"instruction": "instructions", "question": "questions"}


def vector_facts(quality: Mapping[str, Any], methods: Mapping[str, Any]) -> VectorFacts:
    """The facts out of a quality dict and the methods' details."""
    layer, method = quality["best"]["layer"], quality["best"]["method"]
    difference, half = quality["mean_difference"], quality["methods"][method]["held_out_half"]
    is_other = method != "mean_diff" and half is not None
    probe = methods.get("probe")
    probe_layer = quality["best"]["by_method"].get("probe")
    return VectorFacts(
        layer=layer,
        is_mean_difference=not is_other,
        n_instructions=quality["n_instructions"],
        question=_left_out(
            half["auroc"] if is_other else difference["leave_one_question_out_auroc"], layer
        ),
        instruction=_left_out(difference["leave_one_instruction_out_auroc"], layer),
        angle_upper=difference["angle_upper_degrees"][layer],
        shuffled=None if is_other else difference["shuffled_labels_auroc"][layer],
        probe_accuracy=probe[quality["position"]]["held_out_acc"][probe_layer] if probe else None,
        has_converged=_has_converged(methods.get(method), quality["position"], layer),
    )


def vector_gates(facts: VectorFacts) -> tuple[list[str], list[str]]:
    """Sentences of the failed gates: those that make a vector useless, those that weaken it."""
    fatal: list[str] = []
    weak: list[str] = []
    at = f"at layer {facts.layer}"
    if facts.angle_upper is None:
        weak.append("nothing tells how sure the direction is: a side was kept of one prompt only")
    elif facts.angle_upper >= ANGLE_UNKNOWN:
        # says nothing of a direction that another method found
        kind = fatal if facts.is_mean_difference else weak
        kind.append(f"the mean difference {at} is no longer than its sampling noise")
    elif facts.angle_upper > ANGLE_USABLE:
        weak.append(
            f"the mean difference {at} may be {facts.angle_upper:.0f} degrees off the true "
            f"direction, over {ANGLE_USABLE:g}"
        )
    left_out_fatal, left_out_weak = _left_out_gates(facts, at)
    fatal, weak = fatal + left_out_fatal, weak + left_out_weak
    if facts.probe_accuracy is not None and facts.probe_accuracy <= HELD_OUT_ACCURACY_USABLE:
        weak.append(
            f"the probe's held-out accuracy {facts.probe_accuracy:.0%} is not over "
            f"{HELD_OUT_ACCURACY_USABLE:.0%}"
        )
    return fatal, weak


def _left_out_gates(facts: VectorFacts, at: str) -> tuple[list[str], list[str]]:
    fatal: list[str] = []
    weak: list[str] = []
    question, instruction = facts.question, facts.instruction
    if question is not None and (question.low <= CHANCE or question.auroc <= LEFT_OUT_WEAK):
        fatal.append(
            f"on left-out questions the direction {at} separates hardly better than chance "
            f"(AUROC {question.auroc:.2f}, 95 % from {question.low:.2f})"
        )
    elif question is not None and _is_chance(question, facts.shuffled):
        fatal.append(
            f"AUROC {question.auroc:.2f} on left-out questions {at} is not over the "
            f"{facts.shuffled:.2f} that shuffled labels reach"
        )
    elif question is not None and question.auroc <= LEFT_OUT_USABLE:
        weak.append(
            f"AUROC {question.auroc:.2f} on left-out questions {at} is not over {LEFT_OUT_USABLE:g}"
        )
    if instruction is not None:
        kind = fatal if facts.is_mean_difference else weak
        _instruction_gate(instruction, facts.n_instructions, at, fatal=kind, weak=weak)
    return fatal, weak


def _instruction_gate(
    found: LeftOut, n_instructions: int, at: str, *, fatal: list[str], weak: list[str]
) -> None:
    """Few instructions are a wide interval: that alone makes a vector weak, never useless."""
    if found.auroc <= LEFT_OUT_WEAK:
        fatal.append(
            f"on left-out instructions the mean difference {at} separates no better than chance "
            f"(AUROC {found.auroc:.2f}): it may hold the instructions' words alone"
        )
    elif found.low <= CHANCE and n_instructions >= FEWEST_INSTRUCTIONS:
        weak.append(
            f"AUROC {found.auroc:.2f} on left-out instructions {at} may be chance (95 % from "
            f"{found.low:.2f}): it may hold the instructions' words alone"
        )
    elif found.auroc <= LEFT_OUT_INSTRUCTION_USABLE:
        weak.append(
            f"AUROC {found.auroc:.2f} on left-out instructions {at} is not over "
            f"{LEFT_OUT_INSTRUCTION_USABLE:g}"
        )


def vector_notes(quality: Mapping[str, Any], facts: VectorFacts, *, trait: str) -> list[str]:
    """What fails no gate and should be known: confounds, and what could not be measured."""
    notes = left_out_notes(facts)
    if facts.instruction is not None and facts.n_instructions < FEWEST_INSTRUCTIONS:
        notes.append(
            f"{facts.n_instructions} instruction pairs do not show whether the direction holds for "
            f"others: from {FEWEST_INSTRUCTIONS} on that is tested"
        )
    random = quality["mean_difference"]["random_vector_auroc"][facts.layer]
    if random is not None and random > RANDOM_SEPARATES:
        notes.append(
            f"of directions drawn at random one in twenty reaches AUROC {random:.3f} on these "
            "responses: judge the vector by its angle and Cohen's d rather than by AUROC"
        )
    if facts.has_converged is False:
        notes.append(
            f"the fit of {quality['best']['method']} at layer {facts.layer} did not converge: "
            "another seed may give another direction"
        )
    for name, found in quality["confounds"].items():
        # a trait of refusal is measured by it, not confounded
        if name in CONFOUND_WORDS and (name, trait) != ("refusal_words", "refusal"):
            notes += _confound_notes(name, found, facts.layer)
    return notes


def left_out_notes(facts: VectorFacts) -> list[str]:
    """A sentence for each kind of leaving out that was not measured, so that no gate saw it."""
    return [
        f"leaving out {words} was not possible: too few were kept on one side"
        for name, words in LEFT_OUT_NAMES.items()
        if getattr(facts, name) is None
    ]


def _confound_notes(name: str, found: Mapping[str, Any], layer: int) -> list[str]:
    value, (low, high) = found["auroc"]["value"], found["auroc"]["interval"]
    correlation = found["correlation"][layer]
    if low is None or high is None:
        return []
    if low <= CONFOUND_AUROC and high >= 1 - CONFOUND_AUROC:
        return []
    way = 1 if low > CONFOUND_AUROC else -1
    note = (
        f"positive responses {CONFOUND_WORDS[name][way < 0]} negative ones: this alone tells the "
        f"sides apart (AUROC {value:.2f}, 95 % {low:.2f} to {high:.2f})"
    )
    if correlation is None:
        return [note]
    within = f"the projection at layer {layer}"
    if way * correlation > CONFOUND_CORRELATION:
        return [
            f"{note}, and {within} goes with it within the sides (correlation {correlation:.2f}): "
            "the vector may measure it rather than the trait"
        ]
    return [
        f"{note}; {within} does not go with it within the sides (correlation {correlation:.2f}), "
        "which speaks against the vector measuring just that"
    ]


def _is_chance(question: LeftOut, shuffled: float | None) -> bool:
    """With a handful of prompts shuffled labels reach anything, and say nothing."""
    return shuffled is not None and question.auroc <= shuffled <= SHUFFLED_MEANS_LITTLE


def _has_converged(
    fits: Mapping[str, Mapping[str, list[float | None]]] | None, position: str, layer: int
) -> bool | None:
    converged = fits[position].get("converged") if fits else None
    return None if converged is None else bool(converged[layer])


def _left_out(found: Mapping[str, Any], layer: int) -> LeftOut | None:
    value, (low, _) = found["value"][layer], found["interval"][layer]
    return None if value is None or low is None else LeftOut(value, low)


# As for questions left out of training.
HELD_OUT_USABLE = 0.9

HELD_OUT_WEAK = 0.6


def check_facts(quality: Mapping[str, Any]) -> CheckFacts:
    """The facts out of a quality dict."""
    layer, tested = quality["best"]["layer"], quality["evaluation"]
    own = tested["methods"][quality["best"]["method"]] if tested else None
    separation = own["separation"] if own else None
    return CheckFacts(
        layer=layer,
        held_out=_with_low(separation["auroc"], layer) if separation else None,
        follows=_with_low(own["correlation"], layer) if own and own["correlation"] else None,
        too_few=tested is not None and separation is None,
        rise=_rise(quality["causal"]),
    )


def check_gates(facts: CheckFacts) -> tuple[list[str], list[str]]:
    """Sentences of the failed gates: those that make a vector useless, those that weaken it."""
    fatal: list[str] = []
    weak: list[str] = []
    if facts.too_few:
        weak.append(
            "too few responses to the evaluation questions show the trait or its opposite to test "
            "the vector on them"
        )
    if facts.held_out is not None:
        value, low = facts.held_out
        where = f"on the evaluation questions at layer {facts.layer}"
        if low <= CHANCE or value <= HELD_OUT_WEAK:
            fatal.append(
                f"{where} the vector separates hardly better than chance (AUROC {value:.2f}, 95 % "
                f"from {low:.2f})"
            )
        elif value <= HELD_OUT_USABLE:
            weak.append(f"AUROC {value:.2f} {where} is not over {HELD_OUT_USABLE:g}")
    if facts.follows is not None and facts.follows[1] <= 0:
        # the sides differ by their instructions whatever the judge says; this asks the judge
        fatal.append(
            f"on the evaluation questions the projection at layer {facts.layer} does not surely "
            f"go with the judge's trait score (correlation {facts.follows[0]:.2f}, 95 % from "
            f"{facts.follows[1]:.2f})"
        )
    return fatal, weak + _causal_gates(facts.rise)


def _causal_gates(rise: Rise | None) -> list[str]:
    if rise is None:
        return []
    if rise.strength is None or rise.value is None:
        return ["steering with the vector leaves no readable answers at any strength tried"]
    at = f"steering with strength {rise.strength:.3g}"
    if rise.low is None:
        return [f"{at} was tried on one question only, which shows no spread"]
    if rise.low <= 0:
        return [
            f"{at} does not surely show the trait: its score rises by {rise.value:.0f}, 95 % from "
            f"{rise.low:.0f}"
        ]
    if rise.over_random_low is not None and rise.over_random_low <= 0:
        return [f"{at} raises the trait no more than random vectors of the same length do"]
    return []


def _with_low(found: Mapping[str, Any], layer: int) -> tuple[float, float] | None:
    value, low = found["value"][layer], found["interval"][layer][0]
    return None if value is None or low is None else (value, low)


def _rise(causal: Mapping[str, Any] | None) -> Rise | None:
    if causal is None:
        return None
    curve, over = causal["vector"], causal["rise_over_random"]
    low = (curve["rise"]["interval"] or [None])[0]
    return Rise(curve["rise_at"], curve["rise"]["value"], low, over["interval"][0])
