"""Prices of judges: a dated table that a user can override, and what tokens cost by it. A model
that the table does not have costs an unknown sum, never nothing.

What one judge call may cost, did cost, and how it failed: the values that the limiter is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pydantic import Field, ValidationError

from domain.errors import UsageError
from domain.plan.spec import Frozen

BATCH_SHARE = 0.5
"""What the Batch API charges of the price."""

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


FREE = Price(input=0, output=0, source="runs on this machine")


def bundled_prices() -> dict[str, Price]:
    """The table shipped with the program."""
    text = files("domain").joinpath("scoring/price_data/prices.json").read_text(encoding="utf-8")
    return parse_prices(text, name="the bundled price table")


def parse_prices(text: str, *, name: str) -> dict[str, Price]:
    """The models of a price file; raises UsageError naming the file and the entry."""
    try:
        body = json.loads(text)
        return {str(model): _price(entry, body) for model, entry in body["models"].items()}
    except ValidationError as error:
        raise UsageError(f"{name}: {error.errors()[0]['msg']}; see docs/judge.md") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f'{name} is not a price table: expected {{"models": {{"NAME": {{"input": USD, '
            '"output": USD}}}} per million tokens'
        ) from error


def price_of(model: str, table: Mapping[str, Price]) -> Price | None:
    """The model's price, by its name, the name without a date, or without "openai/"."""
    plain = model.removeprefix("openai/")
    names = (model, plain, _DATED.sub("", plain))
    return next((table[name] for name in names if name in table), None)


def _price(entry: dict[str, Any], body: dict[str, Any]) -> Price:
    source = f"{body.get('source', 'your price file')}, {body.get('date', 'undated')}"
    return Price(
        input=entry["input"],
        output=entry["output"],
        source=entry.get("source", source),
        retires=entry.get("retires"),
    )


@dataclass(frozen=True)
class Cost:
    """The most a call can cost: tokens in and out, and US dollars (0 when no price is known)."""

    tokens: int
    usd: float


@dataclass(frozen=True)
class Answered:
    """What an answered call did cost, and the limits that its headers stated (0: none stated)."""

    tokens: int
    usd: float
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0


@dataclass(frozen=True)
class Failed:
    """A call that failed; usd is what it may have cost all the same."""

    kind: str
    usd: float = 0.0
    retry_after_s: float = 0.0
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
