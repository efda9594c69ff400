"""`orchestrate traits`: list, show, write, draft, try and check trait definitions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Column
from rich.text import Text

from cli.commands.traits_draft import draft_trait
from cli.commands.traits_pilot import pilot_trait
from cli.options.settings import json_option
from cli.screens.tables import table_of, text_column
from cli.screens.terminal import Screen
from domain.errors import TraitFileError, UsageError
from domain.plan.samples import EVALUATION, POLARITIES
from domain.traits.check import Problem, check_trait, trait_template
from domain.traits.definition import BUNDLED_TRAITS, MEASURED_TRAITS, TraitDefinition
from storage.files.trait_files import TraitSource, read_trait, split_refs


@click.group()
def traits() -> None:
    """List, show, write and check trait definitions.

    A trait is a bundled name, the path of a JSON file, or of a folder of scenarios; the name of
    the file or folder is the trait's.

    \b
    orchestrate traits list                  # what comes with this program
    orchestrate traits new humor             # writes humor.json for you to fill in
    orchestrate traits draft "dry jokes"     # has a chat model write it
    orchestrate traits check humor.json      # says what is still missing, and where
    orchestrate traits pilot humor.json      # 40 responses, and what to change
    orchestrate extract --traits refusal,humor.json
    """


@traits.command("list")
@json_option
def list_traits(as_json: bool) -> None:
    """List the bundled traits.

    \b
    orchestrate traits list
    orchestrate traits list --json | jq -r '.traits[].name'
    """
    sources = [read_trait(name) for name in (*BUNDLED_TRAITS, *MEASURED_TRAITS)]
    rows = [(source, source.definition()) for source in sources]
    if as_json:
        summaries = [
            {
                "name": trait.name,
                "about": source.about,
                "n_instructions": len(trait.instruction),
                "n_questions": len(trait.questions),
                "n_eval_questions": len(trait.eval_questions),
                "fingerprint": trait.fingerprint(),
            }
            for source, trait in rows
        ]
        _print_json({"traits": summaries})
        return
    meaning = Column("a high score means, against a low one")
    counted = (Column(heading, justify="right") for heading in ("pairs", "questions", "held out"))
    table = table_of(text_column("trait"), meaning, *counted, gap=2)
    for source, trait in rows:
        counts = (len(trait.instruction), len(trait.questions), len(trait.eval_questions))
        table.add_row(trait.name, Text(source.about), *map(str, counts))
    Screen().print(table)


@traits.command("show")
@click.argument("ref", metavar="NAME")
@json_option
def show_trait(ref: str, as_json: bool) -> None:
    """Show all texts of a trait.

    NAME is a bundled name or the path of a JSON file. With --json the output is a trait file
    itself, so a bundled trait can be copied and changed.

    \b
    orchestrate traits show refusal
    orchestrate traits show refusal --json > firm_refusal.json
    """
    source = read_trait(ref)
    trait = source.definition()
    if as_json:
        notes = {"_name": trait.name, "_fingerprint": trait.fingerprint()}
        _print_json({**notes, "_about": source.about, **trait.to_json()})
        return
    click.echo("\n".join(_lines(source, trait)))


@traits.command("new")
@click.argument("name")
@click.option(
    "--output", type=click.Path(path_type=Path), help="File to write; NAME.json here by default."
)
def new_trait(name: str, output: Path | None) -> None:
    """Write a trait file for you to fill in.

    An existing file is never overwritten.

    \b
    orchestrate traits new humor
    orchestrate traits new humor --output my_traits/humor.json
    """
    path = output or Path(f"{name}.json")
    for problem in check_trait(trait_template(name), name):
        if problem.where == "name":
            raise UsageError(problem.message)
    if path.name != f"{name}.json":
        better = path / f"{name}.json" if path.is_dir() else path.with_name(f"{name}.json")
        raise UsageError(f"the file's name is the trait's name: write --output {better}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(trait_template(name), indent=2, ensure_ascii=False) + "\n")
    except FileExistsError as error:
        raise UsageError(f"{path} exists already: choose another name or delete it") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    click.echo(f"Wrote {path}. Fill it in, then run: orchestrate traits check {path}")


@traits.command("check")
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@json_option
@click.pass_context
def check_traits(context: click.Context, refs: tuple[str, ...], as_json: bool) -> None:
    """Say what is wrong in trait files, and where.

    Nothing is generated or judged.

    REF is a bundled name, the path of a JSON file or of a folder of scenarios, or `all` for the
    bundled ones. A file in a trait_data_extract folder is read together with its namesake in
    trait_data_eval. Ends with 0 when every file can be used and with 1 when one has an error; a
    warning does not count.

    \b
    orchestrate traits check humor.json
    orchestrate traits check data_generation/trait_data_extract/*.json
    """
    rows = []
    for ref in (one for several in refs for one in split_refs(several)):
        problems = _problems(ref)
        n_errors = sum(problem.severity == "error" for problem in problems)
        rows.append({"ok": not n_errors, "ref": ref, "problems": [asdict(p) for p in problems]})
        if not as_json:
            _print_checked(ref, problems, n_errors)
    if as_json:
        _print_json({"traits": rows})
    if not all(row["ok"] for row in rows):
        context.exit(1)


def _problems(ref: str) -> Sequence[Problem]:
    try:
        source = read_trait(ref)
    except TraitFileError as error:
        # One unreadable file must not hide what is wrong with the others.
        return (Problem("error", "file", str(error)),)
    return source.problems()


def _print_checked(ref: str, problems: Sequence[Problem], n_errors: int) -> None:
    if not problems:
        click.echo(f"{ref}: ok")
    else:
        n_warnings = len(problems) - n_errors
        click.echo(f"{ref}: {_count(n_errors, 'error')}, {_count(n_warnings, 'warning')}")
        screen = Screen(highlight=False, wrap=False)
        for problem in problems:
            color = "red" if problem.severity == "error" else "yellow"
            severity = (f"  {problem.severity:7}", color)
            screen.print(Text.assemble(severity, f"  {problem.where}: {problem.message}"))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _lines(source: TraitSource, trait: TraitDefinition) -> list[str]:
    lines = [trait.name, *([source.about] if source.about else [])]
    lines += [f"fingerprint {trait.fingerprint()}"]
    headings = {"": "Questions", EVALUATION: "Held-out questions"}
    if trait.is_scenarios:
        headings = {"": "Scenarios", EVALUATION: "Held-out scenarios"}
    else:
        pairs = [(pair.positive, pair.negative) for pair in trait.instruction]
        lines += ["", "Instructions", *_pair_lines(pairs)]
    for part, heading in headings.items():
        questions = trait.questions_of(part)
        rows = [f"  {i:2}  {question}" for i, question in enumerate(questions)]
        if trait.is_scenarios:
            sides = [[trait.asked(part, k, p) for p in POLARITIES] for k in range(len(questions))]
            rows = _pair_lines(sides)
        lines += ["", heading, *(rows or ["  none"])]
    return [*lines, "", "Judge prompt", *(f"  {row}" for row in trait.eval_prompt.splitlines())]


def _pair_lines(pairs: Iterable[Sequence[str]]) -> list[str]:
    return [
        line
        for i, (positive, negative) in enumerate(pairs)
        for line in (f"  {i}  positive  {positive}", f"     negative  {negative}")
    ]


def _print_json(body: object) -> None:
    click.echo(json.dumps(body, indent=2, ensure_ascii=False))


traits.add_command(draft_trait)
traits.add_command(pilot_trait)
