"""What the page of a run holds, or that of two runs, gathered from their stores."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from cli.pages.report_data import (
    chosen_rows,
    funnel,
    histograms,
    load_snippet,
    raw_reply,
    repeat_command,
    settings_compared,
)
from domain.errors import UsageError
from domain.verdict.record import Layers, Quality, TraitMetrics
from storage.record.results import SampleRow, read_metrics, read_response_vectors, read_rows
from storage.record.run import Run, load_definition
from storage.record.spending import read_terms, recorded_usd
from storage.record.tables import read_recorded, read_scorings, stage_totals
from traitlens.assess.cosines import trait_cosines

VERSION = 1


def report_data(
    run: Run, metrics: Sequence[TraitMetrics], cosines: dict[str, Any] | None
) -> dict[str, Any]:
    """Everything that the page of a run shows; metrics stand in it as they are stored."""
    return {
        "version": VERSION,
        "kind": "run",
        "name": run_name(run),
        "url": run.store.url,
        "traits": [_trait_data(run, one) for one in metrics],
        "unfinished": sorted({t.name for t in run.spec.traits} - {m.trait for m in metrics}),
        "cosine_between_traits": cosines,
        **run_data(run),
    }


def finished_metrics(run: Run) -> list[TraitMetrics]:
    """Metrics of the traits that are reduced; raises UsageError when a report cannot be made."""
    found = []
    for trait in run.spec.traits:
        with contextlib.suppress(KeyError):
            found.append(read_metrics(run.store, trait.name))
    if not found:
        raise UsageError(f"no trait of {run_name(run)} is finished yet: see `orchestrate status`")
    if any("quality" not in one.model_fields_set for one in found):
        raise UsageError(
            f"{run_name(run)} was reduced by an earlier version, without quality: "
            "remove its traits/*/reduce.json, and `orchestrate resume` measures it from what is "
            "stored"
        )
    return found


def cosines_between_traits(run: Run, metrics: Sequence[TraitMetrics]) -> dict[str, Any] | None:
    """Between the traits that have vectors, by the run's first method; None with fewer than two."""
    qualities = {one.trait: one.quality for one in metrics if one.quality is not None}
    if len(qualities) < 2:
        return None
    method = run.spec.methods[0]
    vectors = {trait: read_response_vectors(run.store, trait, method) for trait in qualities}
    return {"method": method, **trait_cosines(vectors, direction_errors(qualities, method))}


def direction_errors(qualities: Mapping[str, Quality], method: str) -> dict[str, Layers] | None:
    """95 % bounds in degrees on the angle to the true direction [L+1]; known of the mean difference
    only, None for other methods."""
    if method != "mean_diff":
        return None
    return {name: one.mean_difference.angle_upper_degrees for name, one in qualities.items()}


def _trait_data(run: Run, metrics: TraitMetrics) -> dict[str, Any]:
    trait = metrics.trait
    rows = read_rows(run.store, trait)
    return {
        "metrics": metrics.model_dump(mode="json"),
        "histograms": histograms(rows),
        "funnel": funnel(rows),
        "responses": _responses(run, trait, rows),
        "load": metrics.quality and load_snippet(run.store.url, trait, metrics.quality),
    }


def _responses(run: Run, trait: str, rows: list[SampleRow]) -> dict[str, Any]:
    chosen = chosen_rows(rows)
    scorings = read_scorings(run, trait)
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
                "judge": {m: raw_reply(scorings.get((row.key, m))) for m in ("trait", "coherence")},
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


def compare_data(first: Run, second: Run) -> dict[str, Any]:
    """Everything that the page of two runs shows."""
    both = [{m.trait: m for m in finished_metrics(run)} for run in (first, second)]
    traits = [name for name in both[0] if name in both[1]]
    if not traits:
        raise UsageError(
            f"{run_name(first)} and {run_name(second)} have no finished trait in common"
        )
    return {
        "version": VERSION,
        "kind": "compare",
        "names": [run_name(first), run_name(second)],
        "runs": [run_data(first), run_data(second)],
        "differences": settings_compared(first.spec, second.spec),
        "traits": [
            {
                "trait": name,
                "metrics": [found[name].model_dump(mode="json") for found in both],
                "cosine": _cosine_of_two(first, second, both[0][name], both[1][name]),
            }
            for name in traits
        ],
    }


def _cosine_of_two(
    first: Run, second: Run, a: TraitMetrics, b: TraitMetrics
) -> dict[str, Any] | None:
    """Cosine per layer of a trait's vectors in two runs, by the best method of the first, or of the
    second, or any of both; None when they are not of one shape."""
    if a.quality is None or b.quality is None:
        return None
    qualities = {"first": a.quality, "second": b.quality}
    wanted = (a.quality.best.method, b.quality.best.method, *a.quality.methods)
    common = [m for m in wanted if all(m in quality.methods for quality in qualities.values())]
    if not common:
        return None
    method, runs = common[0], {"first": first, "second": second}
    found = {name: read_response_vectors(r.store, a.trait, method) for name, r in runs.items()}
    if found["first"].shape != found["second"].shape:
        return None
    both = trait_cosines(found, direction_errors(qualities, method))
    ranges = both["interval"]
    return {
        "method": method,
        "same_model": a.generation.model_hash == b.generation.model_hash,
        "value": [matrix[0][1] for matrix in both["by_layer"]],
        "interval": ranges and [matrix[0][1] for matrix in ranges],
    }
