"""The reduce stage: thresholds over a trait's scores, and its vectors from what was kept.

The converge stage: whether a trait's direction is known well enough after a wave of samples.

How sure the mean-difference direction is with the samples so far, at the layers that matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.plan.jobs import Job
from domain.plan.readiness import Certainty, decide, stop_mark
from domain.plan.samples import Polarity
from domain.plan.spec import DEFAULT_POSITION, POSITIONS, FilterSpec, TraitRef
from domain.scoring.scores import METRICS as SCORED_METRICS
from domain.scoring.thresholds import Judged, outcomes
from domain.traits.prompts import question_for
from domain.verdict.metrics import (
    Measured,
    Outcomes,
    n_with,
    scored_prompts,
    trait_metrics,
    trait_scores,
)
from storage.record.artifacts import Record, load_record, publish
from storage.record.judgements import effective_scorings, judge_of
from storage.record.manifest import writing_results
from storage.record.metrics import json_bytes, write_metrics
from storage.record.responses import load_activations, load_responses
from storage.record.results import SampleResult, write_samples
from storage.record.run import Run, load_definition
from storage.record.tables import read_response_vectors, stopping, training_jobs
from tasks.stages.steering_cells import encode_directions
from traitlens.assess.build import TraitVectors, build_vectors, encode_vectors
from traitlens.assess.directions import direction_angles, vector_separation
from traitlens.assess.kept_rows import (
    Array,
    Group,
    KeptRows,
    begins_with_refusal,
    borrowed_share,
    independent_groups,
)
from traitlens.assess.quality import candidate_layers, contrast_interval
from traitlens.methods.mean_diff import mean_diff
from traitlens.vectors.trait_vector import Provenance

METRICS = "metrics.json"
"""The role of the metrics in a reduce record: what verify goes on from."""


def reduce(run: Run, job: Job) -> Record:
    """Assemble a trait with the run's own thresholds and methods."""
    assert job.trait is not None
    trait = run.spec.trait(job.trait)
    folder = f"traits/{trait.name}"
    metrics = assemble(run, trait, run.spec.filter, methods=run.spec.methods, folder=folder)
    info: dict[str, Any] = {"summary": metrics["verdict"], "verdict": metrics["verdict"]}
    files = {METRICS: json_bytes(metrics)}
    if metrics["verdict"] != "do not use":
        # what cannot be used is not worth the price of steering with it
        method = metrics["quality"]["best"]["method"]
        vectors = read_response_vectors(run.store, trait.name, method)
        directions, info["steering"] = encode_directions(vectors, metrics["quality"])
        files |= directions
    return publish(run.store, job, files=files, info=info)


def assemble(
    run: Run,
    trait: TraitRef,
    filter_spec: FilterSpec,
    *,
    methods: tuple[str, ...],
    folder: str,
    position: str = DEFAULT_POSITION,
) -> dict[str, Any]:
    """Threshold, build the vectors, and write what people read of the trait below a folder.

    The vectors are made at every position and measured at one. Reads stored artifacts only: no
    forward pass, no judge call. Returns the metrics.
    """
    results = sample_results(run, training_jobs(run, trait, "generate"), filter_spec)
    with writing_results(run.store, folder):
        write_samples(run.store, folder, trait.name, results)
        facts = _generation_facts(run, trait)
        vectors = _vectors(run, trait, results, methods, position)
        if vectors is not None:
            provenance = _provenance(run, trait, filter_spec, results, facts, vectors)
            for name, data in encode_vectors(vectors, provenance).items():
                run.store.write(f"{folder}/vectors/{name}", data)
        found = [(one.judged, one.outcome) for one in results]
        measured = Measured(
            contrast_interval=_contrast_interval(found),
            magnitude=None if vectors is None else vectors.magnitude(),
            quality=None if vectors is None else vectors.quality,
            methods={} if vectors is None else vectors.details,
            n_eval_questions=trait.n_eval_questions,
            checks=run.spec.checks,
        )
        metrics = {
            **trait_metrics(trait.name, found, measured),
            "filter": filter_spec.model_dump(),
            "generation": facts,
            "judging": _judging_facts(run),
            "stopping": stopping(run, trait),
        }
        write_metrics(run.store, folder, metrics)
    return metrics


