"""Protects steering: what it adds, where, and that the model is left as it was."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from traitlens.capture.hooks import ActivationCapture, HookManager
from traitlens.compute import projection
from traitlens.errors import MissingVectorError
from traitlens.steering import Positions, steer
from traitlens.vectors.trait_vector import Provenance, TraitVector

WIDTH, BLOCKS = 16, 3
SHAPE = {
    "vocab_size": 32,
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
PROMPT = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()


@pytest.fixture
def vector() -> TraitVector:
    tensor = torch.randn(BLOCKS + 1, WIDTH, generator=torch.Generator().manual_seed(1))
    norms = (2.0, 3.0, 4.0, 5.0)
    return TraitVector({"response_avg": tensor}, Provenance("t", "m", residual_norms=norms))


def layer_outputs(model: nn.Module, **inputs: Tensor) -> list[Tensor]:
    """Layers 0..L of a forward pass by hooks: what block 0 is given, then every block's output."""
    seen: list[Tensor] = []
    capture = ActivationCapture()
    with HookManager(model) as hooks, torch.no_grad():
        hooks.add_forward_pre_hook("model.layers.0", lambda _m, args: seen.append(args[0].clone()))
        for k in range(BLOCKS):
            hooks.add_forward_hook(f"model.layers.{k}", capture.make_hook(str(k)))
        model(**inputs)
    return [*seen, *(capture.get(str(k)) for k in range(BLOCKS))]


def generate(model: nn.Module, ids: Tensor = PROMPT, **settings: object) -> Tensor:
    return model.generate(  # type: ignore[operator, no-any-return]
        ids, max_new_tokens=6, do_sample=False, eos_token_id=None, **settings
    )


@pytest.mark.parametrize("layer", range(BLOCKS + 1))
def test_all_equals_the_vector_added_at_that_layer(
    model: LlamaForCausalLM, vector: TraitVector, layer: int
) -> None:
    plain = layer_outputs(model, input_ids=PROMPT)

    with vector.steer(model, layer=layer, coefficient=2.0):
        steered = layer_outputs(model, input_ids=PROMPT)

    assert torch.allclose(steered[layer], plain[layer] + 2 * vector.at(layer), atol=1e-5)
    for earlier in range(layer):
        assert torch.equal(steered[earlier], plain[earlier])


def test_layer_zero_of_gemma_is_what_the_first_block_is_given(vector: TraitVector) -> None:
    torch.manual_seed(0)
    gemma = Gemma2ForCausalLM(Gemma2Config(**SHAPE)).eval()
    plain = layer_outputs(gemma, input_ids=PROMPT)

    with vector.steer(gemma, layer=0):
        steered = layer_outputs(gemma, input_ids=PROMPT)

    assert torch.allclose(steered[0], plain[0] + vector.at(0), atol=1e-5)


def test_response_leaves_every_prompt_activation_untouched_in_generate(
    model: LlamaForCausalLM, vector: TraitVector
) -> None:
    captures = {}
    for name, coefficient in (("plain", 0.0), ("steered", 5.0)):
        captures[name] = ActivationCapture()
        steering = vector.steer(model, layer=2, coefficient=coefficient, positions="response")
        with steering, HookManager(model) as hooks:
            for k in range(BLOCKS):
                hooks.add_forward_hook(f"model.layers.{k}", captures[name].make_hook(str(k)))
            tokens = generate(model)

    prompt = PROMPT.shape[1]
    for k in range(BLOCKS):
        plain, steered = (captures[name].get(str(k)) for name in ("plain", "steered"))
        assert torch.equal(plain[:, :prompt], steered[:, :prompt])
    first = captures["steered"].get("1")[:, prompt] - captures["plain"].get("1")[:, prompt]
    assert tokens.shape[1] == prompt + 6
    assert torch.allclose(first[0], 5 * vector.at(2), atol=1e-4)


def test_prompt_touches_the_prompt_and_nothing_generated(
    model: LlamaForCausalLM, vector: TraitVector
) -> None:
    capture = ActivationCapture()
    steering = vector.steer(model, layer=1, coefficient=3.0, positions="prompt")
    with steering, HookManager(model) as hooks:
        hooks.add_forward_hook("model.layers.0", capture.make_hook("0"))
        tokens = generate(model)

    # Block 0 sees nothing but the tokens, so an unsteered pass over them is its comparison.
    moved = capture.get("0") - layer_outputs(model, input_ids=tokens[:, :-1])[1]

    prompt = PROMPT.shape[1]
    assert torch.allclose(moved[0, :prompt], 3 * vector.at(1).expand(prompt, -1), atol=1e-5)
    assert torch.allclose(moved[0, prompt:], torch.zeros(5, WIDTH), atol=1e-5)


