"""The reduce stage: thresholds over a trait's scores, and its vectors from what was kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.plan.jobs import Job
from domain.plan.samples import POLARITIES, AnyPolarity, Polarity
from domain.plan.spec import DEFAULT_POSITION, POSITIONS, ChecksSpec, FilterSpec, TraitRef
from domain.scoring.scores import Score
from domain.scoring.thresholds import (
    Fall,
    Judged,
    contrast,
    is_missing,
    outcomes,
    with_missing_at,
)
from domain.verdict.gates import with_verdict
from domain.verdict.record import (
    VERSION,
    Bounds,
    Estimate,
    GenerationFacts,
    JudgingFacts,
    PolarityCounts,
    TraitMetrics,
    VerdictName,
)
from domain.verdict.sentences import check_text, fall_text
from storage.record.artifacts import Decoders, Record, load_record, publish_artifact
from storage.record.judged_samples import judged_samples, stopping, training_jobs
from storage.record.judgements import judge_of
from storage.record.responses import decode_arrays, load_activations
from storage.record.results import (
    Results,
    SampleResult,
    metrics_bytes,
    read_response_vectors,
    write_metrics,
    write_samples,
    writing_results,
)
from storage.record.run import Run, load_definition
from tasks.stages.quality import spread_figures
from tasks.stages.steering_cells import DIRECTIONS, encode_directions
from tasks.stages.vectors import TraitVectors, build_vectors
from traitlens.assess.kept_rows import (
    Group,
    KeptRows,
    begins_with_refusal,
    borrowed_share,
)
from traitlens.assess.quality import contrast_deviations, contrast_interval
from traitlens.vectors.files import vector_files
from traitlens.vectors.trait_vector import Provenance

METRICS = "metrics.json"
"""The role of the metrics in a reduce record: what verify goes on from."""

DECODERS: Decoders = {METRICS: TraitMetrics.model_validate_json, DIRECTIONS: decode_arrays}


def reduce(run: Run, job: Job) -> Record:
    """Assemble a trait with the run's own thresholds and methods."""
    assert job.trait is not None
    trait = run.spec.trait(job.trait)
    folder = f"traits/{trait.name}"
    samples = judged_samples(run, training_jobs(run, trait, "generate"))
    results = outcomes(samples, run.spec.filter)
    metrics = assemble(
        run, trait, results, run.spec.filter, methods=run.spec.methods, folder=folder
    )
    summary = f"{metrics.verdict}{check_text(metrics)}"
    info: dict[str, Any] = {"summary": summary, "verdict": metrics.verdict}
    files = {METRICS: metrics_bytes(metrics)}
    if metrics.verdict != VerdictName.DO_NOT_USE and metrics.quality is not None:
        # what cannot be used is not worth the price of steering with it
        vectors = read_response_vectors(run.store, trait.name, metrics.quality.best.method)
        directions, info["steering"] = encode_directions(vectors, metrics.quality)
        files |= directions
    return publish_artifact(run.store, job, files=files, info=info, decoders=DECODERS)


def assemble(
    run: Run,
    trait: TraitRef,
    results: Results,
    filter_spec: FilterSpec,
    *,
    methods: tuple[str, ...],
    folder: str,
    position: str = DEFAULT_POSITION,
) -> TraitMetrics:
    """Build the vectors of the filter's results, and write what people read of the trait below a
    folder.

    The vectors are made at every position and measured at one. Reads stored artifacts only: no
    forward pass, no judge call. Returns the metrics.
    """
    metrics = _counted(run, trait, filter_spec, results)
    vectors = _vectors(run, trait, results, methods, position)
    files: dict[str, bytes] = {}
    if vectors is not None:
        told = {"methods": vectors.details, "quality": vectors.quality}
        metrics = metrics.model_copy(update={"magnitude": vectors.magnitude(), **told})
        files = vector_files(vectors.by_method, _provenance(run, trait, metrics, vectors))
    metrics = with_verdict(metrics)
    with writing_results(run.store, folder, anew=True):
        write_samples(run.store, folder, trait.name, results)
        for name, data in files.items():
            run.store.write(f"{folder}/vectors/{name}", data)
        write_metrics(run.store, folder, metrics)
    return metrics


