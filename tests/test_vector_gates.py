"""Protects the gates on a vector: the truth passes, what means nothing does not, each is named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from domain.verdict.gates import gate_findings, with_verdict
from domain.verdict.record import (
    Finding,
    Gate,
    Severity,
)
from tests.planted_sides import (
    fatal,
    found_in,
    quality_of,
    sides,
)
from tests.quality_records import everywhere, metrics, quality, read
from traitlens.assess.kept_rows import KeptRows
from traitlens.methods.mean_diff import mean_diff


def test_the_planted_layer_is_chosen_and_every_gate_passes() -> None:
    quality = quality_of(*sides(gap=5.0))

    assert quality.best.layer == 2
    failed = [
        f for f in found_in(quality).values() if f.severity in (Severity.FATAL, Severity.WEAK)
    ]
    # arrays alone show no use
    assert [one.gate for one in failed] == [Gate.NO_USE_SHOWN]
    difference = quality.mean_difference
    assert (difference.angle_upper_degrees[2] or 90) < 30
    assert (difference.split_half_cosine.value[2] or 0) > 0.7
    assert (difference.leave_one_question_out_auroc.interval[2][0] or 0) > 0.9
    assert (difference.shuffled_labels_auroc[2] or 1) < 0.75
    assert difference.random_p and difference.shuffled_p
    assert max(difference.random_p[2] or 1, difference.shuffled_p[2] or 1) < 0.02


@pytest.mark.parametrize("seed", range(6))
def test_labels_at_random_are_not_to_be_used(seed: int) -> None:
    pos, neg = sides(gap=0.0, seed=seed)

    assert fatal(found_in(quality_of(pos, neg)))


def test_a_direction_that_knows_only_its_instructions_is_named_so() -> None:
    pos, neg = sides(gap=0.0, instruction_noise=3.0)

    found = found_in(quality_of(pos, neg))

    assert fatal(found) == {Gate.INSTRUCTIONS_CHANCE, Gate.ANGLE_NOISE}
    assert Gate.QUESTIONS_LOW not in found


def test_a_best_fit_that_did_not_converge_is_noted() -> None:
    pos, neg = sides(gap=5.0)
    quality = quality_of(pos, neg, vectors={"ica": mean_diff(pos, neg).vectors})

    def found(converged: float) -> dict[Gate, Finding]:
        fits = {"ica": {"response_avg": {"converged": (1.0, 1.0, converged, 1.0, 1.0)}}}
        return found_in(quality, methods=fits)

    assert quality.best.layer == 2
    noted = found(0.0)[Gate.NOT_CONVERGED]
    assert (noted.of, noted.layer) == ("ica", 2)
    assert Gate.NOT_CONVERGED not in found(1.0)


def test_one_instruction_and_one_question_leave_gaps_and_say_so() -> None:
    pos, neg = sides(gap=5.0)
    alone = KeptRows([0] * 4, [0] * 4, np.arange(4.0), np.zeros(4), np.zeros(4))

    quality = quality_of(pos[:4], neg[:4], rows=(alone, alone))

    found = found_in(quality)
    assert found[Gate.ANGLE_UNKNOWN].severity == Severity.WEAK
    assert quality.methods["mean_diff"].held_out_half is None
    assert "too few questions" in quality.best.rule
    assert {Gate.INSTRUCTIONS_NOT_LEFT_OUT, Gate.QUESTIONS_NOT_LEFT_OUT} <= set(found)
    json.dumps(quality.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize(
    ("n_instructions", "gate"),
    [
        (1, Gate.INSTRUCTIONS_ONE),
        (5, Gate.INSTRUCTIONS_NOT_LEFT_OUT),
        (None, Gate.INSTRUCTIONS_NOT_LEFT_OUT),
    ],
)
def test_why_no_instruction_was_left_out_is_told_as_it_was(
    n_instructions: int | None, gate: Gate
) -> None:
    found = gate_findings(metrics(quality=quality(instruction=None), n_instructions=n_instructions))

    both = {Gate.INSTRUCTIONS_ONE, Gate.INSTRUCTIONS_NOT_LEFT_OUT}
    assert both & {one.gate for one in found} == {gate}


@pytest.mark.parametrize(
    ("changes", "name", "gate"),
    [
        ({}, "usable", None),
        ({"angle_upper": 90.0}, "do not use", Gate.ANGLE_NOISE),
        ({"angle_upper": None}, "weak", Gate.ANGLE_UNKNOWN),
        ({"angle_upper": 60.0}, "usable with a doubt", None),
        ({"angle_upper": 60.0, "reading": read((0.65, 0.55))}, "weak", Gate.ANGLE_WIDE),
        ({"question": (0.7, 0.45)}, "do not use", Gate.QUESTIONS_CHANCE),
        ({"question": (0.58, 0.52)}, "do not use", Gate.QUESTIONS_CHANCE),
        ({"random_p": 0.06}, "do not use", Gate.QUESTIONS_RANDOM),
        ({"shuffled_p": 0.06}, "do not use", Gate.QUESTIONS_SHUFFLED),
        ({"random_p": 0.06, "shuffled_p": 0.06, "method": "ica"}, "usable", None),
        ({"half_p": 0.06, "method": "ica"}, "do not use", Gate.QUESTIONS_RANDOM),
        ({"half_p": 0.06}, "usable", None),
        ({"random_p": None, "shuffled_p": None}, "usable", None),
        ({"question": (0.69, 0.6)}, "weak", Gate.QUESTIONS_LOW),
        ({"question": (0.85, 0.7)}, "usable", None),
        ({"instruction": (0.55, 0.2)}, "do not use", Gate.INSTRUCTIONS_CHANCE),
        ({"instruction": (0.8, 0.4)}, "weak", Gate.INSTRUCTIONS_UNSURE),
        ({"instruction": (0.8, 0.4), "n_instructions": 3}, "usable", None),
        ({"angle_upper": 90.0, "method": "ica"}, "weak", Gate.ANGLE_NOISE),
        ({"half": (0.55, 0.4), "method": "ica"}, "do not use", Gate.QUESTIONS_CHANCE),
        ({"half": (0.55, 0.4)}, "usable", None),
        ({"instruction": (0.65, 0.55)}, "weak", Gate.INSTRUCTIONS_LOW),
        ({"question": None, "instruction": None}, "usable", None),
    ],
)
def test_each_gate_on_the_vector_decides_and_is_named(
    changes: dict[str, Any], name: str, gate: Gate | None
) -> None:
    decided = with_verdict(metrics(quality=quality(**changes)))

    failed = [one for one in decided.findings if one.severity in (Severity.FATAL, Severity.WEAK)]
    assert decided.verdict == name
    assert [one.gate for one in failed] == [gate][: bool(gate)]


@pytest.mark.parametrize(("position", "is_weak"), [("prompt_last", True), ("response_avg", False)])
def test_the_probe_s_gate_reads_the_position_that_the_quality_is_of(
    position: str, is_weak: bool
) -> None:
    accuracy = {
        name: {"held_out_acc": everywhere(value)}
        for name, value in (("response_avg", 0.99), ("prompt_last", 0.9))
    }
    of_probe = quality(method="probe", position=position)

    found = gate_findings(metrics(quality=of_probe, methods={"probe": accuracy}))

    assert (Gate.PROBE_ACCURACY_LOW in [one.gate for one in found]) == is_weak
