"""A judge in a notebook, under the name and with the arguments of the seed documents: the same
negotiation, reading and retries as in a run, without a run."""

from __future__ import annotations

import asyncio
import os

from domain.redaction import JUDGE_KEYS
from domain.scoring.prices import Charged, Cost, Failed
from domain.scoring.scores import Scale, Scoring, score_value
from domain.traits.judge_prompt import EASY, fill_judge_prompt
from workers.judge.client import NO_KEY, JudgeClient
from workers.judge.judge import Judge, Slots
from workers.judge.negotiate import negotiate
from workers.judge.retries import Sleep

OPENAI_URL = "https://api.openai.com/v1"
IN_FLIGHT = 32


class OpenAiJudge:
    """Scores one answer at a time with one prompt; many may be awaited together.

    `prompt_template` holds {question} and {answer}; `eval_type` is one of the four scales. The key
    is the environment's, the endpoint OPENAI_BASE_URL or OpenAI's unless `base_url` is given.
    """

    def __init__(
        self,
        model: str,
        prompt_template: str,
        eval_type: Scale = "0_100",
        *,
        base_url: str | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.model, self.prompt_template, self.eval_type = model, prompt_template, eval_type
        url = base_url or os.environ.get("OPENAI_BASE_URL", OPENAI_URL)
        key = next((os.environ[name] for name in JUDGE_KEYS if os.environ.get(name)), NO_KEY)
        self._client = JudgeClient(url, api_key=key, max_in_flight=IN_FLIGHT, will_be_closed=False)
        self._sleep = sleep
        self._opened: asyncio.Task[Judge] | None = None

    async def judge(self, *, question: str, answer: str) -> float | None:
        """The score, 0 to 100, or None where there is none: `scoring` says why.

        Raises JudgeError where the judge cannot be asked at all.
        """
        found = await self.scoring(question=question, answer=answer)
        return score_value(found)

    async def scoring(self, *, question: str, answer: str) -> Scoring:
        """The score with its evidence, or why there is none."""
        if self._opened is None:
            # one negotiation, however many ask at once
            self._opened = asyncio.create_task(self._open())
        judge = await asyncio.shield(self._opened)
        prompt = fill_judge_prompt(self.prompt_template, question=question, answer=answer)
        made = await judge.scorings([prompt])
        (found,) = made.scorings
        if found is None:
            assert made.stopped is not None
            raise made.stopped
        return found

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def _open(self) -> Judge:
        first = fill_judge_prompt(self.prompt_template, question=EASY[0], answer=EASY[1])
        found = await negotiate(
            self._client, self.model, {"it": first}, scale=self.eval_type, sleep=self._sleep
        )
        return Judge(
            self._client,
            self.model,
            profile=found.profile,
            slots=Slots(IN_FLIGHT),
            limiter=_OpenLimiter(),
            sleep=self._sleep,
        )


class _OpenLimiter:
    """Admits every call: no fleet shares an endpoint with a notebook."""

    async def admit(self, cost: Cost) -> None:
        """See Limiter."""

    def answered(self, cost: Cost, result: Charged) -> None:
        """See Limiter."""

    async def failed(self, cost: Cost, result: Failed) -> bool:
        """See Limiter."""
        return False

    async def flush(self) -> None:
        """See Limiter."""