def _vectors(
    run: Run,
    trait: TraitRef,
    results: Results,
    methods: tuple[str, ...],
    quality_at: str,
) -> TraitVectors | None:
    kept = [one for one, outcome in results if outcome.fall is None]
    rows = _kept_rows(kept, "positive"), _kept_rows(kept, "negative")
    if not all(side.prompts for side in rows):
        return None
    keys = {one.response.key for one in kept}

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
    side = [one for one in kept if one.sample.polarity == polarity]
    shares = [borrowed_share(one.response.response, one.instruction) for one in side]
    refusals = [begins_with_refusal(one.response.response) for one in side]
    return KeptRows(
        instruction=[one.sample.instruction for one in side],
        question=[one.sample.question for one in side],
        response_length=np.array([one.n_tokens for one in side], dtype=np.float64),
        instruction_words=np.array(shares, dtype=np.float64),
        refusal_words=np.array(refusals, dtype=np.float64),
    )


def _counted(run: Run, trait: TraitRef, filter_spec: FilterSpec, results: Results) -> TraitMetrics:
    """What a trait's samples come to, before vectors are made of them and the gates have looked."""
    fallen = [outcome for _, outcome in results if outcome.fall is not None]
    n_open = sum(one.fall == Fall.THOUGHT_OPEN for one in fallen)
    unscored = Counter(str(one.unscored) for one in fallen if one.fall == Fall.UNSCORED)
    coherence = [one.coherence.value for one, _ in results if isinstance(one.coherence, Score)]
    positive, negative, of_both = _trait_scores(one for one, _ in results)
    # scores that are missing may be any, so figures say between which ends they lie
    is_whole = not any(
        is_missing(one, "trait") or is_missing(one, "coherence") for one, _ in results
    )
    n_kept = _by_polarity(one.sample.polarity for one, outcome in results if outcome.fall is None)
    n_kept_most = n_kept if is_whole else _n_kept_most(results, filter_spec)
    is_judged, mode = run.plan.is_judged, None
    if is_judged:
        mode = load_record(run.store, run.plan.negotiate_job).info.get("mode")
    definition = load_definition(run, trait.name)
    return TraitMetrics(
        version=VERSION,
        trait=trait.name,
        n_generated=len(results),
        n_scored=len(results) - unscored.total() - n_open if is_judged else 0,
        n_unscored=dict(unscored),
        n_dropped=dict(Counter(fall_text(one) for one in fallen if one.fall != Fall.UNSCORED)),
        n_kept=n_kept,
        n_kept_most=n_kept_most if n_kept_most != n_kept else None,
        contrast=contrast(positive, negative),
        contrast_interval=contrast_interval(positive, negative, prompts=of_both),
        contrast_bounds=None if is_whole else contrast_bounds([one for one, _ in results]),
        contrast_spread=spread_figures(contrast_deviations(positive, negative, prompts=of_both))
        if positive and negative
        else None,
        coherence=sum(coherence) / len(coherence) if coherence else None,
        n_instructions=trait.n_instructions,
        n_eval_questions=trait.n_eval_questions,
        n_shared_questions=definition.n_shared,
        n_parted_questions=definition.n_parted,
        scenarios=run.spec.scenarios if definition.is_scenarios else None,
        checks=_planned_checks(run, trait),
        filter=filter_spec,
        generation=_generation_facts(run, trait),
        judging=JudgingFacts(
            judgement=run.judgement or "first",
            judge=judge_of(run),
            mode=None if mode is None else str(mode),
        ),
        stopping=stopping(run, trait),
    )


def _planned_checks(run: Run, trait: TraitRef) -> ChecksSpec:
    """The run's tests, less contexts where so few responses are planned that none is read again."""
    checks = run.spec.checks
    return checks if run.plan.n_contexts(trait) else checks.model_copy(update={"contexts": 0})


