"""Tables without lines, the columns they are made of, and how numbers and durations stand there."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Column, Table


def table_of(*columns: Column, gap: int = 1) -> Table:
    """A table without lines."""
    return Table(*columns, box=None, padding=(0, gap, 0, 0), header_style="bold")


def text_column(heading: str, *, fold: bool = False) -> Column:
    """A column of texts, which may `fold` where it is narrow."""
    return Column(heading, no_wrap=not fold, overflow="fold" if fold else "ellipsis")


def number_column(heading: str) -> Column:
    """A column of numbers, on the right and never cut."""
    return Column(heading, justify="right", no_wrap=True)


def table_fits(table: Table, console: Console, options: ConsoleOptions, *, beside: int = 0) -> bool:
    """Whether a table stands uncut in the width there is, with so many columns beside it."""
    width = Measurement.get(console, options.update(max_width=1000), table).maximum
    return width + beside <= options.max_width


def first_table_that_fits(
    tables: Iterable[Table], console: Console, options: ConsoleOptions, *, beside: int = 0
) -> Table:
    """The first of these that stands uncut in the width there is; the last where none does."""
    table = None
    for table in tables:
        if table_fits(table, console, options, beside=beside):
            break
    assert table is not None
    return table


def number_text(value: float | None, form: str = ".1f") -> str:
    """A number as the form says, a dash for what was not measured."""
    return "-" if value is None else f"{value:{form}}"


def duration(seconds: float) -> str:
    """1:02:03, or 12 s."""
    whole = int(seconds)
    if whole < 100:
        return f"{whole} s"
    clock = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{clock}" if whole >= 3600 else clock.lstrip("0")
