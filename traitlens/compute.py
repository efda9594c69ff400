"""Projection, cosine and differences along a trajectory: tensors in, float32 tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

from traitlens.errors import ShapeError


def projection(activations: Tensor, vector: Tensor) -> Tensor:
    """h.v / ||v||: how far each activation reaches along the vector; computed in float32.

    activations [..., d_model] and vector [d_model] give [...]; vectors [k, d_model] give [..., k]
    in one matrix product. The scale is that of the activations at this layer of this model: do not
    compare across layers or models. Raises ShapeError for widths that differ and ValueError for a
    zero vector, which has no direction.
    """
    if vector.ndim not in (1, 2):
        raise ShapeError(f"vector has shape {tuple(vector.shape)}, want [d_model] or [k, d_model]")
    if activations.shape[-1] != vector.shape[-1]:
        raise ShapeError(
            f"vector has d_model {vector.shape[-1]}, activations have {activations.shape[-1]}: "
            "made for another model?"
        )
    v = vector.detach().to(activations.device, torch.float32)
    norm = v.norm(dim=-1, keepdim=True)
    if not bool((norm > 0).all()):
        raise ValueError("a vector of norm zero has no direction: take another layer")
    unit = v / norm
    along: Tensor = activations.float() @ (unit.T if unit.ndim == 2 else unit)
    return along


def cosine(activations: Tensor, vector: Tensor) -> Tensor:
    """Cosine of each activation with the vector: projection / ||h||, 0 where h is zero."""
    along = projection(activations, vector)
    size = activations.float().norm(dim=-1)
    if vector.ndim == 2:
        size = size.unsqueeze(-1)
    return torch.where(size > 0, along / size.clamp_min(torch.finfo(torch.float32).tiny), 0.0)


def compute_derivative(trajectory: Tensor, dt: float = 1.0) -> Tensor:
    """Velocity: (x[t+1] - x[t]) / dt along the first axis; [n, ...] gives [n-1, ...]."""
    return torch.diff(trajectory.float(), dim=0) / dt


def compute_second_derivative(trajectory: Tensor, dt: float = 1.0) -> Tensor:
    """Acceleration: the derivative of the derivative; [n, ...] gives [n-2, ...]."""
    return compute_derivative(compute_derivative(trajectory, dt), dt)
