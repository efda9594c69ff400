"""What to change in a request when a judge's server objects to it.

Reads the server's words; where they name nothing, what endpoints were seen to refuse is tried in a
fixed order. Knows nothing of HTTP.
"""

from __future__ import annotations

import re

from workers.judge_call import RefusedError
from workers.judge_profile import JudgeProfile

# Newer hosted models refuse one token; thinking models spend thousands before they answer.
TOKEN_STEPS = (1, 16, 64, 512, 4096)
EFFORTS: tuple[str | None, ...] = ("none", "minimal", "low", None)


def amended(
    profile: JudgeProfile, error: RefusedError, tried: set[JudgeProfile]
) -> JudgeProfile | None:
    """The profile without what the server named; by a fixed order where it named nothing."""
    options = [*_named(profile, error), *_usual_suspects(profile)]
    return next((one for one in options if one not in tried), None)


def _named(profile: JudgeProfile, error: RefusedError) -> list[JudgeProfile]:
    words = f"{error.parameter or ''} {error}".lower()
    found: list[dict[str, object]] = []
    about_tokens = (
        "max_tokens" in words or "max_completion_tokens" in words or "output token" in words
    )
    if (
        about_tokens
        and "max_completion_tokens" in words
        and profile.token_parameter == "max_tokens"
    ):
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
