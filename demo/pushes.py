"""Vectors added to the residual stream in training: noise to withstand, trait directions to follow.

A model this small does not follow its own mean differences by itself: much of such a vector is
word identity, and the answer crumbles. So it practices: some samples have no instruction, and the
model's own mean difference of that trait, as it then stands, is added instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM

from demo.batches import Batch
from demo.corpus.instructions import TRAITS

# Largest noise as a share of the mean residual norm.
LARGEST_NOISE = 0.5
# In multiples of the mean difference; below the first an answer would have no reason to change.
COEFFICIENTS = (0.8, 2.6)
# How much of the running sums is left after one more batch: a memory of about a hundred batches.
MEMORY = 0.99


@dataclass
class TraitMeans:
    """Running sums of response activations, [layer, trait, pole, d_model] and counts [trait, pole].

    Layer l is the output of block l, counted from 0 here; pole 0 is positive, 1 negative.
    """

    sums: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def empty(cls, model: LlamaForCausalLM) -> TraitMeans:
        """Return sums of nothing."""
        n_layers, width = len(model.model.layers), model.config.hidden_size
        return cls(torch.zeros(n_layers, len(TRAITS), 2, width), torch.zeros(len(TRAITS), 2))

    def differences(self, layer: int) -> torch.Tensor:
        """Return positive minus negative mean per trait, [trait, d_model]."""
        means = self.sums[layer] / self.counts.clamp(min=1.0)[..., None]
        return means[:, 0] - means[:, 1]

    @contextmanager
    def watching(self, model: LlamaForCausalLM, batch: Batch) -> Iterator[None]:
        """Within the context a forward pass adds its clean instructed responses to the sums."""
        kind = batch.kinds[batch.segments]  # [row, token], trait * 2 + pole, or -1
        used = (kind >= 0) & batch.in_response
        self.sums *= MEMORY
        self.counts *= MEMORY
        self.counts.view(-1).index_add_(0, kind[used], torch.ones(int(used.sum())))

        def watch(layer: int, output: torch.Tensor) -> None:
            flat = self.sums[layer].view(-1, self.sums.shape[-1])
            flat.index_add_(0, kind[used], output.detach()[used])

        with ExitStack() as stack:
            for layer, block in enumerate(model.model.layers):
                handle = block.register_forward_hook(
                    lambda _module, _inputs, output, layer=layer: watch(layer, output)
                )
                stack.callback(handle.remove)
            yield


@contextmanager
def pushed(
    model: LlamaForCausalLM, batch: Batch, *, means: TraitMeans, generator: torch.Generator
) -> Iterator[None]:
    """Within the context one random middle layer adds each sample's noise or trait direction."""
    layer = int(torch.randint(1, len(model.model.layers) - 1, (), generator=generator))
    n_samples, width = len(batch.kinds), model.config.hidden_size
    noise = torch.nn.functional.normalize(
        torch.randn(n_samples, width, generator=generator), dim=-1
    )
    noise *= torch.rand(n_samples, 1, generator=generator) * LARGEST_NOISE
    lowest, highest = COEFFICIENTS
    size = lowest + torch.rand(n_samples, generator=generator) * (highest - lowest)
    trait, sign = batch.steered.clamp(min=0) // 2, 1.0 - 2.0 * (batch.steered.clamp(min=0) % 2)
    steering = means.differences(layer)[trait] * (size * sign * (batch.steered >= 0))[:, None]
    from_start = torch.rand(n_samples, generator=generator) < 0.5
    here = from_start[batch.segments] | batch.in_answer_turn

    def add(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        scale = output.detach().norm(dim=-1).mean()
        noisy = (noise * batch.noisy[:, None] * scale)[batch.segments]
        changed: torch.Tensor = output + noisy + steering[batch.segments] * here[..., None]
        return changed

    handle = model.model.layers[layer].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
