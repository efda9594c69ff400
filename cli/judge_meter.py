"""The judge's meter and endpoint as people see them: what is spent, and whether anybody answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from storage.connection import Client, connect
from storage.judge_limits import GateKeys
from storage.judgements import judge_of
from storage.run_record import Run
from storage.spending import endpoint_state, put_meter, read_meter, read_terms, recorded_usd


def open_meter(run: Run, broker_url: str) -> None:
    """Bring the run's cap and what its record says was spent into the broker."""
    with connect(broker_url) as client:
        spent = recorded_usd(run.store)
        put_meter(
            client, run.run_id, terms=read_terms(run.store, judgement=run.judgement), spent=spent
        )


def judge_snapshot(run: Run, broker_url: str) -> dict[str, Any]:
    """Money and endpoint, for `status`; money is None when no price is known."""
    with connect(broker_url) as client:
        meter, found = read_meter(client, run.run_id), endpoint(client, run)
    is_priced = read_terms(run.store, judgement=run.judgement).price is not None
    return {**found, "money": asdict(meter) if meter and is_priced else None}


def endpoint(client: Client, run: Run) -> dict[str, Any]:
    """The judge's model and endpoint, and since when it is down."""
    spec = judge_of(run, run.plan.probe)
    keys = GateKeys.of(run.run_id, url=spec.url, model=spec.model)
    return {"model": spec.model, "url": spec.url, **endpoint_state(client, keys)}


def snapshot_text(found: dict[str, Any]) -> str:
    """The snapshot in one line."""
    parts = [f"judge {found['model']}"]
    if found["down_for_s"] is not None:
        parts.append(
            f"its endpoint {found['url']} is down since {found['down_for_s']:.0f} s: judging waits "
            f"and spends nothing, next look in {found['next_look_in_s']:.0f} s"
        )
    if found["money"]:
        parts.append(_money(found["money"]["spent"], found["money"]["cap"]))
    if found["rejected"]:
        parts.append(f"{found['rejected']} calls rejected by its limits")
    return "; ".join(parts)


def spent_text(run: Run, broker_url: str) -> str:
    """What the judge has cost so far, and whether it is down; empty when that is nothing."""
    if run.spec.judge.url == "embedded":
        return ""
    found = judge_snapshot(run, broker_url)
    parts = []
    if found["money"]:
        parts.append(_money(found["money"]["spent"], found["money"]["cap"]))
    if found["down_for_s"] is not None:
        parts.append(f"the judge is down since {found['down_for_s']:.0f} s, waiting")
    return ", ".join(parts)


def _money(spent: float, cap: float | None) -> str:
    return f"judge ${spent:.4f}" + ("" if cap is None else f" of ${cap:g}")
