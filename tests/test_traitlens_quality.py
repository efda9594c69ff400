"""Protects the numbers beside a vector: intervals cover, rollouts do not count as independent."""

from __future__ import annotations

from collections import Counter
from math import erf

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from traitlens.assess.angles import direction_angles
from traitlens.assess.confounds import confound
from traitlens.assess.cosines import cosine_matrices
from traitlens.assess.directions import direction_quality, vector_separation
from traitlens.errors import NonFiniteError, ShapeError
from traitlens.methods.mean_diff import mean_diff
from traitlens.stats.separation import auroc, effective_n, separation

Groups = tuple[np.ndarray, np.ndarray]


def grouped_sides(
    n_groups: int, size: int, *, layers: int = 1, width: int = 64, gap: float = 3.0,
    between: float = 0.5, seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Groups]:  # fmt: skip
    """Sides of prompts with `size` rollouts; prompts differ with standard deviation `between`."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((layers, width))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    sides = []
    for sign in (1, -1):
        prompts = between * rng.standard_normal((n_groups, 1, layers, width))
        rows = (
            prompts + rng.standard_normal((n_groups, size, layers, width)) + sign * truth * gap / 2
        )
        sides.append(rows.reshape(-1, layers, width).astype(np.float32))
    labels = np.repeat(np.arange(n_groups), size)
    return sides[0], sides[1], truth.astype(np.float32), (labels, labels + n_groups)


def asked(groups: Groups) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The groups as questions that were asked under one instruction."""
    return tuple([(0, int(group)) for group in side] for side in groups)  # type: ignore[return-value]


def angle_to(truth: np.ndarray, vectors: np.ndarray) -> float:
    return float(np.degrees(np.arccos((truth * vectors).sum() / np.linalg.norm(vectors))))


def test_auroc_agrees_with_scikit_learn_ties_included() -> None:
    rng = np.random.default_rng(0)
    pos, neg = (rng.integers(low, 6 + low, (n, 3)).astype(float) for low, n in ((1, 40), (0, 30)))

    ours = auroc(pos, neg)

    labels = np.arange(70) < 40
    theirs = [roc_auc_score(labels, np.concatenate([pos, neg])[:, i]) for i in range(3)]
    assert ours.tolist() == pytest.approx(theirs)


@pytest.mark.parametrize("gap", [0.0, 2.0, 4.0])
@pytest.mark.parametrize(("n_groups", "size"), [(8, 1), (8, 3), (12, 2), (20, 1), (15, 5)])
def test_intervals_cover_the_truth_in_nineteen_of_twenty_samples(
    n_groups: int, size: int, gap: float
) -> None:
    spread = np.sqrt(1 + 0.5**2)
    truth = {
        "cohens_d": gap / spread,
        "auroc": 0.5 * (1 + erf(gap / 2 / spread)),
        "accuracy": 0.5 * (1 + erf(gap / 2 / spread / np.sqrt(2))),
    }

    covered: Counter[str] = Counter()
    for seed in range(200):
        pos, neg, direction, groups = grouped_sides(n_groups, size, width=8, gap=gap, seed=seed)
        found = vector_separation(direction, pos, neg, prompts=asked(groups))
        for name, value in truth.items():
            interval = getattr(found, name)
            covered[name] += bool(interval.low[0] <= value <= interval.high[0])

    # a share of few rows takes few values, so its interval covers more than it should
    assert all(180 <= covered[name] <= 200 for name in truth), covered
    assert covered["cohens_d"] <= 198


@pytest.mark.parametrize(("n_groups", "size"), [(8, 3), (12, 2), (20, 1), (15, 5)])
def test_the_angle_to_the_true_direction_stays_under_its_bound(n_groups: int, size: int) -> None:
    under_bound = under_estimate = 0
    for seed in range(200):
        pos, neg, truth, groups = grouped_sides(n_groups, size, seed=seed)
        angle = direction_angles(pos, neg, prompts=asked(groups))[0]
        true_angle = angle_to(truth, mean_diff(pos, neg).vectors)
        under_bound += true_angle <= angle.upper
        under_estimate += true_angle <= angle.degrees

    assert 180 <= under_bound <= 200
    assert 70 <= under_estimate <= 130


