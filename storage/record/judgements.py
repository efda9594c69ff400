"""Judgements of a run: its own, and later ones of the same responses, all kept side by side.

A later judgement asks everything again, or only what has no score in the judgement it is based on.
"""

from __future__ import annotations

import re
from dataclasses import replace

from domain.errors import StoreError, UsageError
from domain.plan.jobs import Job
from domain.plan.spec import Frozen, JudgeSpec
from domain.scoring.scores import METRICS, Score, Scoring
from domain.verdict.record import TraitMetrics
from storage.record.json_bytes import decode_checked, encode_checked
from storage.record.responses import load_responses
from storage.record.run import Run, load_definition
from storage.record.scorings import Asked, load_scorings

FIRST = "first"
"""What people call the run's own judgement."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,40}")


class Judgement(Frozen):
    """A later judging: who is asked, and whether only what was unscored in `based_on`.

    `number` counts a run's judgements, its own being 1.
    """

    name: str
    number: int
    judge: JudgeSpec
    only_unscored: bool = False
    based_on: str | None = None


def add_judgement(run: Run, judgement: Judgement) -> None:
    """Record a judgement; raises UsageError for a name that is no name or means another one."""
    if not _NAME.fullmatch(judgement.name) or judgement.name == FIRST:
        raise UsageError(
            f"--name {judgement.name!r} cannot name a judgement: use lower-case letters and digits"
        )
    run.store.create(_key(judgement.name), encode_checked(judgement.model_dump(mode="json")))
    if read_judgement(run, judgement.name) != judgement:
        raise UsageError(
            f"judgement {judgement.name} of {run.store.url} was made with other settings: choose "
            "another --name"
        )


def read_judgement(run: Run, name: str) -> Judgement:
    """A recorded judgement; raises UsageError when there is none of that name."""
    try:
        return Judgement.model_validate(decode_checked(run.store.read(_key(name))))
    except KeyError as error:
        raise UsageError(f"{run.store.url} has no judgement {name!r}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{run.store.url}/{_key(name)} is not what was written ({error}): restore it from a "
            "copy, or judge again under another --name"
        ) from error


def on_judgement(run: Run, name: str) -> Run:
    """The run on an existing judgement, its own included."""
    return replace(run, judgement=None if name == FIRST else read_judgement(run, name).name)


def on_judgement_of(run: Run, metrics: TraitMetrics) -> Run:
    """The run on the judgement that a trait's results are of."""
    return on_judgement(run, metrics.judging.judgement if metrics.judging else FIRST)


def judgement_names(run: Run) -> list[str]:
    """The names of a run's later judgements, the oldest first."""
    keys = run.store.list("judgements")
    found = [k.removeprefix("judgements/").removesuffix(".json") for k in keys]
    return sorted(found, key=lambda name: read_judgement(run, name).number)


def judge_of(run: Run) -> JudgeSpec:
    """Who is asked in the judgement worked on."""
    return run.spec.judge if run.judgement is None else read_judgement(run, run.judgement).judge


def judgement_base_job(job: Job, judgement: Judgement) -> Job:
    """The same shard's job in the judgement that this one is based on."""
    return Job("judge", job.trait, job.part, job.shard, judgement.based_on)


def _key(name: str) -> str:
    return f"judgements/{name}.json"


def effective_scorings(run: Run, job: Job) -> dict[tuple[str, str], Scoring]:
    """(sample key, metric) -> the scoring that counts in the job's judgement.

    One that asked only the unscored keeps every score of the judgement it is based on.
    """
    own = load_scorings(run.store, job)
    if job.judgement is None:
        return own
    judgement = read_judgement(run, job.judgement)
    if not judgement.only_unscored:
        return own
    base = effective_scorings(run, judgement_base_job(job, judgement))
    kept = {asked: found for asked, found in base.items() if isinstance(found, Score)}
    return {**base, **own, **kept}


def asked_prompts(run: Run, job: Job) -> tuple[dict[Asked, str], list[Asked]]:
    """(sample key, metric) -> the judge's prompt, in plan order, of what the judgement asks; and
    what there is no answer to ask about."""
    assert job.trait is not None
    definition = load_definition(run, job.trait)
    samples = {sample.key: sample for sample in run.plan.samples(job)}
    prompts: dict[Asked, str] = {}
    unasked: list[Asked] = []
    for response in load_responses(run.store, Job("generate", job.trait, job.part, job.shard)):
        sample, answer = samples[response.key], response.response
        if response.finish == "thought":
            unasked += [(response.key, metric) for metric in METRICS]
            continue
        place = sample.part, sample.question, sample.polarity
        question = definition.judged_question(*place, put=run.spec.scenarios)
        prompts[response.key, "trait"] = definition.judge_prompt(question, answer)
        prompts[response.key, "coherence"] = definition.coherence_prompt(question, answer)
    if job.judgement is None or not read_judgement(run, job.judgement).only_unscored:
        return prompts, unasked
    base = effective_scorings(run, judgement_base_job(job, read_judgement(run, job.judgement)))
    open_ = {asked: p for asked, p in prompts.items() if not isinstance(base[asked], Score)}
    return open_, unasked
