"""What the page of two runs holds, gathered from their stores.

Knows nothing of commands or of how a page looks.
"""

from __future__ import annotations

from typing import Any

from cli.report_content import VERSION, direction_errors, finished_metrics, run_data, run_name
from orchestrator.errors import UsageError
from orchestrator.report_data import settings_compared
from storage.report_files import read_response_vectors
from storage.run_record import Run
from workers.trait_cosines import trait_cosines


def compare_data(first: Run, second: Run) -> dict[str, Any]:
    """Everything that the page of two runs shows."""
    both = [{m["trait"]: m for m in finished_metrics(run)} for run in (first, second)]
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
                "metrics": [both[0][name], both[1][name]],
                "cosine": _cosine_of_two(first, second, both[0][name], both[1][name]),
            }
            for name in traits
        ],
    }


def _cosine_of_two(
    first: Run, second: Run, a: dict[str, Any], b: dict[str, Any]
) -> dict[str, Any] | None:
    """Cosine per layer of a trait's vectors in two runs; None when they are not of one shape."""
    if not a["quality"] or not b["quality"]:
        return None
    method = _method_of_both(a["quality"], b["quality"])
    if method is None:
        return None
    runs = {"first": first, "second": second}
    found = {name: read_response_vectors(r.store, a["trait"], method) for name, r in runs.items()}
    if found["first"].shape != found["second"].shape:
        return None
    both = trait_cosines(
        found,
        direction_errors([{**a, "trait": "first"}, {**b, "trait": "second"}], method),
    )
    ranges = both["interval"]
    return {
        "method": method,
        "same_model": a["generation"]["model_hash"] == b["generation"]["model_hash"],
        "value": [matrix[0][1] for matrix in both["by_layer"]],
        "interval": ranges and [matrix[0][1] for matrix in ranges],
    }


def _method_of_both(first: dict[str, Any], second: dict[str, Any]) -> str | None:
    """The method to compare by: the best of the first run, or of the second, or any of both."""
    wanted = [first["best"]["method"], second["best"]["method"], *first["methods"]]
    common = (one for one in wanted if one in first["methods"] and one in second["methods"])
    return next(common, None)
