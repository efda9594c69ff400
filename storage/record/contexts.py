"""What a contexts job keeps: activations of kept responses, read again in two other contexts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors

from domain.plan.jobs import Job
from storage.record.artifacts import Decoders, load_record, read_artifact
from storage.record.responses import decode_arrays
from storage.record.store import Store

CONTEXTS = "activations.safetensors"


@dataclass(frozen=True, eq=False)
class ContextActivations:
    """Mean activations [n, L+1, d_model] of the responses of n samples, float32: after the prompt
    with the opposite instruction of their pair, and after the question alone."""

    keys: tuple[str, ...]
    opposite: NDArray[np.float32]
    plain: NDArray[np.float32]


def encode_contexts(found: ContextActivations) -> bytes:
    """Safetensors bytes of both arrays, with the keys of their rows."""
    arrays = {"opposite": found.opposite, "plain": found.plain}
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    keys = np.frombuffer("\n".join(found.keys).encode(), np.uint8)
    return bytes(save_safetensors({**arrays, "keys": keys}))


def decode_contexts(data: bytes) -> ContextActivations:
    """What encode_contexts made; raises ValueError or KeyError for other bytes."""
    arrays = decode_arrays(data)
    keys = tuple(bytes(arrays["keys"]).decode().splitlines())
    if not len(keys) == len(arrays["opposite"]) == len(arrays["plain"]):
        raise ValueError("its rows and its keys are not as many")
    return ContextActivations(keys, arrays["opposite"], arrays["plain"])


def load_contexts(store: Store, job: Job) -> ContextActivations:
    """The activations of a finished contexts job."""
    return read_artifact(store, load_record(store, job), CONTEXTS, decode_contexts)


CONTEXTS_DECODERS: Decoders = {CONTEXTS: decode_contexts}
"""Of the data file of a contexts job."""
