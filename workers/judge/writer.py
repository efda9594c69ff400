"""A chat model that writes a trait's definition, part by part, behind the endpoint that judges.

What a reply lacks is objected to and asked for again, so often and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import json_repair

from domain.errors import JudgeError
from domain.scoring.prices import Price
from domain.scoring.scores import Reply
from domain.traits.draft import PARTS, Draft, Part, Written
from workers.judge.client import HealingError, JudgeClient, RefusedError, judge_client_error
from workers.judge.retries import Sleep, Tries, retrying_judge_calls

# A model that thinks first needs most of it for that.
MOST_TOKENS = 8000
# On a processor a small model writes ten tokens a second.
WRITE_TIMEOUT_S = 600.0
# Replies in a row of which nothing could be used, and replies to one part in all.
MOST_MISSED, MOST_REPLIES = 4, 30

Ask = Callable[[str], Awaitable[Written]]
Keep = Callable[[Draft, Part], None]
"""Called with every draft that a reply has bettered, and the part that it is in."""


class Writer:
    """One endpoint and model that is asked for texts, and what that cost; `usd` is None where no
    price is known."""

    def __init__(
        self,
        client: JudgeClient,
        model: str,
        *,
        price: Price | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._client, self._model, self._price, self._sleep = client, model, price, sleep
        self._bound = {"max_completion_tokens": MOST_TOKENS}
        self.n_replies = 0
        self.usd = None if price is None else 0.0

    async def ask(self, prompt: str) -> Written:
        """What the model replies; raises JudgeError where it cannot be asked."""
        try:
            reply = await self._reply(prompt)
        except RefusedError as error:
            if error.said.kind != "form" or not self._bound:
                raise judge_client_error(self._client, error) from None
            # some endpoints know no such bound, or only a smaller one
            self._bound = {}
            return await self.ask(prompt)
        except HealingError as error:
            raise JudgeError(
                f"{self._model} does not answer ({error})", advice="try again later, or another"
            ) from None
        self.n_replies += 1
        if self._price is not None:
            self.usd = (self.usd or 0.0) + self._price.of(reply)
        return Written(reply.said, json_written(reply.said), is_cut=reply.finish == "length")

    async def _reply(self, prompt: str) -> Reply:
        messages = [{"role": "user", "content": prompt}]
        tries = Tries()
        async for attempt in retrying_judge_calls(tries, self._sleep):
            with attempt:
                try:
                    body = {"model": self._model, "messages": messages, **self._bound}
                    reply, _ = await self._client.complete(body)
                except HealingError as error:
                    if error.kind == "timeout":
                        raise JudgeError(
                            f"{self._model} has written nothing whole in {WRITE_TIMEOUT_S:.0f} s",
                            advice="take a faster endpoint, or a smaller model",
                        ) from None
                    tries.note(error, is_down=False)
                    raise
        return reply


async def write_draft(draft: Draft, ask: Ask, keep: Keep) -> Draft:
    """The draft with all of its parts; raises JudgeError that says which part the model cannot
    write, and what it wrote last. `keep` has been given all that was usable."""
    for part in PARTS:
        objection, n_missed, n_replies, written = "", 0, 0, Written("")
        while part.missing(draft) > 0:
            if n_missed == MOST_MISSED or n_replies == MOST_REPLIES:
                raise JudgeError(_stuck(part, draft, objection, written))
            request = part.request(draft)
            if objection:
                request += f"\n\nThe last reply could not be used as it was: {objection}"
            written = await ask(request)
            taken = part.take(draft, written)
            n_replies, objection = n_replies + 1, taken.objection
            n_missed = n_missed + 1 if taken.draft == draft else 0
            if taken.draft != draft:
                draft = taken.draft
                keep(draft, part)
    return draft


def _stuck(part: Part, draft: Draft, objection: str, written: Written) -> str:
    said = " ".join(written.text.split())
    last = f'it replied "{said[:160]}"' if said else "its last reply was empty"
    return (
        f"the model writes no usable {part.noun} ({part.missing(draft)} missing; {last}; "
        f"{objection.partition('. ')[0]})"
    )


def json_written(text: str) -> object:
    """The JSON in a reply, among prose and fences and with the mistakes of models in it; None
    where there is none."""
    try:
        return json_repair.loads(text) or None
    except (ValueError, RecursionError):
        return None
