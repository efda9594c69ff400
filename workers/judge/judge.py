"""The judge: asks an OpenAI-compatible endpoint for scorings, and retries what can heal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from domain.errors import OrchestrateError
from domain.plan.spec import json_digest
from domain.scoring.prices import FREE, TOKENS_PER_CHARACTER, Charged, Cost, Failed, Price
from domain.scoring.replies import score_bounds, scoring, unseen_mass
from domain.scoring.scores import MOST_APART, Evidence, LostReply, Reply, Scoring, UnscoredReason
from domain.traits.judge_prompt import EASY, coherence_prompt
from workers.judge.client import HealingError, JudgeClient, RefusedError, judge_client_error
from workers.judge.profile import JudgeProfile
from workers.judge.retries import Sleep, Tries, retrying_judge_calls

# A digit-splitting judge whose score has bounds too far apart is asked again, so often at most, and
# while a walk has this chance to open another branch; after that the score carries its bounds.
MIN_CHANCE = 0.1
MAX_WALKS = 6

# About half of what a call costs its process, so that a busy one never waits for it.
STARTS_APART_S = 0.001

# Nobody objects to its text.
HARMLESS = coherence_prompt(*EASY)


class Limiter(Protocol):
    """Admits calls; all judge processes on one endpoint share one."""

    async def admit(self, cost: Cost) -> None:
        """Wait until a call may go out, and reserve its cost; raises what ends the run."""

    def answered(self, cost: Cost, result: Charged) -> None:
        """Note an answered call; its reservation becomes what it did cost."""

    async def failed(self, cost: Cost, result: Failed) -> bool:
        """Note a failed call; whether the endpoint is taken to be down, so that nobody burns
        attempts."""

    async def flush(self) -> None:
        """Bring what was noted to the others."""


class KnownReplies(Protocol):
    """Replies by the key of their request; all runs share one."""

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Reply]:
        """The replies that are known."""

    def put(self, key: str, reply: Reply) -> None:
        """Remember a reply, some time soon."""

    async def flush(self) -> None:
        """Write what was put."""


class Slots:
    """The bound on a process's calls in flight, shared by its judges.

    A few calls more may pass the limiter ahead, so that no slot stays empty for a message to Redis.
    """

    def __init__(self, n_calls: int) -> None:
        self.calls = asyncio.Semaphore(n_calls)
        self.ahead = asyncio.Semaphore(n_calls + max(8, n_calls // 4))
        self._next_start = 0.0

    async def start_apart(self) -> None:
        """Wait until the call before is on its way: what starts together ends together, and then
        the replies wait for one another."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._next_start)
        self._next_start = start + STARTS_APART_S
        if start > now:
            await asyncio.sleep(start - now)


@dataclass
class JudgedPrompts:
    """The outcome of one asking: a scoring or None for each prompt, and what stopped it, if
    anything; `evidence` has what was paid for, complete or not."""

    scorings: list[Scoring | None]
    evidence: list[Evidence]
    stopped: OrchestrateError | None = None


@dataclass
class _Asking:
    """State that the calls of one asking share."""

    known: Mapping[str, Reply]
    stopped: OrchestrateError | None = None
    is_form_accepted: asyncio.Task[bool] | None = None
    answered: bool = False
    under_way: dict[str, asyncio.Task[Reply | LostReply]] = field(default_factory=dict)


