"""How sure the mean-difference direction is with the samples so far, at the layers that matter.

Knows nothing of waves or of when to stop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.convergence import Certainty
from traitlens.mean_diff import mean_diff
from traitlens.quality import direction_angles, vector_separation
from workers.best_layer import candidate_layers
from workers.kept_rows import Array, Group, independent_groups

# A direction needs some prompts on each side before its spread means anything.
FEWEST_PROMPTS = 5


def certainty(
    sides: tuple[Array, Array], *, prompts: tuple[Sequence[Group], Sequence[Group]]
) -> Certainty:
    """From kept activations [n, L+1, d_model] of both sides and the prompt of each row.

    The layers that matter are the one with the largest Cohen's d and its neighbors.
    """
    n_kept = {"positive": len(sides[0]), "negative": len(sides[1])}
    if min(len(set(one)) for one in prompts) < FEWEST_PROMPTS:
        return Certainty(n_kept, [], [])
    vectors = mean_diff(*sides).vectors
    groups = independent_groups(prompts, fewest=FEWEST_PROMPTS)
    separated = vector_separation(vectors, *sides, groups=groups, n_bootstrap=1)
    usable = candidate_layers(vectors.shape[0])
    best = max(usable, key=lambda layer: np.nan_to_num(separated.cohens_d.value[layer], nan=-1.0))
    layers = [layer for layer in (best - 1, best, best + 1) if layer in usable]
    angles = direction_angles(sides[0][:, layers], sides[1][:, layers], groups=groups)
    return Certainty(n_kept, layers, [angle.upper for angle in angles])