def test_where_nothing_is_planted_the_angle_is_not_known() -> None:
    uppers = []
    for seed in range(20):
        pos, neg, _, groups = grouped_sides(15, 4, gap=0.0, seed=seed)
        uppers.append(direction_angles(pos, neg, prompts=asked(groups))[0].upper)

    assert np.median(uppers) > 75


def test_rollouts_that_repeat_their_prompt_add_nothing_to_the_sample_size() -> None:
    prompts = np.random.default_rng(0).standard_normal((12, 1))
    labels = np.repeat(np.arange(12), 10)

    same = np.zeros(120)
    copies = effective_n(np.repeat(prompts, 10, axis=0), same, labels)
    strangers = effective_n(np.random.default_rng(1).standard_normal((120, 1)), same, labels)

    assert copies[0] == pytest.approx(11.1, rel=0.01)
    assert strangers[0] > 80


def test_intervals_widen_when_rollouts_share_their_prompt() -> None:
    pos, neg, direction, groups = grouped_sides(10, 10, gap=1.5, between=2.0)

    ignoring = vector_separation(direction, pos, neg)
    respecting = vector_separation(direction, pos, neg, prompts=asked(groups))

    for name in ("auroc", "cohens_d", "accuracy"):
        narrow, wide = getattr(ignoring, name), getattr(respecting, name)
        assert wide.high[0] - wide.low[0] > 1.5 * (narrow.high[0] - narrow.low[0])


def test_leaving_out_exposes_a_direction_that_only_knows_its_instructions() -> None:
    rng = np.random.default_rng(0)
    instructions = 6 * rng.standard_normal((2, 5, 1, 1, 200))
    rows_of_both = instructions + rng.standard_normal((2, 5, 20, 1, 200))
    pos, neg = rows_of_both.reshape(2, 100, 1, 200).astype(np.float32)
    labels = np.repeat(np.arange(5), 20)
    rows = (np.arange(100), np.arange(100) + 100)

    quality = direction_quality(
        pos, neg, prompts=asked(rows), folds={"instruction": (labels, labels), "row": rows}
    )

    assert quality.leave_one_out["row"].value[0] > 0.99
    assert quality.leave_one_out["instruction"].value[0] < 0.7


def test_few_instructions_stay_few_however_many_rows_they_have() -> None:
    rng = np.random.default_rng(0)
    instruction, question = (one.reshape(-1) for one in np.indices((5, 100)))
    prompts = list(zip(instruction.tolist(), question.tolist(), strict=True))
    by_instruction = 1.0 * rng.standard_normal((2, 5))
    pos, neg = (
        (gap + by_instruction[side, instruction] + rng.standard_normal(500))[:, None]
        for side, gap in enumerate((1.5, 0.0))
    )

    crossed = separation(pos, neg, prompts=(prompts, prompts)).auroc
    alone = separation(pos, neg, prompts=([(0, q) for _, q in prompts],) * 2).auroc

    assert crossed.high[0] - crossed.low[0] > 3 * (alone.high[0] - alone.low[0])


