"""Protects the causal test without a judge: its derivatives, its p, the layers, and the damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

from tests.engine_work import tiny
from tests.planted_model import READING, STRENGTH, Shape, save_planted_model
from traitlens.arrays import Float32
from traitlens.assess.likelihood import (
    HeldOutTexts,
    likelihood_gain,
    likelihood_test,
    question_folds,
)
from workers.engine.generation import Intervention, Steering
from workers.engine.likelihood import likeliest_tokens, pushed_texts, text_gradients
from workers.models.chat import render_prompt, response_ids
from workers.models.model import LoadedModel, load_model

PROMPTS = [list(range(20, 20 + n)) for n in (3, 9, 1, 6)]
RESPONSES = [list(range(100, 100 + 7 * n, 7)) for n in (5, 2, 8, 1)]


def plain_log_p(model: LoadedModel, k: int, *, layer: int, push: torch.Tensor) -> torch.Tensor:
    """Log p [tokens, vocabulary] at the tokens before each of a response's, by one text alone."""
    blocks = model.model.model.layers
    ids = torch.tensor([PROMPTS[k] + RESPONSES[k]])
    if layer == 0:
        hook = blocks[0].register_forward_pre_hook(lambda _, a: (a[0] + push, *a[1:]))
    else:
        hook = blocks[layer - 1].register_forward_hook(
            lambda _, __, out: (out[0] + push, *out[1:]) if isinstance(out, tuple) else out + push
        )
    with torch.no_grad(), hook:
        logits = model.model(input_ids=ids, use_cache=False).logits[0]
    return torch.log_softmax(logits[len(PROMPTS[k]) - 1 : -1], -1)


def plain_mean(model: LoadedModel, k: int, *, layer: int, push: torch.Tensor) -> float:
    every = plain_log_p(model, k, layer=layer, push=push)
    return float(every[torch.arange(len(RESPONSES[k])), RESPONSES[k]].mean())


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    found = tiny(tmp_path_factory.mktemp("model"), request.param)
    found.model.double()
    return found


def test_derivatives_are_finite_differences_of_the_plain_model(model: LoadedModel) -> None:
    log_p, gradients = text_gradients(model, PROMPTS, RESPONSES)

    assert gradients.shape == (4, model.n_layers + 1, model.d_model)
    random = torch.Generator().manual_seed(0)
    step = 1e-2
    for k in range(4):
        zero = torch.zeros(model.d_model, dtype=torch.float64)
        assert log_p[k] == pytest.approx(plain_mean(model, k, layer=1, push=zero), abs=1e-6)
        for layer in range(model.n_layers + 1):
            u = torch.randn(model.d_model, generator=random, dtype=torch.float64)
            u += 3 * torch.from_numpy(gradients[k, layer]).double()
            u /= u.norm()
            # four points: families compute parts in float32 whatever they are given
            near, far = (
                plain_mean(model, k, layer=layer, push=h * u)
                - plain_mean(model, k, layer=layer, push=-h * u)
                for h in (step, 2 * step)
            )
            expected = (8 * near - far) / (12 * step)
            assert gradients[k, layer] @ u.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_a_push_is_the_plain_model_s_and_damage_is_the_plain_formula(model: LoadedModel) -> None:
    push = np.random.default_rng(0).standard_normal(model.d_model).astype(np.float32)
    pushes = [Steering((Intervention(layer, push),)) for layer in (0, 2)]

    log_p, damage = pushed_texts(model, PROMPTS, RESPONSES, pushes)

    assert (damage[0] == 0).all()
    for row, layer in ((1, 0), (2, 2)):
        for k in range(4):
            vector = torch.from_numpy(push)
            plain = plain_log_p(model, k, layer=0, push=torch.zeros(model.d_model))
            pushed = plain_log_p(model, k, layer=layer, push=vector)
            expected = (plain.exp() * (plain - pushed)).sum(-1).mean()
            assert damage[row, k] == pytest.approx(float(expected), rel=1e-3)
            mean = plain_mean(model, k, layer=layer, push=vector)
            assert log_p[row, k] == pytest.approx(mean, rel=1e-4)
    assert not model.model.model.layers[1]._forward_hooks


