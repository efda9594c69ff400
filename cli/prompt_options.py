"""The options that say which prompts are answered and where results go.

Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

from orchestrator.errors import UsageError
from storage.transcripts import Transcript, Turn, read_transcripts

output_option = click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help=".json: the page's format. .jsonl: tokens as they come. .parquet: a row per token. "
    ".csv: a row per response. May be repeated.",
)
_PROMPTS: list[Callable[[Any], Any]] = [
    click.option(
        "--prompt", "texts", multiple=True, metavar="TEXT", help="A prompt; may be repeated."
    ),
    click.option(
        "--prompts",
        "file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Prompts, one a row: .txt, .json, .jsonl, .csv or .parquet with a column prompt, "
        "question or messages, and system if any.",
    ),
    click.option("--system", metavar="TEXT", help="A system instruction for all prompts."),
    output_option,
]


def prompt_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--prompt, --prompts, --system and --output."""
    return reduce(lambda inner, decorate: decorate(inner), reversed(_PROMPTS), command)


def prompts_of(values: dict[str, Any]) -> list[Transcript]:
    """The prompts asked for; raises UsageError when there are none."""
    found = [Transcript((Turn("user", text),)) for text in values["texts"]]
    found += read_transcripts(values["file"]) if values["file"] else []
    if not found:
        raise UsageError("nothing to answer: give --prompt TEXT or --prompts FILE")
    system = values["system"]
    if system is None:
        return found
    return [Transcript((Turn("system", system), *one.turns), facts=one.facts) for one in found]
