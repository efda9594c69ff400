"""What is known of the kept responses beside their activations: prompts, lengths, borrowed words.

Knows nothing of vectors.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Float64 = NDArray[np.float64]
Group = tuple[int, int]
Drawn = tuple[Sequence[Hashable], Sequence[Hashable]]
"""Labels of the rows of both sides; an interval draws rows with the same label together."""
# The spread over fewer questions is hardly known; prompts are drawn then.
FEWEST_QUESTIONS = 5
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, eq=False)
class KeptRows:
    """The kept responses of one polarity, in the order of their activations; arrays [n].

    `instruction` and `question` are indices; `response_length` counts tokens and
    `instruction_words` is the share of a response's words that its instruction uses too.
    """

    instruction: Sequence[int]
    question: Sequence[int]
    response_length: Float64
    instruction_words: Float64

    @property
    def prompts(self) -> list[Group]:
        """The prompt of each row, (instruction, question); rollouts of a prompt share it."""
        return list(zip(self.instruction, self.question, strict=True))


def independent_groups(prompts: tuple[Sequence[Group], Sequence[Group]], *, fewest: int) -> Drawn:
    """What to draw whole: the questions of the prompts, since what a question adds to one side it
    adds under every instruction; the prompts where a side has fewer than `fewest` questions."""
    questions = ([question for _, question in prompts[0]], [question for _, question in prompts[1]])
    return questions if min(len(set(side)) for side in questions) >= fewest else prompts


def borrowed_share(response: str, instruction: str) -> float:
    """Share of the different words of a response that stand in the instruction, 0 to 1."""
    words = {word.lower() for word in _WORD.findall(response)}
    given = {word.lower() for word in _WORD.findall(instruction)}
    return len(words & given) / len(words) if words else 0.0
