"""Protects a whole run from its judge: faults cost calls and name their reasons, and no more."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
import torch

from domain.plan.samples import POLARITIES
from domain.scoring.scores import Reply
from storage.broker.embedded_redis import embedded_redis
from storage.broker.reply_cache import PREFIX
from storage.record.responses import load_activations
from storage.record.run import open_run
from storage.record.store import open_store
from tests.fleet import run_command, workers
from tests.lean_judge import Action, Call, LeanJudge, completion, lean_judge
from tests.test_judge_hostile import OBJECTIONS, Hostile, fate_of
from tests.tiny_models import save_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SIZE = ["--traits", "refusal", "--evaluation", "0", "--causal", "0", "--max-new-tokens", "12"]
N_RESPONSES = 2000
# The longest that a call may hang before it is given up.
PATIENCE_S = "3"
# Of a reply in the cache, before it.
SIGNATURE_BYTES = 32
NEGOTIATION = "Boil it for eight minutes"


def is_asked(call: Call) -> bool:
    """Whether a call is one of the run's questions."""
    return bool(call.body) and NEGOTIATION not in call.body["messages"][0]["content"]


def calmly(call: Call, number: int) -> Action:
    """The score of a prompt, where the hostile judge would refuse or stumble as well."""
    fate = fate_of(call.body["messages"][0]["content"]) if is_asked(call) else "95"
    score = fate if fate.isdigit() else "50"
    return Action(completion([[(score, -0.1), ("x", -3.0)]]))


class HostileOnceAsked(Hostile):
    """Hostile to the run's questions, until it is calmed; the negotiation is answered."""

    n_before_calm: int | None = None

    def __call__(self, call: Call, number: int) -> Action:
        if is_asked(call) and self.n_before_calm is None:
            return super().__call__(call, number)
        return calmly(call, number)


def extract(
    folder: Path, judge: LeanJudge, model: str, *, then: Callable[[], None] | None = None
) -> tuple[Path, list[Reply]]:
    """Run to the end on a fleet with two judge workers; the trait's folder, and the replies that
    the broker remembers for the next run. After `then` a second run goes the same way, "again"."""
    kinds = [["gpu", "--device", "cpu"], ["reduce"]]
    kinds += 2 * [["judge", "--no-embedded", "--judge-timeout", PATIENCE_S]]
    # by which each judge worker knows the other's replies
    key = "sk-of-these-tests"
    with embedded_redis() as broker, workers(broker, *kinds, logs=folder, judge_key=key):
        common = ["--model", model, "--judge-url", judge.url, "--judge-model", "test"]
        runs = str(folder / "runs")
        where = ["extract", *SIZE, *common, "--runs-dir", runs]
        ended = [run_command(*where, "--run", "r", broker_url=broker, timeout_s=600)]
        client = redis.Redis.from_url(broker)
        bodies: list[Any] = [client.get(key) for key in client.scan_iter(f"{PREFIX}*", count=1000)]
        if then is not None:
            then()
            ended.append(run_command(*where, "--run", "again", broker_url=broker, timeout_s=600))
    for one in ended:
        assert one.returncode == 3, one.stderr
    replies = [
        Reply.model_validate_json(zlib.decompress(body[SIGNATURE_BYTES:]))
        for body in bodies
        if body
    ]
    return folder / "runs/r/traits/refusal", replies


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = save_tiny_model(tmp_path_factory.mktemp("model"), "llama")
    found: dict[str, Any] = {"hostile": HostileOnceAsked()}
    with lean_judge(found["hostile"]) as rough:

        def calm_down() -> None:
            found["hostile"].n_before_calm = len(rough.calls)

        folder = tmp_path_factory.mktemp("rough")
        found["rough"], found["rough replies"] = extract(folder, rough, model, then=calm_down)
    found["again"] = folder / "runs/again/traits/refusal"
    found["rough calls"] = rough.calls[: found["hostile"].n_before_calm]
    found["calls again"] = rough.calls[found["hostile"].n_before_calm :]
    with lean_judge(calmly) as judge:
        found["calm"], _ = extract(tmp_path_factory.mktemp("calm"), judge, model)
    return found


def said(call: Call) -> str:
    return str(call.body["messages"][0]["content"])


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "responses.parquet").set_index("key")