def sample_results(run: Run, jobs: Sequence[Job], filter_spec: FilterSpec) -> list[SampleResult]:
    """Every sample of a trait's generate jobs with its response, scorings and outcome."""
    judged, responses = [], []
    for generate_job in jobs:
        scorings = effective_scorings(run, run.plan.judge_job(generate_job))
        samples = {sample.key: sample for sample in run.plan.samples(generate_job)}
        for response in load_responses(run.store, generate_job):
            n_tokens = len(response.response_token_ids)
            both = (scorings[response.key, metric] for metric in SCORED_METRICS)
            judged.append(Judged(samples[response.key], n_tokens, *both))
            responses.append(response)
    if not jobs:
        return []
    definition = load_definition(run, str(jobs[0].trait))
    found = outcomes(judged, filter_spec)
    return [
        SampleResult(
            judged=one,
            outcome=outcome,
            response=response,
            instruction=definition.instruction_text(one.sample.instruction, one.sample.polarity),
            question=question_for(definition, one.sample),
        )
        for one, outcome, response in zip(judged, found, responses, strict=True)
    ]


def _vectors(
    run: Run,
    trait: TraitRef,
    results: list[SampleResult],
    methods: tuple[str, ...],
    quality_at: str,
) -> TraitVectors | None:
    kept = [one for one in results if one.outcome.status == "kept"]
    rows = _kept_rows(kept, "positive"), _kept_rows(kept, "negative")
    if not all(side.prompts for side in rows):
        return None
    keys = {one.judged.sample.key for one in kept}

    def read(position: str, polarity: Polarity) -> Iterator[NDArray[np.float32]]:
        for job in training_jobs(run, trait, "generate"):
            if job.part == polarity:
                shard = [k for k, s in enumerate(run.plan.samples(job)) if s.key in keys]
                if shard:
                    yield load_activations(run.store, job).at(position)[shard]

    return build_vectors(
        read, methods=methods, positions=POSITIONS, rows=rows, quality_at=quality_at
    )


def _kept_rows(kept: list[SampleResult], polarity: Polarity) -> KeptRows:
    """In plan order, which is the order that activations are stored in."""
    side = [one for one in kept if one.judged.sample.polarity == polarity]
    shares = [borrowed_share(one.response.response, one.instruction) for one in side]
    refusals = [begins_with_refusal(one.response.response) for one in side]
    return KeptRows(
        instruction=[one.judged.sample.instruction for one in side],
        question=[one.judged.sample.question for one in side],
        response_length=np.array([one.judged.n_tokens for one in side], dtype=np.float64),
        instruction_words=np.array(shares, dtype=np.float64),
        refusal_words=np.array(refusals, dtype=np.float64),
    )


def _contrast_interval(found: Outcomes) -> list[float] | None:
    prompts = scored_prompts(found, "positive"), scored_prompts(found, "negative")
    scores = trait_scores(found, "positive"), trait_scores(found, "negative")
    return contrast_interval(*scores, groups=prompts)


def _generation_facts(run: Run, trait: TraitRef) -> dict[str, Any]:
    records = [load_record(run.store, job) for job in training_jobs(run, trait, "generate")]
    names = ("model", "revision", "model_hash", "dtype", "d_model", "n_layers", "system_mode")
    facts: dict[str, Any] = {n: records[0].info.get(n) for n in (*names, "thinking", "path")}
    facts["devices"] = sorted({str(r.info.get("device")) for r in records})
    facts["n_tokens"] = sum(int(str(r.info.get("n_tokens", 0))) for r in records)
    shares = [float(str(r.info.get("busy_share", 0.0))) for r in records]
    facts["busy_share"] = sum(shares) / len(shares)
    return facts


def _judging_facts(run: Run) -> dict[str, Any]:
    """Which judgement the scores are from, who judged, and in which mode."""
    mode = load_record(run.store, run.plan.negotiate_job).info.get("mode")
    judge = judge_of(run, run.plan.negotiate_job).model_dump()
    return {"judgement": run.judgement or "first", "judge": judge, "mode": mode}


