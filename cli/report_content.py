"""What the page of a run holds, gathered from the store.

Knows nothing of commands or of how a page looks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.report_data import (
    SampleRow,
    chosen_rows,
    funnel,
    histograms,
    load_snippet,
    raw_reply,
    repeat_command,
)
from storage.metrics_file import read_metrics
from storage.report_files import (
    read_recorded,
    read_response_vectors,
    read_rows,
    read_verdicts,
    stage_totals,
)
from storage.run_record import Run, load_definition
from storage.spending import read_terms, recorded_usd
from workers.trait_cosines import trait_cosines

VERSION = 1


def report_data(
    run: Run, metrics: list[dict[str, Any]], cosines: dict[str, Any] | None
) -> dict[str, Any]:
    """Everything that the page of a run shows; metrics stand in it as they are stored."""
    return {
        "version": VERSION,
        "kind": "run",
        "name": run_name(run),
        "url": run.store.url,
        "traits": [_trait_data(run, one) for one in metrics],
        "unfinished": sorted({t.name for t in run.spec.traits} - {m["trait"] for m in metrics}),
        "cosine_between_traits": cosines,
        **run_data(run),
    }


def finished_metrics(run: Run) -> list[dict[str, Any]]:
    """Metrics of the traits that are reduced; raises UsageError when a report cannot be made."""
    found = []
    for trait in run.spec.traits:
        with contextlib.suppress(KeyError):
            found.append(read_metrics(run.store, trait.name))
    if not found:
        raise UsageError(f"no trait of {run_name(run)} is finished yet: see `orchestrate status`")
    if any("quality" not in one for one in found):
        raise UsageError(
            f"{run_name(run)} was reduced by an earlier version, without quality: "
            "remove its traits/*/reduce.json, and `orchestrate resume` measures it from what is "
            "stored"
        )
    return found


def cosines_between_traits(run: Run, metrics: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Between the traits that have vectors, by the run's first method; None with fewer than two."""
    with_vectors = [one for one in metrics if one["quality"]]
    if len(with_vectors) < 2:
        return None
    method = run.spec.methods[0]
    vectors = {
        m["trait"]: read_response_vectors(run.store, m["trait"], method) for m in with_vectors
    }
    return {"method": method, **trait_cosines(vectors, direction_errors(with_vectors, method))}


def direction_errors(
    metrics: Sequence[dict[str, Any]], method: str
) -> dict[str, list[float | None]] | None:
    """Trait -> 95 % bounds in degrees on the angle to the true direction [L+1]; known of the mean
    difference only, None for other methods."""
    if method != "mean_diff":
        return None
    return {m["trait"]: m["quality"]["mean_difference"]["angle_upper_degrees"] for m in metrics}


def _trait_data(run: Run, metrics: dict[str, Any]) -> dict[str, Any]:
    trait = metrics["trait"]
    rows = read_rows(run.store, trait)
    return {
        "metrics": metrics,
        "histograms": histograms(rows),
        "funnel": funnel(rows),
        "responses": _responses(run, trait, rows),
        "load": load_snippet(run.store.url, trait, metrics["quality"])
        if metrics["quality"]
        else None,
    }


def _responses(run: Run, trait: str, rows: list[SampleRow]) -> dict[str, Any]:
    chosen = chosen_rows(rows)
    verdicts = read_verdicts(run, trait)
    instructions = sorted({row.instruction for row in chosen})
    questions = sorted({row.question for row in chosen})
    return {
        "of": len(rows),
        "instructions": instructions,
        "questions": questions,
        "rows": [
            {
                "key": row.key,
                "polarity": row.polarity,
                "instruction": instructions.index(row.instruction),
                "question": questions.index(row.question),
                "response": row.response,
                "trait_score": row.trait_score,
                "coherence_score": row.coherence_score,
                "status": row.status,
                "reason": row.reason,
                "judge": {m: raw_reply(verdicts.get((row.key, m))) for m in ("trait", "coherence")},
            }
            for row in chosen
        ],
    }


def run_data(run: Run) -> dict[str, Any]:
    """A run's settings, versions, cost and the command that repeats it."""
    recorded = read_recorded(run)
    is_priced = read_terms(run.store).price is not None
    full = {
        trait.name: (len(definition.instruction), len(definition.questions))
        for trait in run.spec.traits
        for definition in (load_definition(run, trait.name),)
    }
    return {
        "spec": run.spec.model_dump(mode="json", exclude={"traits"}),
        "spec_sha256": run.spec.digest(),
        "run_id": run.run_id,
        "provenance": {k: v for k, v in recorded["provenance"].items() if k != "command"},
        "repeat": repeat_command(run.spec, traits=_given_traits(recorded), full=full),
        "cost": {**stage_totals(run), "judge_usd": recorded_usd(run.store) if is_priced else None},
    }


def _given_traits(recorded: Any) -> str | None:
    """--traits as it stood on the command line: a path there says more than a trait's name."""
    words = recorded["provenance"].get("command", [])
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--traits":
            return str(following)
        if word.startswith("--traits="):
            return str(word.removeprefix("--traits="))
    return None


def run_name(run: Run) -> str:
    """The name of a run's folder."""
    return run.store.url.rstrip("/").rpartition("/")[2]