@pytest.mark.parametrize("leaves_more", [False, True])
def test_blocks_below_a_push_are_left_out_unless_later_ones_need_them(
    model: LoadedModel, leaves_more: bool
) -> None:
    first, last = model.model.model.layers[0], model.model.model.layers[-1]
    left: list[torch.Tensor] = []

    def leave(_: object, __: object, output: torch.Tensor) -> None:
        left.append(output)

    def take(_: object, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (arguments[0] + left.pop() if leaves_more else arguments[0],)

    push, layer = np.ones(model.d_model, np.float32), model.n_layers - 1
    pushes = [Steering((Intervention(layer, push),))] * 5
    with first.mlp.register_forward_hook(leave), last.mlp.register_forward_pre_hook(take):
        log_p, _ = pushed_texts(model, PROMPTS, RESPONSES, pushes)
        n_left = len(left)
        expected = [
            plain_mean(model, k, layer=layer, push=torch.from_numpy(push)) for k in range(4)
        ]

    np.testing.assert_allclose(log_p[1:], np.tile(expected, (5, 1)), rtol=1e-4)
    # the trial and the pass without a push
    assert n_left == (0 if leaves_more else 2)
    assert "forward" not in vars(first)


def texts_of(n: int, *, seed: int, n_questions: int = 20) -> HeldOutTexts:
    """`n` texts of each polarity, over the questions and five instructions."""
    rng = np.random.default_rng(seed)
    question = np.tile(rng.permutation(np.resize(np.arange(n_questions), n)), 2)
    return HeldOutTexts(
        is_positive=np.repeat([True, False], n),
        instruction=rng.integers(0, 5, 2 * n),
        question=question,
        fold=question_folds(question, seed=seed),
    )


@pytest.mark.parametrize("shape", ["llama", "gemma2"])
def test_a_planted_direction_makes_its_texts_likelier_and_its_layer_is_found(
    tmp_path: Path, shape: Shape
) -> None:
    planted = save_planted_model(tmp_path, block=1, shape=shape)
    model = load_model(planted.folder, device="cpu")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 12)) for _ in range(18)]
    prompt = list(render_prompt(model, system=None, user="What is rain?").token_ids)
    answers = [list(response_ids(model, w)) for w in [*map(str.upper, words), *words]]
    texts = texts_of(18, seed=0)
    noise = rng.standard_normal((40, model.n_layers + 1, model.d_model)).astype(np.float32)
    vectors = rng.standard_normal((2, model.n_layers + 1, model.d_model)).astype(np.float32)
    vectors[:, 2] = planted.direction

    log_p, gradients = text_gradients(model, [prompt] * 36, answers)
    found = likelihood_test(gradients, texts, vectors, (noise, noise), n_random=199)
    direction = [Steering((Intervention(2, s * planted.direction),)) for s in (-1.0, 1.0)]
    pushed, _ = pushed_texts(model, [prompt] * 36, answers, direction)

    assert found.p == pytest.approx(1 / 200)
    assert found.layer == 2
    assert 0 < found.effect.low[2] <= found.effect.value[2]
    # without the direction the final norm makes a coordinate larger, by the root of 6 / 2; one
    # family multiplies its embeddings by the root of the width
    scale = {"llama": 1.0, "gemma2": model.d_model**0.5}[shape]
    slope = 2 * READING / STRENGTH * 3**0.5 / scale
    assert found.effect.value[2] == pytest.approx(slope, rel=0.01)
    weaker, stronger = likelihood_gain(pushed, texts)
    assert weaker < 0 < stronger
    np.testing.assert_allclose(pushed[0], log_p, atol=1e-4)


def simulated(seed: int, *, effect: float) -> float:
    """The p of vectors made of responses whose labels mean nothing, tested on derivatives to which
    `effect` times the direction of those labels is added for the positives."""
    rng = np.random.default_rng(seed)
    n, n_layers, width = 18, 8, 32
    spectrum = np.exp(-np.arange(width) / 6)
    texts = texts_of(n, seed=seed)
    rows = rng.standard_normal((2, 60, n_layers, width)) * spectrum
    vectors = rows[:, :30].mean(axis=1) - rows[:, 30:].mean(axis=1)
    within = [side - side.mean(axis=0) for fold in rows for side in (fold[:30], fold[30:])]
    gradients = rng.standard_normal((2 * n, n_layers, width)) / spectrum
    gradients += effect * texts.is_positive[:, None, None] * vectors[texts.fold]
    centered: tuple[Float32, Float32] = (
        np.concatenate(within[:2]).astype(np.float32),
        np.concatenate(within[2:]).astype(np.float32),
    )
    return likelihood_test(
        gradients.astype(np.float32), texts, vectors.astype(np.float32), centered, n_random=199
    ).p


def test_where_nothing_is_there_one_in_twenty_is_found_and_not_more() -> None:
    found = np.array([simulated(seed, effect=0.0) for seed in range(200)])

    assert (found <= 0.05).sum() <= binom.ppf(0.99, 200, 0.05)
    assert found.mean() == pytest.approx(0.5, abs=0.08)


def test_an_effect_is_found() -> None:
    assert np.mean([simulated(seed, effect=8.0) <= 0.05 for seed in range(20)]) > 0.8


def test_a_vector_of_no_length_does_nothing_more_than_chance() -> None:
    texts, shape = texts_of(18, seed=0), (36, 8, 32)
    rows = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    found = likelihood_test(rows, texts, np.zeros((2, *shape[1:]), np.float32), (rows, rows))

    assert found.p == 1.0


def test_the_likeliest_tokens_are_those_of_the_plain_model(model: LoadedModel) -> None:
    push = torch.linspace(-1, 1, model.d_model, dtype=torch.float64)
    steering = Steering((Intervention(1, push.float().numpy()),))

    for k in range(len(PROMPTS)):
        plain = likeliest_tokens(model, PROMPTS[k], RESPONSES[k], 3)
        pushed = likeliest_tokens(model, PROMPTS[k], RESPONSES[k], 3, steering=steering)

        assert len(plain) == len(RESPONSES[k])
        for found, added in ((plain, 0 * push), (pushed, push)):
            truth = plain_log_p(model, k, layer=1, push=added).exp().topk(3, dim=-1)
            assert [[token for token, _ in place] for place in found] == truth.indices.tolist()
            shares = [[share for _, share in place] for place in found]
            assert shares == pytest.approx(truth.values.numpy(), rel=1e-4)
    assert likeliest_tokens(model, PROMPTS[0], [], 3) == []