@pytest.mark.parametrize("positions", ["all", "prompt", "response"])
def test_steering_while_generating_equals_one_forward_pass_over_the_result(
    model: LlamaForCausalLM, vector: TraitVector, positions: str
) -> None:
    settings: dict[str, Any] = {"layer": 2, "coefficient": 3.0, "positions": positions}
    capture = ActivationCapture()
    with vector.steer(model, **settings), HookManager(model) as hooks:
        hooks.add_forward_hook("model.layers.2", capture.make_hook("2"))
        tokens = generate(model)

    with vector.steer(model, **settings, prompt_length=PROMPT.shape[1]):
        whole = layer_outputs(model, input_ids=tokens[:, :-1])[3]

    assert torch.allclose(capture.get("2"), whole, atol=1e-4)


@pytest.mark.parametrize("prompt_length", [None, PROMPT.shape[1]])
@pytest.mark.parametrize("positions", ["all", "prompt", "response"])
def test_a_recurrence_that_counts_no_tokens_is_steered_where_others_are(
    positions: Positions, prompt_length: int | None
) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "vocab_size": 32}
    model = MambaForCausalLM(MambaConfig(**shape, pad_token_id=0)).eval()
    vector, seen = torch.ones(WIDTH), ActivationCapture()
    steering = steer(model, vector, layer=2, positions=positions, prompt_length=prompt_length)
    with steering, HookManager(model) as hooks:
        hooks.add_forward_hook("backbone.layers.1", seen.make_hook("2"))
        tokens = generate(model)

    plain = ActivationCapture()
    with HookManager(model) as hooks, torch.no_grad():
        hooks.add_forward_hook("backbone.layers.1", plain.make_hook("2"))
        model(tokens[:, :-1], use_cache=False)
    moved = (seen.get("2") - plain.get("2"))[0].norm(dim=-1) > 1e-3

    n_prompt, n_response = PROMPT.shape[1], 5
    assert moved[:n_prompt].tolist() == [positions != "response"] * n_prompt
    assert moved[n_prompt:].tolist() == [positions != "prompt"] * n_response


@pytest.mark.parametrize("positions", ["all", "prompt", "response"])
def test_left_padding_changes_nothing(
    model: LlamaForCausalLM, vector: TraitVector, positions: str
) -> None:
    short, long = torch.tensor([[9, 10]]), torch.tensor([[5, 6, 7, 8]])
    batch = torch.tensor([[0, 0, 9, 10], [5, 6, 7, 8]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])

    with vector.steer(model, layer=2, coefficient=4.0, positions=positions):  # type: ignore[arg-type]
        together = generate(model, batch, attention_mask=mask)
        alone = [generate(model, ids) for ids in (short, long)]

    assert together[0, 4:].tolist() == alone[0][0, 2:].tolist()
    assert together[1].tolist() == alone[1][0].tolist()


def test_padding_is_never_steered(model: LlamaForCausalLM, vector: TraitVector) -> None:
    inputs = {
        "input_ids": torch.tensor([[0, 0, 9, 10]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1]]),
    }
    plain = layer_outputs(model, **inputs)[2]

    with vector.steer(model, layer=2):
        steered = layer_outputs(model, **inputs)[2]

    assert torch.equal(steered[0, :2], plain[0, :2])
    assert torch.allclose(steered[0, 2:] - plain[0, 2:], vector.at(2).expand(2, -1), atol=1e-5)


def test_response_begins_where_each_row_says(model: LlamaForCausalLM, vector: TraitVector) -> None:
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    plain = layer_outputs(model, input_ids=ids)[1]

    begins = torch.tensor([1, 3])
    with vector.steer(model, layer=1, positions="response", prompt_length=begins):
        moved = (layer_outputs(model, input_ids=ids)[1] - plain).norm(dim=-1) > 1e-3

    assert moved.tolist() == [[False, True, True, True], [False, False, False, True]]


def test_several_tokens_on_a_cache_are_refused_unless_their_place_is_given(
    model: LlamaForCausalLM, vector: TraitVector
) -> None:
    cache = model(PROMPT[:, :2], use_cache=True).past_key_values

    with (
        vector.steer(model, layer=1, positions="response"),
        pytest.raises(ValueError, match="prompt_"),
    ):
        model(PROMPT[:, 2:], past_key_values=cache)


