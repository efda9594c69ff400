"""Prices of judges, and what one judge call may cost, did cost, and how it failed.

Prices come from the user's file or else from genai-prices, by the table that it is installed with.
A model that neither knows costs an unknown sum, never nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import Field, ValidationError

from domain.errors import UsageError
from domain.plan.spec import Frozen
from domain.scoring.scores import Reply

# Before the first reply: English has four characters a token, so this is on the safe side.
TOKENS_PER_CHARACTER = 0.4

BATCH_SHARE = 0.5
"""What the Batch API charges of the price."""

# What vendors announced on their pages by 2026-11-20; genai-prices has no dates.
RETIRES = {
    "gpt-4.1-mini": "2027-01-14",
    "gpt-4o-mini": "2027-01-14",
    "gpt-5-mini": "2026-12-11",
}

MAKERS = ("openai", "anthropic")
"""Whose models are known by their names alone, wherever they are asked."""

_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


class Price(Frozen):
    """US dollars per million tokens, and where the figure comes from."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    source: str = ""
    retires: str | None = None

    def usd(self, *, prompt_tokens: float, completion_tokens: float) -> float:
        """What a call costs; cached prompt tokens count in full, so the sum is an upper bound."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6

    def of(self, reply: Reply) -> float:
        """What a reply did cost."""
        return self.usd(
            prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens
        )


FREE = Price(input=0, output=0, source="runs on this machine")


def price_of(model: str, url: str, *, own: Mapping[str, Price] | None = None) -> Price | None:
    """The model's price: from the user's own prices, else what its endpoint charges, else what its
    maker does at home. A name is looked up as it is, without "openai/" and without a date."""
    plain = model.removeprefix("openai/")
    names = (model, plain, _DATED.sub("", plain))
    found = next((own[name] for name in names if name in own), None) if own else None
    return found or _listed_price(names, url)


def parse_prices(text: str, *, name: str) -> dict[str, Price]:
    """The models of a price file; raises UsageError naming the file and the entry."""
    try:
        body = json.loads(text)
        return {str(model): _own_price(entry, body) for model, entry in body["models"].items()}
    except ValidationError as error:
        raise UsageError(f"{name}: {error.errors()[0]['msg']}; see docs/judge.md") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f'{name} is not a price table: expected {{"models": {{"NAME": {{"input": USD, '
            '"output": USD}}}} per million tokens'
        ) from error


def _own_price(entry: dict[str, Any], body: dict[str, Any]) -> Price:
    source = f"{body.get('source', 'your price file')}, {body.get('date', 'undated')}"
    return Price(
        input=entry["input"],
        output=entry["output"],
        source=entry.get("source", source),
        retires=entry.get("retires"),
    )


def _listed_price(names: Iterable[str], url: str) -> Price | None:
    # its table takes a second to import
    from genai_prices import Usage, __version__, calc_price
    from genai_prices.types import TieredPrices

    for name, endpoint in product(names, (url, None)):
        try:
            found = calc_price(Usage(), name, provider_api_url=endpoint)
        except LookupError:
            continue
        # a server of one's own may call its model much like somebody else's
        if endpoint is None and (found.model.id != name or found.provider.id not in MAKERS):
            continue
        # higher tiers begin where a prompt has a hundred thousand tokens
        per_million = [
            price.base if isinstance(price, TieredPrices) else price
            for price in (found.model_price.input_mtok, found.model_price.output_mtok)
        ]
        retires = RETIRES.get(found.model.id)
        source = f"genai-prices {__version__}"
        if per_million[0] is not None and per_million[1] is not None:
            return Price(
                input=float(per_million[0]),
                output=float(per_million[1]),
                source=source,
                retires=retires,
            )
    return None


@dataclass(frozen=True)
class Cost:
    """The most a call can cost: tokens in and out, and US dollars (0 when no price is known)."""

    tokens: int
    usd: float


@dataclass(frozen=True)
class Limits:
    """What an answer's headers say: requests and tokens a minute, and when to come again."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Charged:
    """What an answered call did cost, and the limits that came with it."""

    tokens: int
    usd: float
    limits: Limits = Limits()


@dataclass(frozen=True)
class Failed:
    """A call that failed; usd is what it may have cost all the same."""

    kind: str
    usd: float = 0.0
    limits: Limits = Limits()
