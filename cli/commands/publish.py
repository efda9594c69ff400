"""`orchestrate publish`: a run as a folder for any static host, and one for a hub."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.filesize import decimal

from cli.commands.report import reported
from cli.options.settings import json_option, run_argument
from cli.pages.carried_files import carried_files
from cli.screens.working import working
from cli.using.private import HUB_ID, Private
from domain.errors import OrchestrateError, UsageError
from storage.record.run import Run

HUB_PREFIX = "hub:"


@click.command()
@run_argument
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write it.  [default: RUN-published]",
)
@click.option(
    "--scores",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="JSON of monitor, steer or screen that the viewer opens with. May be repeated.",
)
@click.option(
    "--upload",
    metavar="hub:OWNER/NAME",
    help="Then upload the hub folder as a model there; says what goes, and asks.",
)
@click.option("--public", is_flag=True, help="A repository that --upload makes is for everybody.")
@click.option("--yes", is_flag=True, help="Upload without asking.")
@json_option
def publish(
    run: Run,
    folder: Path | None,
    scores: Sequence[Path],
    upload: str | None,
    public: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Write a run as a folder that any static host serves: front page, report, viewer, vectors,
    figures; and in hub/ a folder for a hub.

    Paths, names of machines, addresses of servers and keys are left out. Responses are in the
    report as the model wrote them. A folder that holds something else is refused. Nothing is
    uploaded without --upload.

    \b
    orchestrate publish demo
    orchestrate publish demo --to site --scores scores.json
    orchestrate publish demo --upload hub:me/demo-vectors
    """
    target = _hub_id(upload) if upload else None
    # torch is not loaded for --help
    from cli.using.published import HUB, published_files, write_published

    where = folder or Path(f"{run.name}-published")
    carried = carried_files(scores)
    with working("Publishing"):
        files = published_files(run, reported(run), Private.of(run, os.environ), carried)
        write_published(where, files)
    if target is not None:
        _upload(where / HUB, target, public=public, yes=yes)
    if as_json:
        uploaded = {"uploaded": target} if target else {}
        click.echo(json.dumps({"folder": str(where), "files": sorted(files), **uploaded}))
        return
    size = decimal(sum(map(len, files.values())))
    click.echo(f"{where}: {len(files)} files, {size}; open {where / 'index.html'}")
    if not carried:
        click.echo("The viewer holds no scores: name files of monitor or steer with --scores.")
    if target is None and (where / HUB).is_dir():
        click.echo(f"Nothing was uploaded; --upload hub:OWNER/NAME sends {where / HUB}.")


def _hub_id(upload: str) -> str:
    name = upload.removeprefix(HUB_PREFIX)
    if not upload.startswith(HUB_PREFIX) or not HUB_ID.fullmatch(name):
        raise UsageError(f"--upload {upload}: write hub:OWNER/NAME, for example hub:me/vectors")
    return name


def _upload(folder: Path, target: str, *, public: bool, yes: bool) -> None:
    """Say what goes where, ask, and upload; raises UsageError without a token."""
    from huggingface_hub import HfApi, get_token

    from cli.doctor.model import UNREACHABLE

    if not folder.is_dir():
        raise UsageError("no trait has a vector yet: there is nothing to upload")
    if get_token() is None:
        raise UsageError(
            f"the hub wants to know who uploads to {target}: run `hf auth login`, or set HF_TOKEN"
        )
    api = HfApi()
    try:
        known = set(api.list_repo_files(target)) if api.repo_exists(target) else None
        _ask(folder, target, known, public=public, yes=yes)
        if known is None:
            api.create_repo(target, private=not public)
        api.upload_folder(repo_id=target, folder_path=folder, commit_message="Publish vectors")
    except UNREACHABLE as error:
        raise OrchestrateError(f"{target} was not uploaded: {error}") from error
    click.echo(f"Uploaded to {api.endpoint}/{target}", err=True)


def _ask(folder: Path, target: str, known: set[str] | None, *, public: bool, yes: bool) -> None:
    """Raises UsageError for a repository that holds something else, and where nobody answers."""
    from cli.using.published import MARKER

    if known and not known <= {".gitattributes"} and MARKER not in known:
        raise UsageError(f"{target} holds something that was not published from here: name another")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        click.echo(f"  {path.relative_to(folder)}  {decimal(path.stat().st_size)}", err=True)
    there = "which is there" if known is not None else "public, new" if public else "private, new"
    click.echo(f"{len(files)} files would go to {target} ({there}).", err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked", advice="say --yes to upload without asking")
    click.confirm("Upload them?", abort=True, err=True)