def test_two_vectors_at_once_add_up(model: LlamaForCausalLM, vector: TraitVector) -> None:
    plain = layer_outputs(model, input_ids=PROMPT)[2]

    with ExitStack() as stack:
        stack.enter_context(vector.steer(model, layer=2, coefficient=1.5))
        stack.enter_context((-vector).steer(model, layer=2, coefficient=0.5))
        steered = layer_outputs(model, input_ids=PROMPT)[2]

    assert torch.allclose(steered, plain + vector.at(2), atol=1e-5)


def test_ablating_removes_the_direction_and_nothing_else(
    model: LlamaForCausalLM, vector: TraitVector
) -> None:
    plain = layer_outputs(model, input_ids=PROMPT)[2]

    with vector.steer(model, layer=2, mode="ablate"):
        ablated = layer_outputs(model, input_ids=PROMPT)[2]

    unit = vector.at(2) / vector.at(2).norm()
    assert projection(ablated, vector.at(2)).abs().max() < 1e-5
    assert torch.allclose(plain - ablated, projection(plain, unit)[..., None] * unit, atol=1e-5)


def test_capping_lowers_projections_above_the_cap_only(
    model: LlamaForCausalLM, vector: TraitVector
) -> None:
    before = projection(layer_outputs(model, input_ids=PROMPT)[2], vector.at(2))
    cap = float(before.median())

    with vector.steer(model, layer=2, mode="cap", coefficient=cap):
        after = projection(layer_outputs(model, input_ids=PROMPT)[2], vector.at(2))

    assert torch.allclose(after, before.clamp_max(cap), atol=1e-5)


def test_a_coefficient_in_units_of_the_residual_adds_that_share_of_its_norm(
    model: LlamaForCausalLM, vector: TraitVector
) -> None:
    plain = layer_outputs(model, input_ids=PROMPT)[2]

    with vector.steer(model, layer=2, coefficient=0.5, unit="residual"):
        added = layer_outputs(model, input_ids=PROMPT)[2] - plain

    assert added.norm(dim=-1).flatten().tolist() == pytest.approx([2.0] * 4, rel=1e-4)


def test_units_of_the_residual_need_its_norms(model: LlamaForCausalLM, vector: TraitVector) -> None:
    bare = TraitVector(dict(vector.vectors), Provenance("t", "m"))

    with pytest.raises(MissingVectorError, match="residual norms"):
        bare.steer(model, layer=2, unit="residual")


def test_blocks_that_give_tuples_are_steered_and_keep_their_other_outputs() -> None:
    class TupleBlock(nn.Module):
        def forward(self, hidden: Tensor) -> tuple[Tensor, str]:
            return hidden + 1, "kept"

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([TupleBlock(), TupleBlock()])

        def forward(self, hidden: Tensor) -> tuple[Tensor, str]:
            for block in self.layers:
                hidden, note = block(hidden)
            return hidden, note

    class Config:
        num_hidden_layers, hidden_size = 2, 4

    backbone: Any = Backbone()
    backbone.config = Config()

    with steer(backbone, torch.ones(4), layer=1, coefficient=10.0):
        hidden, note = backbone(torch.zeros(1, 2, 4))

    assert hidden.tolist() == torch.full((1, 2, 4), 12.0).tolist()
    assert note == "kept"


def test_the_model_is_as_it_was_after_an_exception(
    model: LlamaForCausalLM, vector: TraitVector
) -> None:
    plain = model(PROMPT).logits

    with pytest.raises(RuntimeError, match="midway"), vector.steer(model, layer=2):
        raise RuntimeError("midway")

    assert torch.equal(model(PROMPT).logits, plain)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_steering_never_writes_into_a_tensor_that_someone_holds(
    model: LlamaForCausalLM, vector: TraitVector
) -> None:
    held: list[Tensor] = []
    with HookManager(model) as hooks, vector.steer(model, layer=1, coefficient=9.0):
        hooks.add_forward_hook("model.layers.0.mlp", lambda _m, _i, output: held.append(output))
        model(PROMPT)
        once = held[0].clone()
        model(PROMPT)

    assert torch.equal(held[0], once)


def test_a_zero_vector_points_nowhere(model: LlamaForCausalLM) -> None:
    with (
        pytest.raises(ValueError, match=r"layer 2 \(after block 1\)"),
        steer(model, torch.zeros(WIDTH), layer=2),
    ):
        pass


@pytest.mark.parametrize(
    "wrong", [{"positions": "answer"}, {"mode": "multiply"}, {"unit": "sigma"}]
)
def test_unknown_words_are_refused(
    model: LlamaForCausalLM, vector: TraitVector, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="use one of"), vector.steer(model, layer=1, **wrong):
        pass
