"""When a trait has enough samples: its direction is known well enough and both sides are kept.

Pure; the angle is measured elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.run_spec import RunSpec

# With fewer the bootstrap knows little of its own uncertainty.
MINIMUM_KEPT = 30


@dataclass(frozen=True)
class Certainty:
    """What a wave leaves: kept responses by side, and at the layers that matter the 95 % bound in
    degrees on the direction's angle to the true one; both empty where a side has too little."""

    n_kept: dict[str, int]
    layers: list[int]
    degrees: list[float]


@dataclass(frozen=True)
class Decision:
    """Whether a trait's samples end here, whether by being enough, and why in words."""

    stops: bool
    converged: bool
    reason: str


def decide(found: Certainty, spec: RunSpec, *, is_last: bool) -> Decision:
    """Whether to go on after a wave."""
    limit, few = spec.converged_degrees, min(found.n_kept.values())
    if found.degrees:
        worst = max(found.degrees)
        words = (
            f"the mean difference is within {worst:.1f} degrees of the true direction at layers "
            f"{', '.join(map(str, found.layers))}"
        )
        if worst <= limit and few >= MINIMUM_KEPT:
            return Decision(True, True, f"enough: {words}; {few} kept on the smaller side")
    else:
        words = f"the angle is unknown with {few} kept on one side"
    if is_last:
        return Decision(True, False, f"everything is generated: {words}")
    return Decision(False, False, f"goes on: {words}; {few} kept on the smaller side")
