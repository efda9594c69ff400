"""Runs each distinct prompt through the model once and keeps what its rollouts share.

Runs a model's forward pass through slots, with every layer's states handed to a tap on the way.

The one place that knows how transformers is called; outside a call the model is as it was
loaded.

Linear layers on a CPU whose weights are laid out once for oneDNN; torch does it at every call.

At the sizes of decoding this is 1.5 to 2.5 times the speed of torch's own product, and the same
numbers up to rounding. Knows nothing about generation; the model is untouched outside the
context.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workers.engine.attention import AttentionPass, PrefillPass, attention_configs, slots_in_charge
from workers.engine.capture import LayerTap, decoder_blocks, tapped, text_decoder, token_sums
from workers.engine.generation import PromptKey
from workers.engine.residual import Projections, Projector, RowInterventions
from workers.models.model import LoadedModel

# Padded tokens of one forward pass, where matrix products are at their full rate.
BATCH_TOKENS_CPU = 2048

BATCH_TOKENS_GPU = 8192

# Prompts kept after use, for rollouts that other jobs ask for later.
KEPT_PROMPTS = 64


@dataclass
class Prefix:
    """A prompt without its last token, which is each rollout's first decode step.

    keys and values: per layer [kv_heads, tokens - 1, head_dim]; state_sum [L+1, d_model], float32
    on the device. `last` [L+1, d_model] appears on the host when the first rollout has taken that
    step. `projections` [tokens - 1, 2, k] where the prompt's key has directions.
    """

    tokens: int
    keys: list[Tensor]
    values: list[Tensor]
    state_sum: Tensor | None
    last: NDArray[np.float32] | None = None
    average: NDArray[np.float32] | None = None
    projections: Projections | None = None

    def take_last(self, states: Tensor) -> None:
        """Note the states [L+1, d_model], float32, of the last prompt token."""
        total = states if self.state_sum is None else self.state_sum + states
        self.average = (total / self.tokens).cpu().numpy()
        # A copy, because on a CPU the array would share memory with the states.
        self.last = states.cpu().numpy().copy()


class PrefixCache:
    """Prefix prompts by their keys: what rollouts need now, and the latest ones beyond that."""

    def __init__(self, forward: MeasuredForward) -> None:
        self._measured = forward
        self._projector = Projector(forward.model.device)
        self._ready: OrderedDict[PromptKey, Prefix] = OrderedDict()
        on_cpu = forward.model.device.type == "cpu"
        self.batch_tokens = BATCH_TOKENS_CPU if on_cpu else BATCH_TOKENS_GPU
        self.windows: list[int | None] = []
        self.tokens_run = 0
        self.token_bytes = 0
        self.capture_seconds = 0.0

    def __contains__(self, prompt: PromptKey) -> bool:
        return prompt in self._ready

    def take(self, prompt: PromptKey) -> Prefix:
        """A prompt that is ready; KeyError otherwise."""
        self._ready.move_to_end(prompt)
        return self._ready[prompt]

    def prefill(self, prompts: Iterable[PromptKey]) -> None:
        """Run missing prompts, as many of them as fit into one batch, the first one at least."""
        batch: list[PromptKey] = []
        widest = 0
        for prompt in prompts:
            widest = max(widest, len(prompt.token_ids))
            if batch and widest * (len(batch) + 1) > self.batch_tokens:
                break
            batch.append(prompt)
        for prompt in batch:
            if len(prompt.token_ids) == 1:
                self._ready[prompt] = Prefix(1, [], [], None)
        self._run([prompt for prompt in batch if len(prompt.token_ids) > 1])
        while len(self._ready) > max(KEPT_PROMPTS, len(batch)):
            self._ready.popitem(last=False)

    def halve(self) -> None:
        """Forget what is kept and take half as many tokens at once from now on."""
        self._ready.clear()
        self.batch_tokens = max(1, self.batch_tokens // 2)

    def _run(self, prompts: list[PromptKey]) -> None:
        if not prompts:
            return
        lengths = torch.tensor([len(prompt.token_ids) - 1 for prompt in prompts])
        ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : lengths[row]] = torch.tensor(prompt.token_ids[:-1])
        real = torch.arange(ids.shape[1]) < lengths.unsqueeze(1)
        stored, sums, projections = self._forward(ids, real, prompts)
        for row, prompt in enumerate(prompts):
            kept = slice(0, int(lengths[row]))
            self._ready[prompt] = Prefix(
                tokens=len(prompt.token_ids),
                keys=[k[row, :, kept] for k in stored.keys],
                values=[v[row, :, kept] for v in stored.values],
                state_sum=sums[row],
                projections=projections[row][kept] if row in projections else None,
            )
        self.windows = stored.windows
        self.tokens_run += int(lengths.sum())
        self.token_bytes = sum(t.nbytes for t in (*stored.keys, *stored.values)) // ids.numel()

    def _forward(
        self, ids: Tensor, real: Tensor, prompts: list[PromptKey]
    ) -> tuple[PrefillPass, Tensor, dict[int, Projections]]:
        device = self._measured.model.device
        counted = real.to(device)
        interventions = RowInterventions([prompt.steering for prompt in prompts], device)
        read = {layer for p in prompts if p.directions for layer in p.directions.layers}
        sums: list[Tensor] = []
        kept: dict[int, Tensor] = {}

        def tap(layer: int, states: Tensor) -> Tensor | None:
            changed = interventions.applied(layer, states)
            started = time.perf_counter()
            final = states if changed is None else changed
            sums.append(token_sums(final, counted).to(device))
            if layer in read:
                kept[layer] = final
            self.capture_seconds += time.perf_counter() - started
            return changed

        stored = PrefillPass()
        positions = torch.arange(ids.shape[1]).expand(ids.shape)
        self._measured.states(ids, positions, stored, tap)
        # [prompt, layer, d_model]
        return stored, torch.stack(sums, dim=1), self._projections(kept, prompts)

    def _projections(
        self, kept: dict[int, Tensor], prompts: list[PromptKey]
    ) -> dict[int, Projections]:
        """Row -> projections of every column, padding too, [tokens, 2, k]."""
        by_row = {}
        for row, prompt in enumerate(prompts):
            if prompt.directions:
                states = {layer: kept[layer][row] for layer in prompt.directions.layers}
                by_row[row] = self._projector.project(states, prompt.directions).cpu().numpy()
        return by_row


class MeasuredForward:
    """A loaded model with what its forward passes need, found once."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self._decoder = text_decoder(model.model)
        self._blocks = decoder_blocks(model.model)
        self._configs = attention_configs(model.model)
        self._packed = PackedLinears(model.model)

    def states(self, ids: Tensor, positions: Tensor, slots: AttentionPass, tap: LayerTap) -> None:
        """Run the blocks alone, for their states; ids and positions [batch, tokens]."""
        device = self.model.device
        with slots_in_charge(self._configs), tapped(self._blocks, tap), self._packed.in_use():
            self._decoder(
                input_ids=ids.to(device),
                position_ids=positions.to(device),
                use_cache=False,
                slots=slots,
            )

    def logits(self, ids: Tensor, positions: Tensor, slots: AttentionPass, tap: LayerTap) -> Tensor:
        """Run the whole model on one token a row [rows, 1]; logits [rows, vocabulary]."""
        with slots_in_charge(self._configs), tapped(self._blocks, tap), self._packed.in_use():
            output = self.model.model(
                input_ids=ids, position_ids=positions, use_cache=False, slots=slots
            )
        logits: Tensor = output.logits[:, -1]
        return logits


