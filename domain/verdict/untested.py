"""Which tests of a trait's vectors were not made, in words.

A gate that has nothing to look at fails nothing, so without these sentences `usable` would say
more than was tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.verdict.gates import check_facts

NO_QUESTIONS = (
    "the definition has no evaluation questions, so the vectors are tested on none and nothing is "
    "steered with them"
)


def untested(metrics: Mapping[str, Any]) -> list[str]:
    """A sentence for each test, on evaluation questions or by steering, that was not made.

    Looks at `quality`, `n_eval_questions`, `checks` (the run's settings), `is_checked` and
    `is_steered_with_others` (the run steered, and with other vectors).
    """
    if not metrics["n_eval_questions"]:
        return [NO_QUESTIONS]
    if metrics["quality"] is None:
        return []
    return [*_evaluation(metrics), *_steering(metrics)]


def _evaluation(metrics: Mapping[str, Any]) -> list[str]:
    if metrics["quality"]["evaluation"] is None:
        if not metrics["checks"]["evaluation"]:
            return ["not tested on evaluation questions (--evaluation 0)"]
        return ["not tested on evaluation questions: their answers are not judged yet"]
    facts = check_facts(metrics["quality"])
    if facts.too_few:
        return []  # a gate of its own
    found = []
    if facts.held_out is None:
        found.append("one evaluation question does not show how sure the AUROC on such is")
    if facts.follows is None:
        found.append(
            "too few evaluation questions have readable answers to ask whether the projection goes "
            "with the judge's trait score"
        )
    return found


def _steering(metrics: Mapping[str, Any]) -> list[str]:
    causal, best = metrics["quality"]["causal"], metrics["quality"]["best"]["method"]
    if causal is not None:
        tested = causal["method"]
        if tested == best:
            return []
        return [f"steering was tested with the {tested} vectors, not with the best, {best}"]
    if not metrics["checks"]["causal"]:
        return ["nothing was steered with these vectors (--causal 0)"]
    if metrics["is_steered_with_others"]:
        return ["steering was not tested with these vectors: the run steered with its own"]
    if not metrics["is_checked"]:
        return ["nothing was steered with these vectors yet"]
    return ["nothing was steered with these vectors: those that the run made were not worth it"]
