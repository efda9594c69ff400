"""The settings of a run as options of a command; `extract` and `plan` take the same ones.

Knows nothing of what they describe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import click

from cli.settings import option, runs_dir_option
from orchestrator.run_spec import CONVERGED_DEGREES

DEMO_MODEL = "demo"
METHODS = ("mean_diff", "probe", "ica", "gradient")


@dataclass(frozen=True)
class RunOptions:
    """The settings as given on the command line."""

    traits: str
    model: str
    revision: str | None
    dtype: str
    trust_remote_code: bool
    judge_model: str | None
    judge_url: str | None
    judge_scale: str
    judge_votes: int | None
    rollouts: int
    questions: int | None
    instructions: int | None
    evaluation: int
    causal: int
    until: str
    converged_degrees: float
    threshold: float
    coherence: float
    filter: str
    methods: str
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    shard_samples: int
    run: str | None
    runs_dir: str


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
        help="Answers per verdict.  [default: 1 with token probabilities, else 3]",
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
