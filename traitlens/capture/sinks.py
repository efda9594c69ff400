"""Attention sinks: tokens of a prompt that models park attention on, and means without them.

The state of a text's first token is hundreds of times as long as others in most models, whatever
the text says, so that a mean over it says how long the prompt is and little else. The rule, the
only one: the first token leaves, and every token whose norm is over ten times the median norm of
those between the first and the last one, at each layer by itself. The last token stands for a
prompt of sinks.
"""

from __future__ import annotations

import torch
from torch import Tensor

SINK_NORMS = 10.0


def are_sinks(norms: Tensor) -> Tensor:
    """Which tokens are sinks [n, tokens], by the norms [n, tokens] of a whole prompt's states at n
    layers."""
    between = torch.ones_like(norms, dtype=torch.bool)
    between[:, [0, -1]] = False
    found = norms > _limit(norms, between).unsqueeze(1)
    found[:, 0] = norms.shape[1] > 1
    found[:, -1] &= ~found[:, :-1].all(dim=1)
    return found


def sums_before_last(states: Tensor, before_last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a layer's mean over prompts needs of all their tokens but the last.

    states [batch, tokens, d_model], padded on the right; before_last [batch, tokens] is 1 there.
    Returns the sum [batch, d_model] of the tokens that stay and their number [batch], and the norm
    [batch] over which a token is a sink; float32, on the states' device.
    """
    values = states.float()
    norms = values.norm(dim=-1)
    between = before_last.to(states.device).bool().clone()
    between[:, 0] = False
    limit = _limit(norms, between)
    stays = (between & (norms <= limit.unsqueeze(1))).to(torch.float32)
    return torch.bmm(stays.unsqueeze(1), values).squeeze(1), stays.sum(1), limit


def mean_without_sinks(
    total: Tensor, stay: Tensor, limit: Tensor, last: Tensor
) -> tuple[Tensor, Tensor]:
    """Means [..., d_model] over prompts and how many tokens [...] each is of, from what
    `sums_before_last` gave and the last tokens' states [..., d_model], float32."""
    last_stays = (last.norm(dim=-1) <= limit) | (stay == 0)
    n = stay + last_stays
    return (total + last * last_stays.unsqueeze(-1)) / n.unsqueeze(-1), n


def _limit(norms: Tensor, between: Tensor) -> Tensor:
    """Ten times the lower median [n] of norms [n, tokens] where `between`; infinite where nothing
    is between, so that nothing is over it."""
    middle = ((between.sum(1, keepdim=True) - 1) // 2).clamp(min=0)
    ordered = norms.masked_fill(~between, torch.inf).sort(dim=1).values
    return SINK_NORMS * ordered.gather(1, middle).squeeze(1)
