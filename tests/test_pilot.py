"""Protects who sizes a run by a pilot: what its responses varied with, and what a plan expects."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cli.using.precision import degrees_expected, precisions
from domain.errors import UsageError
from domain.plan.spec import RunSpec
from domain.verdict.gates import with_verdict
from domain.verdict.record import Gate, SpreadFigures
from storage.record.results import read_metrics
from storage.record.run import Run
from tasks.stages.quality import vector_quality
from tests.quality_records import metrics as metrics_with
from tests.quality_records import quality as good_quality
from tests.stored_run import stored_run
from traitlens.assess.kept_rows import KeptRows
from traitlens.stats.crossed import Design, StandardDeviations


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return stored_run(tmp_path_factory.mktemp("pilot") / "run", traits="evil")


def planned(pilot: Run, *, rollouts: int = 3, times: int = 1) -> RunSpec:
    """The pilot's settings with so many times its instructions and questions."""
    (trait,) = pilot.spec.traits
    size = {"n_instructions": 3 * times, "n_questions": 6 * times}
    bigger = trait.model_copy(update=size)
    return pilot.spec.model_copy(update={"traits": (bigger,), "rollouts": rollouts})


def test_the_pilots_own_design_is_expected_to_be_as_precise_as_it_was(pilot: Run) -> None:
    found = read_metrics(pilot.store, "evil")
    quality, interval = found.quality, found.contrast_interval
    assert quality is not None and interval is not None

    (expected,) = precisions(pilot, planned(pilot))

    half_width = ((interval[1] or 0) - (interval[0] or 0)) / 2
    assert expected.contrast is not None and 0.9 < expected.contrast / half_width < 1.1
    upper = quality.mean_difference.angle_upper_degrees[quality.best.layer]
    assert expected.degrees is not None and upper is not None
    assert 0.9 < expected.degrees / upper < 1.1


def test_a_larger_design_is_expected_to_be_more_precise(pilot: Run) -> None:
    own, larger = (precisions(pilot, planned(pilot, times=times))[0] for times in (1, 4))

    assert (larger.contrast or 99) < (own.contrast or 0) / 2
    assert (larger.degrees or 99) < (own.degrees or 0) / 2


def test_a_pilot_of_other_traits_is_refused(pilot: Run) -> None:
    (trait,) = pilot.spec.traits
    other = trait.model_copy(update={"name": "refusal"})

    with pytest.raises(UsageError, match="no planned trait"):
        precisions(pilot, pilot.spec.model_copy(update={"traits": (other,)}))


def test_fewer_instructions_than_the_pilot_had_cost_more_than_their_number() -> None:
    found = StandardDeviations(0.5, 0.1, 0.0, 1.0, Design(5, 20, 10))

    own, fewer, more = (
        degrees_expected(good_quality(angle_upper=20.0), found, Design(n, 20, 10))
        for n in (5, 3, 10)
    )

    assert own == pytest.approx(20)
    assert fewer is not None and more is not None
    # three leave two degrees of freedom: their spread may be far over what they show
    by_number = math.sqrt(found.variance(Design(3, 20, 10)) / found.variance(found.design))
    assert math.sin(math.radians(fewer)) > 1.5 * by_number * math.sin(math.radians(20))
    assert more < 20


def test_what_a_direction_varies_with_is_a_share_of_its_length() -> None:
    """Pairs are 0.8 of the vector's length apart, rollouts 2."""
    rng = np.random.default_rng(0)
    labels = np.indices((8, 12, 3)).reshape(3, -1)[:2]
    n, d_model = labels.shape[1], 16
    nothing = np.zeros(n)
    rows = KeptRows(labels[0].tolist(), labels[1].tolist(), nothing, nothing, nothing)
    length = 5.0
    truth = np.eye(d_model)[0] * length
    of_pairs = rng.standard_normal((8, d_model)) * 0.8 * length / math.sqrt(d_model)
    pos, neg = (
        (
            sign / 2 * (truth + of_pairs[labels[0]])
            + rng.standard_normal((n, d_model)) * 2 * length / math.sqrt(d_model)
        )[:, None]
        .repeat(3, axis=1)
        .astype(np.float32)
        for sign in (1, -1)
    )
    vectors = {"mean_diff": (pos.mean(axis=0) - neg.mean(axis=0))}

    found = vector_quality(vectors, pos, neg, rows=(rows, rows)).spread

    assert found is not None
    own = np.linalg.norm(vectors["mean_diff"][1]) / length
    assert (found.instruction or 0) * own == pytest.approx(0.8, abs=0.2)
    assert (found.rollout or 0) * own == pytest.approx(2.0, abs=0.1)
    assert (found.question or 0) * own < 0.3
    assert found.narrows_most == "instructions"


def test_a_wide_angle_names_what_would_narrow_it_most() -> None:
    spread = SpreadFigures(
        instruction=0.8,
        question=0.1,
        combination=0.0,
        rollout=1.0,
        n_instructions=5,
        n_questions=20,
        n_rollouts=10.0,
        narrows_most="instructions",
    )

    found = with_verdict(metrics_with(quality=good_quality(angle_upper=60.0, spread=spread)))

    (wide,) = (one for one in found.findings if one.gate == Gate.ANGLE_WIDE)
    assert wide.of == "instructions"
    assert any("instructions" in reason for reason in found.reasons)
