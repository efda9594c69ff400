"""Protects workers from whatever may lie on a queue or in a trait file: refused with a reason.

The seeds are fixed, so that a failure can be repeated; hypothesis shrinks what it finds.
"""

from __future__ import annotations

import base64
import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import Reject
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from domain.errors import OrchestrateError, TraitFileError, UsageError
from domain.fleet.permissions import Permissions
from domain.plan.spec import WIRE_VERSION, JudgeSpec, ModelSpec, RunSpec, TraitRef
from storage.broker.embedded_redis import embedded_redis
from storage.files.trait_files import load_trait
from storage.record.artifacts import Record, publish_artifact
from storage.record.run import Run, create_run
from storage.record.store import open_store
from tasks.fleet.app import DeliverySettings, make_app
from tasks.fleet.edge import Edge
from tasks.fleet.message import JobMessage, envelope_fault
from tests.faults.conftest import Note
from tests.faults.fleet import Fleet, wait_until

pytestmark = pytest.mark.timeout(900)


def few_or(n: int) -> pytest.MarkDecorator:
    """A hundred examples by default, the n of the acceptance with the faults mark."""
    return pytest.mark.parametrize("n", [100, pytest.param(n, marks=pytest.mark.faults)])


QUICK: dict[str, Any] = {
    "suppress_health_check": list(HealthCheck),
    "database": None,
}

NASTY = st.sampled_from(
    ["", ".", "..", "../../etc/passwd", "/etc/passwd", "\0", "a" * 9000, "negotiate", "refusal",
     "refusal/reduce", "refusal/../../x", "refusal/generate/positive-999999", "\ud800", "\u202e",
     "s3://", "memory://x", "file:///etc", "http://127.0.0.1:1/x", "refusal/judge@../x", "@", "%s"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | NASTY,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | NASTY, inner, max_size=4)
    ),
    max_leaves=8,
)


class Place:
    """A run on disk and the edge of a worker that may open runs in one folder only."""

    def __init__(self, folder: Path, broker_url: str) -> None:
        self.folder = folder
        self.run = make_run(folder / "runs" / "one")
        self.message = JobMessage(
            wire=WIRE_VERSION,
            run_id=self.run.run_id,
            run=self.run.store.url,
            job="refusal/reduce",
        )
        permissions = Permissions(only_runs_below=str(folder / "runs"))
        app = make_app(broker_url)
        self.edge = Edge(app, broker_url, DeliverySettings(), permissions)

    def files(self) -> set[Path]:
        """Every file there is, those of the run left out."""
        inside = Path(self.run.store.url)
        return {p for p in self.folder.rglob("*") if p.is_file() and inside not in p.parents}


def make_run(folder: Path) -> Run:
    definition = load_trait("refusal")
    trait = TraitRef(
        name="refusal", fingerprint=definition.fingerprint(), n_instructions=1, n_questions=1
    )
    spec = RunSpec(traits=(trait,), model=ModelSpec(model_id="x"), judge=JudgeSpec(model="x"))
    store = open_store(str(folder))
    return create_run(
        store, spec, run_id="fuzz", definitions={"refusal": definition}, provenance={}
    )


@pytest.fixture(scope="module")
def broker_url() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Iterator[Place]:
    logging.disable(logging.CRITICAL)
    yield Place(tmp_path_factory.mktemp("fuzz"), broker_url)
    logging.disable(logging.NOTSET)


def messages(place: Place) -> st.SearchStrategy[dict[str, object]]:
    """Anything, and our own message with parts of it replaced, added or left out."""
    good = place.message.model_dump()
    changed = st.fixed_dictionaries(
        {}, optional={name: JSON | st.just(value) for name, value in good.items()}
    )
    almost = st.builds(lambda part: {**good, **part}, changed)
    return changed | almost | st.dictionaries(st.text(max_size=8), JSON, max_size=6)


