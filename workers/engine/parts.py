"""The parts of a response while it is made: its thought and its answer, each with a limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from domain.thoughts import ResponseParts
from workers.engine.generation import Finish, GenerationRequest, Sampling
from workers.models.model import LoadedModel


def most_tokens(model: LoadedModel, sampling: Sampling) -> int:
    """Tokens that are expected of a response of this model at most."""
    return sampling.most_tokens if model.thinking.may_think else sampling.max_new_tokens


class FollowedParts:
    """Follows one response; without a limit for thoughts all of it is answer.

    What the template shows does not matter here: some models that are told not to think do.
    """

    def __init__(self, model: LoadedModel, request: GenerationRequest) -> None:
        self._sampling = request.sampling
        is_split = request.sampling.max_thought_tokens > 0
        self._read = ResponseParts(model.text_of, request.opened) if is_split else None

    @property
    def answer_start(self) -> int:
        """Tokens before the answer."""
        return self._read.answer_start if self._read else 0

    @property
    def has_answer(self) -> bool:
        """Whether the last token is of the answer, for certain."""
        return self._read is None or self._read.has_answer

    def passes(self, token: int) -> bool:
        """Whether a stop token does not end the response here."""
        return self._read is not None and self._read.passes(token)

    def take(self, ids: Sequence[int]) -> bool:
        """Look at the last of the response's tokens so far; whether it is at a limit."""
        if self._read is None:
            return len(ids) >= self._sampling.max_new_tokens
        self._read.take(ids)
        if self._read.is_open:
            return len(ids) >= self._sampling.max_thought_tokens
        return len(ids) - self._read.closed_at >= self._sampling.max_new_tokens

    def ends_thought(self, n_tokens: int) -> bool:
        """Whether the answer begins behind so many tokens."""
        read = self._read
        return read is not None and not read.is_open and 0 < read.answer_start == n_tokens

    def finish(self, otherwise: Literal["stop", "length"]) -> Finish:
        """How the response ended."""
        return "thought" if self._read and self._read.is_open else otherwise
