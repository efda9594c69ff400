"""The reduce stage: thresholds over a trait's verdicts, and its vectors from what was kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.plan import Job, Polarity
from orchestrator.run_spec import POSITIONS, TraitRef
from orchestrator.scores import Score
from orchestrator.threshold import Judged, outcomes
from orchestrator.verdict import VerdictInputs, contrast, verdict
from storage.artifacts import Record, load_record, publish
from storage.responses import load_activations, load_responses, load_verdicts
from storage.run_record import Run, load_definition
from storage.trait_results import SampleResult, write_metrics, write_samples
from traitlens.provenance import Provenance
from workers.vectors import TraitVectors, build_vectors, encode_vectors


def reduce(run: Run, job: Job) -> Record:
    """Threshold, assemble the vectors, and write everything that people read of the trait."""
    assert job.trait is not None
    trait = run.spec.trait(job.trait)
    results = sample_results(run, trait)
    write_samples(run.store, trait.name, results)
    facts = _generation_facts(run, trait)
    vectors = _vectors(run, trait, results)
    if vectors is not None:
        provenance = _provenance(run, trait, results, facts)
        for name, data in encode_vectors(vectors, provenance).items():
            run.store.write(f"traits/{trait.name}/vectors/{name}", data)
    metrics = summarize(trait.name, results, vectors)
    metrics["generation"] = facts
    write_metrics(run.store, trait.name, metrics)
    info = {"summary": f"{metrics['verdict']}", "verdict": metrics["verdict"]}
    return publish(run.store, job, files={}, info=info)


def sample_results(run: Run, trait: TraitRef) -> list[SampleResult]:
    """Every sample of a trait with its response, verdicts and outcome."""
    definition = load_definition(run, trait.name)
    judged, responses = [], []
    for generate_job in run.plan.shard_jobs(trait, "generate"):
        judge_job = Job("judge", trait.name, generate_job.polarity, generate_job.shard)
        verdicts = load_verdicts(run.store, judge_job)
        by_key = {r.key: r for r in load_responses(run.store, generate_job)}
        for sample in run.plan.samples(generate_job):
            response = by_key[sample.key]
            n_tokens = len(response.response_token_ids)
            both = verdicts[sample.key, "trait"], verdicts[sample.key, "coherence"]
            judged.append(Judged(sample, n_tokens, *both))
            responses.append(response)
    found = outcomes(judged, run.spec.filter)
    return [
        SampleResult(
            judged=one,
            outcome=outcome,
            response=response,
            instruction=definition.instruction_text(one.sample.instruction, one.sample.polarity),
            question=definition.questions[one.sample.question],
        )
        for one, outcome, response in zip(judged, found, responses, strict=True)
    ]


def summarize(
    trait: str, results: list[SampleResult], vectors: TraitVectors | None
) -> dict[str, Any]:
    """metrics.json: counts, contrast, magnitude and the verdict with its reasons."""
    n_kept = {p: _count(results, p, "kept") for p in ("positive", "negative")}
    unscored = Counter(_reason(r) for r in results if r.outcome.status == "unscored")
    dropped = Counter(r.outcome.reason for r in results if r.outcome.status == "dropped")
    gap = contrast(_scores(results, "positive"), _scores(results, "negative"))
    magnitude = None if vectors is None else vectors.magnitude()
    name, reasons = verdict(
        VerdictInputs(
            n_generated=len(results),
            n_unscored=sum(unscored.values()),
            n_kept_positive=n_kept["positive"],
            n_kept_negative=n_kept["negative"],
            contrast=gap,
            magnitude=magnitude,
        )
    )
    coherence = [r.coherence_score for r in results if r.coherence_score is not None]
    return {
        "trait": trait,
        "verdict": name,
        "reasons": reasons,
        "n_generated": len(results),
        "n_scored": len(results) - sum(unscored.values()),
        "n_unscored": dict(unscored),
        "n_dropped": dict(dropped),
        "n_kept": n_kept,
        "contrast": gap,
        "coherence": sum(coherence) / len(coherence) if coherence else None,
        "magnitude": magnitude,
    }


def _vectors(run: Run, trait: TraitRef, results: list[SampleResult]) -> TraitVectors | None:
    kept = {r.judged.sample.key for r in results if r.outcome.status == "kept"}
    sides = {r.judged.sample.polarity for r in results if r.outcome.status == "kept"}
    if len(sides) < 2:
        return None

    def read(position: str, polarity: Polarity) -> Iterator[NDArray[np.float32]]:
        for job in run.plan.shard_jobs(trait, "generate"):
            if job.polarity == polarity:
                rows = [k for k, s in enumerate(run.plan.samples(job)) if s.key in kept]
                if rows:
                    yield load_activations(run.store, job).at(position)[rows]

    return build_vectors(read, methods=run.spec.methods, positions=POSITIONS)


def _generation_facts(run: Run, trait: TraitRef) -> dict[str, Any]:
    records = [load_record(run.store, job) for job in run.plan.shard_jobs(trait, "generate")]
    names = ("model", "revision", "model_hash", "dtype", "d_model", "n_layers", "system_mode")
    facts: dict[str, Any] = {n: records[0].info.get(n) for n in (*names, "thinking", "path")}
    facts["devices"] = sorted({str(r.info.get("device")) for r in records})
    facts["n_tokens"] = sum(int(str(r.info.get("n_tokens", 0))) for r in records)
    shares = [float(str(r.info.get("busy_share", 0.0))) for r in records]
    facts["busy_share"] = sum(shares) / len(shares)
    return facts


def _provenance(
    run: Run, trait: TraitRef, results: list[SampleResult], facts: dict[str, Any]
) -> Provenance:
    filter_spec = run.spec.filter
    return Provenance(
        trait=trait.name,
        method="",
        model_id=str(facts["model"]),
        model_revision=str(facts["revision"] or ""),
        model_hash=str(facts["model_hash"] or ""),
        counts={p: _count(results, p, "kept") for p in ("positive", "negative")},
        thresholds={"trait": filter_spec.threshold, "coherence": filter_spec.coherence},
        extra={
            "run_id": run.run_id,
            "spec_sha256": run.spec.digest(),
            "trait_fingerprint": trait.fingerprint,
            "judge": run.spec.judge.model,
            "pairing": filter_spec.pairing,
            "dtype": facts["dtype"],
        },
    )


def _scores(results: list[SampleResult], polarity: Polarity) -> list[float]:
    of_side = (r for r in results if r.judged.sample.polarity == polarity)
    return [r.trait_score for r in of_side if r.trait_score is not None]


def _count(results: list[SampleResult], polarity: str, status: str) -> int:
    return sum(r.judged.sample.polarity == polarity and r.outcome.status == status for r in results)


def _reason(result: SampleResult) -> str:
    first = (
        result.judged.trait
        if not isinstance(result.judged.trait, Score)
        else result.judged.coherence
    )
    assert not isinstance(first, Score)
    return first.reason
