"""`orchestrate screen`: trait scores of responses that exist already, such as a data set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options.settings import Command, json_option
from cli.options.using import (
    false_alarm_option,
    files_argument,
    keep_what_is_read,
    output_option,
    say_unread,
    use_options,
    use_options_of,
)
from cli.screens.terminal import Screen
from cli.screens.working import working
from domain.errors import UsageError
from storage.files.transcripts import Unread, UnreadableRowError, fact_name, read_transcripts

if TYPE_CHECKING:
    from cli.using.loaded_run import LoadedRun
    from storage.files.transcripts import Transcript
    from workers.monitor.monitor import AnsweredPrompt
    from workers.monitor.trajectory import Trajectory


@click.command(cls=Command)
@use_options
@files_argument
@click.option("--by", metavar="COLUMN", help="Also show the flagged share for each value of it.")
@output_option
@false_alarm_option
@json_option
def screen(**values: Any) -> None:
    """Score transcripts without generating: which responses of a data set show which trait.

    FILE is .jsonl, .json, .csv or .parquet with a prompt and a response per row: columns prompt or
    question, and response or answer; messages that end with the assistant's, as OpenAI, ShareGPT
    and TRL write them; Alpaca's columns. persona_vectors' tables and a run's own are read as they
    are. A row that cannot be read is left out, counted and named. The texts go through the run's
    model, or --model, in batches; a response is flagged when its mean z exceeds what --false-alarm
    of the run's neutral responses, cut to its length, exceed.

    \b
    orchestrate screen demo training_set.jsonl --output scores.csv
    orchestrate screen demo runs/demo/traits/evil/responses.parquet --by polarity
    orchestrate screen demo chats.jsonl --model ./fine-tuned --traits evil,sycophantic
    """
    use = use_options_of(values)
    keep_what_is_read(values["files"], values["outputs"])
    several = len(values["files"]) > 1
    files = [(path, read_transcripts(path)) for path in values["files"]]
    unread = [one for _, found in files for one in found.unread]
    transcripts = [
        replace(one, facts={**one.facts, "file": _shown(path)}) if several else one
        for path, found in files
        for one in found.read
    ]
    n_rows = len(transcripts) + len(unread)
    column = values["by"] or ("file" if several else None)
    by = column and fact_name(column)
    if by and not any(by in one.facts for one in transcripts):
        raise UsageError(f"no row has a column {column!r}: name one of the file's short columns")
    # torch is not loaded for --help
    with working("Loading torch"):
        from cli.screens.scores import group_table, print_scores
        from cli.using.loaded_run import load_run
        from cli.using.monitored_output import give_results, open_output_file, open_output_files

    sinks = [open_output_file(path) for path in values["outputs"]]
    loaded = load_run(use, false_alarm=values["false_alarm"])
    console = Screen(to_stderr=values["as_json"], highlight=False)
    answered, without = _answered(loaded, transcripts)
    say_unread([*unread, *without], n_rows=n_rows)
    if not answered:
        raise UsageError("no row is left to screen: see why above")
    made = []
    with open_output_files(sinks, loaded.scale):
        for one in _screened(loaded, answered):
            made.append(one)
            for sink in sinks:
                sink.done(loaded.scale, one)
    made.sort(key=lambda one: one.id)

    def show() -> None:
        print_scores(console, loaded.scale, made)
        if by:
            console.print()
            console.print(group_table(loaded.scale, made, by=by))

    give_results(values, loaded.scale, made, show=show)


def _shown(path: Path) -> str:
    """A file's name, which need not be UTF-8, as text."""
    return os.fsencode(path.name).decode(errors="replace")


def _answered(
    loaded: LoadedRun, transcripts: list[Transcript]
) -> tuple[list[AnsweredPrompt], list[Unread]]:
    """The transcripts as the model reads them, and those that it cannot."""
    from cli.using.monitored import answer_to_monitor

    answered, without = [], []
    for one in transcripts:
        try:
            answered.append(answer_to_monitor(loaded.engine.model, one))
        except UnreadableRowError as error:
            without.append(Unread(one.row, str(error)))
    return answered, without


def _screened(loaded: LoadedRun, answered: list[AnsweredPrompt]) -> Iterator[Trajectory]:
    """The trajectories as they are read, in no order that means anything."""
    from workers.monitor.monitor import project_answers

    with working("Reading", total=len(answered)) as note:
        projected = project_answers(loaded.engine, answered, loaded.directions)
        for n, one in enumerate(projected, start=1):
            yield one
            note(n)
