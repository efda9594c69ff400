"""The gates of reading: whether a vector tells texts apart where no instruction stands before them.

Within its own context a vector separates responses by their instructions' words as well, whatever
they say; so those figures show no reading.
"""

from __future__ import annotations

from collections.abc import Iterator

from domain.plan.spec import DEFAULT_POSITION
from domain.verdict.record import Finding, Gate, Quality, Severity, TraitMetrics, Use, UseState

# Corrected for the choice among layers, so that one null in twenty passes at most.
P_READS = 0.05

# Below it two texts in seven are ranked the wrong way round: it reads, but not well.
AUROC_READS = 0.7

AUROC_CHANCE = 0.5


def reads_use(quality: Quality) -> Use:
    """Whether the vector reads the trait, and at which layer it does best: where nothing says so,
    that with the best separation in context."""
    found = quality.reading
    if found is None or found.p is None or found.auroc is None or found.layer is None:
        return Use(state=UseState.UNTESTED, layer=quality.best.layer)
    low = found.auroc.interval[found.layer][0]
    state = UseState.DOUBT
    if found.p > P_READS:
        state = UseState.NO
    elif (found.auroc.value[found.layer] or 0.0) >= AUROC_READS and (low or 0.0) > AUROC_CHANCE:
        state = UseState.YES
    return Use(state=state, layer=found.layer)


def reading_findings(metrics: TraitMetrics, quality: Quality) -> Iterator[Finding]:
    """What failed of it, was not tested, or should be known."""
    found = quality.reading
    if found is None:
        if quality.position == DEFAULT_POSITION:
            is_to_come = metrics.checks.contexts and not metrics.is_checked
            yield Finding(
                Gate.READING_PENDING if is_to_come else Gate.READING_OFF, Severity.UNTESTED
            )
        return
    n = found.n.positive + found.n.negative
    if n < found.n_read:
        yield Finding(Gate.READING_PART, Severity.NOTE, value=n, limit=found.n_read)
    use = reads_use(quality)
    if found.auroc is None or use.layer is None or use.state == UseState.UNTESTED:
        yield Finding(Gate.READING_FEW, Severity.UNTESTED, value=n, limit=found.n_read)
    elif use.state != UseState.YES:
        is_shown = use.state == UseState.DOUBT
        gate = Gate.READING_LOW if is_shown else Gate.READING_NOT_SHOWN
        severity = Severity.DOUBT if is_shown else Severity.WEAK
        at = found.auroc.at(use.layer)
        yield Finding(gate, severity, use.layer, at.value, *at.interval, p=found.p)
