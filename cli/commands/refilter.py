"""`orchestrate refilter`: new vectors from what is stored, with other thresholds or methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import click
from pydantic import ValidationError
from rich.console import Console

from cli.options.settings import json_option, option, runs_dir_option
from cli.screens.run import print_verdicts, remarks, where_vectors_are
from domain.errors import UsageError
from domain.plan.spec import DEFAULT_POSITION, POSITIONS, FilterSpec
from domain.verdict.record import TraitMetrics
from orchestrator.runs import parse_methods, run_store
from storage.record.run import Run, open_run


@dataclass(frozen=True)
class Settings:
    """What the vectors are made of, which names their folder."""

    filter: FilterSpec
    methods: tuple[str, ...]
    position: str

    def folder(self, trait: str) -> str:
        """Where a trait's vectors go; the position is named where it is not the run's own."""
        f = self.filter
        name = f"t{f.threshold:g}-c{f.coherence:g}-{f.pairing}-{'+'.join(self.methods)}"
        if self.position != DEFAULT_POSITION:
            name += f"-{self.position}"
        return f"traits/{trait}/refiltered/{name}"


@click.command()
@click.argument("run")
@runs_dir_option
@option("--threshold", type=click.FloatRange(0, 100), help="As in extract; else the run's own.")
@option("--coherence", type=click.FloatRange(0, 100), help="As in extract; else the run's own.")
@option("--filter", "pairing", type=click.Choice(["unpaired", "paired"]), help="As in extract.")
@option("--methods", metavar="LIST", help="As in extract; else the run's own.")
@option(
    "--position",
    default=DEFAULT_POSITION,
    type=click.Choice(POSITIONS),
    help="Where the vectors are measured and tested; their files hold every position.",
)
@json_option
def refilter(
    run: str,
    runs_dir: str,
    threshold: float | None,
    coherence: float | None,
    pairing: str | None,
    methods: str | None,
    position: str,
    as_json: bool,
) -> None:
    """Assemble a run's vectors again with other thresholds, pairing, methods or position.

    No forward pass, no judge call: seconds a trait, but minutes for methods other than
    mean_diff on models of thousands of dimensions. Writes beside the run's own vectors, into
    traits/<trait>/refiltered/, never over them.

    \b
    orchestrate refilter demo --threshold 60
    orchestrate refilter demo --filter paired --methods mean_diff,probe
    orchestrate refilter demo --position prompt_last
    """
    recorded = open_run(run_store(runs_dir, run))
    given = {"threshold": threshold, "coherence": coherence, "pairing": pairing}
    filter_spec = _changed(recorded.spec.filter, given)
    chosen = parse_methods(methods) if methods else recorded.spec.methods
    settings = Settings(filter_spec, chosen, position)
    found = [_assemble(recorded, name, settings) for name in _traits(recorded, run)]
    if as_json:
        traits = [one.model_dump(mode="json") for one in found]
        click.echo(json.dumps({"run": run, "traits": traits}, indent=2))
        return
    console = Console()
    print_verdicts(console, found)
    for line in remarks(found):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    where = f"{recorded.store.url}/{settings.folder('<trait>')}"
    console.print(where_vectors_are(found, where), highlight=False, soft_wrap=True, markup=False)


def _changed(recorded: FilterSpec, given: Mapping[str, object]) -> FilterSpec:
    """The run's thresholds with those that were given; raises UsageError for what is none."""
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        return FilterSpec.model_validate({**recorded.model_dump(), **changes})
    except ValidationError as error:
        wrong = str(error.errors()[0]["loc"][0])
        raise UsageError(f"--{wrong} {given[wrong]} is not a number from 0 to 100") from error


def _assemble(run: Run, trait: str, settings: Settings) -> TraitMetrics:
    # the methods need torch, which is not loaded for --help
    from tasks.stages.refilter import assemble_and_test

    return assemble_and_test(
        run,
        run.spec.trait(trait),
        settings.filter,
        methods=settings.methods,
        folder=settings.folder(trait),
        position=settings.position,
    )


def _traits(run: Run, name: str) -> list[str]:
    traits = [trait.name for trait in run.spec.traits]
    done = run.done()
    ready = [trait for trait in traits if f"{trait}/reduce" in done]
    if not ready:
        raise UsageError(f"no trait of {name} is finished yet: see `orchestrate status {name}`")
    return ready
