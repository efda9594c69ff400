"""A direction that is known to be in a model comes out of the engine's means."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine_work import run
from tests.planted_model import STRENGTH, PlantedModel, save_planted_model
from workers.engine.engine import build_engine
from workers.engine.generation import (
    Generation,
    GenerationRequest,
    Intervention,
    Sampling,
    Steering,
)
from workers.models.chat import decode_response, render_prompt
from workers.models.model import LoadedModel, load_model


@pytest.fixture(scope="module", params=[0, 2])
def planted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PlantedModel:
    return save_planted_model(tmp_path_factory.mktemp("planted"), block=request.param)


def responses(
    model: LoadedModel,
    planted: PlantedModel,
    *,
    side: int,
    instructed: bool = True,
    steering: Steering | None = None,
) -> list[Generation]:
    requests = []
    for i, pair in enumerate(planted.instructions):
        for q, question in enumerate(planted.questions):
            system = pair[side] if instructed else None
            prompt = render_prompt(model, system=system, user=question)
            for r in range(3):
                seed = 1000 * side + 100 * i + 10 * q + r
                ids, sampling = prompt.token_ids, Sampling(60)
                requests.append(GenerationRequest(ids, seed, sampling, steering))
    return [made for made in run(build_engine(model), requests) if made.response_ids]


def share(model: LoadedModel, planted: PlantedModel, made: list[Generation]) -> float:
    texts = [decode_response(model, generation.response_ids) for generation in made]
    return float(np.mean([planted.positive_share(text) for text in texts]))


def test_the_mean_difference_recovers_the_planted_direction(planted: PlantedModel) -> None:
    model = load_model(planted.folder, device="cpu")
    positive, negative = (responses(model, planted, side=side) for side in (0, 1))

    difference = np.mean([m.response_avg for m in positive], axis=0) - np.mean(
        [m.response_avg for m in negative], axis=0
    )

    lengths = np.linalg.norm(difference, axis=-1)
    cosines = difference @ planted.direction / np.maximum(lengths, 1e-9)
    assert (cosines[planted.layer :] > 0.95).all()
    assert lengths[planted.layer] == pytest.approx(2 * STRENGTH, rel=0.1)
    # Below that layer only the chance of which letters came is left.
    assert (lengths[: planted.layer] < 0.3).all()


def test_what_is_said_follows_the_instruction(planted: PlantedModel) -> None:
    model = load_model(planted.folder, device="cpu")

    shares = [share(model, planted, responses(model, planted, side=side)) for side in (0, 1)]
    plain = share(model, planted, responses(model, planted, side=0, instructed=False))

    assert shares[0] > 0.85
    assert shares[1] < 0.15
    assert 0.4 < plain < 0.6


def test_adding_the_direction_moves_what_is_said(planted: PlantedModel) -> None:
    model = load_model(planted.folder, device="cpu")
    steering = Steering((Intervention(planted.layer, planted.direction, -STRENGTH),))

    pushed = responses(model, planted, side=0, instructed=False, steering=steering)

    assert share(model, planted, pushed) < 0.15
