"""Adds each row's own pushes to the states of a layer, many differently steered rows in one batch.

Knows nothing about where the vectors come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from traitlens.steering import steer
from workers.generation import Steering


@contextmanager
def steered(
    model: nn.Module, steering: Steering | None, prompt_length: int | Tensor | None = None
) -> Iterator[None]:
    """Steer a whole batch alike in plain forward passes, by the toolkit that notebooks use.

    `prompt_length` as in `traitlens.steer`: where the response begins, None inside generate.
    """
    with ExitStack() as stack:
        for push in steering.pushes if steering else ():
            vector = torch.as_tensor(push.vector, dtype=torch.float32)
            stack.enter_context(
                steer(
                    model,
                    vector,
                    layer=push.layer,
                    coefficient=push.coefficient,
                    positions=steering.positions if steering else "all",
                    prompt_length=prompt_length,
                )
            )
        yield


class RowPushes:
    """What to add to each row of a batch, by layer; nothing at all costs nothing."""

    def __init__(self, steerings: Sequence[Steering | None], device: torch.device) -> None:
        """One entry a row: the steering that is active for the tokens being run, or None."""
        self._by_layer: dict[int, Tensor] = {}
        rows_of: dict[Steering, list[int]] = {}
        for row, steering in enumerate(steerings):
            if steering:
                rows_of.setdefault(steering, []).append(row)
        for steering, rows in rows_of.items():
            for push in steering.pushes:
                vector = push.coefficient * torch.as_tensor(push.vector, dtype=torch.float32)
                self._layer(push.layer, len(steerings), vector, device)[rows] += vector.to(device)

    def applied(self, layer: int, states: Tensor) -> Tensor | None:
        """The changed states [batch, tokens, d_model], by way of float32; None without a push."""
        if layer not in self._by_layer:
            return None
        added = self._by_layer[layer].to(states.device).unsqueeze(1)
        return (states.float() + added).to(states.dtype)

    def _layer(self, layer: int, rows: int, vector: Tensor, device: torch.device) -> Tensor:
        if layer not in self._by_layer:
            self._by_layer[layer] = torch.zeros(rows, len(vector), device=device)
        return self._by_layer[layer]
