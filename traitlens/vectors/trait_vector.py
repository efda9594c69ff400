"""`TraitVector`: the directions of one trait in one model, with arithmetic, guards and steering.

Its provenance travels inside its file; a hash of the model's weights lets it refuse another model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from traitlens.capture import blocks
from traitlens.errors import MissingVectorError, NonFiniteError, ShapeError, VectorMismatchError
from traitlens.layers import LAYER_CONVENTION, layer_label, parse_layer
from traitlens.steering import Mode, Positions, steer

DEFAULT_POSITION = "response_avg"
Unit = Literal["raw", "residual"]

# 64 values of every parameter: enough that any fine-tune shows, few enough to hash a 70B at once.
SAMPLES_PER_PARAMETER = 64

# Below this, float16 rounds differently from bfloat16; such values are hashed as zero.
SMALLEST_HASHED = 2.0**-12


@dataclass(frozen=True)
class Provenance:
    """The facts about one trait vector.

    `counts` are kept responses by polarity, `thresholds` the cut-offs that kept them,
    `residual_norms` the mean norm of responses' averaged activations at each layer [L+1] (empty
    when not measured; steering in units of the residual needs it). `model_hash` is
    `traitlens.model_hash(model)`, empty when not recorded. `extra` takes anything JSON can hold.
    """

    trait: str
    method: str
    model_id: str = ""
    model_revision: str = ""
    model_hash: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    residual_norms: tuple[float, ...] = ()
    layer_convention: str = LAYER_CONVENTION
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """One JSON string per fact, as safetensors wants its metadata."""
        return {name: json.dumps(value, sort_keys=True) for name, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Provenance:
        """Read back what `to_metadata` wrote; unknown keys are ignored."""
        known = {f.name for f in fields(cls)}
        facts = {name: json.loads(text) for name, text in metadata.items() if name in known}
        facts["residual_norms"] = tuple(facts.get("residual_norms", ()))
        return cls(**{"trait": "", "method": ""} | facts)


@dataclass(frozen=True, eq=False)
class TraitVector:
    """One trait's vectors by position, each float32 [L+1, d_model] on the CPU, raw (not unit norm).

    `position` is the one that `at`, `steer` and `tensor` use. Raises ShapeError for tensors that
    do not fit together and MissingVectorError for a position that is not there.
    """

    vectors: Mapping[str, Tensor]
    provenance: Provenance
    position: str = DEFAULT_POSITION

    def __post_init__(self) -> None:
        tensors = {name: _as_stored(name, tensor) for name, tensor in self.vectors.items()}
        if self.position not in tensors:
            raise MissingVectorError(
                f"no position {self.position!r}: choose one of {sorted(tensors)}"
            )
        if len({tuple(t.shape) for t in tensors.values()}) > 1:
            shapes = {name: tuple(t.shape) for name, t in tensors.items()}
            raise ShapeError(f"positions differ in shape {shapes}: take them from one run")
        object.__setattr__(self, "vectors", MappingProxyType(tensors))

    @property
    def tensor(self) -> Tensor:
        """The vectors at the current position, float32 [L+1, d_model]."""
        return self.vectors[self.position]

    @property
    def n_blocks(self) -> int:
        """L, the number of the model's blocks; there are L+1 layers."""
        return int(self.tensor.shape[0]) - 1

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.tensor.shape[1])

    @property
    def norms(self) -> Tensor:
        """L2 norm of each layer's vector, float32 [L+1]."""
        norms: Tensor = torch.linalg.vector_norm(self.tensor, dim=1)
        return norms

    def layer(self, layer: int | str) -> int:
        """The layer index for "16", "block:15", "50%" or -1; raises LayerError."""
        return parse_layer(layer, self.n_blocks)

    def at(self, layer: int | str) -> Tensor:
        """One layer's vector, float32 [d_model], raw."""
        return self.tensor[self.layer(layer)]

    def at_position(self, position: str) -> TraitVector:
        """The same trait vector with another current position."""
        return replace(self, position=position)

    def normalized(self) -> TraitVector:
        """Every layer at unit norm; a layer that is exactly zero stays zero."""
        tiny = torch.finfo(torch.float32).tiny
        return self._map(lambda t: t / t.norm(dim=1, keepdim=True).clamp_min(tiny), "unit {}")

    def cosine(self, other: TraitVector) -> Tensor:
        """Cosine with another trait vector, layer by layer, float32 [L+1]."""
        self._check_same_space(other)
        return torch.cosine_similarity(self.tensor.double(), other.tensor.double(), dim=1).float()

    def __add__(self, other: TraitVector) -> TraitVector:
        return self._combine(other, 1.0, "{} + {}")

    def __sub__(self, other: TraitVector) -> TraitVector:
        return self._combine(other, -1.0, "{} - {}")

    def __mul__(self, factor: float) -> TraitVector:
        return self._map(lambda t: t * float(factor), f"{float(factor):g} * {{}}")

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> TraitVector:
        return self * (1.0 / divisor)

    def __neg__(self) -> TraitVector:
        return self._map(torch.neg, "-{}")

    def __repr__(self) -> str:
        p = self.provenance
        made_for = p.model_id or "unknown model"
        return (
            f"TraitVector({p.trait!r}, method={p.method!r}, position={self.position!r}, "
            f"layers 0..{self.n_blocks}, d_model={self.d_model}, made for {made_for})"
        )

    def check_model(self, model: nn.Module, *, allow_other_model: bool = False) -> None:
        """Raise VectorMismatchError unless the model is the one this vector was made for.

        Width and number of blocks must always fit; the weights' hash too (when the vector
        recorded one) unless `allow_other_model`.
        """
        width, n_blocks = blocks.d_model(model), len(blocks.decoder_blocks(model))
        if width != self.d_model:
            raise VectorMismatchError(
                f"vector has d_model {self.d_model}, model has {width}: made for another model?"
            )
        if n_blocks != self.n_blocks:
            raise VectorMismatchError(
                f"vector has layers 0..{self.n_blocks}, model has 0..{n_blocks}: "
                "made for another model?"
            )
        made_for = "" if allow_other_model else self.provenance.model_hash
        found = model_hash(model) if made_for else ""
        if found != made_for:
            raise VectorMismatchError(
                f"vector was made for weights {made_for}, this model has {found}: "
                "load that model, or pass allow_other_model=True"
            )

    def steer(
        self,
        model: nn.Module,
        *,
        layer: int | str,
        coefficient: float = 1.0,
        positions: Positions = "all",
        mode: Mode = "add",
        unit: Unit = "raw",
        prompt_length: int | Tensor | None = None,
        allow_other_model: bool = False,
    ) -> AbstractContextManager[nn.Module]:
        """Steer the model while the context is open; see `traitlens.steering.steer`.

        Raises VectorMismatchError for another model, LayerError, and MissingVectorError for a
        vector that records no norms for the unit "residual".
        """
        self.check_model(model, allow_other_model=allow_other_model)
        index = self.layer(layer)
        return steer(
            model,
            self.tensor[index],
            layer=index,
            coefficient=coefficient * self.unit_size(index, unit=unit, mode=mode),
            positions=positions,
            mode=mode,
            prompt_length=prompt_length,
        )

    def unit_size(self, layer: int, *, unit: Unit, mode: Mode) -> float:
        """What a coefficient of 1 is at a layer, in raw vectors (to cap: in units of projection).

        "raw" is the vector as stored; "residual" is the residual norm at the layer, so that 0.1
        moves by a tenth of an averaged response's length in any model. Ablation removes a share and
        has no unit. Raises ValueError for another unit and MissingVectorError without such norms.
        """
        if unit not in get_args(Unit):
            raise ValueError(f"no unit {unit!r}: use one of {get_args(Unit)}")
        if unit == "raw" or mode == "ablate":
            return 1.0
        if not self.provenance.residual_norms:
            raise MissingVectorError(
                'this vector records no residual norms: use unit="raw", or extract it again'
            )
        residual, norm = self.provenance.residual_norms[layer], float(self.norms[layer])
        return residual if mode == "cap" or norm == 0 else residual / norm

    def _map(self, change: Callable[[Tensor], Tensor], name: str) -> TraitVector:
        provenance = replace(self.provenance, trait=name.format(_bracket(self.provenance.trait)))
        vectors = {position: change(tensor) for position, tensor in self.vectors.items()}
        return replace(self, vectors=vectors, provenance=provenance)

    def _combine(self, other: TraitVector, sign: float, name: str) -> TraitVector:
        self._check_same_space(other)
        vectors = {
            position: tensor + sign * other.vectors[position]
            for position, tensor in self.vectors.items()
            if position in other.vectors
        }
        mine, theirs = self.provenance, other.provenance
        provenance = replace(
            mine,
            trait=name.format(mine.trait, _bracket(theirs.trait)),
            method=", ".join(dict.fromkeys((mine.method, theirs.method))),
            counts={},
            thresholds={},
            extra={},
        )
        return replace(self, vectors=vectors, provenance=provenance)

    def _check_same_space(self, other: TraitVector) -> None:
        if self.tensor.shape != other.tensor.shape or self.position not in other.vectors:
            raise VectorMismatchError(
                f"{self!r} and {other!r} do not fit together: take both from one model"
            )
        hashes = {self.provenance.model_hash, other.provenance.model_hash} - {""}
        if len(hashes) > 1:
            raise VectorMismatchError(
                f"the vectors were made for models {self.provenance.model_id} and "
                f"{other.provenance.model_id}: take both from one model"
            )


def model_hash(model: nn.Module) -> str:
    """Hash a strided sample of every floating-point parameter: 16 hexadecimal digits.

    The same for float32, bfloat16 and float16 copies of a bfloat16 checkpoint, on any device.
    Parameters without data (offloaded to the meta device) are left out.
    """
    digest = hashlib.sha256()
    for parameter in model.parameters():
        if not parameter.is_floating_point() or parameter.is_meta:
            continue
        digest.update(str(tuple(parameter.shape)).encode())
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // SAMPLES_PER_PARAMETER)
        values = flat[::step][:SAMPLES_PER_PARAMETER].to("cpu", torch.bfloat16).float()
        values[values.abs() < SMALLEST_HASHED] = 0.0
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]


def _bracket(name: str) -> str:
    return f"({name})" if " " in name else name


def _as_stored(name: str, tensor: Tensor) -> Tensor:
    if tensor.ndim != 2:
        raise ShapeError(f"position {name!r} has shape {tuple(tensor.shape)}, want [L+1, d_model]")
    stored = tensor.detach().to("cpu", torch.float32).contiguous()
    bad = (~torch.isfinite(stored).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise NonFiniteError(f"{name!r} is not finite at {layer_label(bad[0])}: extract it again")
    return stored
