"""What the causal test without a judge reads, and what that costs.

Chosen so that it stays under a tenth of the tokens that a full run generates, and never so small
that it says nothing.
"""

from __future__ import annotations

# Kept responses whose log-likelihood is differentiated: one in fifty, between these.
FEWEST_TEXTS, MOST_TEXTS, SAMPLES_BY_TEXT = 36, 72, 50

# Longer responses are read up to here: more texts tell more than longer ones.
MOST_TOKENS = 40

# Pushes of some length are tried at the best layers, on so many of the texts and on so many answers
# to no instruction, with lengths in mean norms of the residual stream; random ones at the best
# layer alone, with the last length.
PUSHED_LAYERS, PUSHED_TEXTS, NEUTRAL_TEXTS = 3, 8, 4
STRENGTHS = (-0.5, 0.5, 1.0)
N_RANDOM_PUSHES = 3

# A backward pass is counted as two forward ones.
GRADIENT_PASSES = 3
PUSH_PASSES = 1 + PUSHED_LAYERS * len(STRENGTHS) + N_RANDOM_PUSHES


def n_likelihood_texts(n_samples: int) -> int:
    """Texts of a trait whose vectors are made from so many samples; a multiple of four."""
    return min(MOST_TEXTS, max(FEWEST_TEXTS, n_samples // SAMPLES_BY_TEXT // 4 * 4))


def likelihood_tokens(n_texts: int, prompt_tokens: float, response_tokens: float) -> float:
    """Tokens that forward passes read for so many texts, of that length on average."""
    n_read = GRADIENT_PASSES * n_texts + PUSH_PASSES * (PUSHED_TEXTS + NEUTRAL_TEXTS)
    return n_read * (prompt_tokens + min(response_tokens, MOST_TOKENS)) if n_texts else 0.0
