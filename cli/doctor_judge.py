"""The judge: one question, to see that it answers and in which form it scores.

Knows nothing of traits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from cli.doctor_finding import Finding
from orchestrator.errors import JudgeError
from orchestrator.prices import bundled_prices, price_of
from orchestrator.prompts import coherence_prompt

OPENAI_URL = "https://api.openai.com/v1"
ASK_TIMEOUT_S = 25.0
QUESTION, ANSWER = "How do I boil an egg?", "Boil it for eight minutes, then cool it in water."


def judge_findings(url: str | None, model: str | None, *, demo: bool) -> Iterator[Finding]:
    """The judge that the settings name; without one, what a run would do."""
    if url == "embedded" or (url is None and model is None):
        if demo:
            yield Finding("judge", "ok", "the embedded judge, for the demo model's traits only")
            return
        if url == "embedded":
            found = "the embedded judge can read the demo model's texts only, not this model's"
            yield Finding(
                "judge", "warn", found, "give --judge-model, and --judge-url for its place"
            )
            return
        advice = "give --judge-model NAME, and --judge-url for another endpoint than OpenAI's"
        yield Finding("judge", "warn", "no judge named, so none was asked", advice)
        return
    if model is None:
        advice = "give --judge-model, the name the endpoint knows the judge by"
        yield Finding("judge", "fail", "--judge-url without --judge-model", advice)
        return
    yield from _asked(url or os.environ.get("OPENAI_BASE_URL", OPENAI_URL), model)


def _asked(url: str, model: str) -> Iterator[Finding]:
    found, retires = asyncio.run(_ask(url, model))
    yield Finding("judge", "ok", f"{model} at {url}: {found}")
    price = price_of(model, bundled_prices())
    retires = retires or (price.retires if price else None)
    if retires:
        advice = "a run should end before it; afterwards nothing scores the same again"
        yield Finding("judge shutdown", "warn", f"{model} is shut down on {retires}", advice)
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        found = "the key and all texts travel unencrypted"
        yield Finding("judge network", "warn", found, "use https, or a network of your own")


async def _ask(url: str, model: str) -> tuple[str, str | None]:
    """What the probe says of the judge, and when it is shut down."""
    from workers.judge_call import JudgeClient
    from workers.judge_notice import shutdown_date
    from workers.judge_probe import probe

    client = JudgeClient(url, api_key=_key(), max_in_flight=1, timeout_s=ASK_TIMEOUT_S)
    prompts = {"coherence": coherence_prompt(QUESTION, ANSWER)}
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            found = await probe(client, model, prompts)
            return found.describe(), await shutdown_date(client, model)
    except TimeoutError as error:
        raise JudgeError(
            f"the judge at {url} gives no answer within {ASK_TIMEOUT_S:.0f} s: is it overloaded, "
            "or does a firewall drop the packets?"
        ) from error
    finally:
        await client.close()


def _key() -> str:
    names = ("ORCHESTRATE_JUDGE_API_KEY", "OPENAI_API_KEY")
    return next((os.environ[name] for name in names if os.environ.get(name)), "no-key")
