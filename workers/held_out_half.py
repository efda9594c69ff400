"""Every method made from one half of the questions and tested on the other.

Knows nothing of which layer is then chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from traitlens.methods import METHODS
from traitlens.quality import vector_separation
from workers.kept_rows import FEWEST_QUESTIONS, Array, KeptRows, independent_groups
from workers.plain_numbers import separation_json

# With fewer questions each half is a question or none, and says nothing.
QUESTIONS_TO_HALVE = 4
# One prompt on a side shows no spread, so no interval.
FEWEST_PROMPTS = 2


def held_out_halves(
    methods: tuple[str, ...],
    pos: Array,
    neg: Array,
    *,
    rows: tuple[KeptRows, KeptRows],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Each method made from half of the questions and tested on the other half; {} if too few."""
    questions = sorted(set(rows[0].question) & set(rows[1].question))
    if len(questions) < QUESTIONS_TO_HALVE:
        return {}
    first = np.random.default_rng(seed).permutation(questions)[: len(questions) // 2]
    made = [np.isin(side.question, first) for side in rows]
    prompts = [np.array(side.prompts) for side in rows]
    fit_prompts, test_prompts = (
        tuple(
            [(int(i), int(q)) for i, q in p[m == half]] for p, m in zip(prompts, made, strict=True)
        )
        for half in (True, False)
    )
    if min(len(set(side)) for side in (*fit_prompts, *test_prompts)) < FEWEST_PROMPTS:
        return {}
    fit_groups, test_groups = (
        independent_groups((half[0], half[1]), fewest=FEWEST_QUESTIONS)
        for half in (fit_prompts, test_prompts)
    )
    held_out = (pos[~made[0]], neg[~made[1]])
    made_from = (pos[made[0]], neg[made[1]])
    found = {}
    for name in methods:
        vectors = METHODS[name](*made_from, groups=fit_groups).vectors
        separated = vector_separation(vectors, *held_out, groups=test_groups)
        found[name] = {**separation_json(separated), "n_questions": len(questions) - len(first)}
    return found
