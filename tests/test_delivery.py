"""Protects delivery in the small: what a worker refuses, gives up, keeps apart and hands back."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
import types
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import redis
from celery.exceptions import Reject
from celery.worker import state as worker_state
from pydantic import ValidationError

from domain.errors import StoreError, UsageError
from domain.fleet.permissions import Permissions, permissions
from domain.plan.jobs import Job
from domain.plan.spec import WIRE_VERSION, JudgeSpec, ModelSpec, RunSpec, TraitRef
from domain.redaction import without_password
from storage.broker.connection import CannotServeError, tls_options
from storage.broker.embedded_redis import embedded_redis
from storage.broker.fleet import queue_of
from storage.broker.state import BrokerState, jobs_on_queues
from storage.files.trait_files import load_trait
from storage.record.artifacts import Record, jobs_with_artifacts, publish_artifact
from storage.record.dead_letters import Failure, dead_letters, revive_dead, write_dead_letter
from storage.record.judgements import Judgement, add_judgement
from storage.record.results import write_manifest
from storage.record.run import Run, create_run
from storage.record.store import open_store
from tasks.fleet.app import DeliverySettings, delivery_settings, make_app
from tasks.fleet.edge import LONGEST_KEY, Edge
from tasks.fleet.message import JobMessage, WireError
from tasks.fleet.send import send_again, send_jobs
from tasks.fleet.suspects import DyingReject, SuspectIsolation
from tests.s3_server import no_credentials
from tests.simulated_runs import Silent, driver

NEGOTIATE = Job("negotiate")
JUDGE_URL = "http://127.0.0.1:1/v1"


@pytest.fixture(scope="module")
def broker_url() -> Iterator[str]:
    with embedded_redis() as url:
        yield url


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as found:
        found.flushdb()
        yield found


def make_run(folder: Path, *, trust_remote_code: bool = False, run_id: str = "r1") -> Run:
    definition = load_trait("refusal")
    trait = TraitRef(
        name="refusal", fingerprint=definition.fingerprint(), n_instructions=1, n_questions=1
    )
    spec = RunSpec(
        traits=(trait,),
        model=ModelSpec(model_id="x", trust_remote_code=trust_remote_code),
        judge=JudgeSpec(model="x", url=JUDGE_URL),
    )
    store = open_store(str(folder))
    definitions = {"refusal": definition}
    return create_run(store, spec, run_id=run_id, definitions=definitions, provenance={})


def message_for(run_id: str, url: str, job: str) -> JobMessage:
    return JobMessage(wire=WIRE_VERSION, run_id=run_id, run=url, job=job)


def message_of(run: Run, job: str = "negotiate") -> dict[str, object]:
    return message_for(run.run_id, run.store.url, job).model_dump()


def do_it(run: Run, job: Job) -> Record:
    return publish_artifact(run.store, job, files={}, info={"summary": "did it"})


def edge_for(broker_url: str, allowed: Permissions | None = None) -> Edge:
    delivery = DeliverySettings(max_deaths=3)
    return Edge(make_app(broker_url), broker_url, delivery, allowed or Permissions())


def test_a_job_is_done_once_and_then_found_done(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)

    assert edge.carry(do_it, message_of(run)) == "negotiate: did it"
    assert edge.carry(do_it, message_of(run)) == "negotiate: was done already"


def test_what_a_done_job_makes_ready_is_sent_once(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)

    edge.carry(do_it, message_of(run))
    edge.carry(do_it, message_of(run))

    sent = [
        json.loads(m)["headers"]["job"] for m in client.lrange(queue_of("gpu", run.run_id), 0, -1)
    ]
    assert sorted(sent) == ["refusal/generate/negative-000", "refusal/generate/positive-000"]
    queues = [queue_of("gpu", run.run_id)]
    assert jobs_on_queues(client, queues, run.run_id) == set(sent)
    assert jobs_on_queues(client, queues, "another run") == set()


def test_a_job_that_ends_while_somebody_looks_what_is_ready_is_not_sent_again(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)
    state = BrokerState(client, run.run_id)
    queue = queue_of("judge", run.run_id)

    edge.carry(do_it, message_of(run))
    # by a look at the record from before
    assert send_jobs(edge.app, state, run, jobs=[NEGOTIATE]) == 0
    assert jobs_on_queues(client, [queue], run.run_id) == set()
    assert NEGOTIATE.key not in state.outstanding()

    state.mark_undone([NEGOTIATE.key])
    assert send_jobs(edge.app, state, run, jobs=[NEGOTIATE]) == 1
    assert jobs_on_queues(client, [queue], run.run_id) == {NEGOTIATE.key}


def test_with_a_damaged_shard_every_judgement_of_it_is_set_aside(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run = make_run(tmp_path / "run")
    add_judgement(run, Judgement(name="second", number=2, judge=run.spec.judge))
    shard = Job("generate", "refusal", "positive", 0)
    kept = [run.plan.negotiate_job, Job("judge", "refusal", "negative", 0, "second")]
    voided = [shard, *(Job("judge", "refusal", "positive", 0, name) for name in (None, "second"))]
    for job in (*kept, *voided):
        do_it(run, job)
    state = BrokerState(client, run.run_id)

    send_again(make_app(broker_url), state, run, damaged=shard, wanted_by=voided[1])

    assert jobs_with_artifacts(run.store, ["refusal"]) == {job.key for job in kept}


def test_the_artifact_of_a_run_that_was_replaced_meanwhile_is_taken_away(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)

    def too_late(run: Run, job: Job) -> Record:
        run.store.delete("run.json")
        make_run(tmp_path / "run", run_id="r2")
        return do_it(run, job)

    with pytest.raises(Reject, match="has become run r2"):
        edge.carry(too_late, message_of(run))

    assert jobs_with_artifacts(run.store, ["refusal"]) == set()
    assert client.llen(queue_of("gpu", run.run_id)) == 0


def test_a_job_that_never_ends_is_given_up_and_can_be_revived(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)
    state = BrokerState(client, run.run_id)
    for _ in range(3):
        state.begin_attempt("negotiate")  # and its worker died

    said = edge.carry(do_it, message_of(run))

    assert said.startswith("negotiate: given up")
    assert [letter.job for letter in dead_letters(run.store)] == ["negotiate"]
    assert [(f.job, f.fatal) for f in state.failures()] == [("negotiate", False)]
    assert revive_dead(run.store) == ["negotiate"]
    assert dead_letters(run.store) == []
    assert edge.carry(do_it, message_of(run)) == "negotiate: did it"


def test_what_another_judgement_gave_up_is_no_failure_of_this_one(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run = make_run(tmp_path / "run")
    for job in run.plan.jobs():
        do_it(run, job)
    write_manifest(run.store, "traits/refusal")
    given_up = Job("judge", "refusal", "positive", 0, "second")
    write_dead_letter(run.store, Failure(given_up.key, "PoisonJobError", "died", fatal=False))
    one = driver(broker_url, run)

    one.start()

    assert one.watch(Silent()) == []


def test_a_job_that_begins_again_after_its_worker_died_is_a_warning_under_its_name(
    tmp_path: Path, broker_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)
    BrokerState(client, run.run_id).begin_attempt("negotiate")  # and its worker died

    with caplog.at_level(logging.WARNING):
        edge.carry(do_it, message_of(run))

    (warning,) = [one for one in caplog.records if one.__dict__.get("event") == "begun_again"]
    assert warning.levelname == "WARNING"
    assert warning.__dict__["job"] == "negotiate"
    assert warning.getMessage().startswith("negotiate begins again")


def test_a_job_handed_back_is_not_counted_as_a_death(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)

    def leaving(_run: Run, _job: Job) -> Record:
        raise Reject("the worker leaves", requeue=True)

    for _ in range(5):
        with pytest.raises(Reject):
            edge.carry(leaving, message_of(run))

    assert BrokerState(client, run.run_id).n_attempts("negotiate") == 0


def test_a_job_whose_workers_lose_their_device_is_given_up(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)

    def loses_its_device(_run: Run, _job: Job) -> Record:
        raise DyingReject("an illegal memory access", requeue=True)

    for _ in range(3):
        with pytest.raises(Reject) as given_back:
            edge.carry(loses_its_device, message_of(run))
        assert given_back.value.requeue

    assert edge.carry(do_it, message_of(run)).startswith("negotiate: given up")


def test_a_job_that_lost_the_broker_is_not_counted_as_a_death(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)

    def cut_off(_run: Run, _job: Job) -> Record:
        raise redis.ConnectionError("Connection closed by server.")

    for _ in range(2):
        with pytest.raises(Reject):
            edge.carry(cut_off, message_of(run))
    n_before_the_third = BrokerState(client, run.run_id).n_attempts("negotiate")

    assert n_before_the_third == 1  # the last one is told with the next job
    assert edge.carry(do_it, message_of(run)) == "negotiate: did it"


@pytest.mark.parametrize("allowed", [True, False])
def test_a_models_own_code_runs_only_where_the_worker_was_told_so(
    tmp_path: Path, broker_url: str, client: redis.Redis, allowed: bool
) -> None:
    run = make_run(tmp_path / "run", trust_remote_code=True)
    edge = edge_for(broker_url, Permissions(allow_remote_code=allowed))

    if allowed:
        assert edge.carry(do_it, message_of(run)) == "negotiate: did it"
    else:
        with pytest.raises(Reject, match="ORCHESTRATE_ALLOW_REMOTE_CODE"):
            edge.carry(do_it, message_of(run))


def test_a_run_elsewhere_is_refused_by_a_worker_that_opens_one_folder(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run = make_run(tmp_path / "theirs" / "run")
    edge = edge_for(broker_url, Permissions(only_runs_below=str(tmp_path / "ours")))

    with pytest.raises(Reject, match="ORCHESTRATE_ONLY_RUNS_BELOW"):
        edge.carry(do_it, message_of(run))


def test_a_judges_key_goes_only_where_the_worker_was_told_it_may(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run = make_run(tmp_path / "run")
    theirs, ours = (Permissions(only_judges_at=(url,)) for url in ("https://x/v1", JUDGE_URL))

    with pytest.raises(Reject, match="ORCHESTRATE_ONLY_JUDGES_AT"):
        edge_for(broker_url, theirs).carry(do_it, message_of(run))
    assert edge_for(broker_url, ours).carry(do_it, message_of(run)) == "negotiate: did it"


def test_a_message_of_another_version_fails_its_run_once_and_is_not_sent_again(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)
    state = BrokerState(client, run.run_id)
    send_jobs(edge.app, state, run, jobs=[NEGOTIATE])

    with pytest.raises(Reject) as refusal:
        edge.carry(do_it, {**message_of(run), "wire": 2})

    assert refusal.value.requeue is False
    assert [(f.error, f.fatal) for f in state.failures()] == [(WireError.__name__, True)]
    assert state.outstanding() == set()


def test_a_job_whose_storage_the_worker_cannot_read_fails_with_what_to_do(
    broker_url: str, client: redis.Redis
) -> None:
    edge, state = edge_for(broker_url), BrokerState(client, "r1")
    state.claim("negotiate")

    with no_credentials() as url, pytest.raises(Reject) as refusal:
        edge.carry(
            do_it,
            message_for("r1", f"{url}/r1", "negotiate").model_dump(),
        )

    assert refusal.value.requeue is False
    assert ["this machine's credentials" in f.message for f in state.failures()] == [True]
    assert state.outstanding() == set()


def test_a_job_whose_storage_went_out_of_reach_while_it_was_done_fails(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)
    state = BrokerState(client, run.run_id)
    state.claim("negotiate")

    def lost(at: Run, job: Job) -> Record:
        record = do_it(at, job)
        (tmp_path / "run" / "run.json").unlink()
        (tmp_path / "run" / "run.json").mkdir()  # a read error for root as well
        return record

    with pytest.raises(StoreError):
        edge.carry(lost, message_of(run))

    assert [(f.job, f.fatal) for f in state.failures()] == [("negotiate", True)]
    assert state.outstanding() == set()


def test_a_heartbeat_does_not_keep_a_worker_waiting_for_a_broker_that_is_away() -> None:
    def beat() -> None:
        # as Celery does in the worker's main loop
        dispatcher.send("worker-heartbeat", retry=True)

    with embedded_redis() as url:
        app = make_app(url)
        dispatcher = app.events.Dispatcher(app.connection_for_write(), enabled=True)
        beat()
    second = threading.Thread(target=beat, daemon=True)
    second.start()
    second.join(timeout=60)

    assert not second.is_alive()


def test_closing_what_is_left_of_a_lost_connection_is_no_fault_of_the_program(
    broker_url: str, client: redis.Redis
) -> None:
    app = make_app(broker_url)
    app.send_task("gpu.generate", kwargs={})
    connection = app.connection()
    channel = connection.default_channel
    taken = channel.basic_get("gpu")
    connection.transport.client = None  # what is left when the broker goes while it is closed

    # another error than a connection's would end the worker
    with pytest.raises(connection.connection_errors):
        channel.close()
    with pytest.raises(connection.connection_errors):
        taken.ack()


def test_a_lost_connection_gives_back_what_nobody_runs_and_nothing_else(
    broker_url: str, client: redis.Redis
) -> None:
    app = make_app(broker_url)
    for name in ("runs here", "waits here"):
        app.send_task("gpu.generate", kwargs={"job": name})
    with app.connection() as connection, connection.channel() as channel:
        taken = [channel.basic_get("gpu") for _ in range(2)]
        running = types.SimpleNamespace(id="1", message=taken[0])
        worker_state.requests["1"] = running

        channel.qos.restore_unacked_once()
        worker_state.requests.clear()

        assert client.llen("gpu") == 1
        assert client.hkeys("unacked") == [taken[0].delivery_tag.encode()]


def test_while_the_broker_is_away_the_job_goes_back() -> None:
    edge = edge_for("redis://127.0.0.1:1/0")

    with pytest.raises(Reject) as handed_back:
        edge.carry(
            do_it,
            message_for("r1", "/nowhere", "negotiate").model_dump(),
        )

    assert handed_back.value.requeue is True


def test_a_message_survives_being_sent() -> None:
    message = JobMessage(
        wire=WIRE_VERSION,
        run_id="r1",
        run="s3://bucket/runs/one",
        job="refusal/generate/positive-003",
    )

    assert JobMessage.model_validate(json.loads(json.dumps(message.model_dump()))) == message


@pytest.mark.parametrize(
    "change", [{"run_id": "a:b"}, {"wire": True}, {"job": ""}, {"run": None}, {"more": 1}]
)
def test_a_message_that_is_none_of_ours_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        JobMessage.model_validate(
            {
                **message_for("r1", "/runs/one", "negotiate").model_dump(),
                **change,
            }
        )


def test_no_job_is_told_of_by_half_its_key() -> None:
    longest = Job("generate", "t" * 64, "confirmation", 10**6, judgement="j" * 41)

    assert len(longest.key) <= LONGEST_KEY


def test_a_suspect_runs_alone() -> None:
    rooms, inside, seen = SuspectIsolation(), set[str](), list[set[str]]()

    def work(name: str, alone: bool) -> None:
        with rooms.alone() if alone else rooms.shared():
            inside.add(name)
            time.sleep(0.02)
            if alone:
                seen.append(set(inside))
            inside.discard(name)

    names = [(f"{k}", k % 3 == 0) for k in range(12)]
    threads = [threading.Thread(target=work, args=one) for one in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert [len(company) for company in seen] == [1, 1, 1, 1]


def test_settings_come_from_the_environment_and_are_checked() -> None:
    found = delivery_settings(
        {"ORCHESTRATE_VISIBILITY_TIMEOUT": "2.5", "ORCHESTRATE_MAX_DEATHS": "7"}
    )

    assert found == DeliverySettings(2.5, 7)
    assert delivery_settings({}) == DeliverySettings(30.0, 5)
    assert permissions({}) == Permissions(None, (), False)
    assert permissions({"ORCHESTRATE_ONLY_JUDGES_AT": "https://a, https://b"}).only_judges_at == (
        "https://a",
        "https://b",
    )
    for wrong in ("0", "-1", "soon", "inf", "nan"):
        with pytest.raises(UsageError, match="VISIBILITY_TIMEOUT"):
            delivery_settings({"ORCHESTRATE_VISIBILITY_TIMEOUT": wrong})


def test_tls_to_the_broker_is_verified_unless_the_url_says_otherwise() -> None:
    assert tls_options("redis://x") is None
    assert tls_options("rediss://x") == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://host:6379/0"),
        ("--broker-url=rediss://me:se@cret@host/0", "--broker-url=rediss://host/0"),
        ("--traits", "--traits"),
        ("me@home", "me@home"),
        ("REDIS://:secret@host/0", "REDIS://host/0"),
        ("unix://:se/cret@/run/redis.sock?db=0", "unix:///run/redis.sock?db=0"),
        ("redis://host/0?password=se@cret&db=1", "redis://host/0?password=...&db=1"),
        ("redis://host/0?pass%77ord=secret", "redis://host/0?pass%77ord=..."),
        ("https://host/v1?api_key=secret: refused", "https://host/v1?api_key=... refused"),
        ("https://me:sec/ret@host/v1", "https://host/v1"),
        ("see https://host/@me and s3://b/me@home", "see https://host/@me and s3://b/me@home"),
    ],
)
def test_a_url_is_shown_without_its_password(text: str, shown: str) -> None:
    assert without_password(text) == shown


def test_a_cancelled_runs_job_is_out_no_more_so_that_whoever_resumes_sends_it(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)
    state = BrokerState(client, run.run_id)
    state.claim("negotiate")
    state.cancel()

    edge.carry(do_it, message_of(run))

    assert state.outstanding() == set()
    assert jobs_with_artifacts(run.store, ["refusal"]) == set()


def test_a_job_is_carried_when_its_run_was_resumed_while_it_was_dropped(
    tmp_path: Path, broker_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, edge = make_run(tmp_path / "run"), edge_for(broker_url)
    state = BrokerState(client, run.run_id)
    state.claim("negotiate")
    state.cancel()
    release = BrokerState.release

    def resumed_just_before(self: BrokerState, jobs: Iterable[str]) -> None:
        # whoever resumes sees the job out, and sends it not
        self.start_over()
        release(self, jobs)

    monkeypatch.setattr(BrokerState, "release", resumed_just_before)

    assert edge.carry(do_it, message_of(run)) == "negotiate: did it"


def test_a_message_that_was_taken_when_the_server_became_full_is_put_back(
    tmp_path: Path, broker_url: str, client: redis.Redis
) -> None:
    run, app = make_run(tmp_path / "run"), make_app(broker_url)
    queue = queue_of("judge", run.run_id)
    send_jobs(app, BrokerState(client, run.run_id), run, jobs=[run.plan.negotiate_job])
    (sent,) = client.lrange(queue, 0, -1)

    with app.connection_for_read() as connection:
        connection.default_channel.basic_consume(queue, False, lambda message: None, "tag")
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(CannotServeError, match="OOM"):
                connection.drain_events(timeout=60)
            assert client.llen(queue) == client.hlen("unacked") == 0
            with pytest.raises(CannotServeError), app.connection_for_read() as other:
                other.channel()
        finally:
            client.config_set("maxmemory", 0)
    with app.connection_for_read() as connection:
        connection.channel()

    (back,) = client.lrange(queue, 0, -1)
    assert json.loads(back) == json.loads(sent)
