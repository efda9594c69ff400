"""One engine serves many threads, keeps working across their jobs, and ends in an orderly way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from domain.errors import ModelError
from domain.plan.spec import ModelSpec
from tests.engine_work import run, texts, tiny, work
from tests.faults.fleet import wait_until
from tests.tiny_models import save_tiny_model
from workers.engine.engine import Engine, build_engine
from workers.engine.engine_thread import EngineClosedError, EngineThread
from workers.engine.generation import Generation, GenerationRequest, Sampling
from workers.engine.resident import Residents
from workers.models.model import LoadedModel

LONG = Sampling(400)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="module")
def endless(llama: LoadedModel) -> LoadedModel:
    return replace(llama, stop_ids=frozenset())


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[], Engine]], EngineThread]]:
    started: list[EngineThread] = []

    def make(load: Callable[[], Engine]) -> EngineThread:
        started.append(EngineThread(load))
        return started[-1]

    yield make
    for thread in started:
        thread.close()


Start = Callable[[Callable[[], Engine]], EngineThread]


def test_callers_with_the_same_requests_each_get_their_own_in_order(
    llama: LoadedModel, start: Start
) -> None:
    requests = work(prompts=4)
    jobs = [requests[:12], list(reversed(requests)), requests[:12]]
    expected = [texts(run(build_engine(llama), job)) for job in jobs]
    thread = start(lambda: build_engine(llama, max_rows=9))

    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(thread.generate, jobs))

    assert [texts(job) for job in made] == expected
    assert [[m.request.seed for m in job] for job in made] == [[r.seed for r in j] for j in jobs]
    assert thread.generate([]) == []


def test_the_engine_does_not_drain_between_two_jobs(endless: LoadedModel, start: Start) -> None:
    first = [replace(r, sampling=Sampling(60)) for r in work(prompts=1, rollouts=4)]
    second = [replace(r, sampling=Sampling(20)) for r in work(prompts=2, rollouts=2)]
    both_there = threading.Event()

    def load() -> Engine:
        engine = build_engine(endless, max_rows=8)
        step = engine.step

        def with_the_second_there() -> list[Generation]:
            if engine.stats.steps == 5:
                both_there.wait(timeout=60)
            return step()

        engine.step = with_the_second_there  # type: ignore[method-assign]
        return engine

    thread = start(load)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(thread.generate, first)]
        wait_until(lambda: _n_steps(thread) == 5, timeout_s=60, what="the first one's steps")
        jobs.append(pool.submit(thread.generate, second))
        wait_until(lambda: bool(thread._waiting), timeout_s=60, what="the second one")
        both_there.set()
        for job in jobs:
            job.result()

    # One after the other would take 61 + 21 steps.
    assert thread.engine is not None
    assert thread.engine.stats.steps < 75


def test_the_busy_share_of_a_loaded_engine_is_high(llama: LoadedModel, start: Start) -> None:
    thread = start(lambda: build_engine(llama))

    assert thread.busy_share() == 0.0
    thread.generate(work(prompts=8))

    assert 0.5 < thread.busy_share() <= 1.0


def test_closing_releases_the_callers_and_takes_no_more(endless: LoadedModel, start: Start) -> None:
    thread, waiting, pool = _busy(start, endless, [replace(r, sampling=LONG) for r in work()])

    thread.close()

    with pytest.raises(EngineClosedError):
        waiting.result(timeout=30)
    pool.shutdown()
    with pytest.raises(EngineClosedError):
        thread.generate(work())


def test_what_loading_raises_reaches_every_caller(start: Start) -> None:
    def load() -> Engine:
        raise ModelError("No model of that name.")

    thread = start(load)

    for _ in range(2):
        with pytest.raises(ModelError, match="No model"):
            thread.generate(work(prompts=1))


def test_what_a_step_raises_reaches_the_waiting_caller(llama: LoadedModel, start: Start) -> None:
    thread = start(lambda: build_engine(llama))
    impossible = [replace(r, prompt_ids=(5, 100_000, 7)) for r in work(prompts=1)]

    with pytest.raises(IndexError):
        thread.generate(impossible)


def test_an_engine_that_failed_is_not_lent_again(tmp_path: Path) -> None:
    spec = ModelSpec(model_id=str(save_tiny_model(tmp_path, "llama")))
    impossible = [replace(r, prompt_ids=(5, 100_000, 7)) for r in work(prompts=1)]
    residents = Residents(device="cpu")

    with residents.use(spec) as first, pytest.raises(IndexError):
        first.engine.generate(impossible)
    with residents.use(spec) as second:
        made = second.engine.generate(work(prompts=1, longest=5))
    with residents.use(spec) as third:
        pass
    computed = residents.computed()
    residents.close()

    assert len(made) == 5
    assert third is second
    # what engines that are gone computed still counts
    assert 0 < second.engine.forward_seconds() <= computed.seconds
    n_drawn = sum(len(one.response_ids) for one in made)
    assert 0 < n_drawn <= second.engine.drawn_tokens() <= computed.tokens
    assert residents.computed() == computed


def _n_steps(thread: EngineThread) -> int:
    return thread.engine.stats.steps if thread.engine else 0


def _busy(
    start: Start, model: LoadedModel, requests: list[GenerationRequest]
) -> tuple[EngineThread, Future[list[Generation]], ThreadPoolExecutor]:
    thread = start(lambda: build_engine(model, max_rows=4))
    pool = ThreadPoolExecutor(1)
    waiting = pool.submit(thread.generate, requests)
    while thread.engine is None or not thread.engine.stats.steps:
        assert not waiting.done()
    return thread, waiting, pool
