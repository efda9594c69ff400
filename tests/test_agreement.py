"""Protects the agreement figures: against known values, and on what they must not depend."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from cli.commands.agreement import read_labels
from domain.errors import UsageError
from domain.scoring.agreement import agreement, quadratic_kappa, spearman

PAIRS = [(10.0, 20.0), (30, 20), (50, 70), (50, 40), (80, 90), (95, 80), (0, 10), (70, 60)]


def test_spearman_and_kappa_are_what_scipy_and_scikit_learn_say() -> None:
    first, second = [a for a, _ in PAIRS], [b for _, b in PAIRS]
    levels = [[round(v / 10) for v in side] for side in (first, second)]

    assert spearman(PAIRS) == pytest.approx(spearmanr(first, second).statistic)
    expected = cohen_kappa_score(*levels, weights="quadratic", labels=list(range(11)))
    assert quadratic_kappa(PAIRS) == pytest.approx(expected)


def test_equal_scores_agree_fully_and_shifted_ones_in_order_only() -> None:
    same = agreement([(v, v) for v in (5.0, 25, 45, 85)])
    shifted = agreement([(v, v - 5 if v > 5 else 0) for v in (5.0, 25, 45, 85)])

    assert (same.spearman, same.kappa, same.calibration_error) == (1, 1, 0)
    assert shifted.spearman == 1
    assert shifted.mean_difference == shifted.calibration_error == 5


def test_what_is_not_defined_is_none_and_not_a_number() -> None:
    assert agreement([]).spearman is None
    assert agreement([(50.0, 10.0), (50.0, 90.0)]).spearman is None
    assert agreement([(50.0, 50.0)]).kappa is None


def test_labels_are_read_and_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("key,score,metric\na/b,70,\na/b,90,coherence\n")
    (tmp_path / "bad.csv").write_text("key,score\na/b,70\na/c,700\n")

    assert read_labels(tmp_path / "good.csv") == {("a/b", "trait"): 70, ("a/b", "coherence"): 90}
    with pytest.raises(UsageError, match="line 3"):
        read_labels(tmp_path / "bad.csv")


def test_two_labels_of_one_response_are_refused(tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("key,score,labeler\na/b,10,ann\na/b,90,bob\n")

    with pytest.raises(UsageError):
        read_labels(tmp_path / "two.csv")