def _provenance(
    run: Run,
    trait: TraitRef,
    filter_spec: FilterSpec,
    results: list[SampleResult],
    facts: dict[str, Any],
    vectors: TraitVectors,
) -> Provenance:
    found = [(one.judged, one.outcome) for one in results]
    return Provenance(
        trait=trait.name,
        method="",
        model_id=str(facts["model"]),
        model_revision=str(facts["revision"] or ""),
        model_hash=str(facts["model_hash"] or ""),
        counts={p: n_with(found, p, "kept") for p in ("positive", "negative")},
        thresholds={"trait": filter_spec.threshold, "coherence": filter_spec.coherence},
        residual_norms=vectors.residual_norms,
        extra={
            "run_id": run.run_id,
            "spec_sha256": run.spec.digest(),
            "trait_fingerprint": trait.fingerprint,
            "judge": judge_of(run, run.plan.negotiate_job).model,
            "judgement": run.judgement or "first",
            "pairing": filter_spec.pairing,
            "dtype": facts["dtype"],
            "residual_norms_of": "response averages of the kept responses",
        },
    )


def converge(run: Run, job: Job) -> Record:
    """Measure the angle on every sample so far, and leave a stop mark when it is small enough or
    nothing is left to generate. The record says what was measured and why it goes on or stops."""
    assert job.trait is not None and job.shard is not None
    trait, wave = run.spec.trait(job.trait), job.shard
    found = _certainty(run, trait, wave)
    decision = decide(found, run.spec, is_last=wave == run.plan.n_shards(trait) - 1)
    info: dict[str, Any] = {
        "wave": wave,
        "n_kept": found.n_kept,
        "layers": found.layers,
        "degrees": found.degrees,
        "stops": decision.stops,
        "converged": decision.converged,
        "summary": decision.reason,
    }
    if decision.stops:
        publish(run.store, stop_mark(trait, wave), files={}, info=info)
    return publish(run.store, job, files={}, info=info)


def _certainty(run: Run, trait: TraitRef, wave: int) -> Certainty:
    jobs = [
        job
        for job in run.plan.shard_jobs(trait, "generate")
        if job.shard is not None and job.shard <= wave
    ]
    results = sample_results(run, jobs, run.spec.filter)
    rows = np.concatenate([load_activations(run.store, job).response_avg for job in jobs])
    sides = [_kept(results, side) for side in ("positive", "negative")]
    return certainty(
        (rows[sides[0]], rows[sides[1]]),
        prompts=(_prompts(results, sides[0]), _prompts(results, sides[1])),
    )


def _kept(results: list[SampleResult], polarity: str) -> list[int]:
    return [
        k
        for k, one in enumerate(results)
        if one.outcome.status == "kept" and one.judged.sample.polarity == polarity
    ]


def _prompts(results: list[SampleResult], rows: list[int]) -> list[tuple[int, int]]:
    samples = [results[k].judged.sample for k in rows]
    return [(sample.instruction, sample.question) for sample in samples]


# A direction needs some prompts on each side before its spread means anything.
FEWEST_PROMPTS = 5


def certainty(
    sides: tuple[Array, Array], *, prompts: tuple[Sequence[Group], Sequence[Group]]
) -> Certainty:
    """From kept activations [n, L+1, d_model] of both sides and the prompt of each row.

    The layers that matter are the one with the largest Cohen's d and its neighbors.
    """
    n_kept = {"positive": len(sides[0]), "negative": len(sides[1])}
    if min(len(set(one)) for one in prompts) < FEWEST_PROMPTS:
        return Certainty(n_kept, [], [])
    vectors = mean_diff(*sides).vectors
    groups = independent_groups(prompts, fewest=FEWEST_PROMPTS)
    separated = vector_separation(vectors, *sides, groups=groups, n_bootstrap=1)
    usable = candidate_layers(vectors.shape[0])
    best = max(usable, key=lambda layer: np.nan_to_num(separated.cohens_d.value[layer], nan=-1.0))
    layers = [layer for layer in (best - 1, best, best + 1) if layer in usable]
    angles = direction_angles(sides[0][:, layers], sides[1][:, layers], groups=groups)
    return Certainty(n_kept, layers, [angle.upper for angle in angles])