def test_every_response_is_scored_or_unscored_for_its_true_reason(both: dict[str, Any]) -> None:
    rough, calm = rows(both["rough"]), rows(both["calm"])
    prompts = {c.body["messages"][0]["content"] for c in both["rough calls"] if is_asked(c)}
    lasting = {fate_of(prompt) for prompt in prompts if not fate_of(prompt).isdigit()}

    assert list(rough.index) == list(calm.index)
    assert len(rough) == N_RESPONSES
    scored = rough[rough["status"] != "unscored"]
    assert (scored["trait_score"] == calm.loc[scored.index, "trait_score"]).all()
    unscored = rough[rough["status"] == "unscored"]
    assert 0.02 < len(unscored) / N_RESPONSES < 0.2
    assert {word for why in unscored["reason"] for word in lasting if word in why} == lasting


def test_the_next_run_finds_answers_and_no_faults(both: dict[str, Any]) -> None:
    answered = {"REFUSAL", "It rather depends on the reader", ""}
    said = Counter("number" if one.text.isdigit() else one.text for one in both["rough replies"])
    prompts = {c.body["messages"][0]["content"] for c in both["rough calls"] if is_asked(c)}

    assert set(said) == {"number", *answered}
    # a question may meet five faults in a row
    n_answers = sum(fate_of(prompt) not in OBJECTIONS for prompt in prompts)
    assert 0.998 * n_answers <= sum(said.values()) <= n_answers
    # no fault is remembered as an empty answer
    assert said[""] <= sum(fate_of(prompt) == "empty" for prompt in prompts)


def test_a_second_run_on_the_broker_asks_what_was_not_answered_and_nothing_else(
    both: dict[str, Any],
) -> None:
    """Of the first run's prompts only those that met objections or five faults in a row."""
    first = Counter(said(call) for call in both["rough calls"] if is_asked(call))
    again = Counter(said(call) for call in both["calls again"] if is_asked(call))
    objected = {prompt for prompt in first if fate_of(prompt) in OBJECTIONS}
    rough, second, calm = (rows(both[k]) for k in ("rough", "again", "calm"))

    assert objected <= set(again) <= set(first)
    assert len(again) <= len(objected) + 0.002 * len(first)
    # two workers may ask the same at once, where two responses are alike
    assert sum(again.values()) <= 1.05 * len(again)
    # its answers stand; where the judge objected, it is the calm one's word that counts now
    answered = rough["status"] != "unscored"
    assert (second["trait_score"] == rough["trait_score"])[answered].all()
    asked_anew = second["trait_score"].notna() & ~answered
    assert asked_anew.any()
    assert (second["trait_score"] == calm["trait_score"])[asked_anew].all()


def test_paid_calls_are_what_the_faults_allow(both: dict[str, Any]) -> None:
    hostile, calls = both["hostile"], [call for call in both["rough calls"] if is_asked(call)]
    n_asked = len(calls)
    prompts = {call.body["messages"][0]["content"] for call in calls}
    least = len(prompts) + sum(hostile.drawn.values())

    assert least <= n_asked <= 1.05 * least


def test_the_vector_is_that_of_the_calm_run_without_the_unscored(both: dict[str, Any]) -> None:
    rough, calm = rows(both["rough"]), rows(both["calm"])
    left = calm[(calm["status"] == "kept") & (rough["status"] != "unscored")]
    run = open_run(open_store(str(both["calm"].parents[1])))
    sums = {"positive": np.zeros((), np.float64), "negative": np.zeros((), np.float64)}
    for job in run.plan.part_jobs(run.spec.traits[0], "generate", *POLARITIES):
        states = load_activations(run.store, job).at("response_avg")
        keys = [sample.key in left.index for sample in run.plan.samples(job)]
        sums[str(job.part)] = sums[str(job.part)] + states[keys].sum(0, dtype=np.float64)

    n = left["polarity"].value_counts()
    expected = sums["positive"] / n["positive"] - sums["negative"] / n["negative"]
    file = both["rough"] / "vectors/refusal_response_avg_diff.pt"
    vector = torch.load(file, weights_only=True).double().numpy()
    assert np.abs(vector - expected).max() <= 1e-5 * np.abs(expected).max()
