"""One forward pass of a loaded model: its attention through slots, every layer's states seen on the
way, changed by each row's own interventions, and projected.

The one place that knows how transformers is called; outside a call the model is as it was loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from traitlens.arrays import Float32
from traitlens.capture.blocks import backbone, decoder_blocks
from traitlens.capture.hooks import tapped
from traitlens.steering import Change, steer
from workers.engine.attention import AttentionPass, slots_in_charge
from workers.engine.generation import Steering, UnitVectors
from workers.engine.states import is_stateful
from workers.models.device import unmap_clean
from workers.models.memory import main_memory
from workers.models.model import LoadedModel

# The layout depends little on the rows it is made for.
TYPICAL_ROWS = 128

# The second copy of the weights may take this share of the free memory.
MEMORY_SHARE = 0.3

# Receives a layer and its final states [batch, tokens, d_model].
Watch = Callable[[int, Tensor], object]


class MeasuredForward:
    """A loaded model with what its forward passes need, found once."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self._decoder = backbone(model.model)
        self._blocks = decoder_blocks(model.model)
        # The settings objects that modules ask for their attention, each once.
        configs = [part.config for part in self._decoder.modules() if hasattr(part, "config")]
        self._configs = list({id(config): config for config in configs}.values())
        self._packed = PackedLinears(model.model)
        self.stateful = is_stateful(model.model.config.get_text_config())
        named = inspect.signature(self._decoder.forward).parameters
        self._cache_name = "cache_params" if "cache_params" in named else "past_key_values"

    def prefill(
        self, ids: Tensor, slots: AttentionPass, steerings: Sequence[Steering | None], watch: Watch
    ) -> None:
        """Run the blocks alone on ids [batch, tokens], for their states."""
        positions = torch.arange(ids.shape[1]).expand(ids.shape)
        interventions = RowInterventions(steerings, self.model.device)
        self._run(self._decoder, ids, positions, slots, interventions, watch)

    def logits(
        self,
        ids: Tensor,
        positions: Tensor,
        slots: AttentionPass,
        interventions: RowInterventions,
        watch: Watch,
    ) -> Tensor:
        """Run the whole model on one token a row [rows, 1]; logits [rows, vocabulary]."""
        output = self._run(self.model.model, ids, positions, slots, interventions, watch)
        logits: Tensor = output.logits[:, -1]
        return logits

    def _run(
        self,
        module: nn.Module,
        ids: Tensor,
        positions: Tensor,
        slots: AttentionPass,
        interventions: RowInterventions,
        watch: Watch,
    ) -> Any:
        device = self.model.device

        def tap(layer: int, states: Tensor) -> Tensor | None:
            changed = interventions.applied(layer, states)
            watch(layer, states if changed is None else changed)
            return changed

        with (
            slots_in_charge(self._configs),
            tapped(self._blocks, tap),
            self._packed.in_use(),
        ):
            return module(
                input_ids=ids.to(device),
                position_ids=positions.to(device),
                use_cache=False,
                slots=slots,
                **({} if slots.states is None else {self._cache_name: slots.states}),
            )


def token_sums(states: Tensor, counted: Tensor) -> Tensor:
    """Sum of states [batch, tokens, d_model] where counted [batch, tokens] is 1, in float32."""
    weights = counted.to(states.device, torch.float32).unsqueeze(1)
    return torch.bmm(weights, states.float()).squeeze(1)


class RowInterventions:
    """What to do to each row of a batch, by layer; nothing at all costs nothing.

    Additions of all rows are one sum; a row that also has another kind at the layer takes all of
    its interventions there one after the other, since their order matters.
    """

    def __init__(self, steerings: Sequence[Steering | None], device: torch.device) -> None:
        """One entry a row: the steering that is active for the tokens being run, or None."""
        self.added: dict[int, Tensor] = {}
        self.in_turn: dict[int, list[tuple[list[int], Change]]] = {}
        rows_of: dict[Steering, list[int]] = {}
        for row, steering in enumerate(steerings):
            if steering:
                rows_of.setdefault(steering, []).append(row)
        for steering, rows in rows_of.items():
            in_turn = {one.layer for one in steering.interventions if one.mode != "add"}
            for one in steering.interventions:
                vector = torch.as_tensor(one.vector, dtype=torch.float32)
                if one.layer in in_turn:
                    change = Change.of(
                        vector, coefficient=one.coefficient, mode=one.mode, layer=one.layer
                    )
                    self.in_turn.setdefault(one.layer, []).append((rows, change))
                else:
                    if one.layer not in self.added:
                        zeros = torch.zeros(len(steerings), len(vector), device=device)
                        self.added[one.layer] = zeros
                    self.added[one.layer][rows] += (one.coefficient * vector).to(device)

    @classmethod
    def adding(cls, added: dict[int, Tensor]) -> RowInterventions:
        """Those that add these vectors [rows, d_model] by layer."""
        made = cls((), torch.device("cpu"))
        made.added = added
        return made

    def applied(self, layer: int, states: Tensor) -> Tensor | None:
        """The changed states [batch, tokens, d_model], by way of float32; None if unchanged."""
        changed = None
        if layer in self.added:
            added = self.added[layer].to(states.device).unsqueeze(1)
            changed = (states.float() + added).to(states.dtype)
        for rows, change in self.in_turn.get(layer, ()):
            changed = states.clone() if changed is None else changed
            changed[rows] = change.applied(changed[rows], None)
        return changed


