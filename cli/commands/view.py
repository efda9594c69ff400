"""`orchestrate view`: trait scores token by token in a browser."""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import click

from cli.options.settings import broker_option, runs_dir_option
from cli.options.using import keep_what_is_read
from cli.pages.build import CarriedFile, build_page, live_page
from cli.pages.server import PageServer
from domain.errors import UsageError
from orchestrator.runs import run_store
from storage.files.reading import read_text
from storage.files.scored import json_or_lines
from storage.record.run import Run, open_run

SUFFIXES = (".json", ".jsonl")


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
    paths = _expanded(files)
    if output is not None:
        if followed is not None:
            raise UsageError("--output writes a file that cannot follow another: leave one out")
        keep_what_is_read(paths, [output])
        _write(output, build_page(_read(paths)), n_files=len(paths))
        return
    _read(paths)  # a file that cannot be shown is told here, before a browser is asked for
    live = None if followed is None else "events"

    def page() -> str:
        return build_page(_read(paths), live=live)

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


def carried_files(paths: Sequence[Path]) -> list[CarriedFile]:
    """Files, and those of folders, for the page to open with; raises UsageError for what it could
    not read."""
    return _read(_expanded(paths))


def _expanded(paths: Sequence[Path]) -> list[Path]:
    """The files named, a folder standing for those directly in it."""
    found: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not inside:
            raise UsageError(f"{path} holds no .json or .jsonl file: name the files themselves")
        found += inside
    return found


def _read(paths: Sequence[Path]) -> list[CarriedFile]:
    names = [path.name for path in paths]
    whole = [path.resolve() for path in paths]
    shared = os.path.commonpath([path.parent for path in whole]) if whole else ""
    # Two files of one name, from two folders, are told apart by where their paths part: a page is
    # given to others, and what is above is this machine's.
    return [
        CarriedFile(
            path.name if names.count(path.name) == 1 else one.relative_to(shared).as_posix(),
            _text(path),
        )
        for path, one in zip(paths, whole, strict=True)
    ]


def _text(path: Path) -> str:
    text = read_text(path)
    if not text.strip():
        raise UsageError(f"{path} is empty: give JSON or JSON lines")
    json_or_lines(text, str(path))  # the page would say it later, and of all files at once
    return text


def _write(output: Path, page: str, *, n_files: int) -> None:
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from error
    files = "no data inside" if n_files == 0 else "1 file" if n_files == 1 else f"{n_files} files"
    click.echo(f"Wrote {output} ({len(page) / 1024:.0f} KiB, {files}). Open it in any browser.")