@few_or(4000)
def test_malformed_messages_are_refused_with_a_reason_and_touch_nothing(
    place: Place, n: int, note: Note
) -> None:
    """Whatever a message says, the worker lives, and no file appears outside the run.

    Fields of a message replaced, added, left out or made up (hypothesis, fixed seed).
    """
    good, before = place.message.model_dump(), place.files()
    seen: Counter[str] = Counter()

    @seed(5)
    @settings(max_examples=n, **QUICK)
    @given(messages(place))
    def fuzz(fields: dict[str, object]) -> None:
        done: list[str] = []

        def stage(run: Run, job: object) -> Record:
            done.append(run.store.url)
            return Record("refusal/reduce", {})

        if fields == good:
            return
        try:
            place.edge.carry(stage, fields)
        except Reject as reject:
            assert reject.requeue is False
            assert str(reject.reason).startswith("refused: ")
            seen["refused"] += 1
            return
        seen["taken"] += 1
        # what is not refused is a job of this run under its own name
        assert set(done) <= {place.run.store.url}

    fuzz()

    assert seen["refused"] > n // 2
    assert place.files() == before
    note("seen", f"{seen['refused']} refused with a reason, {seen['taken']} named a job of the run")


@few_or(3000)
def test_malformed_envelopes_are_found_before_celery_opens_them(
    place: Place, broker_url: str, n: int, note: Note
) -> None:
    """What lies on a queue is checked before Celery opens it.

    Raw messages with parts of the envelope replaced, and other JSON in their place.
    """
    good, seen = raw_message(place, broker_url), Counter[str]()
    assert envelope_fault(good) == ""

    @seed(6)
    @settings(max_examples=n, **QUICK)
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        message = json.loads(json.dumps(good))
        part = data.draw(st.sampled_from([message, message["headers"], message["properties"]]))
        part[data.draw(st.sampled_from(sorted(part)) | st.text(max_size=6))] = data.draw(JSON)

        seen["refused" if envelope_fault(message) else "harmless"] += 1
        assert envelope_fault(data.draw(JSON)) != ""
        seen["refused"] += 1

    fuzz()
    note("seen", f"{seen['refused']} refused, {seen['harmless']} changed where nothing reads them")


def raw_message(place: Place, broker_url: str) -> dict[str, object]:
    with redis.Redis.from_url(broker_url) as client:
        place.edge.app.send_task("gpu.generate", kwargs=place.message.model_dump())
        (raw,) = client.lrange("gpu", 0, -1)
        client.delete("gpu")
    message: dict[str, object] = json.loads(raw)
    return message


DEEP = b"[" * 2000
TRAIT = json.dumps(load_trait("refusal").to_json()).encode()


@few_or(3000)
def test_malformed_trait_files_are_refused_with_a_reason(
    tmp_path: Path, n: int, note: Note
) -> None:
    """A trait file is used or refused in words.

    Bytes at random, other JSON, parts of a good file replaced, bits flipped, ends cut off.
    """
    path, seen = tmp_path / "humor.json", Counter[str]()
    definition = json.loads(TRAIT)
    bodies = (
        st.binary(max_size=200)
        | JSON.map(lambda value: json.dumps(value).encode("utf-8", "replace"))
        | st.dictionaries(st.sampled_from(sorted(definition)), JSON).map(
            lambda part: json.dumps({**definition, **part}).encode("utf-8", "replace")
        )
        | st.tuples(st.integers(0, len(TRAIT) - 1), st.integers(1, 255)).map(flipped)
        | st.integers(0, len(TRAIT)).map(lambda n: TRAIT[:n])
        | st.sampled_from([DEEP])
    )

    @seed(7)
    @settings(max_examples=n, **QUICK)
    @given(bodies)
    def fuzz(body: bytes) -> None:
        path.write_bytes(body)
        try:
            found = load_trait(str(path))
        except (TraitFileError, UsageError) as error:
            assert str(error)
            seen["refused"] += 1
            return
        seen["good"] += 1
        assert found.name == "humor"

    fuzz()

    assert set(tmp_path.iterdir()) == {path}
    note("seen", f"{seen['refused']} refused with a reason, {seen['good']} still good traits")


def flipped(where: tuple[int, int]) -> bytes:
    position, bits = where
    return TRAIT[:position] + bytes([TRAIT[position] ^ bits]) + TRAIT[position + 1 :]


@pytest.mark.parametrize("name", ["..", "../x", "a/../../b", "/etc", "a\0b", ""])
def test_a_run_cannot_be_named_out_of_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(OrchestrateError):
        make_run_named(tmp_path / "runs", name)

    assert list(tmp_path.rglob("*.json")) == []


