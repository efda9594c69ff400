"""Protects watching: hooks go where they are told and leave, every token gets its own score."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from traitlens.capture.hooks import ActivationCapture, HookManager
from traitlens.compute import compute_derivative, compute_second_derivative, cosine, projection
from traitlens.errors import MissingModuleError, ShapeError

WIDTH = 16


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def captured_generation(
    model: LlamaForCausalLM, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    capture = ActivationCapture()
    with HookManager(model) as hooks:
        hooks.add_forward_hook("model.layers.1", capture.make_hook("x"))
        tokens = model.generate(
            ids, attention_mask=mask, max_new_tokens=5, do_sample=False, eos_token_id=None
        )
    return capture.get("x"), tokens


def test_the_state_of_every_generated_token_is_that_of_a_separate_forward_pass(
    model: LlamaForCausalLM,
) -> None:
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[0, 0, 9, 10], [5, 6, 7, 8]])
    mask = (ids > 0).long()

    states, tokens = captured_generation(model, ids, mask)
    scores = projection(states, vector)

    assert scores.shape == (2, 4 + 5 - 1)
    for row, padding in ((0, 2), (1, 0)):
        alone = ActivationCapture()
        with HookManager(model) as hooks:
            hooks.add_forward_hook("model.layers.1", alone.make_hook("x"))
            model(tokens[row : row + 1, padding:-1])
        expected = projection(alone.get("x"), vector)[0]
        assert torch.allclose(scores[row, padding:], expected, atol=1e-5)


def test_hooks_are_gone_after_an_exception(model: LlamaForCausalLM) -> None:
    capture = ActivationCapture()

    with pytest.raises(RuntimeError, match="midway"), HookManager(model) as hooks:
        hooks.add_forward_hook("model.layers.0", capture.make_hook("x"))
        raise RuntimeError("midway")
    model(torch.tensor([[1, 2]]))

    assert capture.names == []


def test_a_path_that_is_not_there_names_where_the_blocks_are(model: LlamaForCausalLM) -> None:
    with (
        HookManager(model) as hooks,
        pytest.raises(MissingModuleError, match=r"model\.layers\.0\.\.2"),
    ):
        hooks.add_forward_hook("transformer.h.0", lambda *_: None)


def test_a_tuple_output_is_captured_by_its_first_member() -> None:
    class Block(nn.Module):
        def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, str]:
            return hidden + 1, "attention weights"

    model = nn.Sequential(Block())
    capture = ActivationCapture()
    with HookManager(model) as hooks:
        hooks.add_forward_hook("0", capture.make_hook("x"))
        model(torch.zeros(1, 2, 4))

    assert capture.get("x").tolist() == torch.ones(1, 2, 4).tolist()


def test_what_was_captured_does_not_change_when_the_model_writes_over_it() -> None:
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    capture = ActivationCapture()
    with HookManager(model) as hooks:
        hooks.add_forward_hook("0", capture.make_hook("x"))
        model(torch.full((1, 1, 2), -1.0))

    assert capture.get("x").flatten().tolist() == [-1, -1]


def test_unrelated_passes_are_not_joined(model: LlamaForCausalLM) -> None:
    capture = ActivationCapture()
    with HookManager(model) as hooks:
        hooks.add_forward_hook("model.layers.0", capture.make_hook("x"))
        model(torch.tensor([[1, 2]]))
        model(torch.tensor([[1, 2], [3, 4]]))

    with pytest.raises(ShapeError, match="clear"):
        capture.get("x")
    with pytest.raises(MissingModuleError, match="nothing captured as 'y'"):
        capture.get("y")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_projection_is_the_dot_product_over_the_norm_in_float32(dtype: torch.dtype) -> None:
    states = torch.tensor([[[3.0, 4.0], [-3.0, 0.0]]], dtype=dtype)

    scores = projection(states, torch.tensor([0.0, 5.0], dtype=dtype))

    assert scores.dtype == torch.float32
    assert scores.tolist() == [[4.0, 0.0]]


def test_many_vectors_are_projected_in_one_product() -> None:
    states, vectors = torch.randn(2, 5, WIDTH), torch.randn(3, WIDTH)

    together, angles = projection(states, vectors), cosine(states, vectors)

    for i, vector in enumerate(vectors):
        assert torch.allclose(together[..., i], projection(states, vector), atol=1e-5)
        expected = torch.cosine_similarity(states, vector.expand_as(states), dim=-1)
        assert torch.allclose(angles[..., i], expected, atol=1e-5)


def test_a_vector_of_another_width_or_without_direction_is_refused() -> None:
    with pytest.raises(ShapeError, match="d_model 8, activations have 16"):
        projection(torch.randn(3, 16), torch.randn(8))
    with pytest.raises(ValueError, match="norm zero"):
        projection(torch.randn(3, 16), torch.zeros(16))


def test_derivatives_are_differences_along_the_first_axis() -> None:
    trajectory = torch.tensor([[0.0], [1.0], [4.0], [9.0]])

    assert compute_derivative(trajectory).flatten().tolist() == [1, 3, 5]
    assert compute_derivative(trajectory, 0.5).flatten().tolist() == [2, 6, 10]
    assert compute_second_derivative(trajectory).flatten().tolist() == [2, 2]
    assert compute_second_derivative(trajectory, 0.5).flatten().tolist() == [8, 8]
