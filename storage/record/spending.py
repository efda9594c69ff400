"""A run's money: its price and cap in the record, its meter in Redis, rebuilt when that is lost."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import redis
from pydantic import Field

from domain.errors import StoreError
from domain.plan.spec import Frozen
from domain.scoring.prices import Price
from storage.broker.judge_limits import GateKeys
from storage.broker.state import EXPIRE_S
from storage.record.artifacts import decode_checked, encode_checked
from storage.record.store import Store

TERMS = "judging"


class Terms(Frozen):
    """How a run judges beyond what decides its results.

    price None is unknown, cap_usd None is no cap; use_cache lets replies to the same question be
    shared between runs; batch asks through the endpoint's Batch API.
    """

    price: Price | None = None
    cap_usd: float | None = Field(default=None, ge=0)
    use_cache: bool = True
    batch: bool = False


@dataclass(frozen=True)
class Meter:
    """What is spent and what calls under way may still cost, in US dollars."""

    spent: float
    reserved: float
    cap: float | None


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
            f"{store.url}/{_terms_key(judgement)} is not what was written ({error}): delete it and "
            "give its terms (--prices, --budget) again"
        ) from error


def recorded_usd(store: Store) -> float:
    """What the run's judge records say was paid, those of interrupted shards included."""
    return math.fsum(_usd(store, key) for key in store.list("") if _is_judge_record(key))


def put_meter(client: redis.Redis, run_id: str, *, terms: Terms, spent: float) -> None:
    """Bring the run's money into Redis; a meter that stands higher there stays."""
    key = _key(run_id)
    before = client.hget(key, "spent")
    if before is None or float(before) < spent:  # type: ignore[arg-type]
        client.hset(key, "spent", repr(float(spent)))
    client.hset(key, "cap", "" if terms.cap_usd is None else repr(terms.cap_usd))
    client.expire(key, EXPIRE_S)


def read_meter(client: redis.Redis, run_id: str) -> Meter | None:
    """What the meter shows; None when Redis has none."""
    found: dict[bytes, bytes] = client.hgetall(_key(run_id))  # type: ignore[assignment]
    if b"spent" not in found:
        return None
    reserved = math.fsum(float(v) for k, v in found.items() if k.startswith(b"r:"))
    cap = found.get(b"cap", b"")
    return Meter(float(found[b"spent"]), reserved, float(cap) if cap else None)


def note_stated_limits(
    client: redis.Redis, keys: GateKeys, *, requests_per_minute: float, tokens_per_minute: float
) -> None:
    """Remember what the endpoint stated before the first verdict is asked; 0 is not stated."""
    stated = {"rpm": requests_per_minute, "tpm": tokens_per_minute}
    known = {name: repr(value) for name, value in stated.items() if value}
    if known:
        client.hset(keys.limits, mapping=known)  # type: ignore[arg-type]
        client.expire(keys.limits, EXPIRE_S)


def endpoint_state(client: redis.Redis, keys: GateKeys) -> dict[str, Any]:
    """What is known of the judge's endpoint: calls a second now, rejections, and since when it is
    down (None: it is up)."""
    found: dict[bytes, bytes] = client.hgetall(keys.limits)  # type: ignore[assignment]
    number = {k.decode(): float(v) for k, v in found.items() if v}
    seconds, _ = client.time()  # type: ignore[misc]
    down_since = number.get("down_since", 0.0)
    return {
        "calls_per_second": number.get("rate"),
        "requests_per_minute_stated": number.get("rpm"),
        "rejected": int(number.get("rejected", 0)),
        "down_for_s": max(0.0, seconds - down_since) if down_since else None,
        "next_look_in_s": max(0.0, number.get("open_until", 0.0) - seconds) if down_since else None,
    }


def _terms_key(judgement: str | None) -> str:
    return f"{TERMS}.json" if judgement is None else f"{TERMS}@{judgement}.json"


def _key(run_id: str) -> str:
    return GateKeys(run_id, "").budget


def _is_judge_record(key: str) -> bool:
    """`traits/refusal/judge/positive-003.json`, its `.partial` ones, and those of rejudgings."""
    parts = key.split("/")
    if len(parts) != 4 or parts[0] != "traits" or not key.endswith(".json"):
        return parts[-1].partition(".")[0].partition("@")[0] == "probe" and len(parts) == 1
    return parts[2].partition("@")[0] == "judge"


def _usd(store: Store, key: str) -> float:
    try:
        body = json.loads(store.read(key))
        return float(body["info"].get("usd") or 0.0)
    except (KeyError, ValueError, TypeError, AttributeError):
        # a damaged record runs again and is counted then
        return 0.0
