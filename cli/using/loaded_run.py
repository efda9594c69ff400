"""A run's chosen vectors and baseline beside the model that they are used on.

Imported by commands when they run, because it loads torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import click

from cli.options.using import SamplingOptions, UseOptions
from cli.screens.working import working
from domain.errors import UsageError
from domain.plan.spec import ModelSpec
from domain.traits.neutral import neutral_samples
from domain.verdict.record import PARTS, Quality, VerdictName
from domain.verdict.sentences import check_text
from domain.verdict.uses import use_layers
from orchestrator.runs import run_store
from storage.record.json_bytes import json_bytes
from storage.record.neutral import (
    Projections,
    read_neutral_projections,
    read_neutral_responses,
    write_neutral_projections,
    write_neutral_rates,
    write_neutral_responses,
)
from storage.record.responses import Response
from storage.record.results import read_metrics
from storage.record.run import Run, load_definition, open_run
from workers.engine.engine import Engine, build_engine
from workers.engine.generation import Sampling, UnitVectors
from workers.models.chat import open_prompt, response_parts
from workers.models.model import load_model
from workers.monitor.layer_vectors import (
    LayerVector,
    check_layer_vectors,
    layer_vectors_digest,
    layer_vectors_directions,
    load_layer_vectors,
)
from workers.monitor.monitor import AnsweredPrompt, OpenPrompt, monitor, project_answers
from workers.monitor.trajectory import TraitScale, Trajectory, held_out_rates, trait_scale_of


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """The run, its chosen vectors, their scale, and an engine on the model they are used on.

    `steering_layers` as run_vectors finds them.
    """

    run: Run
    engine: Engine
    vectors: Sequence[LayerVector]
    directions: UnitVectors
    scale: TraitScale
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
    vectors, steering_layers = load_run_vectors(
        run, options.traits, method=options.method, layer=options.layer, position=options.position
    )

    @cache
    def own_engine() -> Engine:
        return _engine(run.spec.model, vectors, options, is_own=True)

    neutral = _baseline(run, vectors, own_engine) if with_baseline else None
    # a prompt is a question here: there is no instruction
    questions = [one.prompt for one in read_neutral_responses(run.store)] if neutral else None
    scale = trait_scale_of(vectors, neutral, questions=questions, false_alarm=false_alarm)
    if scale.baseline is not None:
        rates = json_bytes(held_out_rates(scale))
        write_neutral_rates(run.store, layer_vectors_digest(vectors), rates)
    if options.model in (None, run.spec.model.model_id):
        engine = own_engine()
    else:
        own_engine.cache_clear()  # the run's own model leaves before another comes
        spec = run.spec.model
        other = ModelSpec(model_id=options.model, trust_remote_code=spec.trust_remote_code)
        engine = _engine(other, vectors, options, is_own=False)
    if not engine.model.tokenizer.chat_template:
        name = engine.model.model_id
        click.echo(f"Note: {name} is a base model, which goes on with each prompt", err=True)
    return LoadedRun(
        run, engine, vectors, layer_vectors_directions(vectors), scale, steering_layers
    )


def _engine(
    spec: ModelSpec, vectors: Sequence[LayerVector], options: UseOptions, *, is_own: bool
) -> Engine:
    with working(f"Loading {spec.model_id}"):
        model = load_model(
            spec.model_id,
            device=options.device,
            dtype=spec.dtype if options.dtype == "auto" else options.dtype,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
        )
    check_layer_vectors(vectors, model, allow_other_model=not is_own)
    return build_engine(model)


def load_run_vectors(
    run: Run, traits: str, *, method: str | None, layer: str | None = None, position: str
) -> tuple[list[LayerVector], dict[str, int]]:
    """The vectors of all the run's traits that have some, or of those that are named.

    They stand at the layer where they read best; beside them trait -> the layer where they steer
    best, of those for which no layer was asked for. Raises UsageError for a trait or method that
    the run lacks.
    """
    files: dict[str, bytes] = {}
    layers: dict[str, int | str] = {}
    steering_layers: dict[str, int] = {}
    for trait in _asked_traits(run, traits):
        quality = _told_quality(run, trait, is_named=traits != "all")
        if quality is None:
            continue
        name = _stored_method(trait, quality, method)
        files[trait] = run.store.read(f"traits/{trait}/vectors/{name}.safetensors")
        reads, steers = use_layers(quality, name)
        layers[trait] = reads if layer is None else layer
        if layer is None:
            steering_layers[trait] = steers
    if not files:
        raise UsageError(
            f"no trait of {run.store.url} has a vector: finish the run, or see its metrics"
        )
    return load_layer_vectors(files, layers, position=position), steering_layers


def _asked_traits(run: Run, traits: str) -> list[str]:
    known = [trait.name for trait in run.spec.traits]
    asked = known if traits == "all" else [name.strip() for name in traits.split(",")]
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UsageError(f"{run.store.url} has no trait {unknown[0]!r}: it has {', '.join(known)}")
    return asked


def _told_quality(run: Run, trait: str, *, is_named: bool) -> Quality | None:
    """The quality of a trait's vectors; what speaks against them is said on stderr. None where it
    has none, which raises UsageError for a trait that is named."""
    quality, problem = None, "has no vector: too few responses were kept"
    try:
        metrics = read_metrics(run.store, trait)
        quality = metrics.quality
    except KeyError:
        problem = "is not finished"
    if quality is None:
        if is_named:
            raise UsageError(f"{trait} {problem}")
        click.echo(f"Note: {trait} is left out: it {problem}", err=True)
    elif metrics.verdict != VerdictName.USABLE or metrics.is_to_be_checked:
        to_come = f"tests of it are still to come (`orchestrate status {run.name}`)"
        said = [*metrics.reasons, *([to_come] if metrics.is_to_be_checked else [])]
        verdict = f"{metrics.verdict}{check_text(metrics)}"
        why = "; ".join(said) or "see its metrics"
        click.echo(f"Note: the verdict on {trait} is `{verdict}`: {why}", err=True)
    return quality


def _stored_method(trait: str, quality: Quality, method: str | None) -> str:
    """The method, the best one where none is asked for; raises UsageError where the trait has no
    vector of it."""
    best, reading = quality.best, quality.reading
    has_parts = reading is not None and reading.text_share is not None
    stored = (*best.by_method, *(PARTS if has_parts else ()))
    name = method or best.method
    if name not in stored:
        raise UsageError(
            f"{trait} has no {name} vector: use one of {', '.join(stored)}, or "
            "`orchestrate refilter --methods`"
        )
    return name


def _baseline(
    run: Run, vectors: Sequence[LayerVector], load: Callable[[], Engine]
) -> list[Projections]:
    """Projections [tokens, k] of the run's neutral responses on these vectors.

    `load` gives an engine on the run's own model; it is called only when they were not measured on
    these vectors before.
    """
    found = read_neutral_projections(run.store, layer_vectors_digest(vectors))
    if found is None:
        engine, directions = load(), layer_vectors_directions(vectors)
        made = _measured(run, engine, directions) or _made(run, engine, directions)
        found = [one.projections for one in sorted(made, key=lambda one: one.id)]
        write_neutral_projections(run.store, layer_vectors_digest(vectors), found)
    return found


def _measured(run: Run, engine: Engine, directions: UnitVectors) -> list[Trajectory]:
    """The stored neutral responses on further directions; empty where none are stored."""
    answered = [
        AnsweredPrompt("", tuple(one.prompt_token_ids) + before, ids)
        for one in read_neutral_responses(run.store)
        for before, ids in [one.measured(run.spec.measure)]
    ]
    made = []
    with working("Reading the baseline", total=len(answered)) as note:
        for one in project_answers(engine, answered, directions):
            made.append(one)
            note(len(made))
    return made


def _made(run: Run, engine: Engine, directions: UnitVectors) -> list[Trajectory]:
    definitions = [load_definition(run, trait.name) for trait in run.spec.traits]
    samples = neutral_samples(definitions, seed=run.spec.seed)
    click.echo(
        f"Making the baseline once: {len(samples)} responses without instruction, kept in "
        f"{run.store.url}/neutral. --no-baseline goes without it: raw scores, nothing flagged.",
        err=True,
    )
    asked = [
        OpenPrompt(s.question, open_prompt(engine.model, [("user", s.question)]), s.seed)
        for s in samples
    ]
    sampling = Sampling(**run.spec.sampling.model_dump())
    made = []
    with working("Making the baseline", total=len(asked)) as note:
        for one in monitor(
            engine,
            asked,
            directions,
            sampling=sampling,
            measure=run.spec.measure,
            streams=False,
        ):
            if isinstance(one, Trajectory):
                made.append(one)
                note(len(made))
    responses = [
        Response(
            key=samples[one.id].key,
            seed=samples[one.id].seed,
            prompt=asked[one.id].prompt.text,
            prompt_token_ids=list(asked[one.id].prompt.token_ids),
            finish=str(one.facts["finish"]),
            **response_parts(engine.model, one.all_ids, one.answer_start),
        )
        for one in sorted(made, key=lambda one: one.id)
    ]
    write_neutral_responses(run.store, responses)
    return made
