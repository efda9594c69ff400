"""Protects people who look at a run while it works: results being replaced are not damaged ones."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest

from domain.errors import StoreError
from domain.verdict.record import VERSION
from storage.record.json_bytes import json_bytes
from storage.record.results import read_metrics, write_metrics, writing_results
from storage.record.store import open_store
from tests.quality_records import metrics

FOLDER = "traits/evil"


def test_metrics_may_be_read_while_they_are_replaced(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with writing_results(store, FOLDER):
        write_metrics(store, FOLDER, metrics(n_generated=0))

    def replace() -> None:
        for n in range(1, 100):
            with writing_results(store, FOLDER):
                write_metrics(store, FOLDER, metrics(n_generated=n))

    writer = threading.Thread(target=replace)
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append(read_metrics(store, "evil").n_generated)
    writer.join()

    assert seen == sorted(seen)
    assert read_metrics(store, "evil") == metrics(n_generated=99)


def test_metrics_that_were_edited_are_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with writing_results(store, FOLDER):
        write_metrics(store, FOLDER, metrics(contrast=10.0))

    write_metrics(store, FOLDER, metrics(contrast=90.0))

    with pytest.raises(StoreError, match="is not what was written"):
        read_metrics(store, "evil")


def test_metrics_of_a_later_version_are_not_guessed_at(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_metrics(store, FOLDER, metrics(version=VERSION + 1))

    with pytest.raises(StoreError, match="update"):
        read_metrics(store, "evil")


def test_a_number_that_nobody_has_is_null_wherever_it_stands() -> None:
    body = {"contrast": math.nan, "layers": [{"auroc": (0.5, math.inf)}]}

    assert json.loads(json_bytes(body)) == {"contrast": None, "layers": [{"auroc": [0.5, None]}]}
