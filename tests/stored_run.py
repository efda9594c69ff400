"""A run whose generate and judge artifacts are written by hand, so that a test needs no workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from domain.plan.jobs import Job
from domain.plan.samples import (
    CONFIRMATION,
    EVALUATION,
    POLARITIES,
    ROUNDS,
    Sample,
    balanced_samples,
)
from domain.plan.spec import ChecksSpec, JudgeSpec, ModelSpec, RunSpec, TraitRef
from domain.scoring.scores import Candidate, Evidence, Reply, Score, Scoring, Unscored
from domain.scoring.thresholds import outcomes
from storage.files.trait_files import read_traits
from storage.record.artifacts import publish_artifact
from storage.record.contexts import CONTEXTS, ContextActivations, encode_contexts
from storage.record.judged_samples import judged_samples
from storage.record.responses import (
    ACTIVATIONS,
    RESPONSES,
    Activations,
    Response,
    encode_activations,
    encode_responses,
    load_activations,
)
from storage.record.run import Run, create_run
from storage.record.scorings import SCORINGS, encode_scorings
from storage.record.store import open_store
from tasks.stages.reduce import reduce
from tasks.stages.steering_cells import cells_json, job_cells, load_directions
from tasks.stages.verify import verify

UNCHECKED = ChecksSpec(evaluation=0, causal=0, contexts=0)
N_LAYERS, D_MODEL, PLANTED_LAYER, PROMPT_LAYER = 5, 24, 2, 3
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
)

PLANNED_AT = "2026-11-26T23:46:10+00:00"


def stored_run(
    folder: Path,
    *,
    traits: str = "evil,refusal",
    methods: tuple[str, ...] = ("mean_diff",),
    rollouts: int = 3,
    gap: float = 6.0,
    judge_is_random: bool = False,
    checks: ChecksSpec = UNCHECKED,
    effect: float = 30.0,
    n_instructions: int = 3,
    n_eval_questions: int = 6,
    prompt_gap: float = 0.0,
    seed: int = 0,
    model: str = "m",
    judge_url: str = "http://localhost:1/v1",
    is_verified: bool = True,
) -> Run:
    """A finished run, or one that ended before its verify jobs; positives and negatives lie `gap`
    apart from layer PLANTED_LAYER on.

    With `checks` its vectors are tested: steering with strength 1 adds `effect` to the trait score
    and takes 10 off coherence, at the planted layer most. Their prompts lie `prompt_gap`
    apart, along another direction and from PROMPT_LAYER on.
    """
    definitions = {one.name: one.definition() for one in read_traits(traits)}
    size = {
        "n_instructions": n_instructions,
        "n_questions": 6,
        "n_eval_questions": n_eval_questions,
    }
    refs = [TraitRef(name=n, fingerprint=d.fingerprint(), **size) for n, d in definitions.items()]
    spec = RunSpec(
        traits=tuple(refs),
        model=ModelSpec(model_id=model),
        judge=JudgeSpec(model="j", url=judge_url),
        rollouts=rollouts,
        methods=methods,
        checks=checks,
        seed=seed,
    )
    store = open_store(str(folder))
    told = {
        "command": ["orchestrate", "extract", "--traits", traits],
        "planned_at": PLANNED_AT,
    }
    run = create_run(store, spec, run_id="r", definitions=definitions, provenance=told)
    publish_artifact(store, run.plan.negotiate_job, files={}, info={"mode": "logprob"})
    rng = np.random.default_rng(seed)
    for ref in refs:
        directions = rng.standard_normal(D_MODEL)
        planted = gap * directions / np.linalg.norm(directions)
        captured = run.plan.part_jobs(ref, "generate", EVALUATION)
        for job in [*run.plan.part_jobs(ref, "generate", *POLARITIES), *captured]:
            # turned by half a vector, it is as good as at right angles to the planted one
            in_prompts = prompt_gap / (gap or 1.0) * np.roll(planted, D_MODEL // 2)
            _write(run, job, planted, in_prompts, rng, judge_is_random)
        reduce(run, run.plan.trait_job("reduce", ref.name))
        for job in run.plan.contexts_jobs(ref):
            _write_contexts(run, job, planted)
        for part in (*ROUNDS, CONFIRMATION):
            for job in run.plan.part_jobs(ref, "generate", part):
                _write_steered(run, job, effect, rng)
        if is_verified and run.plan.last_job(ref).stage == "verify":
            verify(run, run.plan.trait_job("verify", ref.name))
    return run


def _write_contexts(run: Run, job: Job, direction: np.ndarray) -> None:
    """Half of what lies between the polarities is in the texts, the other half goes with the
    instruction before them."""
    ref = run.spec.trait(str(job.trait))
    jobs = run.plan.part_jobs(ref, "generate", *POLARITIES)
    own: dict[Sample, np.ndarray] = {}
    for one in jobs:
        rows = load_activations(run.store, one).response_avg
        own |= dict(zip(run.plan.samples(one), rows, strict=True))
    results = outcomes(judged_samples(run, jobs), run.spec.filter)
    kept = [one.sample for one, outcome in results if outcome.fall is None]
    chosen = balanced_samples(kept, n=run.plan.n_contexts(ref))
    rows = np.array([own[sample] for sample in chosen]).reshape(-1, N_LAYERS, D_MODEL)
    signs = np.array([0.5 if s.polarity == "positive" else -0.5 for s in chosen])[:, None, None]
    moved = np.zeros_like(rows)
    moved[:, PLANTED_LAYER:] = signs * direction / 2
    found = ContextActivations(
        tuple(sample.key for sample in chosen),
        opposite=(rows - moved).astype(np.float32),
        plain=(rows - moved / 2).astype(np.float32),
    )
    publish_artifact(run.store, job, files={CONTEXTS: encode_contexts(found)}, info={})


def _write_steered(run: Run, job: Job, effect: float, rng: np.random.Generator) -> None:
    directions = load_directions(run, str(job.trait))
    cells = job_cells(run, job, directions) if directions else []
    samples = [s for s in run.plan.samples(job) if s.cell is not None and s.cell < len(cells)]
    responses = [Response(s.key, 1, "p", [1], "Steered.", [1, 2], "stop") for s in samples]
    info = {"cells": cells_json(cells), "n_samples": len(samples)}
    publish_artifact(run.store, job, files={RESPONSES: encode_responses(responses)}, info=info)
    scorings = []
    for sample in samples:
        cell = cells[sample.cell or 0]
        share = {"none": 0.0, "random": 0.0, "vector": 1.0}[cell.direction]
        share *= 1.0 if cell.layer == PLANTED_LAYER else 0.5
        trait = rng.normal(15 + share * effect * cell.strength, 8)
        scorings.append((sample.key, "trait", _score(trait)))
        scorings.append((sample.key, "coherence", _score(rng.normal(90 - 10 * cell.strength, 5))))
    files = {SCORINGS: encode_scorings(scorings)}
    publish_artifact(
        run.store, run.plan.judge_job(job), files=files, info={"n_verdicts": len(scorings)}
    )


def _write(
    run: Run,
    job: Job,
    direction: np.ndarray,
    in_prompts: np.ndarray,
    rng: np.random.Generator,
    judge_is_random: bool,
) -> None:
    samples = run.plan.samples(job)
    rows = rng.standard_normal((len(samples), N_LAYERS, D_MODEL))
    sign_of = {"positive": 0.5, "negative": -0.5, "plain": -0.3}
    signs = np.array([sign_of[sample.polarity] for sample in samples])
    # noise grows with depth, so that the layer where the direction appears is the best one
    rows[:, PLANTED_LAYER:] += signs[:, None, None] * direction
    rows[:, PLANTED_LAYER + 1 :] += 1.5 * rng.standard_normal(rows[:, PLANTED_LAYER + 1 :].shape)
    prompts = rng.standard_normal((len(samples), N_LAYERS, D_MODEL))
    prompts[:, PROMPT_LAYER:] += signs[:, None, None] * in_prompts
    responses = [
        Response(s.key, 1, "p", [1], _text(s), [1] * int(rng.integers(5, 30)), "stop")
        for s in samples
    ]
    scorings = [
        (s.key, metric, _scoring(s, metric, rng, judge_is_random))
        for s in samples
        for metric in ("trait", "coherence")
    ]
    if not judge_is_random:
        _follow_scores(rows, samples, scorings, direction)
    activations = Activations(
        response_avg=rows.astype(np.float32),
        prompt_avg=prompts.astype(np.float32),
        prompt_last=prompts.astype(np.float32),
        prompt_of=np.arange(len(samples)),
    )
    info = {"model": "m", "model_hash": "h", "n_samples": len(samples)}
    files = {RESPONSES: encode_responses(responses), ACTIVATIONS: encode_activations(activations)}
    publish_artifact(run.store, job, files=files, info=info)
    judge = run.plan.judge_job(job)
    rows_of = {SCORINGS: encode_scorings(scorings)}
    publish_artifact(run.store, judge, files=rows_of, info={"n_verdicts": len(scorings)})


def _follow_scores(
    rows: np.ndarray,
    samples: list[Sample],
    scorings: list[tuple[str, str, Scoring]],
    direction: np.ndarray,
) -> None:
    """Have responses of one polarity differ along the direction as their trait scores do."""
    scores = {
        key: one.value
        for key, metric, one in scorings
        if metric == "trait" and isinstance(one, Score)
    }
    unit = direction / (np.linalg.norm(direction) or 1.0)
    for row, sample in zip(rows, samples, strict=True):
        middle = 85 if sample.polarity == "positive" else 15
        row[PLANTED_LAYER:] += (scores.get(sample.key, middle) - middle) / 20 * unit


def _text(sample: Sample) -> str:
    return HOSTILE if sample.rollout == 0 else f"Response number {sample.rollout}."


def _scoring(
    sample: Sample, metric: str, rng: np.random.Generator, judge_is_random: bool
) -> Scoring:
    if metric == "trait" and (sample.instruction, sample.question, sample.rollout) == (0, 0, 1):
        return Unscored(reason="refused", detail="I cannot rate this")
    if metric == "coherence":
        value = 30.0 if (sample.question, sample.rollout) == (1, 1) else 90.0
    elif judge_is_random:
        value = float(rng.uniform(0, 100))
    else:
        value = float(rng.normal(85 if sample.polarity == "positive" else 15, 5))
    return _score(value)


def _score(value: float) -> Score:
    reply = Reply(text=f"{value:.0f}", candidates=(Candidate(token="8", probability=0.9),))
    evidence = Evidence(replies=(reply,))
    return Score(value=min(max(value, 0), 100), numeric_mass=1, refusal_mass=0, evidence=evidence)
