"""Protects the choice of layer and method: the worst case decides, the ends of the model do not."""

from __future__ import annotations

from domain.verdict.record import (
    Estimates,
    MethodFigures,
)
from tasks.stages.quality import best_layers
from tests.quality_records import quality, separation
from traitlens.layers import candidate_layers


def test_the_embedding_and_the_last_layer_are_chosen_only_where_nothing_else_is() -> None:
    assert list(candidate_layers(7)) == [1, 2, 3, 4, 5]
    assert list(candidate_layers(3)) == [1]
    assert list(candidate_layers(2)) == [1]


def test_the_best_method_is_the_one_whose_worst_case_is_best() -> None:
    def method(*lows: float | None) -> MethodFigures:
        own = quality().methods["mean_diff"]
        d = Estimates(value=(99.0,) * len(lows), interval=tuple((low, 99.0) for low in lows))
        assert own.held_out_half is not None
        half = own.held_out_half.model_copy(update={"cohens_d": d})
        return own.model_copy(update={"held_out_half": half})

    best = best_layers({"a": method(9, 1, 4, 9), "b": method(9, 5, None, 9)})

    assert (best.method, best.layer) == ("b", 1)
    assert best.by_method == {"a": 2, "b": 1}


def test_where_one_prompt_leaves_no_interval_the_value_itself_chooses_the_layer() -> None:
    unknown = Estimates(value=(1.0, 2.0, 3.0, 9.0), interval=((None, None),) * 4)
    fitted = separation().model_copy(update={"cohens_d": unknown})
    own = quality().methods["mean_diff"]

    best = best_layers({"a": own.model_copy(update={"held_out_half": None, "fitted": fitted})})

    assert best.layer == 2