def test_leave_one_out_scores_equal_refitting_without_the_fold() -> None:
    pos, neg, _, groups = grouped_sides(6, 3, layers=2, width=10, gap=1.5)
    folds = groups[0] % 3, groups[1] % 3

    quality = direction_quality(pos, neg, prompts=asked(groups), folds={"x": folds})
    found = quality.leave_one_out["x"]

    for layer in range(2):
        scores: dict[str, list[float]] = {"pos": [], "neg": []}
        for fold in range(3):
            kept_pos, kept_neg = pos[folds[0] != fold, layer], neg[folds[1] != fold, layer]
            direction = kept_pos.mean(0) - kept_neg.mean(0)
            middle = 0.5 * (kept_pos.mean(0) + kept_neg.mean(0))
            gap = direction @ direction
            for name, rows, side_folds in (("pos", pos, folds[0]), ("neg", neg, folds[1])):
                left_out = rows[side_folds == fold, layer]
                scores[name] += ((left_out - middle) @ direction / gap).tolist()
        naive = auroc(np.array(scores["pos"])[:, None], np.array(scores["neg"])[:, None])[0]
        assert found.value[layer] == pytest.approx(naive, abs=1e-6)


def test_split_halves_of_nothing_agree_on_nothing() -> None:
    pos, neg, _, groups = grouped_sides(20, 3, gap=0.0)

    agreement = direction_quality(pos, neg, prompts=asked(groups)).split_half

    assert abs(agreement.value[0]) < 0.2
    assert agreement.low[0] < 0 < agreement.high[0]


def test_a_planted_confound_of_length_is_reported_and_a_harmless_one_is_not() -> None:
    rng = np.random.default_rng(0)
    pos, neg, _, _ = grouped_sides(60, 1, layers=2, width=32, gap=3.0)
    lengths = (rng.normal(120, 20, 60), rng.normal(60, 20, 60))
    along_length = rng.standard_normal(32).astype(np.float32)
    along_length /= np.linalg.norm(along_length)
    pos[:, 1] += 0.1 * lengths[0][:, None] * along_length
    neg[:, 1] += 0.1 * lengths[1][:, None] * along_length
    vectors = mean_diff(pos, neg).vectors

    reported = confound(vectors, pos, neg, covariate=lengths)

    assert reported.auroc.low[0] > 0.9
    assert abs(reported.correlation[0]) < 0.25
    assert reported.correlation[1] > 0.7
    assert reported.cosine[1] > 0.7


def test_cosine_matrices_compare_every_pair_at_every_layer() -> None:
    a, b = np.array([[1.0, 0], [0, 2]]), np.array([[0.0, 3], [0, 1]])

    matrices = cosine_matrices({"a": a, "b": b})

    assert matrices.tolist() == [[[1, 0], [0, 1]], [[1, 1], [1, 1]]]


def test_separation_of_equal_scores_is_chance() -> None:
    found = separation(np.ones((5, 1)), np.ones((7, 1)))

    assert (found.auroc.value[0], found.cohens_d.value[0], found.accuracy.value[0]) == (0.5, 0, 0.5)
    assert found.auroc.low[0] < 0.5 < found.auroc.high[0]


def test_perfect_separation_of_few_is_not_certain() -> None:
    found = separation(np.arange(5.0)[:, None] + 10, np.arange(5.0)[:, None])

    assert found.auroc.value[0] == 1
    assert 0.4 < found.auroc.low[0] < 0.9


def test_one_prompt_a_side_has_no_interval_for_cohen_s_d() -> None:
    scores = np.random.default_rng(0).standard_normal((2, 6, 1))

    d = separation(scores[0], scores[1], prompts=([(0, 0)] * 6,) * 2).cohens_d

    assert np.isfinite(d.value[0])
    assert np.isnan([d.low[0], d.high[0]]).all()


def test_labels_that_do_not_fit_are_refused() -> None:
    pos, neg, truth, groups = grouped_sides(4, 2)

    with pytest.raises(ShapeError, match="one per row"):
        direction_quality(pos, neg, prompts=asked((groups[0][:3], groups[1])))
    with pytest.raises(ShapeError, match="within a group"):
        direction_quality(
            pos, neg, prompts=asked(groups), folds={"x": (np.arange(8), np.arange(8))}
        )
    with pytest.raises(ShapeError, match="made for another model"):
        vector_separation(truth[:, :5], pos, neg)
    pos[3, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="positive row 3"):
        direction_quality(pos, neg)
