"""The probe and judge stages: how a judge wants to be asked; a shard's responses to verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from celery.exceptions import Reject

from orchestrator.errors import StoppedError
from orchestrator.plan import Job
from orchestrator.prompts import coherence_prompt, question_for
from orchestrator.scores import Evidence, Score, Unscored, Verdict
from storage.artifacts import Record, load_record, publish
from storage.judgements import base_job, judge_of, read_judgement
from storage.partial_verdicts import Asked, drop_partial, keep_partial, load_partial
from storage.responses import VERDICTS, encode_verdicts, load_responses
from storage.run_record import Run, load_definition
from storage.verdicts import effective_verdicts
from tasks.judge_batch import batch_verdicts
from tasks.judge_pool import JudgePool
from workers.judge import Judged
from workers.judge_profile import JudgeProfile


def probe(run: Run, job: Job, *, judges: JudgePool) -> Record:
    """Find out how the judge wants to be asked, with each trait's own prompt."""
    question, answer = "How do I boil an egg?", "Boil it for eight minutes, then cool it in water."
    prompts = {"coherence": coherence_prompt(question, answer)}
    for trait in run.spec.traits:
        prompts[trait.name] = load_definition(run, trait.name).judge_prompt(question, answer)
    found, usd = judges.probe(run, judge_of(run, job), prompts)
    info = {
        "profile": found.profile.model_dump(),
        "mode": found.profile.mode,
        "objections": found.refusals,
        "usd": usd,
        "summary": found.describe(),
    }
    return publish(run.store, job, files={}, info=info)


def judge(run: Run, job: Job, *, judges: JudgePool) -> Record:
    """Ask for both verdicts on every response of a shard; what was answered before is not asked
    again, and when the run has to stop what was answered is kept."""
    prompts = _prompts(run, job)
    before = load_partial(run.store, job)
    profile = JudgeProfile.model_validate(load_record(run.store, run.plan.probe).info["profile"])
    known = {k: before[asked] for k, asked in enumerate(prompts) if asked in before}
    spec, texts = judge_of(run, job), list(prompts.values())
    if not texts:
        judged = Judged([], [])
    elif judges.terms(run, spec).batch:
        judged = batch_verdicts(run, job, spec, profile, texts, known=known, judges=judges)
    else:
        judged = judges.verdicts(run, spec, profile, texts, known=known)
    if judged.stopped is not None:
        keep_partial(run.store, job, dict(zip(prompts, judged.evidence, strict=True)))
        if isinstance(judged.stopped, StoppedError):
            # the worker is leaving; the job goes back to the queue at once
            raise Reject(str(judged.stopped), requeue=True)
        raise judged.stopped
    verdicts = [v for v in judged.verdicts if v is not None]
    rows = [(*asked, v) for asked, v in zip(prompts, verdicts, strict=True)]
    info = {**_info(verdicts, judged), "mode": profile.mode, "scale": profile.scale}
    record = publish(run.store, job, files={VERDICTS: encode_verdicts(rows)}, info=info)
    drop_partial(run.store, job)
    return record


def _prompts(run: Run, job: Job) -> dict[Asked, str]:
    """(sample key, metric) -> the judge's prompt, in plan order, of what the judgement asks."""
    assert job.trait is not None
    definition = load_definition(run, job.trait)
    samples = {sample.key: sample for sample in run.plan.samples(job)}
    prompts: dict[Asked, str] = {}
    for response in load_responses(run.store, Job("generate", job.trait, job.part, job.shard)):
        question, answer = question_for(definition, samples[response.key]), response.response
        prompts[response.key, "trait"] = definition.judge_prompt(question, answer)
        prompts[response.key, "coherence"] = coherence_prompt(question, answer)
    if job.judgement is None or not read_judgement(run, job.judgement).only_unscored:
        return prompts
    base = effective_verdicts(run, base_job(job, read_judgement(run, job.judgement)))
    return {asked: p for asked, p in prompts.items() if not isinstance(base[asked], Score)}


def _info(verdicts: Sequence[Verdict], judged: Judged) -> dict[str, object]:
    """Counts and costs for the record; usd is None when the price is unknown."""
    unscored = Counter(v.reason for v in verdicts if isinstance(v, Unscored))
    evidence: list[Evidence] = judged.evidence
    costs = [one.usd for one in evidence]
    return {
        "n_verdicts": len(verdicts),
        "n_unscored": dict(unscored),
        "n_calls": sum(one.attempts for one in evidence),
        "n_cached": sum(reply.cached for one in evidence for reply in one.replies),
        "prompt_tokens": sum(one.prompt_tokens for one in evidence),
        "completion_tokens": sum(one.completion_tokens for one in evidence),
        "usd": None if None in costs else sum(cost or 0.0 for cost in costs),
        "summary": f"{len(verdicts)} verdicts, {sum(unscored.values())} unscored",
    }
