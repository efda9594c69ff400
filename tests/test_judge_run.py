"""Protects judging in a whole run: money, second judgements, and the key that nobody may see."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest
import redis

from orchestrator.processes import orchestrate
from storage.broker.embedded_redis import die_with_parent, embedded_redis
from tests.fleet import clean_environment, run_command, workers
from tests.lean_judge import Action, Call, LeanJudge, completion, lean_judge, refusal
from tests.tiny_models import save_tiny_model

pytestmark = pytest.mark.slow

SIZE = ["--traits", "refusal", "--instructions", "2", "--questions", "4", "--rollouts", "3"]
N_SCORINGS = 2 * 2 * 2 * 4 * 3
KEY = "sk-planted-0123456789abcdef"
PRICES = {"models": {"test": {"input": 10.0, "output": 10.0}, "other": {"input": 1, "output": 1}}}
USD_A_CALL = 101 * 10 / 1e6
FLOWER_PAGES = ("/", "/tasks", "/broker", "/api/tasks", "/api/workers?refresh=1", "/metrics")
NEGOTIATION = "Boil it for eight minutes"


def decide(call: Call, number: int) -> Action:
    """Scores by the text; a fixed share refuses the first judge; the key is quoted in errors."""
    if call.path != "/v1/chat/completions":
        return Action({"data": []})
    if number == 0:
        return refusal(400, f"top_logprobs is at most 5; your key was {call.key}")
    text = call.body["messages"][0]["content"]
    value = int(hashlib.sha256(text.encode()).hexdigest(), 16)
    if value % 10 == 0 and NEGOTIATION not in text and call.body["model"] == "test":
        return Action(completion([[("REF", -0.01)]], text="REFUSAL"), delay_s=0.05)
    shift = 0 if call.body["model"] == "test" else 1
    score = min(value % 101 + shift, 100)
    return Action(completion([[(str(score), -0.01)]]), delay_s=0.05)


def asked(judge: LeanJudge) -> Counter[tuple[str, str]]:
    """(model, prompt) -> times it was answered, the negotiation's left out."""
    found: Counter[tuple[str, str]] = Counter()
    for call, action in zip(judge.calls, judge.actions, strict=True):
        text = call.body["messages"][0]["content"] if call.body else NEGOTIATION
        if NEGOTIATION not in text and action.status == 200:
            found[call.body["model"], text] += 1
    return found


class Story:
    """One run's life: stopped by its budget, resumed, judged again by itself and by another."""

    def __init__(self, folder: Path, broker: str, judge: LeanJudge) -> None:
        self.folder, self.broker, self.judge = folder, broker, judge
        self.said: list[str] = []
        self.counts: list[int] = []

    def run(self, *arguments: str) -> Any:
        ended = run_command(
            *arguments, "--runs-dir", str(self.folder / "runs"), broker_url=self.broker
        )
        self.said += [ended.stdout, ended.stderr]
        self.counts.append(sum(asked(self.judge).values()))
        return ended


@contextlib.contextmanager
def watched_arguments(found: set[str]) -> Iterator[None]:
    """Collect the arguments and the environment-free command lines of all processes."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.5):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    found.add(file.read_bytes().decode(errors="replace"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def flower(broker: str) -> Iterator[str]:
    """Run Flower on the broker, with the key in its environment; the URL with the login."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**_with_key(), "ORCHESTRATE_BROKER_URL": broker}
    environment["ORCHESTRATE_FLOWER_AUTH"] = "me:password"
    command = orchestrate("flower", "--port", str(port))
    process = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            with contextlib.suppress(httpx2.TransportError):
                httpx2.get(url, timeout=5)
                break
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def fetched(url: str) -> str:
    """A page behind Flower's login."""
    answer = httpx2.get(url, auth=("me", "password"), timeout=60)
    answer.raise_for_status()
    return answer.text


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("story")
    model = save_tiny_model(tmp_path_factory.mktemp("model"), "llama")
    (folder / "prices.json").write_text(json.dumps(PRICES))
    kinds = [["gpu", "--device", "cpu"], ["reduce"], *4 * [["judge", "--no-embedded"]]]
    seen: dict[str, Any] = {"arguments": set()}
    with (
        pytest.MonkeyPatch.context() as patch,
        lean_judge(decide) as judge,
        embedded_redis() as broker,
        watched_arguments(seen["arguments"]),
    ):
        patch.setattr("tests.fleet.clean_environment", _with_key)
        with workers(broker, *kinds, logs=folder), flower(broker) as pages:
            one = Story(folder, broker, judge)
            common = ["--judge-url", judge.url, "--judge-model", "test", "--run", "r"]
            prices = ["--prices", str(folder / "prices.json")]
            common += [*prices, "--model", model, "--max-new-tokens", "12", "--json"]
            common += ["--shard-samples", "6"]
            seen["plan"] = one.run("plan", *SIZE, *common)
            seen["cap"] = json.loads(seen["plan"].stdout)["usd"] / 3
            seen["stopped"] = one.run("extract", *SIZE, *common, "--budget", str(seen["cap"]))
            seen["status"] = one.run("status", "r")
            seen["resumed"] = one.run("resume", "r", *prices, "--budget", "5", "--json")
            seen["first"] = _metrics(folder)
            seen["again"] = one.run("rejudge", "r", "--only", "unscored", "--json")
            other = ["--judge-model", "other", "--name", "b", "--json"]
            seen["other"] = one.run("rejudge", "r", *other, *prices)
            seen["agreement"] = one.run("agreement", "r", "--second", "b", "--json")
            seen["back"] = one.run("rejudge", "r", "--use", "first", "--json")
            seen["last"] = _metrics(folder)
            seen["flower"] = {page: fetched(pages + page) for page in FLOWER_PAGES}
        seen.update(story=one, folder=folder, judge=judge, broker=_dump(broker))
        yield seen


