"""`orchestrate steer`: the same prompts unsteered and steered, side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cli.options.settings import Command, json_option, together
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
from cli.screens.terminal import Screen
from cli.screens.working import working
from domain.errors import UsageError
from domain.plan.steering_term import Mode, SteeringTerm, parse_steering_term
from storage.files.transcripts import Transcript

if TYPE_CHECKING:
    from cli.using.loaded_run import LoadedRun
    from workers.monitor.layer_vectors import LayerVector
    from workers.monitor.monitor import OpenPrompt

MODES: tuple[Mode, ...] = ("add", "ablate", "cap")

push_options = together(
    click.option(
        "--add",
        multiple=True,
        metavar="TRAIT=C[@L]",
        help="Add C times the vector, at layer L, or where the run found that steering works. "
        "May be repeated.",
    ),
    click.option(
        "--ablate",
        multiple=True,
        metavar="TRAIT[@L]",
        help="Remove the direction. May be repeated.",
    ),
    click.option(
        "--cap",
        multiple=True,
        metavar="TRAIT=P[@L]",
        help="Let no projection exceed P. May be repeated.",
    ),
    click.option(
        "--times",
        default="1",
        show_default=True,
        metavar="LIST",
        help="Multiples of all strengths, one column each: -1,1,2.",
    ),
    click.option(
        "--unit",
        default="raw",
        show_default=True,
        type=click.Choice(["raw", "residual"]),
        help="raw: multiples of the stored vector. residual: share of the mean norm of the "
        "responses' averaged activations at the layer.",
    ),
    click.option(
        "--at",
        "positions",
        default="all",
        show_default=True,
        type=click.Choice(["all", "prompt", "response"]),
        help="Which tokens are changed; prompt ends with the prompt's last token.",
    ),
    heading="How it is pushed",
)


@click.command(cls=Command)
@use_options
@push_options
@prompt_options
@false_alarm_option
@no_baseline_option
@sampling_options
@json_option
def steer(**values: Any) -> None:
    """Answer prompts unsteered and steered, with the same seeds, and set the texts side by side.

    Several vectors act at once, in the order add, ablate, cap. Every token is also projected on
    the run's vectors; at its own layer and after it, a steered trait's score holds the push itself.
    One answer's z varies by about 1: compare over several prompts.

    \b
    orchestrate steer demo --prompt "How are you?" --add evil=2
    orchestrate steer demo --prompt "How are you?" --add evil=1 --times -2,-1,1,2
    orchestrate steer demo --prompts p.txt --ablate refusal --add sycophantic=0.3 --unit residual
    orchestrate steer demo --prompts p.txt --cap evil=10@4 --at response --output steered.json
    """
    use = use_options_of(values)
    sampling = sampling_options_of(values)
    terms = [parse_steering_term(text, mode) for mode in MODES for text in values[mode]]
    if not terms:
        raise UsageError("nothing to steer with: give --add, --ablate or --cap")
    factors = _factors(values["times"])
    transcripts = prompt_options_of(values)
    # torch is not loaded for --help
    with working("Loading torch"):
        from cli.screens.scores import print_scores_side_by_side
        from cli.using.loaded_run import load_run
        from cli.using.monitored import monitored, transcripts_to_monitor
        from cli.using.monitored_output import give_results, open_output_file

    sinks = [open_output_file(path) for path in values["outputs"]]
    has_baseline = not values["no_baseline"]
    loaded = load_run(use, false_alarm=values["false_alarm"], with_baseline=has_baseline)
    transcripts = transcripts_to_monitor(loaded, transcripts, sampling)
    columns = [_Column([term.times(factor) for term in terms], factor) for factor in factors]
    asked = _asked(loaded, transcripts, columns, values, seed=sampling.seed)
    console = Screen(to_stderr=values["as_json"], highlight=False)
    made = monitored(loaded, asked, sampling, sinks, console)
    steered = {term.trait for term in terms}

    def show() -> None:
        for i in range(len(transcripts)):
            print_scores_side_by_side(
                console, loaded.scale, made[i :: len(transcripts)], traits=steered
            )

    give_results(values, loaded.scale, made, show=show)


@dataclass(frozen=True)
class _Column:
    """One way of steering: all terms, so many times as strong."""

    terms: list[SteeringTerm]
    factor: float

    @property
    def facts(self) -> dict[str, Any]:
        """What results say of it; a single strength is shown as it is."""
        alone = self.terms[0].strength if len(self.terms) == 1 else self.factor
        return {"steering": ", ".join(map(str, self.terms)), "coefficient": alone}


def _asked(
    loaded: LoadedRun,
    transcripts: list[Transcript],
    columns: list[_Column],
    values: dict[str, Any],
    *,
    seed: int,
) -> list[OpenPrompt]:
    """Every prompt unsteered, then every prompt in each column, with the same seeds."""
    from cli.using.monitored import prompt_to_monitor
    from workers.monitor.layer_vectors import layer_vectors_steering

    model, found = loaded.engine.model, []
    for i, one in enumerate(transcripts):
        found.append(prompt_to_monitor(model, one, seed=seed + i))
    for column in columns:
        terms = [(term, _vector_of(loaded, term)) for term in column.terms]
        steering = layer_vectors_steering(terms, positions=values["positions"], unit=values["unit"])
        how = {"positions": values["positions"], "unit": values["unit"], **column.facts}
        how["steering_layers"] = [one.layer for _, one in terms]
        for i, one in enumerate(transcripts):
            facts = {"beside": i, **how}
            found.append(
                prompt_to_monitor(model, one, seed=seed + i, steering=steering, facts=facts)
            )
    return found


def _vector_of(loaded: LoadedRun, term: SteeringTerm) -> LayerVector:
    """The run's vector of the term's trait, at the layer the term names or where the run found that
    steering works, else at the layer it is read at."""
    from workers.monitor.layer_vectors import layer_vector

    for one in loaded.vectors:
        if one.trait == term.trait:
            layer = term.layer or loaded.steering_layers.get(term.trait, one.layer)
            return layer_vector(one.trait, one.vector, layer)
    known = ", ".join(one.trait for one in loaded.vectors)
    raise UsageError(f"no vector of {term.trait!r} is loaded: use one of {known}")


def _factors(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--times {text!r} is no list of numbers: write -1,1,2") from error
    if not all(map(math.isfinite, found)):
        raise UsageError(f"--times {text!r}: leave out what is not finite")
    return found
