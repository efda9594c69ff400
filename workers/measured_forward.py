"""Runs a model's forward pass through slots, with every layer's states handed to a tap on the way.

The one place that knows how transformers is called; outside a call the model is as it was loaded.
"""

from __future__ import annotations

from torch import Tensor

from workers.attention import AttentionPass, attention_configs, slots_in_charge
from workers.capture import LayerTap, decoder_blocks, tapped, text_decoder
from workers.model import LoadedModel
from workers.packed_linear import PackedLinears


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
