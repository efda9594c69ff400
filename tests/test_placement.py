"""Protects who takes what: priorities, pauses, one model at a time, and the order of traits."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.fleet.heartbeats import Demand, ListedRun
from domain.fleet.placement import (
    SERVE_AT_LEAST_S,
    TURN_S,
    GpuWorker,
    beside_those_that_wait,
    jobs_to_hold,
    model_to_serve,
    runs_in_turn,
    wanted_models,
)
from domain.plan.jobs import Plan
from domain.plan.readiness import ready_jobs
from domain.plan.spec import JudgeSpec, ModelSpec, RunSpec, TraitRef


def demand(
    name: str, waiting: int, *, model: str = "m", priority: int = 0, paused: bool = False
) -> Demand:
    return Demand(ListedRun(name, name, f"/runs/{name}", model, priority, paused), waiting)


def served(workers: list[GpuWorker], *levels: dict[str, int]) -> dict[str, str]:
    """What each worker chooses, each from a view of its own in which it comes last."""
    return {
        one.name: model_to_serve(one.name, [*(s for s in workers if s != one), one], levels)
        for one in workers
    }


# runs beside each other


def test_runs_of_one_priority_are_taken_from_side_by_side() -> None:
    demands = [demand("a", 900), demand("b", 3)]

    assert runs_in_turn(demands) == demands


def test_a_lower_priority_waits_while_a_higher_one_has_jobs_and_not_longer() -> None:
    urgent, usual = demand("urgent", 1, priority=5), demand("usual", 900)
    urgent_without = demand("urgent", 0, priority=5)

    assert runs_in_turn([usual, urgent]) == [urgent]
    assert runs_in_turn([usual, urgent_without]) == [usual, urgent_without]


def test_a_run_whose_jobs_wait_keeps_its_share_and_leaves_their_places_to_others() -> None:
    stuck, usual = demand("stuck", 9), demand("usual", 9)

    def taken_from(in_hand: dict[str, list[float]]) -> tuple[list[Demand], int]:
        return beside_those_that_wait([stuck, usual], in_hand, lambda run: f"http://{run}")

    assert taken_from({"stuck": [1.0] * 4}) == ([stuck, usual], 0)  # they only began
    assert taken_from({"stuck": [60.0] * 4}) == ([usual], 4)
    assert taken_from({"stuck": [60.0], "usual": [1.0] * 4}) == ([stuck, usual], 1)


def test_runs_whose_judge_is_at_one_endpoint_keep_no_more_than_its_share() -> None:
    names = ["a", "b", "c", "d", "late", "elsewhere"]
    in_hand = {name: [60.0] * 4 for name in "abcd"}

    taken_from, n_waiting = beside_those_that_wait(
        [demand(name, 9) for name in names],
        in_hand,
        lambda run: "http://good" if run == "elsewhere" else "http://bad",
    )

    assert ([one.run.name for one in taken_from], n_waiting) == (["elsewhere"], 16)


def test_nobody_listens_to_a_paused_run_and_it_holds_nobody_up() -> None:
    paused, usual = demand("paused", 5, priority=9, paused=True), demand("usual", 1)

    assert runs_in_turn([paused, usual]) == [usual]
    assert wanted_models([paused]) == []


# several models


def test_idle_workers_spread_over_the_models_that_are_wanted() -> None:
    workers = [GpuWorker(f"w{k}") for k in range(5)]

    chosen = served(workers, {"a": 50, "b": 50})

    assert sorted(chosen.values()) == ["a", "a", "a", "b", "b"]


def test_a_worker_keeps_its_model_while_that_is_wanted() -> None:
    workers = [GpuWorker("w0", "a", 5.0), GpuWorker("w1", "b", 5.0)]

    assert served(workers, {"a": 1, "b": 900}) == {"w0": "a", "w1": "b"}


def test_a_worker_whose_model_nobody_wants_takes_another() -> None:
    workers = [GpuWorker("w0", "a", 5.0), GpuWorker("w1", "b", 5.0)]

    assert served(workers, {"b": 900}) == {"w0": "b", "w1": "b"}


def test_a_single_job_does_not_have_the_model_loaded_twice() -> None:
    workers = [GpuWorker("w0"), GpuWorker("w1")]

    assert sorted(served(workers, {"a": 1}).values()) == ["", "a"]


def test_a_new_model_gets_its_share_from_those_who_served_theirs_long_enough() -> None:
    before = [GpuWorker(f"w{k}", "a", SERVE_AT_LEAST_S - 1) for k in range(4)]
    after = [GpuWorker(f"w{k}", "a", SERVE_AT_LEAST_S + k) for k in range(4)]

    assert set(served(before, {"a": 90, "b": 90}).values()) == {"a"}
    assert served(after, {"a": 90, "b": 90}) == {"w0": "a", "w1": "a", "w2": "b", "w3": "b"}


def test_with_fewer_workers_than_models_each_model_gets_a_turn() -> None:
    early, late = [GpuWorker("w", "a", TURN_S - 1)], [GpuWorker("w", "a", TURN_S)]

    assert served(early, {"a": 90, "b": 90}) == {"w": "a"}
    assert served(late, {"a": 90, "b": 90}) == {"w": "b"}


def test_a_worker_serves_only_what_its_patterns_allow() -> None:
    workers = [GpuWorker("small", models=("tiny/*",)), GpuWorker("large")]

    assert served(workers, {"big/70b": 9}) == {"small": "", "large": "big/70b"}


def test_a_worker_that_alone_may_serve_a_model_does_so_beside_idle_others() -> None:
    workers = [GpuWorker(f"a{k}", models=("demo",)) for k in range(3)]
    workers.append(GpuWorker("z", models=("/models/*",)))

    assert served(workers, {"/models/big": 2})["z"] == "/models/big"


def test_shares_are_counted_among_those_who_may_serve_the_model() -> None:
    workers = [GpuWorker(f"small{k}", models=("small",)) for k in range(7)] + [GpuWorker("zbig")]

    chosen = served(workers, {"small": 100, "big": 100})

    assert chosen == {**{f"small{k}": "small" for k in range(7)}, "zbig": "big"}


def test_a_worker_with_a_choice_gives_way_to_one_that_has_none() -> None:
    before = [GpuWorker("any", "a", SERVE_AT_LEAST_S - 1), GpuWorker("only-a", models=("a",))]
    after = [GpuWorker("any", "a", SERVE_AT_LEAST_S), GpuWorker("only-a", models=("a",))]

    assert served(before, {"a": 1, "b": 1}) == {"any": "a", "only-a": ""}
    assert served(after, {"a": 1, "b": 1}) == {"any": "b", "only-a": "a"}


def test_each_of_three_models_gets_its_turn_on_one_worker() -> None:
    model, turns = "a", []

    for _ in range(6):
        model = served([GpuWorker("w", model, TURN_S)], {"a": 9, "b": 9, "c": 9})["w"]
        turns.append(model)

    assert turns == ["b", "c", "a", "b", "c", "a"]


# priorities where not everybody may serve everything


def test_a_run_of_high_priority_does_not_idle_devices_that_cannot_serve_it() -> None:
    demands = [demand("urgent", 50, model="big", priority=9), demand("usual", 50, model="small")]
    workers = [
        GpuWorker("s0", models=("small",)),
        GpuWorker("s1", models=("small",)),
        GpuWorker("z"),
    ]

    first = served(workers, *wanted_models(demands))
    later = [GpuWorker(s.name, first[s.name], 900, s.models) for s in workers]

    # also while another works on it
    assert first == {"s0": "small", "s1": "small", "z": "big"}
    assert served(later, *wanted_models(demands)) == first


def test_whoever_may_serve_the_higher_priority_does_and_no_fair_share_takes_it_away() -> None:
    demands = [demand("urgent", 50, model="a", priority=9), demand("usual", 50, model="b")]
    workers = [GpuWorker(f"w{k}", "b", 5.0) for k in range(4)]

    assert set(served(workers, *wanted_models(demands)).values()) == {"a"}


def test_who_finds_no_place_at_the_higher_priority_works_on_at_the_lower() -> None:
    demands = [demand("urgent", 1, model="a", priority=9), demand("usual", 50, model="b")]
    workers = [GpuWorker("w0", "a", 5.0), GpuWorker("w1", "b", 5.0), GpuWorker("w2")]

    assert served(workers, *wanted_models(demands)) == {"w0": "a", "w1": "b", "w2": "b"}


MODELS = ("a", "b", "c", "d")
FLEETS = st.lists(
    st.tuples(
        st.sampled_from(["", *MODELS, "gone"]),
        st.floats(0, 300),
        st.sets(st.sampled_from(MODELS)).map(sorted),
    ),
    min_size=1,
    max_size=9,
)
DEMANDS = st.lists(
    st.tuples(
        st.sampled_from(MODELS), st.integers(0, 12), st.sampled_from([0, 0, 5, 9]), st.booleans()
    ),
    max_size=6,
)


def fleet_of(drawn: list[tuple[str, float, list[str]]]) -> list[GpuWorker]:
    return [GpuWorker(f"w{k}", model, s, tuple(may)) for k, (model, s, may) in enumerate(drawn)]


def demands_of(drawn: list[tuple[str, int, int, bool]]) -> list[Demand]:
    return [
        demand(f"r{k}", waiting, model=model, priority=priority, paused=paused)
        for k, (model, waiting, priority, paused) in enumerate(drawn)
    ]


def waits_for(worker: GpuWorker, demands: list[Demand]) -> dict[str, int]:
    """Model -> jobs that wait for it, of the models that a worker may serve."""
    jobs: dict[str, int] = {}
    for one in demands:
        if one.waiting and not one.run.paused and worker.may_serve(one.run.model):
            jobs[one.run.model] = jobs.get(one.run.model, 0) + one.waiting
    return jobs


@settings(max_examples=300)
@given(FLEETS, DEMANDS)
def test_no_device_is_idle_while_a_job_that_it_may_serve_has_nobody(
    fleet: list[tuple[str, float, list[str]]], runs: list[tuple[str, int, int, bool]]
) -> None:
    workers, demands = fleet_of(fleet), demands_of(runs)

    chosen = served(workers, *wanted_models(demands))

    serving = Counter(chosen.values())
    for worker in workers:
        jobs = waits_for(worker, demands)
        if chosen[worker.name] not in jobs:
            assert all(serving[model] >= n for model, n in jobs.items()), chosen
        assert chosen[worker.name] == worker.model or worker.may_serve(chosen[worker.name])


@settings(max_examples=300)
@given(FLEETS, DEMANDS)
def test_the_highest_priority_that_a_device_may_serve_goes_first(
    fleet: list[tuple[str, float, list[str]]], runs: list[tuple[str, int, int, bool]]
) -> None:
    workers, demands = fleet_of(fleet), demands_of(runs)

    chosen = served(workers, *wanted_models(demands))

    serving = Counter(chosen.values())
    tops: dict[str, int] = {}
    for one in demands:
        if one.waiting and not one.run.paused:
            tops[one.run.model] = max(tops.get(one.run.model, -100), one.run.priority)
    for worker in workers:
        mine = tops.get(chosen[worker.name], -101)
        for one in demands:
            above = one.waiting and not one.run.paused and one.run.priority > mine
            if above and worker.may_serve(one.run.model):
                n = sum(
                    d.waiting
                    for d in demands
                    if d.run.model == one.run.model
                    and d.run.priority >= one.run.priority
                    and not d.run.paused
                )
                assert serving[one.run.model] >= n, (worker, chosen)


@settings(max_examples=300)
@given(FLEETS, DEMANDS)
def test_a_fleet_comes_to_rest_whatever_each_worker_may_serve(
    fleet: list[tuple[str, float, list[str]]], runs: list[tuple[str, int, int, bool]]
) -> None:
    workers, demands = fleet_of(fleet), demands_of(runs)
    levels = wanted_models(demands)

    moves = []
    # long enough for everybody to leave once, too short for a turn to end
    for _ in range(4):
        chosen = served(workers, *levels)
        moves.append(sum(chosen[s.name] != s.model for s in workers))
        workers = [
            GpuWorker(
                s.name,
                chosen[s.name],
                s.serving_s + 61 if chosen[s.name] == s.model else 0.0,
                s.models,
            )
            for s in workers
        ]

    assert moves[2:] == [0, 0]


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), st.floats(0, 2000)), min_size=1),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 50), min_size=1),
)
def test_workers_that_decide_by_the_same_cards_come_to_rest(
    before: list[tuple[str, float]], wanted: dict[str, int]
) -> None:
    workers = [GpuWorker(f"w{k:02d}", model, s) for k, (model, s) in enumerate(before)]

    for _ in range(6):
        chosen = served(workers, wanted)
        workers = [
            GpuWorker(
                s.name, chosen[s.name], s.serving_s + 61 if chosen[s.name] == s.model else 0.0
            )
            for s in workers
        ]

    # as many models are served as can be, and nobody moves without need
    assert len(set(chosen.values()) & set(wanted)) == min(len(wanted), len(workers))
    assert served(workers, wanted) == chosen or len(workers) < len(wanted)


# how much at a time


def test_a_worker_holds_less_when_few_jobs_are_left_for_many() -> None:
    assert jobs_to_hold(7, 1000, n_workers=4) == 7
    assert jobs_to_hold(7, 4, n_workers=4) == 2
    assert jobs_to_hold(7, 3, n_workers=4) == 1
    assert jobs_to_hold(7, 0, n_workers=0) == 1
    assert jobs_to_hold(1, 50, n_workers=1) == 1


# traits beside each other


def test_the_first_trait_is_ready_early_and_none_stands_still() -> None:
    traits = tuple(
        TraitRef(name=f"t{k}", fingerprint="f", n_instructions=5, n_questions=20) for k in range(8)
    )
    spec = RunSpec(traits=traits, model=ModelSpec(model_id="m"), judge=JudgeSpec(model="j"))
    plan = Plan(spec)

    order = [job for job in ready_jobs(plan, {plan.negotiate_job.key}) if job.stage == "generate"]

    n_all = len(order)
    last = {t.name: max(k for k, job in enumerate(order) if job.trait == t.name) for t in traits}
    assert last["t0"] < 0.25 * n_all
    assert sorted(last, key=lambda t: last[t]) == [t.name for t in traits]
    # in any quarter of the work every unfinished trait gets some
    for start in range(0, n_all - n_all // 4, 5):
        stretch = {job.trait for job in order[start : start + n_all // 4]}
        assert {t for t in last if last[t] >= start + n_all // 4} <= stretch
