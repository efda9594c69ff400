"""The verdicts that count in a judgement, from the files of judge jobs."""

from __future__ import annotations

from orchestrator.plan import Job
from orchestrator.scores import Score, Verdict
from storage.judgements import base_job, read_judgement
from storage.responses import load_verdicts
from storage.run_record import Run


def effective_verdicts(run: Run, job: Job) -> dict[tuple[str, str], Verdict]:
    """(sample key, metric) -> the verdict that counts in the job's judgement.

    One that asked only the unscored keeps every score of the judgement it is based on.
    """
    own = load_verdicts(run.store, job)
    if job.judgement is None:
        return own
    judgement = read_judgement(run, job.judgement)
    if not judgement.only_unscored:
        return own
    base = effective_verdicts(run, base_job(job, judgement))
    kept = {asked: found for asked, found in base.items() if isinstance(found, Score)}
    return {**base, **own, **kept}
