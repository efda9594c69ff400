"""Responses and their activations, as generate jobs store them.

Tables are Parquet, arrays safetensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from domain.plan.jobs import Job
from domain.plan.spec import POSITIONS, Measure
from storage.record.artifacts import Decoders, load_record, read_artifact
from storage.record.store import Store
from storage.record.tables import parquet_bytes, parquet_table

RESPONSES = "responses.parquet"
ACTIVATIONS = "activations.safetensors"


@dataclass(frozen=True)
class Response:
    """One sample's prompt and response; the ids are those that ran, never tokenised again.

    `response` is the answer; a thought before it is in `thought`, its marks among its ids.
    """

    key: str
    seed: int
    prompt: str
    prompt_token_ids: list[int]
    response: str
    response_token_ids: list[int]
    finish: str
    thought: str = ""
    thought_token_ids: list[int] = field(default_factory=list)

    @property
    def all_token_ids(self) -> tuple[int, ...]:
        """Thought and answer."""
        return (*self.thought_token_ids, *self.response_token_ids)

    def measured(self, measure: Measure) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids between the prompt and what is measured, and of that; nothing is measured of a
        response without an answer."""
        thought, answer = tuple(self.thought_token_ids), tuple(self.response_token_ids)
        if measure == "answer" or not answer:
            return thought, answer
        return ((), thought) if measure == "thought" else ((), thought + answer)


@dataclass(frozen=True)
class Activations:
    """Mean activations of n responses to p distinct prompts, float32.

    response_avg is [n, L+1, d], of what the run measures of a response; prompt_avg and prompt_last
    are [p, L+1, d]; prompt_of [n] says which prompt row belongs to a response.
    """

    response_avg: NDArray[np.float32]
    prompt_avg: NDArray[np.float32]
    prompt_last: NDArray[np.float32]
    prompt_of: NDArray[np.int64]

    def at(self, position: str) -> NDArray[np.float32]:
        """[n, L+1, d] of a position, one row per response."""
        values: NDArray[np.float32] = getattr(self, position)
        return values if position == "response_avg" else values[self.prompt_of]


_RESPONSE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("seed", pa.int64()),
        ("prompt", pa.string()),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("response", pa.string()),
        ("response_token_ids", pa.list_(pa.int32())),
        ("finish", pa.string()),
        ("thought", pa.string()),
        ("thought_token_ids", pa.list_(pa.int32())),
    ]
)


def encode_responses(responses: Sequence[Response]) -> bytes:
    """Parquet bytes, one row per response."""
    rows = [vars(response) for response in responses]
    return parquet_bytes(pa.Table.from_pylist(rows, schema=_RESPONSE_SCHEMA))


def decode_responses(data: bytes) -> list[Response]:
    """What encode_responses made; raises ValueError or TypeError for other bytes."""
    return [Response(**row) for row in parquet_table(data).to_pylist()]


def load_responses(store: Store, job: Job) -> list[Response]:
    """The responses of a finished generate job, in plan order."""
    return read_artifact(store, load_record(store, job), RESPONSES, decode_responses)


def encode_activations(activations: Activations) -> bytes:
    """Safetensors bytes of the four arrays."""
    arrays = {name: np.ascontiguousarray(value) for name, value in vars(activations).items()}
    return bytes(save_safetensors(arrays))


def decode_activations(data: bytes) -> Activations:
    """What encode_activations made; raises ValueError or KeyError for other bytes."""
    arrays = decode_arrays(data)
    return Activations(**{name: arrays[name] for name in (*POSITIONS, "prompt_of")})


def load_activations(store: Store, job: Job) -> Activations:
    """The activations of a finished generate job."""
    return read_artifact(store, load_record(store, job), ACTIVATIONS, decode_activations)


def stored_positions(store: Store, job: Job) -> list[str]:
    """The positions that a finished generate job captured activations at."""
    arrays = read_artifact(store, load_record(store, job), ACTIVATIONS, decode_arrays)
    return [position for position in POSITIONS if position in arrays]


def decode_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of safetensors bytes; raises ValueError for other bytes."""
    try:
        arrays: dict[str, NDArray[Any]] = load_safetensors(data)
    except SafetensorError as error:
        raise ValueError(f"it is no safetensors: {error}") from error
    return arrays


RESPONSES_DECODERS: Decoders = {
    RESPONSES: decode_responses,
    ACTIVATIONS: decode_activations,
}
