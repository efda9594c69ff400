"""A run's vectors beside the model that they are used on, loaded in this process.

Imported by commands when they run, because it loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import click

from cli.described_run import run_store
from cli.neutral_baseline import run_baseline
from cli.run_vectors import run_vectors
from cli.use_options import SamplingOptions, UseOptions
from orchestrator.run_spec import ModelSpec
from storage.run_record import Run, open_run
from workers.engine import Engine
from workers.generation import Directions, Sampling
from workers.layer_vectors import (
    LayerVector,
    check_model,
    directions_of,
    load_layer_vectors,
)
from workers.model import load_model
from workers.trajectory import Scale, scale_of


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """The run, its chosen vectors, their scale, and an engine on the model they are used on.

    `steering_layers` as in RunVectors.
    """

    run: Run
    engine: Engine
    vectors: Sequence[LayerVector]
    directions: Directions
    scale: Scale
    steering_layers: Mapping[str, int]

    def sampling(self, options: SamplingOptions) -> Sampling:
        """The run's sampling with what was given instead."""
        own = self.run.spec.sampling.model_dump()
        given = {"max_new_tokens": options.max_new_tokens, "temperature": options.temperature}
        return Sampling(**own | {name: v for name, v in given.items() if v is not None})


def load_run(options: UseOptions, *, false_alarm: float, with_baseline: bool = True) -> LoadedRun:
    """Open the run, load the model, and read the baseline or make it now.

    The baseline is of the run's own model also where another one is used, so that a fine-tune is
    seen against what it came from.
    """
    run = open_run(run_store(options.runs_dir, options.run))
    names = [] if options.traits == "all" else [n.strip() for n in options.traits.split(",")]
    chosen = run_vectors(run, names, method=options.method, layer=options.layer)
    for warning in chosen.warnings:
        click.echo(f"Note: {warning}", err=True)
    vectors = load_layer_vectors(chosen.files, chosen.layers, position=options.position)

    @cache
    def own_engine() -> Engine:
        return _engine(run.spec.model, vectors, options, is_own=True)

    neutral = run_baseline(run, vectors, own_engine) if with_baseline else None
    scale = scale_of(vectors, neutral, false_alarm=false_alarm)
    if options.model in (None, run.spec.model.model_id):
        engine = own_engine()
    else:
        own_engine.cache_clear()  # the run's own model leaves before another comes
        spec = run.spec.model
        other = ModelSpec(model_id=options.model, trust_remote_code=spec.trust_remote_code)
        engine = _engine(other, vectors, options, is_own=False)
    directions = directions_of(vectors)
    return LoadedRun(run, engine, vectors, directions, scale, chosen.steering_layers)


def _engine(
    spec: ModelSpec, vectors: Sequence[LayerVector], options: UseOptions, *, is_own: bool
) -> Engine:
    model = load_model(
        spec.model_id,
        device=options.device,
        dtype=spec.dtype if options.dtype == "auto" else options.dtype,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
    )
    check_model(vectors, model, allow_other_model=not is_own)
    return Engine(model)
