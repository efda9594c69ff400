"""Whether a verdict hangs on responses that no judge scored.

A judge that answers for some texts only chooses them, so what is missing may be anything: figures
are held against the gates again with the missing scores at 0 or at 100, where they speak against
the vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from domain.verdict.record import Quality, TraitMetrics


@dataclass(frozen=True)
class AtWorst:
    """A figure by name, its value, the lowest that it may be, and the metrics where it is."""

    name: str
    value: float
    lowest: float
    metrics: TraitMetrics


def at_worst(metrics: TraitMetrics) -> Iterator[AtWorst]:
    """One after the other, each with those before it at their lowest as well."""
    value, bounds = metrics.contrast, metrics.contrast_bounds
    if value is not None and bounds is not None and bounds.lowest.value is not None:
        lowest = bounds.lowest
        metrics = metrics.model_copy(
            update={"contrast": lowest.value, "contrast_interval": lowest.interval}
        )
        yield AtWorst("contrast", value, bounds.lowest.value, metrics)
    for name in (_evaluated, _steered):
        found = metrics.quality and name(metrics.quality)
        if found:
            figure, value, lowest_value, quality = found
            metrics = metrics.model_copy(update={"quality": quality})
            yield AtWorst(figure, value, lowest_value, metrics)


def _evaluated(quality: Quality) -> tuple[str, float, float, Quality] | None:
    found = quality.evaluation
    own = found and found.methods[quality.best.method]
    if not found or not own or own.readable is None or own.with_unscored is None:
        return None
    layer, worst = quality.best.layer, own.model_copy(update={"readable": own.with_unscored})
    value, lowest = own.readable.auroc.value[layer], own.with_unscored.auroc.value[layer]
    if value is None or lowest is None:
        return None
    methods = {**found.methods, quality.best.method: worst}
    tested = found.model_copy(update={"methods": methods})
    name = "AUROC on evaluation questions"
    return name, value, lowest, quality.model_copy(update={"evaluation": tested})


def _steered(quality: Quality) -> tuple[str, float, float, Quality] | None:
    causal = quality.causal
    if causal is None or causal.rise_bounds is None:
        return None
    rise, lowest = causal.vector.rise, causal.rise_bounds.lowest
    if rise.value is None or lowest.value is None:
        return None
    over = causal.rise_over_random_bounds
    steered = causal.model_copy(
        update={
            "vector": causal.vector.model_copy(update={"rise": lowest}),
            "rise_over_random": over.lowest if over else causal.rise_over_random,
        }
    )
    name = "rise by steering"
    return name, rise.value, lowest.value, quality.model_copy(update={"causal": steered})
