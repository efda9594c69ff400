"""A shard's verdicts through the Batch API; the batch's id is stored, so nobody pays twice."""

from __future__ import annotations

import json
from collections.abc import Mapping

from orchestrator.call_costs import Answered, Cost
from orchestrator.errors import OrchestrateError, StoreError
from orchestrator.judging_rules import verdict
from orchestrator.plan import Job
from orchestrator.prices import BATCH_SHARE
from orchestrator.run_spec import JudgeSpec
from orchestrator.scores import Evidence, LostReply, Reply
from storage.artifacts import record_key
from storage.checked_json import decode_checked, encode_checked
from storage.run_record import Run
from tasks.judge_pool import JudgePool
from workers.judge import TOKENS_PER_CHARACTER, Judged
from workers.judge_batch import Answers, submit, wait
from workers.judge_profile import JudgeProfile

NOT_ANSWERED = LostReply(reason="http", detail="the batch ended without an answer", attempts=1)


def batch_verdicts(
    run: Run,
    job: Job,
    spec: JudgeSpec,
    profile: JudgeProfile,
    prompts: list[str],
    *,
    known: Mapping[int, Evidence],
    judges: JudgePool,
) -> Judged:
    """Like Judge.verdicts, in one batch; what `known` has is not asked again."""
    ids = {
        f"{k}-{vote}": profile.body(spec.model, prompt, vote=vote)
        for k, prompt in enumerate(prompts)
        for vote in range(len(known[k].replies) if k in known else 0, profile.votes)
    }
    evidence = [known.get(k, Evidence()) for k in range(len(prompts))]
    try:
        answers = judges.loop.run(_ask(run, job, spec, ids, judges=judges)) if ids else {}
    except OrchestrateError as error:
        return Judged([None] * len(prompts), evidence, error)
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
    return Judged([verdict(one) for one in found], found)


async def _ask(
    run: Run,
    job: Job,
    spec: JudgeSpec,
    bodies: Mapping[str, Mapping[str, object]],
    *,
    judges: JudgePool,
) -> Answers:
    client, gate = judges.client_and_gate(run, spec)
    full = judges.terms(run, spec).price
    price = full and full.model_copy(
        update={"input": full.input * BATCH_SHARE, "output": full.output * BATCH_SHARE}
    )
    characters = sum(len(json.dumps(body)) for body in bodies.values())
    most = (
        price.usd(prompt_tokens=characters * TOKENS_PER_CHARACTER, completion_tokens=0)
        if price
        else 0.0
    )
    key = f"{record_key(job).removesuffix('.json')}.batch.json"
    batch = _read(run, key)
    if batch is None:
        await gate.admit(Cost(0, most))
        # a batch outlives this process, so its money is spent from here on
        gate.answered(Cost(0, most), Answered(0, most))
        batch = await submit(client, bodies)
        run.store.write(key, encode_checked({"batch": batch, "usd_reserved": most}))
    answers = await wait(client, batch, price=price, is_leaving=lambda: judges.is_leaving)
    paid = sum(one.usd or 0.0 for one in answers.values())
    gate.answered(Cost(0, 0.0), Answered(0, paid - most))
    await gate.flush()
    run.store.delete(key)
    return answers


def _read(run: Run, key: str) -> str | None:
    try:
        return str(decode_checked(run.store.read(key))["batch"])
    except KeyError:
        return None
    except ValueError as error:
        raise StoreError(f"{run.store.url}/{key} cannot be read: delete it to ask again") from error
