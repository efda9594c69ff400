"""What an interrupted judge job had paid for already, kept so that nothing is paid twice.

One file per interruption beside the shard's record; gone once the shard is judged. Knows nothing
of why the job was interrupted.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping

from orchestrator.plan import Job
from orchestrator.scores import Evidence
from storage.artifacts import record_key
from storage.checked_json import decode_checked, encode_checked
from storage.store import Store

log = logging.getLogger(__name__)

Asked = tuple[str, str]
"""Sample key and metric."""


def keep_partial(store: Store, job: Job, evidence: Mapping[Asked, Evidence]) -> None:
    """Store what was answered before a job had to stop; answers of earlier stops are replaced."""
    answered = {asked: found for asked, found in evidence.items() if found.replies}
    if not answered:
        return
    before = _partial_keys(store, job)
    usd = sum(found.usd or 0.0 for found in answered.values())
    rows = [[*asked, found.model_dump(mode="json")] for asked, found in answered.items()]
    body = {"job": job.key, "info": {"usd": usd}, "rows": rows}
    store.write(f"{_stem(job)}.partial-{uuid.uuid4().hex[:12]}.json", encode_checked(body))
    for key in before:
        store.delete(key)


def load_partial(store: Store, job: Job) -> dict[Asked, Evidence]:
    """What was answered before; a damaged file counts as nothing, with a line in the log."""
    found: dict[Asked, Evidence] = {}
    for key in sorted(_partial_keys(store, job)):
        try:
            for sample, metric, body in decode_checked(store.read(key))["rows"]:
                found[sample, metric] = Evidence.model_validate(body)
        except KeyError:
            continue  # another worker has just replaced it
        except (ValueError, TypeError, RecursionError) as error:
            log.warning("%s is damaged (%s): its questions are asked again.", key, error)
    return found


def drop_partial(store: Store, job: Job) -> None:
    """Remove what the job's own record now holds."""
    for key in _partial_keys(store, job):
        store.delete(key)


def _partial_keys(store: Store, job: Job) -> set[str]:
    folder = _stem(job).rpartition("/")[0]
    return {key for key in store.list(folder) if key.startswith(f"{_stem(job)}.partial-")}


def _stem(job: Job) -> str:
    return record_key(job).removesuffix(".json")
