"""Draws the next token of each row from its own stream of uniform numbers.

A draw depends on the row's logits, seed and step alone, never on its neighbors. Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.generation import Sampling

# A block sum in float32 over at most this many probabilities is exact to about 1e-7.
LARGEST_BLOCK = 512
SMALLEST_BLOCK = 16


@dataclass(frozen=True)
class RowSampling:
    """The settings of the live rows, one array entry a row."""

    temperature: NDArray[np.float32]
    top_p: NDArray[np.float32]
    top_k: NDArray[np.int64]

    @classmethod
    def of(cls, settings: Sequence[Sampling]) -> RowSampling:
        """Gather the settings of the rows into arrays."""
        return cls(
            np.array([row.temperature for row in settings], np.float32),
            np.array([row.top_p for row in settings], np.float32),
            np.array([row.top_k for row in settings], np.int64),
        )


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """The first `count` numbers in [0, 1) of a seed's own stream; Philox, whose raw bits are pinned by numpy."""
    bits = np.random.Philox(key=seed % 2**128).random_raw(count)
    return (bits >> np.uint64(11)) * 2.0**-53


def draw(logits: Tensor, at: NDArray[np.float64], rows: RowSampling) -> Tensor:
    """Next token per row, int64 [n] on the logits' device; logits [n, vocabulary], `at` [n] in [0, 1)."""
    if not rows.temperature.any():
        return logits.argmax(-1)
    probabilities = torch.softmax(_scaled(logits, rows.temperature), -1)
    narrowed = np.flatnonzero((rows.top_k > 0) | (rows.top_p < 1))
    if len(narrowed):
        chosen = torch.from_numpy(narrowed).to(logits.device)
        kept = _narrow(probabilities[chosen], rows.top_p[narrowed], rows.top_k[narrowed])
        probabilities[chosen] = kept
    tokens = inverse_cdf(probabilities, torch.from_numpy(at))
    if rows.temperature.all():
        return tokens
    greedy = torch.from_numpy(rows.temperature == 0).to(logits.device)
    return torch.where(greedy, logits.argmax(-1), tokens)


def inverse_cdf(probabilities: Tensor, at: Tensor) -> Tensor:
    """First index whose cumulative sum exceeds at * total, per row; never an index of probability zero.

    Two levels, so that the float64 sums touch only the block totals and one block. Rows need not sum to 1.
    """
    device = probabilities.device
    # MPS has no float64: the small part of the work moves to the host.
    work = torch.device("cpu") if device.type == "mps" else device
    n, vocabulary = probabilities.shape
    block = _block_size(vocabulary)
    if vocabulary % block:
        probabilities = torch.nn.functional.pad(probabilities, (0, -vocabulary % block))
    blocks = probabilities.view(n, -1, block)
    edges = blocks.sum(-1).to(work, torch.float64).cumsum(-1)
    target = at.to(work).unsqueeze(1) * edges[:, -1:]
    which = _first_above(edges, target)
    before = edges.gather(1, (which - 1).clamp(min=0)).masked_fill(which == 0, 0.0)
    inside = blocks[torch.arange(n, device=device), which.squeeze(1).to(device)]
    inner = _first_above(inside.to(work, torch.float64).cumsum(-1), target - before)
    return (which * block + inner).squeeze(1).to(device)


def _first_above(edges: Tensor, target: Tensor) -> Tensor:
    # Rounding can lift a target to the total, where no edge exceeds it: stay just below.
    total = edges[:, -1:]
    below = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(edges, below, right=True)


def _block_size(vocabulary: int) -> int:
    power = vocabulary & -vocabulary
    return min(power, LARGEST_BLOCK) if power >= SMALLEST_BLOCK else LARGEST_BLOCK


def _scaled(logits: Tensor, temperature: NDArray[np.float32]) -> Tensor:
    if (temperature == 1).all():
        return logits.float()
    # Greedy rows are drawn apart; dividing them by 1 keeps them finite.
    divisor = torch.from_numpy(np.where(temperature == 0, 1, temperature).astype(np.float32))
    return logits.float() / divisor.to(logits.device).unsqueeze(1)


def _narrow(
    probabilities: Tensor, top_p: NDArray[np.float32], top_k: NDArray[np.int64]
) -> Tensor:
    # top_k first, then top_p over what is left, the order in which generate applies them.
    ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(ranked.shape[-1], device=ranked.device)
    limit = torch.from_numpy(np.where(top_k == 0, ranked.shape[-1], top_k)).to(ranked.device)
    ranked = ranked.masked_fill(rank >= limit.unsqueeze(1), 0.0)
    mass_before = ranked.cumsum(-1) - ranked
    share = torch.from_numpy(top_p).to(ranked.device).unsqueeze(1) * ranked.sum(-1, keepdim=True)
    # A row without top_p keeps all: rounding must not cut its tail.
    cut = (mass_before >= share) & (share < ranked.sum(-1, keepdim=True))
    return torch.zeros_like(probabilities).scatter_(1, order, ranked.masked_fill(cut, 0.0))
