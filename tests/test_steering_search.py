"""Protects the search for a push: which cells are tried, kept and confirmed."""

from __future__ import annotations

import numpy as np
import pytest

from domain.plan.steering_search import (
    Cell,
    CellAnswer,
    best_confirmed_cell,
    confirmed_steering_cells,
    first_steering_cells,
    steering_layers,
    surviving_steering_cells,
)
from tasks.stages.steering_cells import Directions


def test_layers_to_try_are_the_best_and_the_middle_of_the_model() -> None:
    assert steering_layers(22, range(1, 26)) == [9, 13, 17, 22]
    assert steering_layers(13, range(1, 26)) == [6, 9, 13, 17]
    assert steering_layers(3, range(1, 6)) == [1, 2, 3, 4]
    assert steering_layers(1, range(1, 3)) == [1, 2]


def test_a_round_keeps_the_cells_worth_most_of_the_round_before() -> None:
    cells = first_steering_cells([1, 2])
    worth = {cells[0]: 10.0, cells[1]: 90.0, cells[2]: 50.0, cells[3]: 60.0}
    shown = [CellAnswer(cell, value, 100.0) for cell, value in worth.items()]

    kept = surviving_steering_cells(shown, among=cells[:3], n=2)

    assert kept == [cells[1], cells[2]]


def test_an_unreadable_or_unscored_answer_is_worth_nothing() -> None:
    assert CellAnswer(Cell(1, 1.0), 80.0, 0.0).worth == 0
    assert CellAnswer(Cell(1, 1.0), None, 90.0).worth == 0
    assert CellAnswer(Cell(1, 1.0), 80.0, 50.0).worth == 40


@pytest.mark.parametrize("doses", [1, 2, 3, 4])
def test_the_confirmed_cells_are_no_push_the_vector_and_as_many_random_ones(doses: int) -> None:
    cells = confirmed_steering_cells(Cell(5, 2.0), doses=doses)

    assert len(cells) == 1 + 2 * doses
    assert best_confirmed_cell(cells) == Cell(5, 2.0, "vector")
    pushes = [(c.strength, c.direction) for c in cells]
    assert pushes[0] == (0.0, "none")
    assert [s for s, d in pushes if d == "vector"] == [s for s, d in pushes if d == "random"]


def test_a_random_push_is_as_long_as_the_vectors_and_the_same_for_the_same_answer() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((40, 1, 8))
    drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
    unit, cell = np.eye(8, dtype=np.float32)[:1], Cell(3, 2.0)
    for random in (None, drawn.astype(np.float32)):
        directions = Directions("mean_diff", [3], unit, [1.5], random=random)

        pushes = [directions.random_push(cell, k, name=str(k)) for k in range(40)]

        assert np.linalg.norm(pushes, axis=1) == pytest.approx(3.0)
        assert np.array_equal(pushes[7], directions.random_push(cell, 7, name="7"))
        assert np.linalg.matrix_rank(np.stack(pushes)) == 8