class Judge:
    """One endpoint and model as one run uses it, with a bound on the calls in flight."""

    def __init__(
        self,
        client: JudgeClient,
        model: str,
        *,
        profile: JudgeProfile,
        slots: Slots,
        limiter: Limiter,
        price: Price | None = FREE,
        cache: KnownReplies | None = None,
        opinion: str = "",
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._client, self._model, self._profile, self._sleep = client, model, profile, sleep
        self._slots, self._price, self._opinion = slots, price, opinion
        self._limiter, self._cache = limiter, cache
        self._tokens_per_character = 0.0

    async def scorings(
        self, prompts: Sequence[str], *, known: Mapping[int, Evidence] | None = None
    ) -> JudgedPrompts:
        """The scoring on each prompt, in order; `known` holds earlier evidence by prompt index.

        Never raises for what ends a run: the outcome says it, beside what was paid for already.
        """
        before = known or {}
        profile = self._profile
        most = max(profile.votes, MAX_WALKS if profile.digits == "split" else 0)
        keys = [self._key(prompt, vote) for prompt in prompts for vote in range(most)]
        asking = _Asking(await self._cache.get_many(keys) if self._cache else {})
        tasks = [
            asyncio.create_task(self._evidence(prompt, asking, before.get(number)))
            for number, prompt in enumerate(prompts)
        ]
        found = [await task for task in tasks]
        await self._limiter.flush()
        if self._cache:
            await self._cache.flush()
        return JudgedPrompts(
            [scoring(evidence) if complete else None for evidence, complete in found],
            [evidence for evidence, _ in found],
            asking.stopped,
        )

    async def _evidence(
        self, prompt: str, asking: _Asking, before: Evidence | None
    ) -> tuple[Evidence, bool]:
        """What the judge says of a prompt, and whether that is all there is to ask."""
        replies = list(before.replies) if before else []
        votes = range(len(replies), self._profile.votes)
        asked = await asyncio.gather(*(self._vote(prompt, vote, asking) for vote in votes))
        replies += [one for one in asked if isinstance(one, Reply)]
        profile = self._profile
        evidence = Evidence(
            replies=tuple(replies),
            lost=tuple(one for one in asked if isinstance(one, LostReply)),
            mode=profile.mode,
            scale=profile.scale,
            digits=profile.digits,
        )
        complete = None not in asked
        while complete and self._wants_another_walk(evidence):
            more = await self._vote(prompt, len(evidence.replies), asking)
            complete = more is not None
            if not isinstance(more, Reply):
                break
            evidence = evidence.model_copy(update={"replies": (*evidence.replies, more)})
        return evidence, complete

    def _wants_another_walk(self, evidence: Evidence) -> bool:
        if evidence.digits != "split" or not 0 < len(evidence.replies) < MAX_WALKS:
            return False
        if not self._profile.temperature:
            # every walk would take the same path
            return False
        low, high = score_bounds(evidence)
        return high - low > MOST_APART and unseen_mass(evidence) > MIN_CHANCE

    async def _vote(self, prompt: str, vote: int, asking: _Asking) -> Reply | LostReply | None:
        """One reply; the same question within one asking is asked once. None: the run stopped."""
        key = self._key(prompt, vote)
        if key in asking.known:
            return asking.known[key].model_copy(update={"cached": True})
        first = asking.under_way.get(key)
        if first is not None:
            try:
                reply = await asyncio.shield(first)
            except OrchestrateError as error:
                asking.stopped = asking.stopped or error
                return None
            return reply.model_copy(update={"cached": True}) if isinstance(reply, Reply) else reply
        asking.under_way[key] = asyncio.ensure_future(self._ask(prompt, vote, asking))
        try:
            reply = await asking.under_way[key]
        except OrchestrateError as error:
            asking.stopped = asking.stopped or error
            return None
        if self._cache and isinstance(reply, Reply):
            self._cache.put(key, reply)
        return reply

    async def _ask(self, prompt: str, vote: int, asking: _Asking) -> Reply | LostReply:
        """Ask until there is an answer, what fails cannot heal, or the attempts are used up."""
        body = self._profile.body(self._model, prompt, vote=vote)
        tries = Tries()
        try:
            async for attempt in retrying_judge_calls(tries, self._sleep):
                with attempt:
                    reply = await self._call_in_slot(body, len(prompt), tries, asking)
        except HealingError as error:
            return self._lost("timeout" if error.kind == "timeout" else "http", error, tries)
        except RefusedError as error:
            return self._lost(error.said.reason, error, tries)
        paid = None if reply.usd is None else reply.usd + tries.usd
        return reply.model_copy(update={"attempts": tries.made, "usd": paid})

    def _lost(self, reason: UnscoredReason, error: Exception, tries: Tries) -> LostReply:
        usd = None if self._price is None else tries.usd
        return LostReply(reason=reason, detail=str(error), usd=usd, attempts=tries.made)

    async def _call_in_slot(
        self, body: Mapping[str, object], n_characters: int, tries: Tries, asking: _Asking
    ) -> Reply:
        """Call when there is a slot; whatever ends the run is noted before the slot is free. A
        RefusedError is one for the text alone."""
        async with self._slots.ahead:
            if asking.stopped:
                raise asking.stopped
            try:
                return await self._call(body, n_characters, tries, asking)
            except RefusedError as error:
                if await self._is_about_the_text(error, asking):
                    raise
                asking.stopped = asking.stopped or judge_client_error(self._client, error)
                raise asking.stopped from None
            except OrchestrateError as error:
                asking.stopped = asking.stopped or error
                raise

    async def _is_about_the_text(self, error: RefusedError, asking: _Asking) -> bool:
        """Whether a question is refused for its text, so that the others can go on.

        Before a first answer a harmless question in the same form tells: what is refused for its
        form, or by an endpoint that refuses everything, is refused whatever it asks.
        """
        if error.said.kind == "lasts" or asking.answered:
            return error.said.kind != "lasts"
        if asking.is_form_accepted is None:
            asking.is_form_accepted = asyncio.create_task(self._accepts_form(asking))
        return await asyncio.shield(asking.is_form_accepted)

    async def _accepts_form(self, asking: _Asking) -> bool:
        body = self._profile.body(self._model, HARMLESS)
        try:
            await self._call(body, len(HARMLESS), Tries(), asking)
        except RefusedError:
            return False
        except HealingError:
            # it does not say: each question is refused or answered by itself
            return True
        return True

    async def _call(
        self, body: Mapping[str, object], n_characters: int, tries: Tries, asking: _Asking
    ) -> Reply:
        cost = self._most_it_can_cost(n_characters)
        await self._limiter.admit(cost)
        try:
            async with self._slots.calls:
                if asking.stopped:
                    raise asking.stopped
                await self._slots.start_apart()
                tries.made += 1
                reply, limits = await self._client.complete(body)
        except HealingError as error:
            # a call that was sent and not answered may be on the bill
            usd = cost.usd if error.kind in ("timeout", "http") and not error.answered else 0.0
            tries.usd += usd
            failed = Failed(error.kind, usd, error.limits)
            tries.note(error, is_down=await self._limiter.failed(cost, failed))
            raise
        except (RefusedError, OrchestrateError):
            self._limiter.answered(cost, Charged(0, 0.0))
            raise
        asking.answered = True
        tokens = reply.prompt_tokens + reply.completion_tokens
        paid = None if self._price is None else self._price.of(reply)
        if reply.usage_stated:
            self._tokens_per_character = max(
                self._tokens_per_character, reply.prompt_tokens / max(n_characters, 1)
            )
        else:
            # what is not stated costs what was reserved for it
            tokens, paid = cost.tokens, None if paid is None else cost.usd
        self._limiter.answered(cost, Charged(tokens, paid or 0.0, limits))
        return reply if paid is None else reply.model_copy(update={"usd": paid})

    def _most_it_can_cost(self, n_characters: int) -> Cost:
        ratio = self._tokens_per_character or TOKENS_PER_CHARACTER
        prompt_tokens, most = n_characters * ratio, self._profile.n_tokens
        usd = 0.0
        if self._price is not None:
            usd = self._price.usd(prompt_tokens=prompt_tokens, completion_tokens=most)
        return Cost(int(prompt_tokens) + most, usd)

    def _key(self, prompt: str, vote: int) -> str:
        """The name of a question to one judge, which names its reply in the cache."""
        body = self._profile.body(self._model, prompt, vote=vote)
        return json_digest([self._client.url, body, vote, self._opinion])
