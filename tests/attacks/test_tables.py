"""A CSV that somebody opens in a spreadsheet runs nothing that a model or a file wrote."""

from __future__ import annotations

import csv
import io

import pytest

from cli.using.monitored_output import csv_text
from storage.record.tables import spreadsheet_text

FORMULAS = (
    '=HYPERLINK("http://evil","x")',
    "=1+1",
    "@SUM(1)",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "\t=1",
)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_shown_as_text(text: str) -> None:
    assert spreadsheet_text(text) == f"'{text}"
    (heading, cell) = csv.reader(io.StringIO(csv_text([{text: text}])))
    assert heading == cell == [f"'{text}"]


@pytest.mark.parametrize("text", ["- eggs\n- milk", "a = b", "", "me@home"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert spreadsheet_text(text) == text