# The layout depends little on the rows it is made for.
TYPICAL_ROWS = 128

# The second copy of the weights may take this share of the free memory.
MEMORY_SHARE = 0.3


class PackedLinears:
    """Packed twins of a model's float32 linear layers; none where that is impossible or memory is
    short.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [layer for layer in model.modules() if type(layer) is nn.Linear]
        layers = [layer for layer in layers if _can_be_packed(layer)]
        size = sum(layer.weight.numel() * layer.weight.itemsize for layer in layers)
        if not _available() or size > MEMORY_SHARE * psutil.virtual_memory().available:
            layers = []
        self._twins = [(layer, _packed(layer)) for layer in layers]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the layers multiply with their packed weights inside the context."""
        try:
            for layer, twin in self._twins:
                # nn.Module's own __setattr__ would look through its registries at every step.
                layer.__dict__["forward"] = twin
            yield
        finally:
            for layer, _ in self._twins:
                layer.__dict__.pop("forward", None)


def _available() -> bool:
    return bool(torch.backends.mkldnn.is_available()) and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def _can_be_packed(layer: nn.Linear) -> bool:
    plain = layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32
    # accelerate puts a forward of its own on layers that it moves about.
    return plain and "forward" not in vars(layer)


def _packed(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), TYPICAL_ROWS)
    bias = layer.bias
    multiply = torch.ops.mkldnn._linear_pointwise

    def forward(states: Tensor) -> Tensor:
        # "none": no activation is fused behind the product.
        product: Tensor = multiply(states, weight, bias, "none", [], "")
        return product

    return forward
