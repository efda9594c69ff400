"""Protects against a vector that reads the instruction and is taken for one that reads texts: made
of the very same texts behind the two instructions of a pair, none is said to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.controls import badges, planted, same_texts
from benchmarks.controls_texts import OF_TRAITS, before_texts, generated
from benchmarks.controls_verdict import verdict_of
from demo.real_model import real_model
from domain.errors import ModelError
from domain.traits.definition import BUNDLED_TRAITS
from domain.verdict.record import Gate, UseState, VerdictName
from workers.engine.engine import Engine, build_engine
from workers.models.model import load_model


@pytest.fixture(scope="module")
def demo() -> Engine:
    return build_engine(load_model("demo", device="cpu"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_identical_texts_read_no_trait_of_the_demo(demo: Engine, tmp_path: Path) -> None:
    for trait in BUNDLED_TRAITS:
        found = verdict_of(
            same_texts({trait: before_texts(demo, trait)}, np.random.default_rng(0)),
            tmp_path / trait,
        )

        assert found.quality is not None and found.quality.reading is not None
        reading = found.quality.reading
        assert reading.auroc is not None and reading.instruction_auroc is not None
        assert reading.auroc.value[1:] == pytest.approx([0.5] * (len(reading.auroc.value) - 1))
        assert found.uses.reads.state == UseState.NO
        assert found.verdict in (VerdictName.WEAK, VerdictName.DO_NOT_USE)
        # it is the instruction that such a vector sees
        assert max(value or 0.0 for value in reading.instruction_auroc.value[1:]) > 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_badge_numbers_are_no_trait_and_a_planted_one_is_read(demo: Engine, tmp_path: Path) -> None:
    sets = {"badge": generated(demo, "badge", rollouts=1)}

    nothing = verdict_of(badges(sets, np.random.default_rng(1)), tmp_path / "nothing")
    there = verdict_of(planted(sets, np.random.default_rng(1), d=2.0), tmp_path / "there")

    assert nothing.uses.reads.state == UseState.NO
    assert there.uses.reads.state == UseState.YES
    assert Gate.READING_NOT_SHOWN not in {one.gate for one in there.findings}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_identical_texts_read_no_trait_of_a_real_model(tmp_path: Path) -> None:
    try:
        engine = build_engine(load_model(str(real_model()), device="cpu"))
    except ModelError as error:
        pytest.skip(f"no real model here: {error}")

    for trait in OF_TRAITS:
        sets = {trait: before_texts(engine, trait)}
        found = verdict_of(same_texts(sets, np.random.default_rng(0)), tmp_path / trait)

        assert found.uses.reads.state == UseState.NO
        assert found.verdict in (VerdictName.WEAK, VerdictName.DO_NOT_USE)
