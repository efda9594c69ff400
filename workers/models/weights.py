"""Loads the weights of a model and of an adapter, all of them.

What a checkpoint lacks transformers draws at random, and what an adapter lacks peft leaves as it
was, both with no more than a warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from domain.errors import ModelError
from workers.models.files import ADAPTER_CONFIG, Adapter


def load_weights(kind: Any, path: str | Path, **options: Any) -> PreTrainedModel:
    """The model of an auto class, by `from_pretrained` with options.

    Raises ModelError where weights that texts go through are not in the checkpoint or have another
    shape there: those of a reward model or of one that was copied in part. What sees pictures may
    lack some.
    """
    model: PreTrainedModel
    model, found = kind.from_pretrained(
        path, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    drawn = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    parts = [model.get_decoder(), model.get_output_embeddings()]
    used = {id(weight) for part in parts if part is not None for weight in part.parameters()}
    lacking = [
        name for name, weight in model.named_parameters() if name in drawn and id(weight) in used
    ]
    if lacking:
        raise ModelError(
            f"{path} lacks {len(lacking)} of its weights or has them in another shape "
            f"({', '.join(lacking[:2])}{' ...' if len(lacking) > 2 else ''}), and random ones "
            "measure nothing: get it whole, or a model that writes."
        )
    return model


def with_adapter(model: PreTrainedModel, adapter: Adapter, *, n_tokens: int) -> PreTrainedModel:
    """The model with the adapter's change added to its weights; `n_tokens` is its vocabulary.

    Raises ModelError for an adapter that changes other weights or none.
    """
    from peft import PeftModel

    if n_tokens > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(n_tokens)
    commit = None if Path(adapter.path).is_dir() else adapter.revision
    options = {"revision": commit, "ignore_mismatched_sizes": True}
    adapted = PeftModel.from_pretrained(model, adapter.path, **options)
    # again, for the first returns the model instead of what was missing
    lacking = adapted.load_adapter(adapter.path, "default", **options).missing_keys
    if lacking:
        raise ModelError(
            f"Adapter {adapter.path!r} does not fit {adapter.base!r}: it lacks {lacking[0]} or has "
            "it in another shape. Name the base that it was trained on in its "
            f"{ADAPTER_CONFIG}."
        )
    if not hasattr(adapted, "merge_and_unload"):
        kind = adapted.active_peft_config.peft_type.value
        raise ModelError(
            f"Adapter {adapter.path!r} is of the kind {kind}, which is no change of weights: give "
            "a LoRA adapter."
        )
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged
