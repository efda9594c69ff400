"""What judging costs and how it is done, as options: budget, prices, cache, batch.

None of them changes a result, so a later command may give others. Knows nothing of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import click

from cli.settings import option
from orchestrator.errors import UsageError
from orchestrator.prices import FREE, Price, bundled_prices, parse_prices, price_of
from orchestrator.run_spec import JudgeSpec
from storage.spending import Terms

_OPTIONS = [
    option(
        "--budget",
        metavar="USD",
        type=click.FloatRange(0, min_open=True),
        help="Most the judge may cost this run in all; reached, the run stops (exit 4) and resume "
        "with a larger one continues.",
    ),
    option(
        "--prices",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="JSON file with prices of judges per million tokens; goes before the bundled table.",
    ),
    click.option(
        "--no-judge-cache",
        is_flag=True,
        help="Ask again what this judge was asked before in any run on this broker.",
    ),
    click.option(
        "--judge-batch",
        is_flag=True,
        help="Ask through OpenAI's Batch API: half the price, up to 24 hours.",
    ),
]
NAMES = ("budget", "prices", "no_judge_cache", "judge_batch")


@dataclass(frozen=True)
class TermsOptions:
    """The options as given; None and False were not given."""

    budget: float | None
    prices: Path | None
    no_judge_cache: bool
    judge_batch: bool


def terms_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options."""
    return reduce(lambda inner, decorate: decorate(inner), reversed(_OPTIONS), command)


def terms_options_from(values: dict[str, Any]) -> TermsOptions:
    """The options out of a command's values."""
    return TermsOptions(**{name: values[name] for name in NAMES})


def resolve_terms(options: TermsOptions, judge: JudgeSpec, *, before: Terms | None = None) -> Terms:
    """The terms that the options mean for a judge; what they leave out stays as it was `before`.

    Raises UsageError for a budget whose judge has no known price.
    """
    earlier = before or Terms()
    price = price_for(judge, options.prices) or earlier.price
    cap = options.budget if options.budget is not None else earlier.cap_usd
    if cap is not None and price is None:
        entry = f'{{"models": {{"{judge.model}": {{"input": USD, "output": USD}}}}}}'
        raise UsageError(
            f"the price of judge {judge.model} is unknown, so --budget cannot be kept: give "
            f"--prices FILE with {entry} per million tokens"
        )
    return Terms(
        price=price,
        cap_usd=cap,
        use_cache=earlier.use_cache and not options.no_judge_cache,
        batch=earlier.batch or options.judge_batch,
    )


def price_for(judge: JudgeSpec, prices: Path | None) -> Price | None:
    """The judge's price: from the user's file, else the bundled table; None when unknown."""
    if judge.url == "embedded":
        return FREE
    table = bundled_prices()
    if prices is not None:
        try:
            text = prices.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--prices {prices} cannot be read: {error.strerror}") from error
        table = {**table, **parse_prices(text, name=str(prices))}
    return price_of(judge.model, table)
