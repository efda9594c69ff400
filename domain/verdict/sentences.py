"""The sentences in which people read why something was decided; nothing decides on them."""

from __future__ import annotations

from domain.scoring.thresholds import Fall, Outcome

_FALLS = {
    Fall.UNSCORED: "{metric}: {unscored}",
    Fall.EMPTY: "empty response",
    Fall.COHERENCE_LOW: "coherence under {limit:g}",
    Fall.TRAIT_LOW: "positive with trait under {limit:g}",
    Fall.TRAIT_HIGH: "negative with trait at or over {limit:g}",
    Fall.UNPAIRED: "its pair was not kept",
}


def fall_text(outcome: Outcome) -> str:
    """Why a response fell; empty for the kept."""
    return "" if outcome.fall is None else _FALLS[outcome.fall].format(**vars(outcome))
