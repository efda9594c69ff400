"""Refusing a model that a vector was not made for.

Knows nothing about what the vector is used for.
"""

from torch import nn

from traitlens import blocks
from traitlens.errors import VectorMismatchError
from traitlens.fingerprint import model_hash


def check_fits(model: nn.Module, *, d_model: int, n_blocks: int, made_for: str) -> None:
    """Raise VectorMismatchError unless width, number of blocks and weights fit.

    `made_for` is the hash of the weights that the vector was made from; empty accepts any.
    """
    width, found_blocks = blocks.d_model(model), len(blocks.decoder_blocks(model))
    if width != d_model:
        raise VectorMismatchError(
            f"vector has d_model {d_model}, model has {width}: made for another model?"
        )
    if found_blocks != n_blocks:
        raise VectorMismatchError(
            f"vector has layers 0..{n_blocks}, model has 0..{found_blocks}: made for another model?"
        )
    found = model_hash(model) if made_for else ""
    if found != made_for:
        raise VectorMismatchError(
            f"vector was made for weights {made_for}, this model has {found}: "
            "load that model, or pass allow_other_model=True"
        )
