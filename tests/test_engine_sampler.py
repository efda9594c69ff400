"""Draws follow the model's probabilities, each row from its own stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from workers.engine.generation import GenerationRequest, Sampling
from workers.engine.sampler import (
    ROWS_AT_ONCE_CPU,
    RowSampling,
    draw,
    pick,
    tree_levels,
    uniforms,
)


@pytest.mark.parametrize("vocabulary", [50, 272, 1000, 2003])
def test_draws_follow_the_probabilities(vocabulary: int) -> None:
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(1)) * 2
    expected = torch.softmax(logits.double(), 0).numpy()
    n = 8_000

    tokens = draw(
        logits.expand(n, -1),
        uniforms(3, n, tree_levels(vocabulary)),
        RowSampling.of([Sampling(1)] * n),
    )

    counts = np.bincount(tokens.numpy(), minlength=vocabulary)
    common = expected * n > 5
    observed = np.append(counts[common], counts[~common].sum())
    predicted = np.append(expected[common], expected[~common].sum()) * n
    assert chisquare(observed[predicted > 0], predicted[predicted > 0]).pvalue > 1e-3


def test_the_ends_of_the_unit_interval_never_give_an_impossible_token() -> None:
    probabilities = torch.rand(2, 300)
    probabilities[:, ::2] = 0
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)

    tokens = pick(probabilities, ends.unsqueeze(1).expand(-1, tree_levels(300)))

    assert all(probabilities[row, token] > 0 for row, token in enumerate(tokens))


def test_a_draw_does_not_depend_on_the_other_rows() -> None:
    n = 2 * ROWS_AT_ONCE_CPU + 30
    logits = torch.randn(n, 500, generator=torch.Generator().manual_seed(2))
    at = uniforms(9, n, tree_levels(500))
    settings = [Sampling(1, temperature=t, top_k=k, top_p=p) for t, k, p in _some_settings(n)]

    together = draw(logits, at, RowSampling.of(settings))
    apart = [
        draw(logits[i : i + 1], at[i : i + 1], RowSampling.of([settings[i]])).item()
        for i in range(n)
    ]

    assert together.tolist() == apart


@pytest.mark.parametrize("vocabulary", [7, 500])
def test_a_row_that_is_not_finite_draws_some_token_and_leaves_the_others_theirs(
    vocabulary: int,
) -> None:
    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(3))
    at = uniforms(4, 3, tree_levels(vocabulary))
    settings = RowSampling.of([Sampling(1, top_p=0.9), Sampling(1), Sampling(1, top_k=5)])
    before = draw(logits, at, settings).tolist()

    for row, bad in ((0, torch.nan), (1, torch.inf), (2, torch.nan)):
        broken = logits.clone()
        broken[row] = bad
        found = draw(broken, at, settings).tolist()
        assert 0 <= found[row] < vocabulary
        assert [*found[:row], *found[row + 1 :]] == [*before[:row], *before[row + 1 :]]


def test_rounding_in_the_logits_hardly_ever_changes_a_draw() -> None:
    # A search in one cumulative sum would change some 20 of these.
    n, vocabulary = 8_000, 2048
    random = torch.Generator().manual_seed(6)
    logits = torch.randn(vocabulary, generator=random).expand(n, -1)
    noise = 5e-5 * torch.randn(n, vocabulary, generator=random)
    at = uniforms(8, n, tree_levels(vocabulary))
    settings = RowSampling.of([Sampling(1)] * n)

    changed = (draw(logits, at, settings) != draw(logits + noise, at, settings)).sum()

    assert changed <= 5


def test_top_k_and_top_p_cut_the_tail_as_they_should() -> None:
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.06, 0.04])
    logits = probabilities.log().expand(2000, -1)

    def seen(settings: Sampling) -> set[int]:
        tokens = draw(logits, uniforms(1, 2000, 1), RowSampling.of([settings] * 2000))
        return set(tokens.tolist())

    assert seen(Sampling(1)) == {0, 1, 2, 3, 4}
    assert seen(Sampling(1, top_k=2)) == {0, 1}
    # 0.4 + 0.3 reach 0.65, so the third is out.
    assert seen(Sampling(1, top_p=0.65)) == {0, 1}
    # Of the first three, 0.4 and 0.3 hold 0.78 of the mass.
    assert seen(Sampling(1, top_k=3, top_p=0.8)) == {0, 1, 2}
    assert seen(Sampling(1, top_k=3, top_p=0.7)) == {0, 1}
    assert seen(Sampling(1, temperature=0.0)) == {0}


def test_a_low_temperature_sharpens() -> None:
    logits = torch.tensor([1.0, 0.0]).expand(5000, -1)

    cold = draw(logits, uniforms(4, 5000, 1), RowSampling.of([Sampling(1, temperature=0.5)] * 5000))

    share = (cold == 0).double().mean().item()
    assert share == pytest.approx(1 / (1 + np.exp(-2)), abs=0.02)


def test_streams_of_neighboring_seeds_differ_and_are_repeatable() -> None:
    streams = np.stack([uniforms(seed, 250, 2).ravel() for seed in range(40)])

    assert np.array_equal(streams[3], uniforms(3, 250, 2).ravel())
    assert np.array_equal(uniforms(3, 10, 2).ravel(), streams[3, :20])
    correlations = np.corrcoef(streams) - np.eye(40)
    assert np.abs(correlations).max() < 0.25
    assert streams.min() >= 0
    assert streams.max() < 1


@pytest.mark.parametrize(
    "wrong",
    [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**{"max_new_tokens": 5, **wrong})  # type: ignore[arg-type]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        GenerationRequest((), 1, Sampling(5))


def _some_settings(n: int) -> list[tuple[float, int, float]]:
    options = [(1.0, 0, 1.0), (0.7, 20, 1.0), (1.3, 0, 0.9), (0.0, 0, 1.0), (1.0, 50, 0.8)]
    return [options[i % len(options)] for i in range(n)]
