"""How precise a planned design will be, from what a finished run's responses varied with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cli.screens.tables import number_text
from domain.errors import UsageError
from domain.plan.spec import RunSpec, TraitRef
from domain.verdict.record import Quality, SpreadFigures, TraitMetrics
from storage.record.results import finished_metrics
from storage.record.run import Run
from traitlens.assess.angles import UNKNOWN
from traitlens.stats.crossed import LEVEL, Design, Factor, StandardDeviations


@dataclass(frozen=True)
class Precision:
    """What a design will reach: the contrast within so many points, the direction within so many
    degrees, both 95 %, and what more of would narrow each most; None where the pilot cannot tell.
    """

    trait: str
    contrast: float | None
    degrees: float | None
    narrows_contrast: Factor | None
    narrows_direction: Factor | None

    @property
    def text(self) -> str:
        """The same in a sentence."""
        of_both = (
            (f"contrast within {number_text(self.contrast)} points", self.narrows_contrast),
            (
                f"direction within {number_text(self.degrees, '.0f')} degrees",
                self.narrows_direction,
            ),
        )
        parts = [f"{one} (most by more {more})" if more else one for one, more in of_both]
        return f"{self.trait}: by the pilot {' and '.join(parts)}, 95 %."


def precisions(pilot: Run, spec: RunSpec) -> list[Precision]:
    """Of the planned traits that the pilot finished. Raises UsageError where there are none, or it
    is of before standard deviations were kept."""
    found = list(_precisions(pilot, spec))
    if not found:
        raise UsageError(
            f"{pilot.name} says of no planned trait what a judge's scores varied with",
            advice="name a finished run of the same traits that a judge scored and this version "
            "made",
        )
    return found


def _precisions(pilot: Run, spec: RunSpec) -> Iterator[Precision]:
    planned = {trait.name: trait for trait in spec.traits}
    for one in finished_metrics(pilot.store, [trait.name for trait in pilot.spec.traits]):
        trait = planned.get(one.trait)
        if trait is None or one.contrast_spread is None:
            continue

        def design(n: int, trait: TraitRef = trait, n_generated: int = one.n_generated) -> Design:
            """With as large a share of the rollouts as the pilot's `n` were."""
            rollouts = spec.rollouts * max(n, 1) / max(n_generated, 1)
            return Design(trait.n_instructions, trait.n_questions, rollouts)

        scored, kept = design(one.n_scored), design(one.n_kept.positive + one.n_kept.negative)
        spread = one.quality and one.quality.spread
        yield Precision(
            one.trait,
            _contrast(one, _deviations(one.contrast_spread), scored) if spec.judge.scores else None,
            degrees_expected(one.quality, _deviations(spread), kept)
            if one.quality and spread
            else None,
            replace(_deviations(one.contrast_spread), design=scored).narrows_most,
            replace(_deviations(spread), design=kept).narrows_most if spread else None,
        )


def _contrast(pilot: TraitMetrics, found: StandardDeviations, design: Design) -> float | None:
    """Half of the pilot's interval, as much narrower as the design makes it."""
    low, high = pilot.contrast_interval or (None, None)
    own = found.half_width(found.design)
    if low is None or high is None or not own > 0:
        return None
    return (high - low) / 2 * found.half_width(design) / own


def degrees_expected(pilot: Quality, found: StandardDeviations, design: Design) -> float | None:
    """The pilot's bound, as much narrower as the design makes it. Its quantile is kept where no
    fewer instructions and questions are planned, and grows where fewer say less of their own
    spread, as that of an error of many directions does."""
    upper, own = (
        pilot.mean_difference.angle_upper_degrees[pilot.best.layer],
        found.variance(found.design),
    )
    if upper is None or upper >= UNKNOWN or not own > 0:
        return None
    share = math.sin(math.radians(upper)) * math.sqrt(found.variance(design) / own)
    share *= max(1.0, _quantile(design) / _quantile(found.design))
    return math.degrees(math.asin(min(share, 1.0)))


def _quantile(design: Design) -> float:
    """In standard deviations, of the length of an error of many directions, whose variance is known
    by the levels of the smaller factor."""
    from scipy.special import chdtri

    levels = [n for n in (design.instructions, design.questions) if n > 1]
    freedom = min(levels) - 1 if levels else 1.0
    return math.sqrt(freedom / float(chdtri(freedom, LEVEL)))


def _deviations(spread: SpreadFigures) -> StandardDeviations:
    one, other, both = (
        math.nan if known is None else known
        for known in (spread.instruction, spread.question, spread.combination)
    )
    rollout = spread.rollout or 0.0
    own = Design(spread.n_instructions, spread.n_questions, spread.n_rollouts)
    return StandardDeviations(one, other, both, rollout, own)
