"""The baseline of a run: read from its folder, or made once with its model and no instruction.

Imported by commands when they run, because it loads torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from orchestrator.neutral import neutral_samples
from storage.neutral import (
    Projections,
    read_neutral_projections,
    read_neutral_responses,
    write_neutral_projections,
    write_neutral_responses,
)
from storage.responses import Response
from storage.run_record import Run, load_definition
from workers.chat import render_prompt
from workers.engine import Engine
from workers.generation import Directions, Sampling
from workers.layer_vectors import LayerVector, digest, directions_of
from workers.monitor import Answered, Asked, monitor, read_answers
from workers.trajectory import Trajectory


def run_baseline(
    run: Run, vectors: Sequence[LayerVector], load: Callable[[], Engine]
) -> list[Projections]:
    """Projections [tokens, k] of the run's neutral responses on these vectors.

    `load` gives an engine on the run's own model; it is called only when they were not measured on
    these vectors before.
    """
    found = read_neutral_projections(run.store, digest(vectors))
    if found is None:
        engine, directions = load(), directions_of(vectors)
        made = _measured(run, engine, directions) or _made(run, engine, directions)
        found = [one.projections for one in sorted(made, key=lambda one: one.id)]
        write_neutral_projections(run.store, digest(vectors), found)
    return found


def _measured(run: Run, engine: Engine, directions: Directions) -> list[Trajectory]:
    """The stored neutral responses on further directions; empty where none are stored."""
    answered = [
        Answered("", tuple(one.prompt_token_ids), tuple(one.response_token_ids))
        for one in read_neutral_responses(run.store)
    ]
    return list(read_answers(engine, answered, directions))


def _made(run: Run, engine: Engine, directions: Directions) -> list[Trajectory]:
    definitions = [load_definition(run, trait.name) for trait in run.spec.traits]
    samples = neutral_samples(definitions, seed=run.spec.seed)
    click.echo(
        f"Making the baseline once: {len(samples)} responses without instruction, kept in "
        f"{run.store.url}/neutral",
        err=True,
    )
    asked = [
        Asked(s.question, render_prompt(engine.model, system=None, user=s.question), s.seed)
        for s in samples
    ]
    sampling = Sampling(**run.spec.sampling.model_dump())
    made = [
        one
        for one in monitor(engine, asked, directions, sampling=sampling, streams=False)
        if isinstance(one, Trajectory)
    ]
    responses = [
        Response(
            key=samples[one.id].key,
            seed=samples[one.id].seed,
            prompt=asked[one.id].prompt.text,
            prompt_token_ids=list(asked[one.id].prompt.token_ids),
            response=one.response,
            response_token_ids=list(one.token_ids),
            finish=str(one.facts["finish"]),
        )
        for one in sorted(made, key=lambda one: one.id)
    ]
    write_neutral_responses(run.store, responses)
    return made
