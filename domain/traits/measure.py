"""How a trait is scored by measuring its answers: a quantity, and the two values of it that mean 0
and 100.

A trait file's `measure` block takes the place of its `eval_prompt`. The formula goes to the judge
server as part of the prompt, so it is in every record that holds the definition.
"""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_PATTERN, MOST_WORDS = 500, 2000
MARK = "[MEASURE] "

Quantity = Literal[
    "words", "sentences", "matches", "word_share", "sentiment", "bullet_share", "json", "distinct"
]


class Measure(BaseModel):
    """`score = 100 * (quantity - zero) / (hundred - zero)`, never under 0 nor over 100.

    words, sentences: how many the answer has. matches: how often `pattern`, a regular expression
    without regard to case, is found. word_share: share of its words that are in `words`.
    sentiment: the compound score, -1 to 1, of the published VADER lexicon. bullet_share: share of
    its lines that are items of a list. json: 1 if it is a JSON value, else 0. distinct: share of
    its runs of three words that occur once. Shares are 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    by: Quantity
    zero: float
    hundred: float
    pattern: str | None = Field(default=None, max_length=MOST_PATTERN)
    words: tuple[str, ...] = Field(default=(), max_length=MOST_WORDS)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.zero == self.hundred:
            raise ValueError("zero and hundred are the same value; no score can lie between")
        if (self.by == "matches") != (self.pattern is not None):
            raise ValueError("pattern is what `by` matches counts, and nothing else takes one")
        if (self.by == "word_share") != bool(self.words):
            raise ValueError("words are what `by` word_share looks for, and nothing else has any")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern is no regular expression: {error}") from error
        return self

    def score(self, quantity: float) -> float:
        """0 to 100 for a value of the quantity."""
        share = (quantity - self.zero) / (self.hundred - self.zero)
        return 100.0 * min(1.0, max(0.0, share))

    def prompt(self) -> str:
        """The formula as a judge prompt with the two placeholders."""
        formula = self.model_dump_json(exclude_defaults=True)
        # a brace in a pattern must not be taken for a placeholder's
        formula = "{" + formula[1:].replace("{", "\\u007b")
        return (
            f"{MARK}{formula}\n[QUESTION START]\n{{question}}\n[QUESTION END]\n"
            "[ANSWER START]\n{answer}\n[ANSWER END]\nReply with the number from 0 to 100."
        )


COHERENCE = Measure(by="distinct", zero=0.0, hundred=1.0)
"""What stands for coherence where nobody reads: an answer that goes in circles falls under 50."""


def measure_of(prompt: str) -> Measure | None:
    """The formula in a prompt's first line; None for another prompt, ValidationError for a wrong
    one."""
    if not prompt.startswith(MARK):
        return None
    return Measure.model_validate_json(prompt.removeprefix(MARK).partition("\n")[0])
