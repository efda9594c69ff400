"""Which vectors of a run are used: the traits asked for, each with its best method and layer.

Knows nothing of tensors; the files are handed on as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.errors import UsageError
from storage.metrics_file import read_metrics
from storage.run_record import Run


@dataclass(frozen=True)
class RunVectors:
    """Trait -> its .safetensors, and the layer to take as people write it; what to warn of.

    `steering_layers` are where the run found that steering works best, of the traits where it
    looked and no layer was asked for.
    """

    files: dict[str, bytes]
    layers: dict[str, int | str]
    steering_layers: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def run_vectors(
    run: Run, traits: Sequence[str], *, method: str | None = None, layer: str | None = None
) -> RunVectors:
    """The vectors of these traits, or of all of the run's that have some when none is named.

    Raises UsageError for a trait or method that the run lacks.
    """
    known = [trait.name for trait in run.spec.traits]
    unknown = [name for name in traits if name not in known]
    if unknown:
        raise UsageError(f"{run.store.url} has no trait {unknown[0]!r}: it has {', '.join(known)}")
    found = RunVectors({}, {})
    for trait in traits or known:
        problem = _add(found, run, trait, method, layer)
        if problem and traits:
            raise UsageError(f"{trait} {problem}")
        if problem:
            found.warnings.append(f"{trait} is left out: it {problem}")
    if not found.files:
        raise UsageError(
            f"no trait of {run.store.url} has a vector: finish the run, or see its metrics"
        )
    return found


def _add(
    found: RunVectors, run: Run, trait: str, method: str | None, layer: str | None
) -> str | None:
    """Add one trait's vector; what is wrong where it has none."""
    try:
        metrics = read_metrics(run.store, trait)
    except KeyError:
        return "is not finished"
    best = (metrics.get("quality") or {}).get("best")
    if best is None:
        return "has no vector: too few responses were kept"
    name = method or best["method"]
    if name not in best["by_method"]:
        raise UsageError(
            f"{trait} has no {name} vector: use one of {', '.join(best['by_method'])}, or "
            "`orchestrate refilter --methods`"
        )
    found.files[trait] = run.store.read(f"traits/{trait}/vectors/{name}.safetensors")
    found.layers[trait] = layer if layer is not None else best["by_method"][name]
    causal = metrics["quality"].get("causal")
    if layer is None and causal is not None and causal["method"] == name:
        found.steering_layers[trait] = causal["layer"]
    if metrics["verdict"] != "usable":
        why = "; ".join(metrics["reasons"]) or "see its metrics"
        found.warnings.append(f"{trait} is {metrics['verdict']}: {why}")
    return None
