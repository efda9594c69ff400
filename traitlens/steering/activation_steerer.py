"""Steering under the name and with the arguments of persona_vectors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

from torch import Tensor, nn

from traitlens.capture.blocks import decoder_blocks
from traitlens.errors import LayerError
from traitlens.steering import Positions, steer


class ActivationSteerer:
    """Adds `coeff` times the vector [d_model] to a block's output while the context is open.

    `layer_idx` counts blocks from 0, or from the last with a negative number: block 15 is layer 16
    of our arrays. `coeff` 0 changes nothing. Raises LayerError for a block that is not there, and
    what `steer` raises.
    """

    def __init__(
        self,
        model: nn.Module,
        vector: Tensor,
        coeff: float = 1.0,
        layer_idx: int = -1,
        positions: Positions = "all",
    ) -> None:
        n_blocks = len(decoder_blocks(model))
        if not -n_blocks <= layer_idx < n_blocks:
            raise LayerError(f"no block {layer_idx}: the model has {n_blocks}, from 0 on")
        self.model, self.layer = model, layer_idx % n_blocks + 1
        self._vector, self._coeff, self._positions = vector, coeff, positions
        self._steered: AbstractContextManager[nn.Module] | None = None

    def __enter__(self) -> nn.Module:
        """The model, steered from here on."""
        self._steered = steer(
            self.model,
            self._vector,
            layer=self.layer,
            coefficient=self._coeff,
            positions=self._positions,
        )
        return self._steered.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The model as it was."""
        assert self._steered is not None
        self._steered.__exit__(kind, error, trace)
