"""`orchestrate view`: trait scores token by token in a browser."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path

import click

from cli.options.settings import broker_option, runs_dir_option
from cli.options.using import keep_what_is_read
from cli.pages.build import build_page, live_page
from cli.pages.carried_files import carried_files, expanded_paths
from cli.pages.server import PageServer
from domain.errors import UsageError
from orchestrator.runs import run_store
from storage.record.run import Run, open_run


@click.command()
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--follow",
    "followed",
    metavar="FILE.jsonl",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Show tokens as they are appended to this file of events.",
)
@click.option(
    "--live",
    "live_run",
    metavar="RUN",
    help="Show a run while it is made: traits, workers, verdicts so far, latest answers.",
)
@runs_dir_option
@broker_option
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page with its data into this file instead of serving it.",
)
@click.option(
    "--port",
    default=0,
    type=click.IntRange(0, 65535),
    envvar="ORCHESTRATE_VIEW_PORT",
    show_envvar=True,
    help="Port on 127.0.0.1; 0 takes a free one.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in this machine's browser.")
def view(
    files: tuple[Path, ...],
    followed: Path | None,
    live_run: str | None,
    runs_dir: str,
    broker_url: str | None,
    output: Path | None,
    port: int,
    opens: bool,
) -> None:
    """Look at trait scores over the tokens of responses.

    FILE is JSON or JSON lines with prompt, response, tokens and trait_scores, as `orchestrate
    monitor` writes them, or a folder of such files; each file is one data set. Without FILE the
    page is empty: drop files on it, or look at its example.

    \b
    orchestrate view scores.json                          # served on this machine only
    orchestrate view results/ --output visualization.html # one file that opens anywhere
    orchestrate view --follow live.jsonl                  # tokens as they come
    orchestrate view --live demo                          # a run while it is made
    ssh -L 8020:127.0.0.1:8020 gpu-host                   # from your laptop, with --port 8020
    """
    if live_run is not None:
        if files or followed is not None or output is not None:
            raise UsageError("--live shows a run alone: leave files, --follow and --output out")
        _serve(_live_server(open_run(run_store(runs_dir, live_run)), broker_url, port), opens=opens)
        return
    paths = expanded_paths(files)
    if output is not None:
        if followed is not None:
            raise UsageError("--output writes a file that cannot follow another: leave one out")
        keep_what_is_read(paths, [output])
        _write(output, build_page(carried_files(paths)), n_files=len(paths))
        return
    carried_files(paths)  # a file that cannot be shown is told here, before a browser is asked for
    live = None if followed is None else "events"

    def page() -> str:
        return build_page(carried_files(paths), live=live)

    _serve(PageServer(page, port=port, followed=followed), opens=opens)


def _live_server(run: Run, broker_url: str | None, port: int) -> PageServer:
    # what reads a run's tables is not loaded for --help
    from cli.pages.live_run import LiveRun

    flower_port = os.environ.get("ORCHESTRATE_FLOWER_PORT", "5555")
    watched = LiveRun(run, broker_url, flower_url=f"http://127.0.0.1:{flower_port}")
    title = f"{run.name}, made with {run.spec.model.model_id}"
    return PageServer(lambda: live_page(title), port=port, look=watched.look)


def _serve(server: PageServer, *, opens: bool) -> None:
    """Until interrupted."""
    with server:
        click.echo(server.url)
        click.echo("Ctrl-C stops serving.", err=True)
        if opens:
            webbrowser.open(server.url)
        server.serve_forever()


def _write(output: Path, page: str, *, n_files: int) -> None:
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from error
    files = "no data inside" if n_files == 0 else "1 file" if n_files == 1 else f"{n_files} files"
    click.echo(f"Wrote {output} ({len(page) / 1024:.0f} KiB, {files}). Open it in any browser.")
