"""The negotiate and judge stages: how a judge wants to be asked; a shard's responses to scorings.

A shard's scorings through the Batch API; the batch's id is stored, so nobody pays twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from celery.exceptions import Reject

from domain.errors import JudgeError, OrchestrateError, StoppedError, StoreError
from domain.plan.jobs import Job
from domain.plan.spec import JudgeSpec
from domain.scoring.prices import BATCH_SHARE, TOKENS_PER_CHARACTER, Charged, Cost, Price
from domain.scoring.replies import scoring
from domain.scoring.scores import (
    Evidence,
    LostReply,
    Reply,
    Score,
    Scoring,
    Unscored,
)
from domain.traits.judge_prompt import EASY
from storage.record.artifacts import Record, load_record, publish_artifact, record_key
from storage.record.json_bytes import decode_checked, encode_checked
from storage.record.judgements import asked_prompts, judge_of
from storage.record.run import Run, load_definition
from storage.record.scorings import (
    SCORINGS,
    SCORINGS_DECODERS,
    encode_scorings,
    keep_partial_scorings,
    load_partial_scorings,
    partial_scorings_keys,
)
from storage.record.spending import BATCH, RESERVED
from tasks.stages.judge_pool import JudgePool
from workers.judge.batch import Answers, LostBatchError, submit_batch, wait_for_batch
from workers.judge.judge import JudgedPrompts, Limiter
from workers.judge.profile import JudgeProfile


def negotiate(run: Run, job: Job, *, judges: JudgePool) -> Record:
    """Find out how the judge wants to be asked, with each trait's own prompt."""
    prompts = {}
    for trait in run.spec.traits:
        definition = load_definition(run, trait.name)
        prompts["coherence"] = definition.coherence_prompt(*EASY)
        prompts[trait.name] = definition.judge_prompt(*EASY)
    try:
        found, usd = judges.negotiate(run, judge_of(run), prompts)
    except StoppedError as error:
        raise Reject(str(error), requeue=True) from error
    info = {
        "profile": found.profile.model_dump(),
        "mode": found.profile.mode,
        "objections": found.refusals,
        "usd": usd,
        "summary": found.describe(),
    }
    return publish_artifact(run.store, job, files={}, info=info)


def judge(run: Run, job: Job, *, judges: JudgePool) -> Record:
    """Ask for both scorings on every response of a shard; what was answered before is not asked
    again, and when the run has to stop what was answered is kept."""
    prompts, unasked = asked_prompts(run, job)
    before = load_partial_scorings(run.store, job)
    profile = JudgeProfile.model_validate(
        load_record(run.store, run.plan.negotiate_job).info["profile"]
    )
    known = {k: before[asked] for k, asked in enumerate(prompts) if asked in before}
    spec, texts = judge_of(run), list(prompts.values())
    if not texts:
        judged = JudgedPrompts([], [])
    elif judges.terms(run, spec).batch:
        judged = batch_scorings(run, job, spec, profile, texts, known=known, judges=judges)
    else:
        judged = judges.scorings(run, spec, profile, texts, known=known)
    if judged.stopped is not None:
        keep_partial_scorings(run.store, job, dict(zip(prompts, judged.evidence, strict=True)))
        if isinstance(judged.stopped, StoppedError):
            # the worker is leaving; the job goes back to the queue at once
            raise Reject(str(judged.stopped), requeue=True)
        raise judged.stopped
    scorings = [v for v in judged.scorings if v is not None]
    rows = [(*asked, v) for asked, v in zip(prompts, scorings, strict=True)]
    rows += [(*asked, Unscored(reason="no_answer")) for asked in unasked]
    info = {**_info(scorings, judged), "mode": profile.mode, "scale": profile.scale}
    record = publish_artifact(
        run.store,
        job,
        files={SCORINGS: encode_scorings(rows)},
        info=info,
        decoders=SCORINGS_DECODERS,
    )
    for key in (*partial_scorings_keys(run.store, job), _batch_key(job)):
        run.store.delete(key)  # the job's own record holds it now
    return record


def _info(scorings: Sequence[Scoring], judged: JudgedPrompts) -> dict[str, object]:
    """Counts and costs for the record; usd is None when the price is unknown."""
    unscored = Counter(v.reason for v in scorings if isinstance(v, Unscored))
    evidence: list[Evidence] = judged.evidence
    costs = [one.usd for one in evidence]
    return {
        "n_verdicts": len(scorings),
        "n_unscored": dict(unscored),
        "n_bounded": sum(isinstance(v, Score) and v.bounds is not None for v in scorings),
        "n_calls": sum(one.attempts for one in evidence),
        "n_cached": sum(reply.cached for one in evidence for reply in one.replies),
        "prompt_tokens": sum(one.prompt_tokens for one in evidence),
        "completion_tokens": sum(one.completion_tokens for one in evidence),
        "usd": None if None in costs else sum(cost or 0.0 for cost in costs),
        "summary": f"{len(scorings)} scorings, {sum(unscored.values())} unscored",
    }


