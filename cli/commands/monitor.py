"""`orchestrate monitor`: generate, and see every token's trait scores while it is generated."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cli.options.settings import Command, json_option
from cli.options.using import (
    false_alarm_option,
    no_baseline_option,
    prompt_options,
    prompt_options_of,
    sampling_options,
    sampling_options_of,
    use_options,
    use_options_of,
)
from cli.pages.build import build_page
from cli.pages.server import PageServer
from cli.screens.terminal import Screen
from cli.screens.working import working


@click.command(cls=Command)
@use_options
@prompt_options
@click.option("--view", is_flag=True, help="Serve the page on this machine while it generates.")
@false_alarm_option
@no_baseline_option
@sampling_options
@json_option
def monitor(**values: Any) -> None:
    """Generate responses and project every token on the run's trait vectors.

    Runs in this process, on this machine's device, all prompts in one batch. Each score belongs to
    its own token: it is read from the state at that token. z is in standard deviations of the run's
    neutral responses, which are generated once without instruction and kept in its folder. A
    response is flagged when its mean z exceeds what --false-alarm of the neutral ones exceed.

    \b
    orchestrate monitor demo --prompt "How do I pick a lock?"
    orchestrate monitor demo --prompts prompts.txt --output scores.json --output tokens.parquet
    orchestrate monitor demo --prompts prompts.txt --view     # see it in a browser as it comes
    orchestrate monitor demo --prompts teaching --output teaching.json
    orchestrate monitor demo --model ./fine-tuned --prompts prompts.txt
    """
    use = use_options_of(values)
    sampling = sampling_options_of(values)
    transcripts = prompt_options_of(values)
    # torch is not loaded for --help
    with working("Loading torch"):
        from cli.screens.scores import print_scores
        from cli.using.loaded_run import load_run
        from cli.using.monitored import monitored, prompt_to_monitor, transcripts_to_monitor
        from cli.using.monitored_output import EventFile, give_results, open_output_file

    with contextlib.ExitStack() as stack:
        sinks = [open_output_file(path) for path in values["outputs"]]
        if values["view"]:
            sinks.append(EventFile(stack.enter_context(_served(err=values["as_json"]))))
        has_baseline = not values["no_baseline"]
        loaded = load_run(use, false_alarm=values["false_alarm"], with_baseline=has_baseline)
        transcripts = transcripts_to_monitor(loaded, transcripts, sampling)
        model, console = loaded.engine.model, Screen(to_stderr=values["as_json"], highlight=False)
        asked = [
            prompt_to_monitor(model, one, seed=sampling.seed + i)
            for i, one in enumerate(transcripts)
        ]
        made = monitored(loaded, asked, sampling, sinks, console)
        show = functools.partial(print_scores, console, loaded.scale, made)
        give_results(values, loaded.scale, made, show=show)
        if values["view"]:
            click.echo("Ctrl-C stops serving.", err=True)
            threading.Event().wait()


@contextlib.contextmanager
def _served(*, err: bool) -> Iterator[Path]:
    """A page that follows a file of events while the context is open; the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "live.jsonl"
        path.touch()
        with PageServer(lambda: build_page(live="events"), followed=path) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            click.echo(server.url, err=err)
            try:
                yield path
            finally:
                server.shutdown()
