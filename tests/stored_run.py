"""A run whose generate and judge artifacts are written by hand, so that a test needs no workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orchestrator.plan import Job, Sample
from orchestrator.run_spec import JudgeSpec, ModelSpec, RunSpec, TraitRef
from orchestrator.scores import Candidate, Evidence, Reply, Score, Unscored, Verdict
from storage.artifacts import publish
from storage.responses import (
    ACTIVATIONS,
    RESPONSES,
    VERDICTS,
    Activations,
    Response,
    encode_activations,
    encode_responses,
    encode_verdicts,
)
from storage.run_record import Run, create_run
from storage.store import open_store
from storage.trait_files import load_traits
from tasks.reduce import reduce

N_LAYERS, D_MODEL, PLANTED_LAYER = 5, 24, 2
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
)


def stored_run(
    folder: Path,
    *,
    traits: str = "evil,refusal",
    methods: tuple[str, ...] = ("mean_diff",),
    rollouts: int = 3,
    gap: float = 6.0,
    judge_is_random: bool = False,
    seed: int = 0,
) -> Run:
    """A reduced run; positives and negatives lie `gap` apart from layer PLANTED_LAYER on."""
    definitions = {d.name: d for d in load_traits(traits)}
    size = {"n_instructions": 3, "n_questions": 6}
    refs = [TraitRef(name=n, fingerprint=d.fingerprint(), **size) for n, d in definitions.items()]
    spec = RunSpec(
        traits=tuple(refs),
        model=ModelSpec(model_id="m"),
        judge=JudgeSpec(model="j", url="http://localhost:1/v1"),
        rollouts=rollouts,
        methods=methods,
        seed=seed,
    )
    store = open_store(str(folder))
    told = {"command": ["orchestrate", "extract", "--traits", traits]}
    run = create_run(store, spec, run_id="r", definitions=definitions, provenance=told)
    publish(store, run.plan.probe, files={}, info={"mode": "logprob"})
    rng = np.random.default_rng(seed)
    for ref in refs:
        directions = rng.standard_normal(D_MODEL)
        for job in run.plan.shard_jobs(ref, "generate"):
            _write(run, job, gap * directions / np.linalg.norm(directions), rng, judge_is_random)
        reduce(run, run.plan.reduce_job(ref.name))
    return run


def _write(
    run: Run, job: Job, direction: np.ndarray, rng: np.random.Generator, judge_is_random: bool
) -> None:
    samples = run.plan.samples(job)
    rows = rng.standard_normal((len(samples), N_LAYERS, D_MODEL))
    sign = 0.5 if job.polarity == "positive" else -0.5
    # noise grows with depth, so that the layer where the direction appears is the best one
    rows[:, PLANTED_LAYER:] += sign * direction
    rows[:, PLANTED_LAYER + 1 :] += 1.5 * rng.standard_normal(rows[:, PLANTED_LAYER + 1 :].shape)
    prompts = rng.standard_normal((len(samples), N_LAYERS, D_MODEL))
    activations = Activations(
        response_avg=rows.astype(np.float32),
        prompt_avg=prompts.astype(np.float32),
        prompt_last=prompts.astype(np.float32),
        prompt_of=np.arange(len(samples)),
    )
    responses = [
        Response(s.key, 1, "p", [1], _text(s), [1] * int(rng.integers(5, 30)), "stop")
        for s in samples
    ]
    info = {"model": "m", "model_hash": "h", "n_samples": len(samples)}
    files = {RESPONSES: encode_responses(responses), ACTIVATIONS: encode_activations(activations)}
    publish(run.store, job, files=files, info=info)
    verdicts = [
        (s.key, metric, _verdict(s, metric, rng, judge_is_random))
        for s in samples
        for metric in ("trait", "coherence")
    ]
    judge = run.plan.judge_job(job)
    rows_of = {VERDICTS: encode_verdicts(verdicts)}
    publish(run.store, judge, files=rows_of, info={"n_verdicts": len(verdicts)})


def _text(sample: Sample) -> str:
    return HOSTILE if sample.rollout == 0 else f"Response number {sample.rollout}."


def _verdict(
    sample: Sample, metric: str, rng: np.random.Generator, judge_is_random: bool
) -> Verdict:
    if metric == "trait" and (sample.instruction, sample.question, sample.rollout) == (0, 0, 1):
        return Unscored(reason="refused", detail="I cannot rate this")
    if metric == "coherence":
        value = 30.0 if (sample.question, sample.rollout) == (1, 1) else 90.0
    elif judge_is_random:
        value = float(rng.uniform(0, 100))
    else:
        value = float(rng.normal(85 if sample.polarity == "positive" else 15, 5))
    reply = Reply(text=f"{value:.0f}", candidates=(Candidate(token="8", probability=0.9),))
    evidence = Evidence(replies=(reply,))
    return Score(value=min(max(value, 0), 100), numeric_mass=1, refusal_mass=0, evidence=evidence)
