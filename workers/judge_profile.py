"""How one judge wants to be asked: the request that its endpoint accepts, found by the probe.

Knows nothing of HTTP or of scores.
"""

from __future__ import annotations

from orchestrator.run_spec import Frozen
from orchestrator.scores import Digits, Mode, Scale

# "100" written digit by digit after a leading space
WALK_TOKENS = 4


class JudgeProfile(Frozen):
    """What an endpoint and model accept, and the mode that follows; one per run."""

    mode: Mode = "logprob"
    scale: Scale = "0_100"
    votes: int = 1
    token_parameter: str = "max_tokens"
    n_tokens: int = 1
    top_logprobs: int = 20
    temperature: bool = True
    seed: bool = True
    reasoning_effort: str | None = None
    nullable_schema: bool = True
    digits: Digits = "whole"

    def body(self, model: str, prompt: str, *, vote: int = 0) -> dict[str, object]:
        """The request's body; vote 0 is the least random the endpoint allows, others sample."""
        found: dict[str, object] = {
            "model": model,
            "messages": [{"role": "user", "content": prompt + self._tail()}],
            self.token_parameter: self.n_tokens,
        }
        if self.mode == "logprob":
            found.update(logprobs=True, top_logprobs=self.top_logprobs)
        if self.mode == "structured":
            found["response_format"] = self._schema()
        if self.temperature:
            found["temperature"] = 0 if vote == 0 else 1
        if self.seed:
            found["seed"] = vote
        if self.reasoning_effort is not None:
            found["reasoning_effort"] = self.reasoning_effort
        return found

    def summary(self) -> str:
        """One line for people: mode, scale and what was found out."""
        if self.mode == "logprob":
            how = f"{self.top_logprobs} alternatives, {self.n_tokens} tokens, digits {self.digits}"
        else:
            how = f"{self.votes} votes of up to {self.n_tokens} tokens"
        effort = f", reasoning effort {self.reasoning_effort}" if self.reasoning_effort else ""
        return f"asks in mode {self.mode} on scale {self.scale}: {how}{effort}"

    def _tail(self) -> str:
        """What the prompt needs beyond the trait's own words, which ask for a number 0 to 100."""
        scale = _SCALE_TAILS[self.scale]
        if self.mode == "structured":
            key = _key(self.scale)
            return f"{scale}\n\nPut that answer in a JSON object under {key!r}; null if you refuse."
        return scale

    def _schema(self) -> dict[str, object]:
        key = _key(self.scale)
        if self.scale in ("binary", "binary_text"):
            value: dict[str, object] = {"type": "string", "enum": ["YES", "NO", "REFUSAL"]}
        else:
            value = {"type": ["integer", "null"] if self.nullable_schema else "integer"}
        schema = {
            "type": "object",
            "properties": {key: value},
            "required": [key],
            "additionalProperties": False,
        }
        return {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "strict": True, "schema": schema},
        }


_SCALE_TAILS: dict[Scale, str] = {
    "0_100": "",
    "0_10": "\n\nInstead of 0 to 100, answer with one digit from 0 (the low end of that scale) to "
    "9 (its high end), or REFUSAL. Say nothing else.",
    "binary": "\n\nInstead of a number, answer YES if you would give 50 or more on that scale, NO "
    "if less, or REFUSAL. Say nothing else.",
    "binary_text": "\n\nInstead of a number alone, think briefly and end with "
    "<answer>YES</answer> if you would give 50 or more on that scale, <answer>NO</answer> if less, "
    "or <answer>REFUSAL</answer>.",
}


def _key(scale: Scale) -> str:
    return "answer" if scale in ("binary", "binary_text") else "score"