@contextmanager
def steered(
    model: nn.Module, steering: Steering | None, prompt_length: int | Tensor | None = None
) -> Iterator[None]:
    """Steer a whole batch alike in plain forward passes, by the toolkit that notebooks use.

    `prompt_length` as in `traitlens.steer`: where the response begins, None inside generate.
    """
    with ExitStack() as stack:
        for one in steering.interventions if steering else ():
            vector = torch.as_tensor(one.vector, dtype=torch.float32)
            stack.enter_context(
                steer(
                    model,
                    vector,
                    layer=one.layer,
                    coefficient=one.coefficient,
                    positions=steering.positions if steering else "all",
                    mode=one.mode,
                    prompt_length=prompt_length,
                )
            )
        yield


class Projector:
    """Keeps each UnitVectors object's vectors on the device, as long as somebody holds it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._placed: WeakKeyDictionary[UnitVectors, tuple[Tensor, Tensor]] = WeakKeyDictionary()

    def project(self, states: Mapping[int, Tensor], directions: UnitVectors) -> Tensor:
        """Projections [..., 2, k], float32 on the device, of states [..., d_model] by layer.

        One matrix product projects every needed layer on all directions; each direction then keeps
        its own layer's column.
        """
        units, places = self._place(directions)
        needed = [states[layer] for layer in sorted(set(directions.layers))]
        stacked = torch.stack([layer.to(self._device) for layer in needed]).float()
        along = stacked @ units.T  # [layers, ..., k]
        own = along.movedim(0, -2)[..., places, torch.arange(len(places), device=self._device)]
        norms = torch.linalg.vector_norm(stacked, dim=-1).movedim(0, -1)[..., places]
        return torch.stack([own, norms], dim=-2)

    def project_rows(
        self, states: Tensor, directions: Sequence[UnitVectors | None]
    ) -> list[Float32 | None]:
        """Projections [2, k] of each row that asks for some; states [layer, rows, d_model]."""
        found: list[Float32 | None] = [None] * len(directions)
        for one in dict.fromkeys(d for d in directions if d is not None):
            rows = [row for row, asked in enumerate(directions) if asked is one]
            whole = len(rows) == len(directions)
            chosen = {k: states[k] if whole else states[k][rows] for k in one.layers}
            for row, projected in zip(rows, self.project(chosen, one).cpu().numpy(), strict=True):
                found[row] = projected
        return found

    def _place(self, directions: UnitVectors) -> tuple[Tensor, Tensor]:
        placed = self._placed.get(directions)
        if placed is None:
            units = torch.from_numpy(np.ascontiguousarray(directions.units, np.float32))
            needed = sorted(set(directions.layers))
            places = torch.tensor([needed.index(layer) for layer in directions.layers])
            placed = units.to(self._device), places.to(self._device)
            self._placed[directions] = placed
        return placed


class PackedLinears:
    """Twins of a model's float32 linear layers, none where that is impossible or memory is short.

    On a CPU their weights are laid out once for oneDNN, which torch does at every call. At the
    sizes of decoding this is up to 2.5 times the speed of torch's own product, at those of prompts
    as fast, and the same numbers up to rounding. The model is untouched outside the context; what
    of its weights lies in a file is read from there again by whoever asks for it.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [
            layer
            for layer in model.modules()
            if type(layer) is nn.Linear
            and layer.weight.device.type == "cpu"
            and layer.weight.dtype == torch.float32
            # accelerate puts a forward of its own on layers that it moves about
            and "forward" not in vars(layer)
        ]
        size = sum(layer.weight.numel() * layer.weight.itemsize for layer in layers)
        if not _available() or size > MEMORY_SHARE * main_memory()[1]:
            layers = []
        self._twins = [(layer, _packed(layer)) for layer in layers]
        unmap_clean(layer.weight for layer in layers)

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


def _packed(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), TYPICAL_ROWS)
    bias = layer.bias
    multiply = torch.ops.mkldnn._linear_pointwise

    def forward(states: Tensor) -> Tensor:
        # "none": no activation is fused behind the product.
        product: Tensor = multiply(states, weight, bias, "none", [], "")
        return product

    return forward
