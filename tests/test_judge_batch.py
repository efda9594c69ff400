"""Protects the Batch API path: one batch a shard, at half the price, never paid twice."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import workers.judge.batch
from domain.errors import BudgetError, JudgeError, StoppedError
from domain.plan.jobs import Job
from domain.plan.spec import JudgeSpec, ModelSpec, RunSpec, TraitRef
from domain.scoring.prices import Price
from domain.scoring.scores import Score, Unscored
from storage.broker.connection import connect
from storage.broker.embedded_redis import embedded_redis
from storage.broker.judge_limits import put_judge_meter, read_judge_meter
from storage.record.artifacts import publish_artifact, record_key
from storage.record.run import Run
from storage.record.spending import BATCH, Terms, recorded_usd, write_terms
from storage.record.store import open_store
from tasks.stages.judge import batch_scorings, judge
from tasks.stages.judge_pool import JudgePool
from tests.lean_judge import completion
from tests.stored_run import stored_run
from workers.judge.profile import JudgeProfile

JOB = Job("judge", "refusal", "positive", 0)


class BatchServer:
    """Files and batches as OpenAI's API has them; a batch is over at the third look."""

    def __init__(self) -> None:
        self.url, self.files, self.looks = "", dict[str, str](), dict[str, int]()
        self.spoiled = dict[int, str]()
        self.ends_as = "completed"
        self.refuses_with: int | None = None

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/files", self.upload, methods=["POST"]),
                Route("/v1/files/{file}/content", self.content),
                Route("/v1/batches", self.create, methods=["POST"]),
                Route("/v1/batches/{batch}", self.look),
            ]
        )

    async def upload(self, request: Request) -> Response:
        body = (await request.body()).decode()
        assert 'name="purpose"' in body and "batch" in body
        lines = [line for line in body.splitlines() if line.startswith("{")]
        name = f"file-{len(self.files)}"
        self.files[name] = "\n".join(lines)
        return JSONResponse(self._file(name))

    async def create(self, request: Request) -> Response:
        asked = await request.json()
        assert asked["completion_window"] == "24h"
        if asked["endpoint"] != "/v1/chat/completions":
            return JSONResponse({"error": {"message": "which endpoint?"}}, status_code=400)
        batch = f"batch-{asked['input_file_id']}"
        self.looks[batch] = 0
        return JSONResponse(self._batch(batch, "validating"))

    async def look(self, request: Request) -> Response:
        batch = request.path_params["batch"]
        self.looks[batch] += 1
        if self.refuses_with:
            return JSONResponse({"error": {"message": "no"}}, status_code=self.refuses_with)
        if self.ends_as == "failed":
            why = {"data": [{"message": "the queue is full"}]}
            return JSONResponse({**self._batch(batch, "failed"), "errors": why})
        if self.looks[batch] < 3:
            return JSONResponse(self._batch(batch, "in_progress"))
        name = batch.removeprefix("batch-")
        self.files[f"{name}-out"] = "\n".join(map(self._answer, self.files[name].splitlines()))
        return JSONResponse({**self._batch(batch, "completed"), "output_file_id": f"{name}-out"})

    async def content(self, request: Request) -> Response:
        return PlainTextResponse(self.files[request.path_params["file"]])

    def _answer(self, line: str) -> str:
        asked = json.loads(line)
        text = asked["body"]["messages"][0]["content"]
        number = int(re.findall(r"\d+", text)[-1])
        response = {"status_code": 200, "body": completion([[(str(number), -0.01)]])}
        if number in self.spoiled:
            return self.spoiled[number].replace("ID", asked["custom_id"])
        if number == 13:
            response = {"status_code": 500, "body": {"error": {"message": "unlucky"}}}
        return json.dumps({"custom_id": asked["custom_id"], "response": response, "error": None})

    def _file(self, name: str) -> dict[str, object]:
        head = {"id": name, "object": "file", "bytes": 1, "created_at": 0, "status": "processed"}
        return {**head, "filename": "verdicts.jsonl", "purpose": "batch"}

    def _batch(self, batch: str, status: str) -> dict[str, object]:
        head = {"id": batch, "object": "batch", "status": status, "created_at": 0}
        rest = {"endpoint": "/v1/chat/completions", "input_file_id": "f"}
        return {**head, **rest, "completion_window": "24h"}


