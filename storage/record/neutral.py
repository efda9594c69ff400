"""A run's neutral responses, made without an instruction, and what they measured on each set of
directions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from domain.errors import StoreError
from storage.record.responses import Response, encode_responses
from storage.record.store import Store

Projections = NDArray[np.float32]
NEUTRAL = "neutral/responses.parquet"


def read_neutral_responses(store: Store) -> list[Response]:
    """The neutral responses; empty before they were made."""
    try:
        table = pq.read_table(io.BytesIO(store.read(NEUTRAL)))
        return [Response(**row) for row in table.to_pylist()]
    except KeyError:
        return []
    except (pa.ArrowException, TypeError) as error:
        raise StoreError(_damaged(store, NEUTRAL, error)) from error


def write_neutral_responses(store: Store, responses: Sequence[Response]) -> None:
    """Keep them; who was first wins."""
    store.create(NEUTRAL, encode_responses(responses))


def read_neutral_projections(store: Store, digest: str) -> list[Projections] | None:
    """Projections [tokens, k] of each neutral response; None before these directions were used."""
    key = f"neutral/{digest}.safetensors"
    try:
        arrays = load_safetensors(store.read(key))
        return np.split(arrays["projections"], np.cumsum(arrays["lengths"])[:-1])
    except KeyError as error:
        if error.args == (key,):
            return None
        raise StoreError(_damaged(store, key, error)) from error
    except (SafetensorError, ValueError) as error:
        raise StoreError(_damaged(store, key, error)) from error


def write_neutral_projections(store: Store, digest: str, responses: Sequence[Projections]) -> None:
    """Keep the projections [tokens, k] of each neutral response on directions of this digest."""
    arrays: dict[str, NDArray[Any]] = {
        "projections": np.ascontiguousarray(np.concatenate(responses), np.float32),
        "lengths": np.array([len(one) for one in responses], dtype=np.int64),
    }
    store.create(f"neutral/{digest}.safetensors", save_safetensors(arrays))


def write_neutral_rates(store: Store, digest: str, rates: bytes) -> None:
    """Keep what share of held-out neutral responses these directions flag, as JSON."""
    store.create(f"neutral/{digest}.rates.json", rates)


def _damaged(store: Store, key: str, error: Exception) -> str:
    return f"{store.url}/{key} cannot be read ({error}): delete it, and it is made again"
