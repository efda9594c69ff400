"""`ActivationCapture`: keeps what hooked modules put out, over a whole generation.

Knows nothing about models or vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from traitlens.errors import MissingModuleError, ShapeError
from traitlens.hooks import ForwardHook


class ActivationCapture:
    """Captures module outputs under names; `get` joins the steps of a generation.

    During `model.generate` a block is called once with the prompt and then once a token; the last
    generated token is never fed back, so N generated tokens give prompt + N - 1 columns: column t
    is the state at token t itself, padding columns included.
    """

    def __init__(self) -> None:
        self._steps: dict[str, list[Tensor]] = {}

    def make_hook(self, name: str) -> ForwardHook:
        """A forward hook that keeps the module's output (its first, when it gives a tuple)."""

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            # A copy, because later layers may add into the same memory.
            self._steps.setdefault(name, []).append(hidden.detach().clone())

        return hook

    @property
    def names(self) -> list[str]:
        """Names under which something was captured."""
        return sorted(self._steps)

    def get(self, name: str) -> Tensor:
        """Everything captured under a name: [batch, seq, hidden], on the model's device and dtype.

        Calls are joined along the sequence; `clear` between unrelated forward passes. Raises
        MissingModuleError when nothing was captured and ShapeError when batch sizes differ.
        """
        steps = self._steps.get(name)
        if not steps:
            raise MissingModuleError(
                f"nothing captured as {name!r} (have {self.names}): "
                "run the model while the hook is in place"
            )
        if len({(step.shape[0], step.shape[-1]) for step in steps}) > 1:
            raise ShapeError(
                f"calls under {name!r} have shapes {[tuple(step.shape) for step in steps]}: "
                "clear() between unrelated forward passes"
            )
        return torch.cat(steps, dim=1)

    def clear(self) -> None:
        """Forget everything captured so far."""
        self._steps.clear()