def _with_key() -> dict[str, str]:
    return {**clean_environment(), "ORCHESTRATE_JUDGE_API_KEY": KEY}


def _metrics(folder: Path) -> Any:
    return json.loads((folder / "runs/r/traits/refusal/metrics.json").read_text())


def _dump(broker: str) -> str:
    client = redis.Redis.from_url(broker)
    return " ".join(repr((key, client.dump(key))) for key in client.scan_iter())


def test_the_budget_ends_the_run_with_code_4_and_not_a_percent_over_it(
    story: dict[str, Any],
) -> None:
    n_paid = story["story"].counts[1]

    assert story["stopped"].returncode == 4, story["stopped"].stderr
    assert "--budget" in story["stopped"].stderr
    negotiation_usd = 4 * USD_A_CALL
    assert n_paid * USD_A_CALL <= 1.01 * story["cap"]
    assert n_paid * USD_A_CALL >= 0.85 * story["cap"] - negotiation_usd


def test_resume_finishes_and_no_score_is_paid_twice(story: dict[str, Any]) -> None:
    first = [n for (model, _), n in asked(story["judge"]).items() if model == "test"]

    assert story["resumed"].returncode == 3, story["resumed"].stderr
    assert story["story"].counts[3] == N_SCORINGS
    assert story["first"]["n_generated"] == N_SCORINGS / 2
    # only the refused ones were asked once more, by rejudge
    assert max(first) == 2
    assert first.count(2) == story["story"].counts[4] - story["story"].counts[3] > 0


def test_only_unscored_asks_only_those_and_another_judge_asks_all(story: dict[str, Any]) -> None:
    models = Counter(model for model, _ in asked(story["judge"]))

    assert story["again"].returncode == 3, story["again"].stderr
    assert story["other"].returncode == 3, story["other"].stderr
    assert models["other"] == N_SCORINGS
    assert json.loads(story["other"].stdout)["traits"][0]["judging"]["judgement"] == "b"


def test_every_judgement_is_kept_and_the_first_can_be_used_again(story: dict[str, Any]) -> None:
    table = pd.read_parquet(story["folder"] / "runs/r/traits/refusal/responses.parquet")

    assert story["back"].returncode == 3, story["back"].stderr
    assert story["last"]["n_unscored"] == story["first"]["n_unscored"] != {}
    assert story["last"]["contrast"] == story["first"]["contrast"]
    assert table["trait_score"].isna().sum() > 0


def test_agreement_compares_two_judges(story: dict[str, Any]) -> None:
    found = json.loads(story["agreement"].stdout)

    over_all = next(f for f in found if f["trait"] == "all" and f["metric"] == "trait")
    assert over_all["spearman"] > 0.8
    assert 0 < over_all["n"] < N_SCORINGS / 2


def test_the_price_is_said_before_and_the_meter_shown_after(story: dict[str, Any]) -> None:
    plan = json.loads(story["plan"].stdout)

    assert plan["usd"] == pytest.approx(N_SCORINGS * USD_A_CALL, rel=5)
    assert "judge $" in story["status"].stdout


def test_the_judges_key_is_in_no_file_message_argument_output_or_broker(
    story: dict[str, Any],
) -> None:
    files = [p for p in story["folder"].rglob("*") if p.is_file()]

    assert f"Bearer {KEY}" in {call.key for call in story["judge"].calls}
    assert [str(p) for p in files if KEY.encode() in p.read_bytes()] == []
    assert [text for text in story["story"].said if KEY in text] == []
    assert KEY not in story["broker"]
    assert [line for line in story["arguments"] if KEY in line] == []
    assert any("worker" in line for line in story["arguments"])
    assert "judge.judge" in story["flower"]["/api/tasks"]
    assert [page for page, text in story["flower"].items() if KEY in text] == []


def test_a_budget_without_a_price_is_a_usage_error(tmp_path: Path) -> None:
    ended = run_command(
        "extract", *SIZE, "--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "unheard-of",
        "--budget", "1", "--runs-dir", str(tmp_path),
    )  # fmt: skip

    assert ended.returncode == 2
    assert "unheard-of is unknown" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_price_is_said_and_never_nothing() -> None:
    said = run_command("plan", *SIZE, "--judge-url", "http://x/v1", "--judge-model", "unheard-of")

    assert "unknown" in said.stdout
    assert "$0" not in said.stdout