def _trait_scores(
    judged: Iterable[Judged],
) -> tuple[list[float], list[float], tuple[list[Group], list[Group]]]:
    """The trait scores of both polarities, and the prompts that they are of."""
    scores: dict[AnyPolarity, list[float]] = {polarity: [] for polarity in POLARITIES}
    prompts: dict[AnyPolarity, list[Group]] = {polarity: [] for polarity in POLARITIES}
    for one in judged:
        if isinstance(one.trait, Score):
            scores[one.sample.polarity].append(one.trait.value)
            prompts[one.sample.polarity].append((one.sample.instruction, one.sample.question))
    positive, negative = scores.values()
    return positive, negative, (prompts["positive"], prompts["negative"])


def _by_polarity(polarities: Iterable[AnyPolarity]) -> PolarityCounts:
    counts = Counter(polarities)
    return PolarityCounts(positive=counts["positive"], negative=counts["negative"])


def _n_kept_most(results: Results, filter_spec: FilterSpec) -> PolarityCounts:
    """With the scores that are missing at those that suit their polarity."""
    filled = [with_missing_at(one, trait=_suits(one), coherence=100.0) for one, _ in results]
    most = outcomes(filled, filter_spec)
    return _by_polarity(one.sample.polarity for one, outcome in most if outcome.fall is None)


def _suits(one: Judged) -> float:
    return 100.0 if one.sample.polarity == "positive" else 0.0


def contrast_bounds(judged: Sequence[Judged]) -> Bounds | None:
    """With the missing trait scores of a polarity at the end that does not suit it, and at that
    which does; None where none is missing."""
    n = sum(is_missing(one, "trait") for one in judged)
    if not n:
        return None
    ends: list[Estimate] = []
    for is_low in (True, False):
        suits = ((one, _suits(one)) for one in judged)
        filled = [
            with_missing_at(one, trait=100.0 - end if is_low else end, coherence=0.0)
            for one, end in suits
        ]
        positive, negative, of_both = _trait_scores(filled)
        interval = contrast_interval(positive, negative, prompts=of_both)
        value = contrast(positive, negative)
        ends.append(Estimate(value=value, interval=interval or (None, None)))
    return Bounds(n=n, lowest=ends[0], highest=ends[1])


def _generation_facts(run: Run, trait: TraitRef) -> GenerationFacts:
    infos = [load_record(run.store, j).info for j in training_jobs(run, trait, "generate")]
    sinks = [float(str(info["prompt_sinks"])) for info in infos if "prompt_sinks" in info]
    # what is of the model is the same in every shard
    return GenerationFacts.model_validate(
        {
            **infos[0],
            "devices": sorted({str(info.get("device")) for info in infos}),
            "n_tokens": sum(int(str(info.get("n_tokens", 0))) for info in infos),
            "busy_share": sum(float(str(i.get("busy_share", 0.0))) for i in infos) / len(infos),
            "prompt_sinks": sum(sinks) / len(sinks) if len(sinks) == len(infos) else None,
        }
    )


def _provenance(
    run: Run, trait: TraitRef, metrics: TraitMetrics, vectors: TraitVectors
) -> Provenance:
    model = metrics.generation
    return Provenance(
        trait=trait.name,
        method="",
        model_id=str(model.model),
        model_revision=model.revision or "",
        model_hash=model.model_hash or "",
        counts=dict(metrics.n_kept),
        thresholds={"trait": metrics.filter.threshold, "coherence": metrics.filter.coherence},
        residual_norms=vectors.residual_norms,
        extra={
            "run_id": run.run_id,
            "spec_sha256": run.spec.digest(),
            "trait_fingerprint": trait.fingerprint,
            "judge": judge_of(run).model,
            "judgement": run.judgement or "first",
            "pairing": metrics.filter.pairing,
            "measure": run.spec.measure,
            "dtype": model.dtype,
            "residual_norms_of": "response averages of the kept responses",
            "prompt_avg_of": "every token" if model.prompt_sinks is None else "all but sinks",
        },
    )