NOT_ANSWERED = LostReply(reason="http", detail="the batch ended without an answer", attempts=1)


def batch_scorings(
    run: Run,
    job: Job,
    spec: JudgeSpec,
    profile: JudgeProfile,
    prompts: list[str],
    *,
    known: Mapping[int, Evidence],
    judges: JudgePool,
) -> JudgedPrompts:
    """Like Judge.scorings, in one batch; what `known` has is not asked again.

    The batch stays noted until the job's record is published: asked again, it answers for nothing.
    """
    ids = {
        f"{k}-{vote}": profile.body(spec.model, prompt, vote=vote)
        for k, prompt in enumerate(prompts)
        for vote in range(len(known[k].replies) if k in known else 0, profile.votes)
    }
    evidence = [known.get(k, Evidence()) for k in range(len(prompts))]
    try:
        asking = _ask(run, job, spec, ids, n_tokens=profile.n_tokens, judges=judges)
        answers = judges.loop.run(asking)
    except OrchestrateError as error:
        return JudgedPrompts([None] * len(prompts), evidence, error)
    found = []
    for k in range(len(prompts)):
        asked = [key for key in ids if key.partition("-")[0] == str(k)]
        got = [answers.get(key, NOT_ANSWERED) for key in asked]
        found.append(
            Evidence(
                replies=(*evidence[k].replies, *(one for one in got if isinstance(one, Reply))),
                lost=tuple(one for one in got if isinstance(one, LostReply)),
                mode=profile.mode,
                scale=profile.scale,
                digits=profile.digits,
            )
        )
    return JudgedPrompts([scoring(one) for one in found], found)


async def _ask(
    run: Run,
    job: Job,
    spec: JudgeSpec,
    bodies: Mapping[str, Mapping[str, object]],
    *,
    n_tokens: int,
    judges: JudgePool,
) -> Answers:
    if not bodies:
        return {}
    full = judges.terms(run, spec).price
    price = full and full.model_copy(
        update={"input": full.input * BATCH_SHARE, "output": full.output * BATCH_SHARE}
    )
    key = _batch_key(job)
    async with judges.asking(judges.url_of(spec)):
        client, limiter = judges.client_and_limiter(run, spec)
        found = _read(run, key)
        if found is None:
            most = _most_it_can_cost(bodies, n_tokens, price) if price else 0.0
            await limiter.admit(Cost(0, most))
            # a batch outlives this process, so its money is spent from here on
            limiter.answered(Cost(0, most), Charged(0, most))
            try:
                found = await submit_batch(client, bodies), most
            except JudgeError:
                await _charge(limiter, -most)
                raise
            run.store.write(key, encode_checked({"batch": found[0], RESERVED: most}))
        batch, reserved = found
        try:
            answers = await wait_for_batch(
                client, batch, bodies, price=price, is_leaving=lambda: judges.is_leaving
            )
        except LostBatchError as error:
            await _charge(limiter, -reserved)
            run.store.delete(key)
            raise JudgeError(
                str(error), advice="`orchestrate resume RUN` submits another"
            ) from None
        paid = sum(one.usd or 0.0 for one in answers.values())
        run.store.write(key, encode_checked({"batch": batch, RESERVED: paid}))
        await _charge(limiter, paid - reserved)
    return answers


def _batch_key(job: Job) -> str:
    return f"{record_key(job).removesuffix('.json')}{BATCH}"


async def _charge(limiter: Limiter, usd: float) -> None:
    limiter.answered(Cost(0, 0.0), Charged(0, usd))
    await limiter.flush()


def _most_it_can_cost(
    bodies: Mapping[str, Mapping[str, object]], n_tokens: int, price: Price
) -> float:
    """US dollars, where every answer is as long as it may be."""
    characters = sum(len(json.dumps(body)) for body in bodies.values())
    return price.usd(
        prompt_tokens=characters * TOKENS_PER_CHARACTER, completion_tokens=len(bodies) * n_tokens
    )


def _read(run: Run, key: str) -> tuple[str, float] | None:
    """A batch under way and the US dollars reserved for it; None where there is none."""
    try:
        body = decode_checked(run.store.read(key))
        return str(body["batch"]), float(body[RESERVED])
    except KeyError:
        return None
    except ValueError as error:
        raise StoreError(f"{run.store.url}/{key} cannot be read: delete it to ask again") from error
