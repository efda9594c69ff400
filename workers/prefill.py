"""Runs each distinct prompt through the model once and keeps what its rollouts share.

Knows nothing about rows or sampling.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.attention import PrefillPass, attention_configs, slots_in_charge
from workers.capture import decoder_blocks, tapped, text_decoder, token_sums
from workers.model import LoadedModel

# Padded tokens of one forward pass, where a matrix product is at its full rate on any machine.
BATCH_TOKENS = 2048
# Prompts kept after use, for rollouts that other jobs ask for later.
KEPT_PROMPTS = 64


@dataclass
class Prefilled:
    """A prompt without its last token, which is each rollout's first decode step.

    keys and values: per layer [kv_heads, tokens - 1, head_dim]; state_sum [L+1, d_model], float32 on the device.
    `last` [L+1, d_model] appears on the host when the first rollout has taken that step.
    """

    tokens: int
    keys: list[Tensor]
    values: list[Tensor]
    state_sum: Tensor | None
    last: NDArray[np.float32] | None = None
    average: NDArray[np.float32] | None = None

    def take_last(self, states: Tensor) -> None:
        """Note the states [L+1, d_model], float32, of the last prompt token."""
        total = states if self.state_sum is None else self.state_sum + states
        self.average = (total / self.tokens).cpu().numpy()
        # A copy, because on a CPU the array would share memory with the states.
        self.last = states.cpu().numpy().copy()


class PromptShelf:
    """Prefilled prompts by their ids: what rollouts need now, and the latest ones beyond that."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._blocks = decoder_blocks(model.model)
        self._configs = attention_configs(model.model)
        self._ready: OrderedDict[tuple[int, ...], Prefilled] = OrderedDict()
        self.batch_tokens = BATCH_TOKENS
        self.windows: list[int | None] = []
        self.tokens_run = 0

    def __contains__(self, prompt_ids: tuple[int, ...]) -> bool:
        return prompt_ids in self._ready

    def take(self, prompt_ids: tuple[int, ...]) -> Prefilled:
        """A prompt that is ready; KeyError otherwise."""
        self._ready.move_to_end(prompt_ids)
        return self._ready[prompt_ids]

    def prefill(self, prompts: Iterable[tuple[int, ...]]) -> None:
        """Run the missing prompts, as many of them as fit into one batch, the first one at least."""
        batch: list[tuple[int, ...]] = []
        for prompt in prompts:
            widest = max(len(other) for other in [prompt, *batch])
            if batch and widest * (len(batch) + 1) > self.batch_tokens:
                break
            batch.append(prompt)
        short = {prompt: Prefilled(1, [], [], None) for prompt in batch if len(prompt) == 1}
        self._ready.update(short)
        self._run([prompt for prompt in batch if prompt not in short])
        while len(self._ready) > max(KEPT_PROMPTS, len(batch)):
            self._ready.popitem(last=False)

    def halve(self) -> None:
        """Forget what is kept and take half as many tokens at once from now on."""
        self._ready.clear()
        self.batch_tokens = max(1, self.batch_tokens // 2)

    def _run(self, prompts: list[tuple[int, ...]]) -> None:
        if not prompts:
            return
        lengths = torch.tensor([len(prompt) - 1 for prompt in prompts])
        ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt) - 1] = torch.tensor(prompt[:-1])
        real = torch.arange(ids.shape[1]) < lengths.unsqueeze(1)
        stored, sums = self._forward(ids, real)
        for row, prompt in enumerate(prompts):
            kept = slice(0, len(prompt) - 1)
            self._ready[prompt] = Prefilled(
                tokens=len(prompt),
                keys=[k[row, :, kept] for k in stored.keys],
                values=[v[row, :, kept] for v in stored.values],
                state_sum=sums[row],
            )
        self.windows = stored.windows
        self.tokens_run += int(lengths.sum())

    def _forward(self, ids: Tensor, real: Tensor) -> tuple[PrefillPass, Tensor]:
        device = self._model.device
        counted = real.to(device)
        sums: list[Tensor] = []

        def add(_: int, states: Tensor) -> None:
            sums.append(token_sums(states, counted).to(device))

        stored = PrefillPass()
        positions = torch.arange(ids.shape[1], device=device).expand(ids.shape)
        with slots_in_charge(self._configs), tapped(self._blocks, add):
            text_decoder(self._model.model)(
                input_ids=ids.to(device), position_ids=positions, use_cache=False, slots=stored
            )
        # [prompt, layer, d_model]
        return stored, torch.stack(sums, dim=1)
