"""Whether a model has room for the prompts of a plan and the responses to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from domain.plan.samples import POLARITIES
from domain.traits.definition import TraitDefinition

# English in the tokenizers of current models: 4 to 4.7 characters a token; the low end is safe.
CHARACTERS_PER_TOKEN = 4.0

# By its name of now and its first one.
LONGROPE = ("longrope", "su")


def positions_of(config: Mapping[str, Any]) -> int | None:
    """How many tokens a model can be measured on, by its config.json; None where its positions have
    no end or nothing is said of it.

    Those that it was made for; with longrope those up to where its angles change. There they change
    for every text of a batch once one of them is longer, for what was cached of it before as well,
    so that a response would depend on what was made beside it.
    """
    text = config.get("text_config") or config
    most = next((text[n] for n in ("max_position_embeddings", "n_positions") if text.get(n)), None)
    if not isinstance(most, int) or text.get("alibi"):
        return None
    scaling = text.get("rope_parameters") or text.get("rope_scaling") or {}
    before, factor = scaling.get("original_max_position_embeddings"), scaling.get("factor")
    if scaling.get("rope_type", scaling.get("type")) in LONGROPE:
        return int(before or text.get("original_max_position_embeddings") or most)
    return max(most, int(before * factor)) if before and factor else most


def longest_prompt(definitions: Iterable[TraitDefinition]) -> tuple[str, float]:
    """The trait with the longest prompt, and about how many tokens that has."""
    lengths = {}
    for one in definitions:
        asked = (*one.questions, *one.eval_questions, *one.opposites, *one.eval_opposites)
        pairs = [
            len(one.system_turn(k, polarity) or "")
            for k in range(len(one.instruction))
            for polarity in POLARITIES
        ]
        longest = max(map(len, asked)) + max(pairs, default=0)
        lengths[one.name] = longest / CHARACTERS_PER_TOKEN
    trait = max(lengths, key=lambda name: lengths[name])
    return trait, lengths[trait]
