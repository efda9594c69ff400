"""Protects the rates and the time left that people see while shards take minutes."""

from __future__ import annotations

import pytest

from orchestrator.progress import Pace


def seen(ends: list[float], *, shard: int, looks: list[float]) -> list[float]:
    """The pace at each look, of shards that end then; the meter looks every second."""
    pace, found = Pace(), []
    for second in range(int(max(looks)) + 1):
        rate = pace.note(float(second), shard * sum(end <= second for end in ends))
        if second in looks:
            found.append(rate)
    return found


def test_the_pace_stands_between_shards_that_take_longer_than_a_minute() -> None:
    """100 responses every 70 seconds, from the first one on: never 0.0, never double."""
    ends = [80.0 + 70.0 * k for k in range(6)]

    rates = seen(ends, shard=100, looks=list(range(160, 430)))

    assert min(rates) > 0.9 * 100 / 70
    assert max(rates) < 1.1 * 100 / 70


def test_a_stall_shows() -> None:
    ends = [10.0, 20.0, 30.0, 40.0]

    before, soon, late = seen(ends, shard=50, looks=[40, 55, 400])

    assert before == pytest.approx(5.0)
    assert soon == pytest.approx(5.0)
    assert late < 0.5


def test_shards_that_end_every_second_count_over_the_last_minute() -> None:
    """Two a second, then one a second."""
    ends = [0.5 * k for k in range(1, 241)] + [120.0 + k for k in range(1, 101)]

    assert seen(ends, shard=1, looks=[119, 200]) == pytest.approx([2.0, 1.0], rel=0.05)


def test_nothing_is_known_before_the_first_end_and_what_was_done_before_is_no_pace() -> None:
    pace = Pace()

    assert pace.note(0.0, 700) == 0.0
    assert pace.note(50.0, 700) == 0.0
    assert pace.note(100.0, 800) == pytest.approx(1.0)


def test_what_waits_for_something_else_has_not_become_slower() -> None:
    """Ten a second, then 300 seconds in which it may not go on, then ten a second again."""
    pace, found = Pace(), []
    for second in range(400):
        done = 10 * min(second, 50) + 10 * max(0, second - 350)
        found.append(pace.note(float(second), done, waits=50 <= second < 350))

    assert found[50:] == pytest.approx([10.0] * 350, rel=0.05)
