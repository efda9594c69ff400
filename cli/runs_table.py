"""All runs of a folder and the fleet that works on them, for `orchestrate status` without a run."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.counts import trait_counts
from cli.fleet_table import fleet_rows, fleet_table
from cli.refusal_lines import refusal_lines, refusal_rows
from orchestrator.errors import UsageError
from storage.artifacts import done_jobs
from storage.connection import connect
from storage.fleet import read_runs, read_workers, worker_card
from storage.run_record import open_run
from storage.store import Store, open_store


def runs_rows(runs_dir: str, broker_url: str | None) -> dict[str, Any]:
    """The runs of a folder by name, and with a broker its workers.

    Raises UsageError when the folder holds no run.
    """
    store = open_store(runs_dir)
    names = sorted({k.split("/")[0] for k in store.list("") if k.endswith("/run.json")})
    if not names:
        raise UsageError(f"no runs in {store.url}: start one with `orchestrate extract`")
    found: dict[str, Any] = {"runs": names, "standing": [_row(store, name) for name in names]}
    if broker_url:
        with connect(broker_url) as client:
            workers, runs = read_workers(client), read_runs(client)
            found["workers"] = fleet_rows(workers)
            found["refusals"] = refusal_rows(client, runs, workers)
        cards = {card.run_id: card for card in runs}
        for row in found["standing"]:
            card = cards.get(row["run_id"])
            row["state"] = "" if card is None else "paused" if card.paused else "running"
            row["priority"] = None if card is None else card.priority
    return found


def runs_screen(found: dict[str, Any]) -> RenderableType:
    """The runs, and the workers below them."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("run", "traits", "model", "state", "priority"):
        table.add_column(heading, no_wrap=heading == "run")
    for row in found["standing"]:
        priority = row.get("priority")
        table.add_row(
            escape(row["name"]),
            f"{row['finished']}/{row['traits']}",
            escape(row["model"]),
            row.get("state", ""),
            "" if priority is None else str(priority),
        )
    if "workers" not in found:
        return table
    refused = refusal_lines(found["refusals"], run="")
    fleet = fleet_table([worker_card(row) for row in found["workers"]])
    return Group(table, *refused, Text(""), fleet)


def _row(store: Store, name: str) -> dict[str, Any]:
    run = open_run(store.at(name))
    traits = [trait.name for trait in run.spec.traits]
    counts = trait_counts(run.plan, done_jobs(run.store, traits))
    return {
        "name": name,
        "run_id": run.run_id,
        "traits": len(traits),
        "finished": sum(count.is_finished for count in counts),
        "model": run.spec.model.model_id,
    }
