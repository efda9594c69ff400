"""Applies each row's own pushes to the states of a layer, many differently steered rows in one
batch.

Knows nothing about where the vectors come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from traitlens.steering import steer
from traitlens.steering_change import Change
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
                    mode=push.mode,
                    prompt_length=prompt_length,
                )
            )
        yield


class RowPushes:
    """What to do to each row of a batch, by layer; nothing at all costs nothing.

    Additions of all rows are one sum; a row that also has another push at the layer takes all of
    its pushes there one after the other, since their order matters.
    """

    def __init__(self, steerings: Sequence[Steering | None], device: torch.device) -> None:
        """One entry a row: the steering that is active for the tokens being run, or None."""
        self._added: dict[int, Tensor] = {}
        self._in_turn: dict[int, list[tuple[list[int], Change]]] = {}
        rows_of: dict[Steering, list[int]] = {}
        for row, steering in enumerate(steerings):
            if steering:
                rows_of.setdefault(steering, []).append(row)
        for steering, rows in rows_of.items():
            in_turn = {push.layer for push in steering.pushes if push.mode != "add"}
            for push in steering.pushes:
                vector = torch.as_tensor(push.vector, dtype=torch.float32)
                if push.layer in in_turn:
                    change = Change.of(
                        vector, coefficient=push.coefficient, mode=push.mode, layer=push.layer
                    )
                    self._in_turn.setdefault(push.layer, []).append((rows, change))
                else:
                    added = self._layer(push.layer, len(steerings), vector, device)
                    added[rows] += (push.coefficient * vector).to(device)

    def applied(self, layer: int, states: Tensor) -> Tensor | None:
        """The changed states [batch, tokens, d_model], by way of float32; None without a push."""
        changed = None
        if layer in self._added:
            added = self._added[layer].to(states.device).unsqueeze(1)
            changed = (states.float() + added).to(states.dtype)
        for rows, change in self._in_turn.get(layer, ()):
            changed = states.clone() if changed is None else changed
            changed[rows] = change.applied(changed[rows], None)
        return changed

    def _layer(self, layer: int, rows: int, vector: Tensor, device: torch.device) -> Tensor:
        if layer not in self._added:
            self._added[layer] = torch.zeros(rows, len(vector), device=device)
        return self._added[layer]
