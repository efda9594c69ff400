"""Tables as files hold them: Parquet as bytes, and texts as cells of a CSV."""

from __future__ import annotations

import io
import re

import pyarrow as pa
import pyarrow.parquet as pq

# A sign before a space begins a list, not a formula.
_FORMULA = re.compile(r"[=@\t\r]|[+-]\S")


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def parquet_table(data: bytes) -> pa.Table:
    """The table of Parquet bytes; raises ValueError for other bytes."""
    try:
        return pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"it is not Parquet: {error}") from error


def spreadsheet_text(text: str) -> str:
    """A text as a cell of a CSV: one that a spreadsheet would run as a formula gets a quote first.

    A list's "- item" is none, and stays as it is.
    """
    return f"'{text}" if _FORMULA.match(text) else text
