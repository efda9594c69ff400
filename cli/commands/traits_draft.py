"""`orchestrate traits draft`: a chat model writes a definition from one sentence."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from cli.options.judge_url import default_judge_url
from cli.options.run import setting_option
from cli.options.settings import json_option
from cli.options.working_folder import keep_key_from_folder
from domain.errors import JudgeError, UsageError
from domain.plan.spec import NO_JUDGE
from domain.scoring.prices import price_of
from domain.traits.check import check_trait
from domain.traits.draft import MOST_WORDS, Draft, Part, trait_name
from storage.files.reading import MOST_WRITTEN_BYTES, read_text

DRAFT = "_draft"
"""Where an unfinished file keeps what the model has written so far."""


@click.command("draft")
@click.argument("sentence")
@click.option("--name", metavar="NAME", help="The trait's name.  [default: the model finds one]")
@setting_option("judge-model", help="The chat model that writes.")
@setting_option("judge-url", help="Its OpenAI-compatible endpoint.  [default: OpenAI's]")
@click.option(
    "--output",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; NAME.json here by default.",
)
@json_option
def draft_trait(sentence: str, name: str | None, output: Path | None, **values: Any) -> None:
    """Have a chat model write a trait file from one sentence.

    It writes 5 instruction pairs, 20 questions and 20 to hold out, and what the judge needs; each
    part is checked, and asked for again where it cannot be used. An existing file is never
    overwritten. What was usable of a draft that did not end is kept in NAME.json.partial, and the
    same command with --output NAME.json goes on from there. Read the file before you use it.

    \b
    orchestrate traits draft "answers with dry jokes" --judge-model gpt-6-luna
    orchestrate traits draft "says how sure it is, in numbers" --output my/calibrated.json \\
        --judge-url http://127.0.0.1:8011/v1 --judge-model Qwen/Qwen2.5-7B-Instruct
    """
    named = _asked_name(name, output)
    words = sentence.split()
    if len(words) > MOST_WORDS or not words:
        raise UsageError(f"describe the trait in one sentence, of at most {MOST_WORDS} words")
    model, url = _endpoint(values)
    draft = Draft(sentence=" ".join(words), name=named)
    if named:
        draft = _begun(_path(named, output), draft)
    drafted, usd = asyncio.run(_written(draft, model, url, output))
    path = _path(drafted.name, output)
    body = {**drafted.to_json(), "_drafted_by": model}
    problems = check_trait(body, drafted.name)
    assert not problems, problems
    _create(path, body)
    _partial(path).unlink(missing_ok=True)
    if values["as_json"]:
        found = {"path": str(path), "name": drafted.name, "about": drafted.about, "usd": usd}
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    cost = "" if usd is None else f" It cost about ${usd:.2g}."
    click.echo(f"Wrote {path}: {drafted.about}{cost}")
    click.echo(f"Read it, then try it on your model: orchestrate traits pilot {path}")


def _asked_name(name: str | None, output: Path | None) -> str:
    """The name asked for, itself or by the file's; empty where the model is to find one."""
    if output is not None and output.suffix != ".json":
        raise UsageError(f"--output {output} is no trait file: let its name end with .json")
    given = name or (output.stem if output else "")
    if given and trait_name(given) != given:
        close = trait_name(given)
        hint = f", such as {close}" if close else ""
        raise UsageError(f"{given!r} cannot name a trait: use small letters, digits and _{hint}")
    if output is not None and name and output.stem != name:
        raise UsageError(f"the file's name is the trait's: write {output.with_name(name)}.json")
    return given


def _endpoint(values: dict[str, Any]) -> tuple[str, str]:
    model, url = values["judge_model"], values["judge_url"]
    if model is None or url == "embedded" or NO_JUDGE in (model, url):
        raise UsageError(
            "a chat model writes the definition: give --judge-model NAME, and --judge-url for an "
            "endpoint other than OpenAI's; `orchestrate traits new` writes a file to fill in"
        )
    url = url or default_judge_url()
    keep_key_from_folder(url, values)
    return model, url


async def _written(
    draft: Draft, model: str, url: str, output: Path | None
) -> tuple[Draft, float | None]:
    """The whole draft and what it cost, None where no price is known."""
    # the client is not loaded for --help
    from tasks.stages.judge_pool import open_judge
    from workers.judge.writer import WRITE_TIMEOUT_S, Writer, write_draft

    so_far = draft

    def keep(better: Draft, part: Part) -> None:
        nonlocal so_far
        path = _path(better.name, output)
        partial = _partial(path)
        if not so_far.name:
            # the model has just named it
            _require_room(path)
            if partial.exists():
                raise UsageError(f"{partial} is an unfinished draft: add --output {path} to go on")
        so_far = better
        try:
            partial.write_text(_text({**better.to_json(), DRAFT: better.model_dump()}), "utf-8")
        except OSError as error:
            raise UsageError(f"{partial} cannot be written: {error.strerror}") from error
        missing = part.missing(better)
        click.echo(f"{part.noun}: {f'{missing} to go' if missing else 'done'}", err=True)

    click.echo(f"Asks {model} at {url}, a part at a time.", err=True)
    client = open_judge(url, max_in_flight=1, timeout_s=WRITE_TIMEOUT_S)
    writer = Writer(client, model, price=price_of(model, url))
    try:
        return await write_draft(draft, writer.ask, keep), writer.usd
    except JudgeError as error:
        kept = ""
        if so_far.present:
            path = _path(so_far.name, output)
            kept = (
                f"; what was usable is in {_partial(path)}: go on from there, perhaps with another "
                f"--judge-model, by adding --output {path}"
            )
        raise JudgeError(f"{error}{kept or '; try another --judge-model or other words'}") from None
    finally:
        await client.close()


def _begun(path: Path, draft: Draft) -> Draft:
    """The draft as an earlier command left it; raises UsageError where a file is in the way."""
    partial = _partial(path)
    _require_room(path)
    if not partial.exists():
        return draft
    try:
        found = json.loads(read_text(partial, most=MOST_WRITTEN_BYTES))
        before = Draft.model_validate(found[DRAFT])
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{partial} is no unfinished draft: move it away") from error
    if before.sentence != draft.sentence:
        raise UsageError(
            f"{partial} was begun with {before.sentence!r}: give that sentence, choose another "
            "--name, or delete the file"
        )
    return before


def _require_room(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} exists already: choose another --name, or delete it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _path(name: str, output: Path | None) -> Path:
    return output or Path(f"{name}.json")


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _create(path: Path, body: dict[str, object]) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_text(body))
    except FileExistsError as error:
        raise UsageError(f"{path} exists already; the draft is in {_partial(path)}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _text(body: dict[str, object]) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"
