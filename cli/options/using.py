"""Options of the commands that use a run's vectors: which ones, on which prompts, where to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from cli.options.run import ANSWERS, HEADINGS, own_option, setting_option
from cli.options.settings import option, runs_dir_option, together
from domain.errors import UsageError
from domain.plan.spec import DEFAULT_POSITION, POSITIONS
from storage.files.transcripts import (
    PROMPT_SETS,
    Transcript,
    Turn,
    Unread,
    UnreadableRowError,
    read_transcripts,
)


@dataclass(frozen=True)
class UseOptions:
    """Which vectors of which run, on which model."""

    run: str
    runs_dir: str
    traits: str
    layer: str | None
    method: str | None
    position: str
    model: str | None
    dtype: str
    device: str


@dataclass(frozen=True)
class SamplingOptions:
    """How responses are drawn, None taking the run's own setting, and how many alternatives to each
    token are kept."""

    max_new_tokens: int | None
    temperature: float | None
    seed: int
    alternatives: int = 0


position_option = click.option(
    "--position",
    default=DEFAULT_POSITION,
    show_default=True,
    type=click.Choice(POSITIONS),
    help="Which of the stored vectors.",
)

files_argument = click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(path_type=Path, dir_okay=False),
)

use_options = together(
    click.argument("run"),
    runs_dir_option,
    click.option(
        "--traits",
        default="all",
        show_default=True,
        metavar="LIST",
        help="all of the run's, or names, comma-separated.",
    ),
    click.option(
        "--layer",
        metavar="L",
        help='One layer for all traits: 16, "block:15", "50%".  [default: where each trait reads, '
        "or steers, best]",
    ),
    click.option("--method", metavar="NAME", help="Extraction method.  [default: the best]"),
    position_option,
    own_option("model", help="Another model of the same shape, such as a fine-tune."),
    setting_option("dtype"),
    together(
        option("--device", default="auto", help="auto, cpu, cuda:0, mps."),
        heading=HEADINGS["model"],
    ),
    heading="Which vectors",
)

sampling_options = together(
    own_option("max-new-tokens"),
    own_option("temperature"),
    click.option("--seed", default=0, type=int, show_default=True),
    click.option(
        "--alternatives",
        default=0,
        type=click.IntRange(0, 50),
        metavar="N",
        help="Keep the N likeliest tokens in each token's place, for the page and .json.",
    ),
    heading=ANSWERS,
)

false_alarm_option = click.option(
    "--false-alarm",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of neutral responses that a trait may flag.",
)


no_baseline_option = click.option(
    "--no-baseline", is_flag=True, help="Raw scores alone: no z, nothing flagged."
)


def use_options_of(values: Mapping[str, Any]) -> UseOptions:
    """The shared options out of a command's values."""
    return UseOptions(**{field.name: values[field.name] for field in fields(UseOptions)})


def sampling_options_of(values: Mapping[str, Any]) -> SamplingOptions:
    """The sampling options out of a command's values."""
    return SamplingOptions(**{one.name: values[one.name] for one in fields(SamplingOptions)})


output_option = click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help=".json: the page's format. .jsonl: tokens as they come. .parquet: a row per token. "
    ".csv: a row per response. May be repeated.",
)

prompt_options = together(
    click.option(
        "--prompt", "texts", multiple=True, metavar="TEXT", help="A prompt; may be repeated."
    ),
    click.option(
        "--prompts",
        "file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Prompts, one a row: .txt, .json, .jsonl, .csv or .parquet with a column prompt, "
        "question or messages, and system or system_prompt if any. Or teaching or fluctuations, "
        "which come with the program.",
    ),
    click.option(
        "--system",
        metavar="TEXT",
        help="A system instruction for all prompts, in place of those in a file.",
    ),
    output_option,
    heading="What is answered, and where it goes",
)


def prompt_options_of(values: dict[str, Any]) -> list[Transcript]:
    """The prompts asked for; raises UsageError when there are none, or one is no text."""
    try:
        return _prompts(values)
    except UnreadableRowError as error:
        raise UsageError(f"--prompt or --system {error}") from error


def keep_what_is_read(read: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Raises UsageError where an output would be written over a file that is read."""
    sources = {path.resolve() for path in read}
    for path in outputs:
        if path.resolve() in sources:
            raise UsageError(f"--output {path} is what is read: give it another name")


def _prompts(values: dict[str, Any]) -> list[Transcript]:
    found = [
        Transcript((Turn("user", text),), row=f"--prompt {text[:40]!r}") for text in values["texts"]
    ]
    if values["file"]:
        file = PROMPT_SETS.get(str(values["file"]), values["file"])
        keep_what_is_read([file], values["outputs"])
        in_file = read_transcripts(file)
        say_unread(in_file.unread, n_rows=len(in_file.read) + len(in_file.unread))
        found += in_file.read
    if not found:
        raise UsageError("nothing to answer: give --prompt TEXT or --prompts FILE")
    system = values["system"]
    return found if system is None else [one.under(system) for one in found]


MOST_NAMED = 5


def say_unread(unread: Sequence[Unread], *, n_rows: int) -> None:
    """Say on stderr how many rows were left out, and of the first ones which and why."""
    if not unread:
        return
    click.echo(f"Left out {len(unread)} of {n_rows} rows:", err=True)
    for one in unread[:MOST_NAMED]:
        click.echo(f"  {one}", err=True)
    if unread[MOST_NAMED:]:
        click.echo(f"  and {len(unread) - MOST_NAMED} more", err=True)
