"""What a run may cost and has cost: its price and cap in the record, and what was paid."""

from __future__ import annotations

import json
import math

from pydantic import Field

from domain.errors import StoreError
from domain.plan.jobs import FORMER_NEGOTIATE
from domain.plan.spec import Frozen
from domain.scoring.prices import Price
from storage.record.artifacts import SET_ASIDE
from storage.record.json_bytes import decode_checked, encode_checked
from storage.record.store import Store

TERMS = "judging"
NEGOTIATED = ("negotiate", FORMER_NEGOTIATE)

BATCH = ".batch.json"
"""How the key ends that names a shard's batch under way, and what it reserves under RESERVED."""

RESERVED = "usd_reserved"


class Terms(Frozen):
    """How a run judges beyond what decides its results.

    price None is unknown, cap_usd None is no cap; use_cache lets replies to the same question be
    shared between runs; batch asks through the endpoint's Batch API.
    """

    price: Price | None = None
    cap_usd: float | None = Field(default=None, ge=0)
    use_cache: bool = True
    batch: bool = False


def write_terms(store: Store, terms: Terms, *, judgement: str | None = None) -> None:
    """Record a judgement's terms; a later command may change them, results stay the same."""
    store.write(_terms_key(judgement), encode_checked(terms.model_dump(mode="json")))


def read_terms(store: Store, *, judgement: str | None = None) -> Terms:
    """The recorded terms; none recorded means an unknown price and no cap."""
    try:
        return Terms.model_validate(decode_checked(store.read(_terms_key(judgement))))
    except KeyError:
        return Terms()
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{store.url}/{_terms_key(judgement)} is not what was written ({error})",
            advice="give --budget again to extract or resume, or delete it to go on without one",
        ) from error


def recorded_usd(store: Store) -> float:
    """What the run's judge records say was paid, those of interrupted shards and those set aside
    included, and what is reserved for batches under way."""
    return math.fsum(_usd(store, key) for key in store.list("") if _is_judge_record(key))


def _terms_key(judgement: str | None) -> str:
    return f"{TERMS}.json" if judgement is None else f"{TERMS}@{judgement}.json"


def _is_judge_record(key: str) -> bool:
    """`traits/refusal/judge/positive-003.json`, its `.partial` ones, those of rejudgings and those
    set aside."""
    if key.startswith(SET_ASIDE):
        # what ends with a checksum was paid all the same
        key = key.removeprefix(SET_ASIDE).rpartition("-")[0]
    parts = key.split("/")
    if len(parts) != 4 or parts[0] != "traits" or not key.endswith(".json"):
        return len(parts) == 1 and key.partition(".")[0].partition("@")[0] in NEGOTIATED
    return parts[2].partition("@")[0] == "judge"


def _usd(store: Store, key: str) -> float:
    try:
        body = json.loads(store.read(key))
        return float((body[RESERVED] if key.endswith(BATCH) else body["info"].get("usd")) or 0.0)
    except (KeyError, ValueError, TypeError, AttributeError):
        # a damaged record runs again and is counted then
        return 0.0
