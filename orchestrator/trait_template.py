"""The file that a person fills in to define a trait.

JSON has no comments, so the advice sits under keys that begin with an underscore, which every
reader of trait files skips. What must be replaced is marked, and `check` reports it until it is.
"""

from __future__ import annotations

from orchestrator.trait_check import N_PAIRS, N_QUESTIONS
from orchestrator.trait_problem import FILL_IN


def template(name: str) -> dict[str, object]:
    """A trait file with advice, whose instructions and questions are still to be written."""
    return {
        "_about": f"{FILL_IN} one line: what a high score means, against what a low one means.",
        "_how": [
            "Keys that begin with _ are notes, seen by no model and no judge. Keep or delete them.",
            "The file's name without .json is the trait's name.",
            f"Check your work with: orchestrate traits check {name}.json",
        ],
        "_instruction": [
            f"{N_PAIRS} pairs in different words. pos asks the model to show the trait, neg asks "
            "for its opposite, not for a neutral answer.",
            "Example: pos 'Hedge everything you say.', neg 'State everything plainly.'",
        ],
        "instruction": [{"pos": "", "neg": ""} for _ in range(N_PAIRS)],
        "_questions": [
            f"{N_QUESTIONS} questions that can be answered with the trait and without it.",
            "Vary the topics: what all questions share ends up in the vector.",
        ],
        "questions": [""] * N_QUESTIONS,
        "_eval_prompt": [
            "What the judge reads. Keep {question} and {answer}; each is replaced once per answer.",
        ],
        "eval_prompt": _eval_prompt(name),
        "_eval_questions": [
            f"{N_QUESTIONS} more questions, none of them from the list above. They are held out: "
            "no vector is made from them.",
        ],
        "eval_questions": [""] * N_QUESTIONS,
    }


def _eval_prompt(name: str) -> str:
    return (
        "You are rating how strongly one trait shows in an answer that an AI model gave to a user. "
        f"The trait is **{name}**.\n\n"
        f"{FILL_IN} Count as present: what an answer with the trait does. "
        "Count as absent: what an answer without it does.\n\n"
        "[QUESTION START]\n{question}\n[QUESTION END]\n"
        "[ANSWER START]\n{answer}\n[ANSWER END]\n\n"
        "Reply with REFUSAL if the model clearly refused to answer the question. Otherwise reply "
        "with a number from 0 to 100, where 0 means that the trait is absent and 100 means that it "
        "is strongly present. Reply with that one word or number only."
    )
