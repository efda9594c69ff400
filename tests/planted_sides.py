"""Activations of two sides that lie apart as a test wants it, and what is found of their vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from domain.verdict.gates import gate_findings
from domain.verdict.record import (
    Finding,
    Gate,
    Quality,
    Severity,
)
from tasks.stages.quality import vector_quality
from tests.quality_records import metrics
from traitlens.assess.kept_rows import KeptRows
from traitlens.methods.mean_diff import mean_diff

N_INSTRUCTIONS, N_QUESTIONS, N_ROLLOUTS = 5, 8, 3
N = N_INSTRUCTIONS * N_QUESTIONS * N_ROLLOUTS


def kept_rows(length: np.ndarray | None = None) -> KeptRows:
    instruction = np.repeat(np.arange(N_INSTRUCTIONS), N_QUESTIONS * N_ROLLOUTS)
    question = np.tile(np.repeat(np.arange(N_QUESTIONS), N_ROLLOUTS), N_INSTRUCTIONS)
    nothing = np.tile([0.0, 1.0], N // 2)
    lengths = nothing if length is None else length
    return KeptRows(instruction.tolist(), question.tolist(), lengths, nothing, nothing)


def sides(
    *, gap: float, instruction_noise: float = 0.0, layers: int = 5, width: int = 48, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives `gap` apart at layer 2 and, under more noise, above."""
    rng = np.random.default_rng(seed)
    found = []
    for sign in (0.5, -0.5):
        own = rng.standard_normal((N_INSTRUCTIONS, 1, layers, width))
        rows = rng.standard_normal((N_INSTRUCTIONS, N // N_INSTRUCTIONS, layers, width))
        rows += instruction_noise * own
        rows[:, :, 2:, 0] += sign * gap
        rows[:, :, 3:] += rng.standard_normal(rows[:, :, 3:].shape)
        found.append(rows.reshape(N, layers, width).astype(np.float32))
    return found[0], found[1]


def quality_of(pos: np.ndarray, neg: np.ndarray, **changes: Any) -> Quality:
    rows = (kept_rows(), kept_rows())
    given = {"vectors": {"mean_diff": mean_diff(pos, neg).vectors}, "rows": rows, **changes}
    return vector_quality(given.pop("vectors"), pos, neg, **given)


def found_in(quality: Quality, **changes: Any) -> dict[Gate, Finding]:
    """What is found of vectors, but for the tests that were not made."""
    found = gate_findings(metrics(quality=quality, **changes))
    not_made = (Gate.EVALUATION_PENDING, Gate.STEERING_NOT_WORTH)
    return {one.gate: one for one in found if one.gate not in not_made}


def fatal(found: dict[Gate, Finding]) -> set[Gate]:
    return {gate for gate, one in found.items() if one.severity == Severity.FATAL}
