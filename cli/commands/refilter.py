"""`orchestrate refilter`: new vectors from what is stored, with other thresholds or methods."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click
from pydantic import ValidationError

from cli.options.run import asked_methods
from cli.options.settings import json_option, option, run_argument
from cli.screens.terminal import Screen, say
from cli.screens.verdicts import (
    print_verdict_remarks,
    print_verdicts,
    spoken_remarks,
    where_vectors_are,
)
from cli.screens.working import working
from domain.errors import UsageError
from domain.plan.spec import DEFAULT_POSITION, POSITIONS, FilterSpec, TraitRef
from storage.record.judgements import on_judgement_of
from storage.record.results import finished_metrics
from storage.record.run import Run


@click.command()
@run_argument
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
    run: Run,
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
    # the methods need torch, which is not loaded for --help
    from tasks.stages.refilter import assemble_and_test

    filter_spec = _changed(
        run.spec.filter, {"threshold": threshold, "coherence": coherence, "pairing": pairing}
    )
    chosen = asked_methods(methods) if methods else run.spec.methods
    # what the vectors are made of names their folder; the position where it is not the run's own
    settings = [f"t{filter_spec.threshold:g}", f"c{filter_spec.coherence:g}", filter_spec.pairing]
    settings += ["+".join(chosen), *([position] if position != DEFAULT_POSITION else [])]
    place = f"refiltered/{'-'.join(settings)}"
    ready = _ready(run, by_score=(threshold, coherence) != (None, None))
    found = []
    with working("Assembling and testing", total=len(ready)) as note:
        for trait, judged in ready:
            folder = f"traits/{trait.name}/{place}"
            found.append(
                assemble_and_test(
                    judged, trait, filter_spec, methods=chosen, folder=folder, position=position
                )
            )
            note(len(found))
    if as_json:
        traits = [one.model_dump(mode="json") for one in found]
        click.echo(json.dumps({"run": run.name, "traits": traits}, indent=2))
        return
    console = Screen()
    print_verdicts(console, found)
    where = f"{run.store.url}/traits/<trait>/{place}"
    print_verdict_remarks(console, spoken_remarks(found), rest_in=f"{where}/metrics.json")
    say(console, where_vectors_are(found, where))


def _ready(run: Run, *, by_score: bool) -> list[tuple[TraitRef, Run]]:
    """The finished traits, each with the run on the judgement that its vectors are of; raises
    UsageError where there is none, or no score to filter by."""
    made = finished_metrics(run.store, [trait.name for trait in run.spec.traits])
    ready = [(run.spec.trait(one.trait), on_judgement_of(run, one)) for one in made]
    if not ready:
        raise UsageError(
            f"no trait of {run.name} is finished yet: see `orchestrate status {run.name}`"
        )
    unjudged = [trait.name for trait, judged in ready if not judged.plan.is_judged]
    if unjudged and by_score:
        raise UsageError(
            f"nothing of {unjudged[0]} was judged, so there is no score to filter by: `orchestrate "
            "rejudge` asks a judge"
        )
    return ready


def _changed(recorded: FilterSpec, given: Mapping[str, object]) -> FilterSpec:
    """The run's thresholds with those that were given; raises UsageError for what is none."""
    changes = {name: value for name, value in given.items() if value is not None}
    try:
        return FilterSpec.model_validate({**recorded.model_dump(), **changes})
    except ValidationError as error:
        wrong = str(error.errors()[0]["loc"][0])
        raise UsageError(f"--{wrong} {given[wrong]} is not a number from 0 to 100") from error
