"""Draws the next token of each row from its own stream of uniform numbers.

A draw depends on the row's logits, seed and step alone, never on its neighbors. Logits carry
rounding that does depend on the batch, so the draw is made nearly deaf to it: a walk down a tree
of sums, one number a level. One search in the whole cumulative sum flips a token about
sqrt(vocabulary) times as often where many tokens are likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from traitlens.arrays import Float32, Float64, Ints
from workers.engine.generation import Sampling

# On a CPU so many rows are drawn at a time, since their probabilities are as large as their logits;
# a GPU would wait for the launches.
ROWS_AT_ONCE_CPU = 64

# Children of a node of the tree: few edges to fall on the wrong side of, few levels to walk.
FAN = 16


@dataclass(frozen=True)
class RowSampling:
    """The settings of the running sequences, one array entry a row."""

    temperature: Float32
    top_p: Float32
    top_k: Ints

    @classmethod
    def of(cls, settings: Sequence[Sampling]) -> RowSampling:
        """Gather the settings of the rows into arrays."""
        return cls(
            np.array([row.temperature for row in settings], np.float32),
            np.array([row.top_p for row in settings], np.float32),
            np.array([row.top_k for row in settings], np.int64),
        )

    def some(self, rows: slice) -> RowSampling:
        """The settings of some of the rows."""
        return RowSampling(self.temperature[rows], self.top_p[rows], self.top_k[rows])


def tree_levels(vocabulary: int) -> int:
    """Numbers that one draw from so many tokens takes."""
    levels = 1
    while vocabulary > FAN:
        vocabulary = -(-vocabulary // FAN)
        levels += 1
    return levels


def uniforms(seed: int, draws: int, levels: int) -> Float64:
    """The first numbers [draws, levels] in [0, 1) of a seed's own stream: Philox, whose bits numpy
    pins.
    """
    bits = np.random.Philox(key=seed % 2**128).random_raw(draws * levels)
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53).reshape(draws, levels)


def draw(logits: Tensor, at: Float64, rows: RowSampling) -> Tensor:
    """Next token per row, int64 [n] on the logits' device; logits [n, vocabulary], `at` [n,
    levels].
    """
    at_once = ROWS_AT_ONCE_CPU if logits.device.type == "cpu" else len(logits)
    if len(logits) <= at_once:
        return _drawn(logits, at, rows)
    pieces = [slice(k, k + at_once) for k in range(0, len(logits), at_once)]
    return torch.cat([_drawn(logits[some], at[some], rows.some(some)) for some in pieces])


def _drawn(logits: Tensor, at: Float64, rows: RowSampling) -> Tensor:
    if not rows.temperature.any():
        return logits.argmax(-1)
    probabilities = torch.softmax(_scaled(logits, rows.temperature), -1)
    narrowed = np.flatnonzero((rows.top_k > 0) | (rows.top_p < 1))
    if len(narrowed):
        chosen = torch.from_numpy(narrowed).to(logits.device)
        kept = _narrow(probabilities[chosen], rows.top_p[narrowed], rows.top_k[narrowed])
        probabilities[chosen] = kept
    tokens = pick(probabilities, torch.from_numpy(at))
    if rows.temperature.all():
        return tokens
    greedy = torch.from_numpy(rows.temperature == 0).to(logits.device)
    return torch.where(greedy, logits.argmax(-1), tokens)


def pick(probabilities: Tensor, at: Tensor) -> Tensor:
    """A token per row with the row's probabilities [n, vocabulary], which need not sum to 1.

    `at` [n, levels] in [0, 1) decides, the first number at the root. Never a token of probability
    zero.
    """
    levels = [probabilities]
    while levels[-1].shape[1] > FAN:
        levels.append(_parents(levels[-1]))
    # MPS has no float64: this small part of the work moves to the host.
    work = torch.device("cpu" if probabilities.device.type == "mps" else probabilities.device)
    numbers = at.to(work).unbind(1)
    chosen = _pick_child(levels.pop(), numbers[0].unsqueeze(1))
    for number, level in zip(numbers[1:], reversed(levels), strict=True):
        # A node's children stand one stride apart, so that sums run along memory.
        stride = -(-level.shape[1] // FAN)
        children = chosen + stride * torch.arange(FAN, device=chosen.device)
        inside = children < level.shape[1]
        family = level.gather(1, children.clamp(max=level.shape[1] - 1)) * inside
        chosen += stride * _pick_child(family, number.unsqueeze(1))
    # A NaN is over every edge: a token all the same, since what it led to is looked at later.
    return chosen.squeeze(1).clamp(max=probabilities.shape[1] - 1)


def _parents(level: Tensor) -> Tensor:
    n, width = level.shape
    if width % FAN:
        level = torch.nn.functional.pad(level, (0, -width % FAN))
    return level.view(n, FAN, -1).sum(1)


def _pick_child(family: Tensor, at: Tensor) -> Tensor:
    edges = family.to(at.device, torch.float64).cumsum(-1)
    total = edges[:, -1:]
    # Rounding can lift the target to the total, where no edge exceeds it: stay just below.
    target = torch.minimum(at * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(edges, target, right=True).to(family.device)


def _scaled(logits: Tensor, temperature: Float32) -> Tensor:
    if (temperature == 1).all():
        return logits.float()
    # Greedy rows are drawn apart; dividing them by 1 keeps them finite.
    divisor = torch.from_numpy(np.where(temperature == 0, 1, temperature).astype(np.float32))
    return logits.float() / divisor.to(logits.device).unsqueeze(1)


def _narrow(probabilities: Tensor, top_p: Float32, top_k: Ints) -> Tensor:
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
