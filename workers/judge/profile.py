"""How one judge wants to be asked, and what to change when its server objects to a request.

Where the server's words name nothing, what endpoints were seen to refuse is tried in a fixed order.
"""

from __future__ import annotations

import re

from domain.plan.spec import Frozen
from domain.scoring.scores import Digits, Mode, Scale
from workers.judge.client import RefusedError

# "100" written digit by digit after a leading space
WALK_TOKENS = 4

# Newer hosted models refuse one token; thinking models spend thousands before they answer.
TOKEN_STEPS = (1, 16, 64, 512, 4096)
EFFORTS: tuple[str | None, ...] = ("none", "minimal", "low", None)

SCALE_TAILS: dict[Scale, str] = {
    "0_100": "",
    "0_10": "\n\nInstead of 0 to 100, answer with one digit from 0 (the low end of that scale) to "
    "9 (its high end), or REFUSAL. Say nothing else.",
    "binary": "\n\nInstead of a number, answer YES if you would give 50 or more on that scale, NO "
    "if less, or REFUSAL. Say nothing else.",
    "binary_text": "\n\nInstead of a number alone, think briefly and end with "
    "<answer>YES</answer> if you would give 50 or more on that scale, <answer>NO</answer> if less, "
    "or <answer>REFUSAL</answer>.",
}


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
        scale = SCALE_TAILS[self.scale]
        if self.mode != "structured":
            return scale
        key = _key(self.scale)
        return f"{scale}\n\nPut that answer in a JSON object under {key!r}; null if you refuse."

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


def _key(scale: Scale) -> str:
    return "answer" if scale in ("binary", "binary_text") else "score"


def amended(
    profile: JudgeProfile, error: RefusedError, tried: set[JudgeProfile]
) -> JudgeProfile | None:
    """The profile without what the server named; by a fixed order where it named nothing."""
    options = [*_named(profile, error), *_usual_suspects(profile)]
    return next((one for one in options if one not in tried), None)


def _named(profile: JudgeProfile, error: RefusedError) -> list[JudgeProfile]:
    words = f"{error.parameter or ''} {error}".lower()
    found: list[dict[str, object]] = []
    names_completion = "max_completion_tokens" in words
    about_tokens = names_completion or "max_tokens" in words or "output token" in words
    if names_completion and profile.token_parameter == "max_tokens":
        found.append({"token_parameter": "max_completion_tokens"})
    if "top_logprobs" in words:
        found.append({"top_logprobs": _cap_in(words, profile.top_logprobs)})
    elif "logprob" in words:
        found += [{"reasoning_effort": effort} for effort in EFFORTS[:1]]
    if "temperature" in words and profile.temperature:
        found.append({"temperature": False})
    if re.search(r"\bseed\b", words) and profile.seed:
        found.append({"seed": False})
    if "reasoning" in words or "effort" in words:
        found += [{"reasoning_effort": e} for e in EFFORTS if e != profile.reasoning_effort]
    if about_tokens and profile.n_tokens < TOKEN_STEPS[-1]:
        found.append({"n_tokens": _more_tokens(profile.n_tokens)})
    if "schema" in words or "response_format" in words:
        found.append({"nullable_schema": False})
    return [profile.model_copy(update=one) for one in found]


def _usual_suspects(profile: JudgeProfile) -> list[JudgeProfile]:
    """What endpoints have been seen to refuse without saying so, the cheapest change first."""
    found: list[dict[str, object]] = []
    if profile.mode == "logprob" and profile.top_logprobs > 5:
        found.append({"top_logprobs": 5})
    if profile.token_parameter == "max_tokens":
        found.append({"token_parameter": "max_completion_tokens"})
    if profile.n_tokens < 16:
        found.append({"n_tokens": 16})
    if profile.reasoning_effort is None:
        found.append({"reasoning_effort": "none"})
    if profile.temperature:
        found.append({"temperature": False})
    if profile.seed:
        found.append({"seed": False})
    if profile.mode == "structured" and profile.nullable_schema:
        found.append({"nullable_schema": False})
    return [profile.model_copy(update=one) for one in found]


def _cap_in(words: str, now: int) -> int:
    """The largest number of alternatives that the server names as allowed, else five."""
    named = [int(n) for n in re.findall(r"\b\d{1,2}\b", words) if 0 < int(n) < now]
    return max(named, default=5 if now > 5 else 1)


def with_more_tokens(profile: JudgeProfile) -> JudgeProfile | None:
    """The profile with room for a longer answer; None when it has the most already."""
    if profile.n_tokens >= TOKEN_STEPS[-1]:
        return None
    return profile.model_copy(update={"n_tokens": _more_tokens(profile.n_tokens)})


def _more_tokens(now: int) -> int:
    return next((step for step in TOKEN_STEPS if step > now), TOKEN_STEPS[-1])
