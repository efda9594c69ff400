"""`orchestrate monitor`: generate, and see every token's trait scores while it is generated."""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from cli.page_build import build_page
from cli.page_server import PageServer
from cli.settings import json_option
from cli.use_options import (
    false_alarm_option,
    sampling_of,
    sampling_options,
    use_of,
    use_options,
)
from orchestrator.errors import UsageError
from storage.transcripts import Transcript, Turn, read_transcripts

if TYPE_CHECKING:
    from cli.loaded_run import LoadedRun
    from cli.trajectory_files import Sink
    from workers.trajectory import Trajectory

SHOWN_EVERY_S = 0.5


@click.command()
@use_options
@click.option("--prompt", "texts", multiple=True, metavar="TEXT", help="A prompt; may be repeated.")
@click.option(
    "--prompts",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Prompts, one a row: .txt, .json, .jsonl, .csv or .parquet with a column prompt, "
    "question or messages, and system if any.",
)
@click.option("--system", metavar="TEXT", help="A system instruction for all prompts.")
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help=".json: the page's format. .jsonl: tokens as they come. .parquet: a row per token. "
    ".csv: a row per response. May be repeated.",
)
@click.option("--view", is_flag=True, help="Serve the page on this machine while it generates.")
@false_alarm_option
@click.option("--no-baseline", is_flag=True, help="Raw scores alone: no z, nothing flagged.")
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
    orchestrate monitor demo --model ./fine-tuned --prompts prompts.txt
    """
    use, values = use_of(values)
    sampling, values = sampling_of(values)
    transcripts = _prompts(values["texts"], values["file"], values["system"])
    # torch is not loaded for --help
    from cli.loaded_run import load_run
    from cli.trajectory_files import EventFile, nested, open_sink

    with contextlib.ExitStack() as stack:
        sinks = [open_sink(path) for path in values["outputs"]]
        if values["view"]:
            sinks.append(EventFile(stack.enter_context(_served(values["outputs"]))))
        loaded = load_run(
            use,
            false_alarm=values["false_alarm"],
            with_baseline=not values["no_baseline"],
        )
        console = Console(stderr=values["as_json"], highlight=False)
        made = _monitored(loaded, transcripts, sampling, sinks, console)
        if values["as_json"]:
            click.echo(json.dumps(nested(loaded.scale, made), ensure_ascii=False, allow_nan=False))
        for path in values["outputs"]:
            click.echo(f"Wrote {path}", err=True)
        if values["view"]:
            click.echo("Ctrl-C stops serving.", err=True)
            threading.Event().wait()


def _prompts(texts: tuple[str, ...], file: Path | None, system: str | None) -> list[Transcript]:
    found = [Transcript((Turn("user", text),)) for text in texts]
    found += read_transcripts(file) if file else []
    if not found:
        raise UsageError("nothing to answer: give --prompt TEXT or --prompts FILE")
    if system is None:
        return found
    return [Transcript((Turn("system", system), *one.turns), facts=one.facts) for one in found]


def _monitored(
    loaded: LoadedRun,
    transcripts: list[Transcript],
    options: Any,
    sinks: list[Sink],
    console: Console,
) -> list[Trajectory]:
    from cli.chats import asked_of
    from cli.score_tables import TokenMarks, print_summary
    from cli.trajectory_files import all_sinks
    from workers.monitor import TokenRead
    from workers.monitor import monitor as responses_of

    scale, marks = loaded.scale, TokenMarks(loaded.scale)
    asked = [
        asked_of(loaded.engine.model, one, seed=options.seed + i)
        for i, one in enumerate(transcripts)
    ]
    is_one, made = len(asked) == 1, []
    streams = is_one or any(type(sink).__name__ == "EventFile" for sink in sinks)
    progress = _Progress(console, len(asked), shows=not is_one)
    with all_sinks(sinks, scale):
        for sink in sinks:
            for i, one in enumerate(asked):
                sink.start(i, one.shown, one.facts)
        for event in responses_of(
            loaded.engine,
            asked,
            loaded.directions,
            sampling=loaded.sampling(options),
            streams=streams,
        ):
            if isinstance(event, TokenRead):
                if is_one:
                    console.print(marks.marked(event), end="", soft_wrap=True)
                for sink in sinks:
                    sink.token(scale, event)
            else:
                made.append(event)
                progress.add(event)
                for sink in sinks:
                    sink.done(scale, event)
    made.sort(key=lambda one: one.id)
    if is_one:
        console.print("\n")
        if marks.seen:
            console.print(marks.legend())
    progress.end()
    print_summary(console, scale, made)
    return made


class _Progress:
    """A line that says how far a batch is, on a terminal only."""

    def __init__(self, console: Console, total: int, *, shows: bool) -> None:
        self._console, self._total = console, total
        self._shows = shows and console.is_terminal
        self._done, self._tokens = 0, 0
        self._started = self._shown = time.monotonic()

    def add(self, trajectory: Trajectory) -> None:
        """One response more."""
        self._done += 1
        self._tokens += len(trajectory.tokens)
        now = time.monotonic()
        if self._shows and now - self._shown > SHOWN_EVERY_S:
            self._shown = now
            rate = self._tokens / (now - self._started)
            line = f"{self._done}/{self._total} responses, {rate:.0f} tokens/s"
            self._console.print(line, end="\r", soft_wrap=True)

    def end(self) -> None:
        """Clear the line."""
        if self._shows:
            self._console.print(" " * 40, end="\r")


@contextlib.contextmanager
def _served(outputs: tuple[Path, ...]) -> Iterator[Path]:
    """A page that follows a file of events while the context is open; the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "live.jsonl"
        path.touch()
        with PageServer(lambda: build_page([], live="events"), followed=path) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            click.echo(server.url)
            try:
                yield path
            finally:
                server.shutdown()