@pytest.fixture
def server() -> Iterator[BatchServer]:
    found = BatchServer()
    config = uvicorn.Config(found.app(), port=0, log_level="error", lifespan="off")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.005)
    found.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/v1"
    yield found
    running.should_exit = True
    thread.join(timeout=5)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgePool]:
    monkeypatch.setattr(workers.judge.batch, "POLL_S", 0.01)
    with embedded_redis() as broker, contextlib.ExitStack() as stack:
        found = JudgePool(broker, None, 8)
        stack.callback(found.end)
        yield found


def make_run(folder: Path, url: str) -> Run:
    trait = TraitRef(name="refusal", fingerprint="f", n_instructions=1, n_questions=1)
    judge, model = JudgeSpec(model="test", url=url), ModelSpec(model_id="m")
    run = Run(open_store(str(folder)), "batch", RunSpec(traits=(trait,), model=model, judge=judge))
    write_terms(run.store, Terms(price=Price(input=10, output=10), batch=True, cap_usd=1.0))
    return run


def spent_in(pool: JudgePool, run: Run) -> float:
    with connect(pool.broker_url) as client:
        meter = read_judge_meter(client, run.run_id)
    assert meter is not None
    return meter.spent


def test_a_shard_is_one_batch_at_half_the_price(
    server: BatchServer, pool: JudgePool, tmp_path: Path
) -> None:
    run, prompts = make_run(tmp_path, server.url), [f"rate {k}" for k in range(20)]

    found = batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)

    assert found.stopped is None
    values = [v.value for v in found.scorings if isinstance(v, Score)]
    assert values == pytest.approx([k for k in range(20) if k != 13])
    assert isinstance(found.scorings[13], Unscored) and found.scorings[13].reason == "http"
    assert found.evidence[0].usd == pytest.approx(101 * 10 / 1e6 / 2)
    assert len(server.looks) == 1
    assert recorded_usd(run.store) == pytest.approx(sum(one.usd or 0.0 for one in found.evidence))


def test_a_damaged_line_costs_its_own_question_only(
    server: BatchServer, pool: JudgePool, tmp_path: Path
) -> None:
    run, prompts = make_run(tmp_path, server.url), [f"rate {k}" for k in range(6)]
    odd = {"id": "\u2028\x85", **completion([[("4", -0.01)]])}
    answer = {"custom_id": "ID", "response": {"status_code": 200, "body": odd}}
    server.spoiled = {
        1: '{"custom_id": "ID", "resp',
        2: '"ID"',
        3: '{"custom_id": "ID", "response": {"status_code": 200, "body": []}}',
        4: json.dumps(answer, ensure_ascii=False),
    }

    found = batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)

    assert found.stopped is None
    lost = [k for k, v in enumerate(found.scorings) if isinstance(v, Unscored)]
    assert lost == [1, 2, 3]
    assert isinstance(found.scorings[4], Score) and found.scorings[4].value == pytest.approx(4)


def test_a_worker_that_leaves_comes_back_to_the_same_batch(
    server: BatchServer, pool: JudgePool, tmp_path: Path
) -> None:
    run, prompts = make_run(tmp_path, server.url), ["rate 5"]
    pool.is_leaving = True
    left = batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)
    pool.is_leaving = False

    back = batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)

    assert isinstance(left.stopped, StoppedError)
    assert back.stopped is None and len(server.looks) == 1


def test_answers_are_paid_once_where_a_worker_dies_before_its_record_is_published(
    server: BatchServer, pool: JudgePool, tmp_path: Path
) -> None:
    run, prompts = make_run(tmp_path, server.url), ["rate 5", "rate 6"]
    died = batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)

    again = batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)

    paid = sum(one.usd or 0.0 for one in died.evidence)
    assert again.scorings == died.scorings and len(server.looks) == 1
    assert paid > 0
    assert spent_in(pool, run) == pytest.approx(paid)
    assert recorded_usd(run.store) == pytest.approx(paid)


