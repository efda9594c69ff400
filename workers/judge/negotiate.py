"""Finds out, once per run, what a judge's endpoint and model accept.

No list of model names: it asks, reads what the server says against it, and asks again. The modes
are tried in the order logprob, structured, text; the first that gives an answer is the run's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from domain.errors import JudgeError
from domain.scoring.prices import Limits
from domain.scoring.replies import integer_of_token, is_refusal_token, number_goes_on, scoring
from domain.scoring.scores import Evidence, Mode, Reply, Scale, Score
from workers.judge.client import HealingError, JudgeClient, RefusedError, judge_client_error
from workers.judge.profile import WALK_TOKENS, JudgeProfile, amended, with_more_tokens
from workers.judge.retries import Sleep

MAX_QUESTIONS_A_MODE = 14
PATIENCE = 4
VOTES: dict[Mode, int] = {"logprob": 1, "structured": 3, "text": 3}
FIRST_TOKENS: dict[Mode, int] = {"logprob": 1, "structured": 64, "text": 512}


@dataclass
class Negotiated:
    """What the negotiation found, and what it cost to find it."""

    profile: JudgeProfile
    replies: list[Reply] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)

    def describe(self) -> str:
        """One line for people, with why a richer mode is not used."""
        why = ""
        if self.profile.mode != "logprob" and self.refusals:
            why = f" (no logprobs: {self.refusals[0]})"
        return f"the judge {self.profile.summary()}{why}"


async def negotiate(
    client: JudgeClient,
    model: str,
    prompts: Mapping[str, str],
    *,
    scale: Scale = "0_100",
    votes: int | None = None,
    sleep: Sleep = asyncio.sleep,
) -> Negotiated:
    """The profile that the judge answers to, tried on one prompt, then used for all of them, so
    that a trait it does not know is found before anything is generated.

    Raises JudgeError with the server's words when no mode works.
    """
    judge = _Asked(client, model, sleep)
    first = next(iter(prompts.values()))
    found = Negotiated(JudgeProfile())
    modes: tuple[Mode, ...] = (
        ("text",) if scale == "binary_text" else ("logprob", "structured", "text")
    )
    for mode in modes:
        found.profile = JudgeProfile(mode=mode, scale=scale, n_tokens=FIRST_TOKENS[mode])
        if await _works(judge, first, found):
            found.profile = found.profile.model_copy(update={"votes": votes or VOTES[mode]})
            found.refusals = list(dict.fromkeys(found.refusals))
            await _check_each(judge, prompts, found)
            return found
    raise JudgeError(
        f"the judge {model} at {client.url} cannot give a score: "
        f"{'; '.join(dict.fromkeys(found.refusals))}. Choose another judge, or start one with "
        "`orchestrate judge-server --model ...`"
    )


@dataclass(frozen=True)
class _Asked:
    """Who is asked, and how one waits."""

    client: JudgeClient
    model: str
    sleep: Sleep

    async def patiently(self, profile: JudgeProfile, prompt: str) -> tuple[Reply, Limits]:
        """One reply and the limits stated with it. An endpoint that stumbles, or says nothing,
        gets a few chances: a mode is chosen by what a judge says, never by a fault."""
        body = profile.body(self.model, prompt)
        for chance in range(PATIENCE):
            try:
                reply, limits = await self.client.complete(body)
                says = reply.text or reply.candidates or reply.refusal or reply.finish == "length"
                if says or chance == PATIENCE - 1:
                    return reply, limits
                asked = None
            except HealingError as error:
                if error.kind == "unreachable":
                    raise JudgeError(
                        f"no judge answers at {self.client.url}",
                        advice="check --judge-url and that it is running",
                    ) from None
                last, asked = error, error.limits.retry_after_s
            await self.sleep(2.0**chance if asked is None else asked)
        url = self.client.url
        raise JudgeError(f"the judge at {url} does not answer the first question: {last}")


async def _check_each(judge: _Asked, prompts: Mapping[str, str], result: Negotiated) -> None:
    seen: list[Reply] = []
    for name, prompt in list(prompts.items())[1:]:
        try:
            reply, result.limits = await judge.patiently(result.profile, prompt)
            seen.append(reply)
        except RefusedError as error:
            raise JudgeError(f"the judge refused the prompt of {name}: {error}") from None
    result.replies += seen
    # a judge may show how it writes numbers only where its first answer has one digit
    if any(number_goes_on(reply.said.strip()[:1], reply.following) for reply in seen):
        result.profile = result.profile.model_copy(update={"digits": "split"})


async def _works(judge: _Asked, prompt: str, found: Negotiated) -> bool:
    """Whether the mode gives a score once the profile leaves out what the server objects to."""
    tried: set[JudgeProfile] = set()
    while found.profile not in tried and len(tried) < MAX_QUESTIONS_A_MODE:
        profile = found.profile
        tried.add(profile)
        try:
            reply, found.limits = await judge.patiently(profile, prompt)
        except RefusedError as error:
            if error.said.kind == "lasts":
                raise judge_client_error(judge.client, error) from None
            if error.said.reason == "filtered":
                # an objection to what the judge has to read, which no other form mends
                raise JudgeError(f"the judge refuses its own instructions: {error}") from None
            found.refusals.append(str(error))
            found.profile = amended(profile, error, tried) or profile
            continue
        found.replies.append(reply)
        after = _after_reply(profile, reply)
        if after is None:
            found.refusals.append(_what_is_wrong(profile, reply))
            return False
        if after == profile:
            return True
        found.profile = after
    return False


def _after_reply(profile: JudgeProfile, reply: Reply) -> JudgeProfile | None:
    """The profile itself when its reply can be used, an amended one, or None."""
    if profile.mode == "logprob":
        return _after_logprobs(profile, reply)
    if reply.finish == "length" and not reply.said.strip():
        return with_more_tokens(profile)
    if profile.mode == "structured" and not reply.said.strip().startswith("{"):
        return None
    said = scoring(Evidence(replies=(reply,), mode=profile.mode, scale=profile.scale))
    usable = isinstance(said, Score) or said.reason == "refused"
    if not usable and reply.finish == "length":
        return with_more_tokens(profile)
    return profile if usable else None


def _after_logprobs(profile: JudgeProfile, reply: Reply) -> JudgeProfile | None:
    only_thinks = bool(reply.text.strip()) and not reply.said.strip()
    if only_thinks or not any(one.probability for one in reply.candidates):
        goes_on_later = reply.finish == "length" and not reply.said.strip()
        more = with_more_tokens(profile) if goes_on_later else None
        return more if more and more.n_tokens <= 64 else None
    if profile.scale != "0_100" or profile.digits == "split":
        return profile
    if number_goes_on(reply.said.strip()[:1], reply.following):
        return profile.model_copy(update={"digits": "split"})
    shows_whole_numbers = any(
        (integer_of_token(c.token, top=100) or 0) >= 10 for c in reply.candidates
    )
    if shows_whole_numbers or not _is_single_digit(reply):
        return profile
    if profile.n_tokens < WALK_TOKENS:
        # one digit and no room for another: ask for more tokens and look again
        return profile.model_copy(update={"n_tokens": WALK_TOKENS})
    # a lone digit with room for more: reading it by the walk is right for either kind of judge
    return profile.model_copy(update={"digits": "split"})


def _is_single_digit(reply: Reply) -> bool:
    digits = [c for c in reply.candidates if integer_of_token(c.token, top=9) is not None]
    return bool(digits) and not any(is_refusal_token(c.token) for c in reply.candidates[:1])


def _what_is_wrong(profile: JudgeProfile, reply: Reply) -> str:
    if profile.mode == "logprob" and reply.text.strip() and not reply.said.strip():
        return "it thinks before it answers"
    if profile.mode == "logprob":
        return "it answered without token probabilities (logprobs)"
    if profile.mode == "structured":
        return "it ignored the JSON schema"
    return f"it answered {reply.said[:80]!r}, which is no score"