def make_run_named(runs: Path, name: str) -> None:
    from orchestrator.runs import run_store

    run_store(str(runs), name).write("run.json", b"{}")


@pytest.mark.faults
def test_a_real_worker_survives_what_is_thrown_on_its_queue(
    tmp_path: Path, broker_url: str, note: Note
) -> None:
    """A worker process outlives what anybody may put on its queue.

    Pickles, deep nesting, odd headers, chains and plain noise before one good job.
    """
    place = Place(tmp_path, broker_url)
    good = raw_message(place, broker_url)
    fleet = Fleet(broker_url, tmp_path / "logs")
    worker = fleet.add("reduce-0", "reduce")
    assert worker.process is not None
    thrown = garbage(good)
    with fleet.tended(), redis.Redis.from_url(broker_url) as client:
        wait_until(lambda: "ready." in worker.log(), timeout_s=120, what="the worker")
        first = worker.process

        for raw in thrown:
            client.lpush("reduce", raw)
        # the last message is one of ours: a job whose inputs are missing fails under its own name
        place.edge.app.send_task(
            "reduce.reduce",
            kwargs=place.message.model_copy(update={"job": "refusal/reduce"}).model_dump(),
            headers={"run_id": "fuzz", "job": "refusal/reduce"},
        )
        failures = "orchestrate:fuzz:failures"
        wait_until(
            lambda: bool(client.hexists(failures, "refusal/reduce")), timeout_s=60, what="the job"
        )
        # what was thrown may be read after the job, and is acknowledged after it is noted
        wait_until(
            lambda: (
                worker.log().count("Refused a message") + worker.log().count("refused:")
                >= len(thrown)
                and client.hlen("unacked") == 0
            ),
            timeout_s=60,
            what="the end of all",
        )

        assert (worker.process, worker.process.poll()) == (first, None)
    note("seen", f"{len(thrown)} messages refused, the job behind them was taken")


def garbage(good: dict[str, object]) -> list[bytes]:
    """Raw texts for a queue: not JSON, not an object, odd headers, pickles, surplus arguments."""

    def with_body(body: object) -> dict[str, object]:
        return {**good, "body": base64.b64encode(json.dumps(body).encode()).decode()}

    headers: dict[str, object] = good["headers"]  # type: ignore[assignment]
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    odd: list[object] = [
        None, 7, "text", [], {}, {"headers": {}}, {**good, "properties": None},
        {**good, "headers": {**headers, "task": ["gpu.generate"]}},
        {**good, "headers": {**headers, "eta": "yesterday"}},
        {**good, "headers": {**headers, "timelimit": "x"}},
        {**good, "content-type": "application/x-python-serialize"},
        {**good, "body": "not base64"}, {**good, "body": "Z2FyYmFnZQ=="},
        with_body([[], {}, {**embed, "chain": [{"task": "gpu.generate"}]}]),
    ]  # fmt: skip
    return [b"\xff\xfe", b"not json", b"[" * 200_000, *(json.dumps(o).encode() for o in odd)]


def test_surplus_and_missing_arguments_are_refused_by_the_edge(place: Place) -> None:
    def stage(run: Run, job: object) -> Record:
        raise AssertionError("must not run")

    for fields in ({}, {**place.message.model_dump(), "positional": (1,)}, {"wire": True}):
        with pytest.raises(Reject, match="refused"):
            place.edge.carry(stage, fields)


def test_a_message_of_another_version_ends_its_run_with_the_reason(
    place: Place, broker_url: str
) -> None:
    def stage(run: Run, job: object) -> Record:
        return publish_artifact(run.store, job, files={}, info={})  # type: ignore[arg-type]

    newer = {**place.message.model_dump(), "wire": 99, "a_new_field": 1}
    with pytest.raises(Reject, match="wire version"):
        place.edge.carry(stage, newer)

    with redis.Redis.from_url(broker_url) as client:
        failure = json.loads(client.hget("orchestrate:fuzz:failures", "refusal/reduce"))
    assert failure["error"] == "WireError"
    assert failure["fatal"]