def test_a_shards_batch_is_forgotten_once_its_record_says_what_was_paid(
    server: BatchServer, pool: JudgePool, tmp_path: Path
) -> None:
    run = stored_run(tmp_path, traits="refusal", rollouts=1, judge_url=server.url)
    write_terms(run.store, Terms(price=Price(input=10, output=10), batch=True))
    job = run.plan.part_jobs(run.spec.traits[0], "judge", "positive")[0]
    for written in (run.plan.negotiate_job, job):
        run.store.delete(record_key(written))
    profile = {"profile": JudgeProfile().model_dump()}
    publish_artifact(run.store, run.plan.negotiate_job, files={}, info=profile)

    found = judge(run, job, judges=pool)

    assert len(server.looks) == 1
    assert not any(key.endswith(BATCH) for key in run.store.list(""))
    assert recorded_usd(run.store) == pytest.approx(found.info["usd"])


def test_an_endpoint_without_batches_says_so(pool: JudgePool, tmp_path: Path) -> None:
    from tests.http_judge import error, http_judge

    with http_judge(lambda body, call: error(500, "x")) as other:
        run = make_run(tmp_path, other.url)
        found = batch_scorings(
            run, JOB, run.spec.judge, JudgeProfile(), ["a 1"], known={}, judges=pool
        )

    assert isinstance(found.stopped, JudgeError)
    assert "takes no batch" in str(found.stopped)


def test_a_batch_that_failed_is_forgotten_with_its_money_and_submitted_anew(
    server: BatchServer, pool: JudgePool, tmp_path: Path
) -> None:
    run, prompts = make_run(tmp_path, server.url), ["rate 5"]
    server.ends_as = "failed"
    lost = batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)
    spent = spent_in(pool, run)
    server.ends_as = "completed"

    found = batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)

    assert isinstance(lost.stopped, JudgeError) and "queue is full" in str(lost.stopped)
    assert spent == pytest.approx(0)
    assert found.stopped is None and len(server.looks) == 2
    assert spent_in(pool, run) == pytest.approx(found.evidence[0].usd)


@pytest.mark.parametrize(("status", "n_batches"), [(404, 2), (401, 1)])
def test_a_batch_is_given_up_where_the_endpoint_knows_of_none(
    server: BatchServer, pool: JudgePool, tmp_path: Path, status: int, n_batches: int
) -> None:
    run, prompts = make_run(tmp_path, server.url), ["rate 5"]
    server.refuses_with = status
    lost = batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)
    server.refuses_with = None

    found = batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)

    assert isinstance(lost.stopped, JudgeError)
    assert found.stopped is None and len(server.looks) == n_batches


def test_the_cap_holds_where_answers_are_as_long_as_they_may_be(
    server: BatchServer, pool: JudgePool, tmp_path: Path
) -> None:
    run, profile = make_run(tmp_path, server.url), JudgeProfile(mode="text", n_tokens=4096)
    prompts = [f"rate {k}" for k in range(60)]  # 60 x 4096 tokens are 1.23 US dollars

    found = batch_scorings(run, JOB, run.spec.judge, profile, prompts, known={}, judges=pool)

    assert isinstance(found.stopped, BudgetError) and server.looks == {}


def test_a_batch_under_way_counts_where_the_broker_is_new(
    server: BatchServer, pool: JudgePool, tmp_path: Path
) -> None:
    run, prompts = make_run(tmp_path, server.url), [f"rate {k}" for k in range(12)]
    pool.is_leaving = True
    batch_scorings(run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=pool)
    with embedded_redis() as broker, contextlib.ExitStack() as stack:
        other = JudgePool(broker, None, 8)
        stack.callback(other.end)
        with connect(broker) as client:
            put_judge_meter(
                client, run.run_id, terms=Terms(cap_usd=1.0), spent=recorded_usd(run.store)
            )

        found = batch_scorings(
            run, JOB, run.spec.judge, JudgeProfile(), prompts, known={}, judges=other
        )

        assert spent_in(other, run) == pytest.approx(sum(one.usd or 0.0 for one in found.evidence))
