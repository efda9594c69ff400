"""What the live page of a run shows: where its traits stand, who works on it, latest answers."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from cli.screens.run_in_words import judge_in_words, run_in_words
from cli.screens.tables import duration
from domain.errors import OrchestrateError
from domain.plan.jobs import Job
from domain.scoring.scores import METRICS, score_value
from orchestrator.progress import StageCount, seconds_left, stage_rates
from storage.broker.connection import BROKER_AWAY
from storage.record.artifacts import record_key
from storage.record.judgements import effective_scorings
from storage.record.responses import Response, load_responses
from storage.record.run import Run, load_definition
from storage.record.store import Content

# Of so many shards, so many answers each, drawn by lot: neighbors answer one question.
SHARDS, ANSWERS = 4, 3

# Pages that ask at the same time, and again at once, get one look.
FRESH_S = 1.0


class LiveRun:
    """A run that is looked at again and again; `look` may be called from several threads."""

    def __init__(self, run: Run, broker_url: str | None, *, flower_url: str) -> None:
        self._run, self._broker_url = run, broker_url
        self._flower_url = flower_url if broker_url else None
        self._lock = threading.Lock()
        self._seen: dict[str, Any] = {}
        self._seen_at = -FRESH_S

    def look(self) -> dict[str, Any]:
        """All that the page shows, ready for JSON."""
        with self._lock:
            if time.monotonic() - self._seen_at >= FRESH_S:
                self._seen = self._look()
                self._seen_at = time.monotonic()
            return self._seen

    def _look(self) -> dict[str, Any]:
        away = ""
        try:
            found = run_in_words(self._run, self._broker_url)
        except BROKER_AWAY as error:
            away, found = str(error), run_in_words(self._run, None)
        stages = {stage: StageCount(**count) for stage, count in found["stages"].items()}
        left = seconds_left(stages, stage_rates(found.get("rates", {}), stages))
        return {
            "name": found["name"],
            "model": found["model"],
            "state": found["state"],
            "why": found["state_why"],
            "left": duration(left) if left else "",
            "stages": list(found["stages"]),
            "traits": found["traits"],
            "workers": found.get("workers", []),
            "judge": judge_in_words(found["judge"]) if "judge" in found else [],
            "troubles": [line["text"] for line in found.get("last_errors", [])],
            "has_broker": "workers" in found,
            "away": away,
            "flower": self._flower_url,
            "answers": latest_live_answers(self._run),
        }


def latest_live_answers(run: Run) -> list[dict[str, Any]]:
    """Answers of the shards that were generated last, the last first, with scores where they are
    judged already; what cannot be read is left out, as it is about to be made again."""
    contents, found = run.store.contents(), []
    for job in _latest(run, contents):
        is_judged = record_key(run.plan.judge_job(job)) in contents
        try:
            found += _answers(run, job, is_judged=is_judged)
        except (KeyError, OrchestrateError):
            continue
    return found


def _latest(run: Run, contents: dict[str, Content]) -> Sequence[Job]:
    jobs = [
        (contents[record_key(job)].modified or 0.0, job.key, job)
        for trait in run.spec.traits
        for job in run.plan.trait_jobs(trait)
        if job.stage == "generate" and record_key(job) in contents
    ]
    return [job for _, _, job in sorted(jobs, key=lambda one: one[:2], reverse=True)[:SHARDS]]


def _lot(response: Response) -> bytes:
    """The same draw at every look."""
    return hashlib.sha256(response.key.encode()).digest()


def _answers(run: Run, job: Job, *, is_judged: bool) -> list[dict[str, Any]]:
    definition = load_definition(run, str(job.trait))
    samples = {sample.key: sample for sample in run.plan.samples(job)}
    scorings = effective_scorings(run, run.plan.judge_job(job)) if is_judged else {}
    responses = load_responses(run.store, job)
    found = []
    for one in sorted(responses, key=_lot)[:ANSWERS]:
        sample = samples[one.key]
        scores = {metric: scorings.get((one.key, metric)) for metric in METRICS}
        found.append(
            {
                "key": one.key,
                "trait": sample.trait,
                "polarity": sample.polarity,
                "part": sample.part,
                "instruction": definition.instruction_text(sample.instruction, sample.polarity),
                "question": definition.asked(sample.part, sample.question, sample.polarity),
                "response": one.response,
                "is_judged": is_judged,
                **{f"{m}_score": score_value(s) for m, s in scores.items()},
            }
        )
    return found
