"""The settings of a run as options of a command; `extract` and `plan` take the same ones.

What judging costs and how it is done, as options: budget, prices, cache, batch.

None of them changes a result, so a later command may give others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import reduce
from pathlib import Path
from typing import Any

import click

from cli.options.settings import option, runs_dir_option
from domain.errors import UsageError
from domain.plan.spec import CONVERGED_DEGREES, JudgeSpec
from domain.scoring.prices import FREE, Price, bundled_prices, parse_prices, price_of
from orchestrator.runs import DEMO_MODEL, METHODS, RunOptions
from storage.record.spending import Terms

_OPTIONS = [
    option(
        "--traits",
        default="all",
        metavar="LIST",
        help="all, or names and paths to trait files, comma-separated.",
    ),
    option(
        "--model",
        default=DEMO_MODEL,
        metavar="ID",
        help="Hub id or folder of a chat model; demo is the small one shipped here.",
    ),
    option("--revision", metavar="REV", help="Commit, tag or branch of the model on the hub."),
    option(
        "--dtype", default="auto", type=click.Choice(["auto", "float32", "bfloat16", "float16"])
    ),
    option(
        "--trust-remote-code",
        is_flag=True,
        help="Let the model's repository run its own code on the workers: trusted sources only.",
    ),
    option(
        "--judge-model",
        metavar="NAME",
        help="Model that scores; without it the embedded judge of the demo traits.",
    ),
    option(
        "--judge-url",
        metavar="URL",
        help="OpenAI-compatible endpoint of the judge; OpenAI's when only --judge-model is given.",
    ),
    option(
        "--judge-scale",
        default="0_100",
        type=click.Choice(["0_100", "0_10", "binary", "binary_text"]),
        help="What the judge answers with; every answer is put on 0 to 100.",
    ),
    option(
        "--judge-votes",
        type=click.IntRange(1, 25),
        help="Answers per score.  [default: 1 with token probabilities, else 3]",
    ),
    option(
        "--rollouts",
        default=10,
        type=click.IntRange(1),
        help="Responses per instruction and question.",
    ),
    option(
        "--questions",
        type=click.IntRange(1),
        help="Use the first N questions only.",
    ),
    option(
        "--instructions", type=click.IntRange(1), help="Use the first N instruction pairs only."
    ),
    option(
        "--evaluation",
        default=2,
        type=click.IntRange(0),
        metavar="N",
        help="Test on held-out questions: N responses to each of the trait's evaluation questions "
        "with the positive, the negative and no instruction; 0 leaves it out.",
    ),
    option(
        "--causal",
        default=12,
        type=click.IntRange(0),
        metavar="N",
        help="Steer with the vector: 72 responses search for layer and strength, then N at each of "
        "9 pushes (none, 4 strengths, 4 random) are the dose-response; 0 leaves it out.",
    ),
    option(
        "--until",
        default="all",
        type=click.Choice(["all", "converged"]),
        help="converged stops a trait once its direction is known well enough.",
    ),
    option(
        "--converged-degrees",
        default=CONVERGED_DEGREES,
        type=click.FloatRange(0, 90, min_open=True, max_open=True),
        help="Well enough: 95 % sure to be this near the true direction around the best layer.",
    ),
    option(
        "--threshold",
        default=50.0,
        type=click.FloatRange(0, 100),
        help="Keep positives at or over it and negatives under 100 minus it.",
    ),
    option(
        "--coherence",
        default=50.0,
        type=click.FloatRange(0, 100),
        help="Keep responses at or over it.",
    ),
    option(
        "--filter",
        default="unpaired",
        type=click.Choice(["unpaired", "paired"]),
        help="paired drops a response whose other side fell (persona_vectors).",
    ),
    option("--methods", default="mean_diff", metavar="LIST", help=f"Of {', '.join(METHODS)}."),
    option("--max-new-tokens", default=200, type=click.IntRange(1), help="Longest response."),
    option("--temperature", default=1.0, type=click.FloatRange(0)),
    option("--top-p", default=1.0, type=click.FloatRange(0, 1, min_open=True)),
    option("--top-k", default=0, type=click.IntRange(0), help="0 is off."),
    option("--seed", default=0, type=int, help="Every sample's own seed follows from it."),
    option(
        "--shard-samples",
        default=100,
        type=click.IntRange(1),
        help="Samples per job; changes no result.",
    ),
    option(
        "--run",
        metavar="NAME",
        help="Name of the run's folder.  [default: from the model and the settings]",
    ),
    runs_dir_option,
]


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all settings of a run."""
    return reduce(lambda inner, decorate: decorate(inner), reversed(_OPTIONS), command)


def options_from(values: dict[str, Any]) -> tuple[RunOptions, dict[str, Any]]:
    """The run's settings out of a command's values, and the other values."""
    names = {field.name for field in fields(RunOptions)}
    ours = {name: values[name] for name in names}
    return RunOptions(**ours), {n: v for n, v in values.items() if n not in names}


_TERMS_OPTIONS = [
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
    return reduce(lambda inner, decorate: decorate(inner), reversed(_TERMS_OPTIONS), command)


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
