"""Scorings as judge jobs store them, a Parquet table a shard.

What an interrupted judge job had paid for is kept beside the shard's record until it is judged.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping

import pyarrow as pa

from domain.plan.jobs import Job
from domain.scoring.scores import Evidence, Score, Scoring, Unscored, score_value
from storage.record.artifacts import Decoders, load_record, read_artifact, record_key
from storage.record.json_bytes import decode_checked, encode_checked
from storage.record.store import Store
from storage.record.tables import parquet_bytes, parquet_table

log = logging.getLogger(__name__)

SCORINGS = "verdicts.parquet"

Asked = tuple[str, str]
"""Sample key and metric."""

_SCORING_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("metric", pa.string()),
        ("score", pa.float64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("numeric_mass", pa.float64()),
        ("refusal_mass", pa.float64()),
        ("bounds", pa.list_(pa.float64())),
        ("evidence", pa.string()),
    ]
)


def encode_scorings(scorings: Iterable[tuple[str, str, Scoring]]) -> bytes:
    """Parquet bytes of (sample key, metric, scoring) rows with the judge's raw evidence."""
    rows = [
        {
            "key": key,
            "metric": metric,
            "score": score_value(scoring),
            "detail": "",
            **vars(scoring),
            "evidence": scoring.evidence.model_dump_json() if scoring.evidence else "",
        }
        for key, metric, scoring in scorings
    ]
    return parquet_bytes(pa.Table.from_pylist(rows, schema=_SCORING_SCHEMA))


def load_scorings(store: Store, job: Job) -> dict[tuple[str, str], Scoring]:
    """(sample key, metric) -> scoring of a finished judge job."""
    return read_artifact(store, load_record(store, job), SCORINGS, decode_scorings)


def decode_scorings(data: bytes) -> dict[tuple[str, str], Scoring]:
    """What encode_scorings made; raises ValueError or KeyError for other bytes."""
    found: dict[tuple[str, str], Scoring] = {}
    for row in parquet_table(data).to_pylist():
        body = {name: row[name] for name in ("numeric_mass", "refusal_mass")}
        evidence = row["evidence"]
        body["evidence"] = Evidence.model_validate_json(evidence) if evidence else None
        asked = row["key"], row["metric"]
        if row["score"] is not None:
            # tables of before hold no bounds
            score = {"value": row["score"], "bounds": row.get("bounds")}
            found[asked] = Score.model_validate({**body, **score})
        else:
            facts = {"reason": row["reason"], "detail": row["detail"]}
            found[asked] = Unscored.model_validate({**body, **facts})
    return found


SCORINGS_DECODERS: Decoders = {SCORINGS: decode_scorings}


def keep_partial_scorings(store: Store, job: Job, evidence: Mapping[Asked, Evidence]) -> None:
    """Store what was answered before a job had to stop; answers of earlier stops are replaced."""
    answered = {asked: found for asked, found in evidence.items() if found.replies}
    if not answered:
        return
    before = partial_scorings_keys(store, job)
    usd = sum(found.usd or 0.0 for found in answered.values())
    rows = [[*asked, found.model_dump(mode="json")] for asked, found in answered.items()]
    body = {"job": job.key, "info": {"usd": usd}, "rows": rows}
    stem = record_key(job).removesuffix(".json")
    store.write(f"{stem}.partial-{uuid.uuid4().hex[:12]}.json", encode_checked(body))
    for key in before:
        store.delete(key)


def load_partial_scorings(store: Store, job: Job) -> dict[Asked, Evidence]:
    """What was answered before; a damaged file counts as nothing, with a line in the log."""
    found: dict[Asked, Evidence] = {}
    for key in sorted(partial_scorings_keys(store, job)):
        try:
            for sample, metric, body in decode_checked(store.read(key))["rows"]:
                found[sample, metric] = Evidence.model_validate(body)
        except KeyError:
            continue  # another worker has just replaced it
        except (ValueError, TypeError, RecursionError) as error:
            log.warning("%s is damaged (%s): its questions are asked again.", key, error)
    return found


def partial_scorings_keys(store: Store, job: Job) -> set[str]:
    """Where it lies."""
    stem = record_key(job).removesuffix(".json")
    return {k for k in store.list(stem.rpartition("/")[0]) if k.startswith(f"{stem}.partial-")}
