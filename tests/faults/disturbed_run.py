"""One small run that a case disturbs, and the comparison of its result with the undisturbed one."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from orchestrator.processes import orchestrate
from storage.broker.connection import connect
from storage.broker.embedded_redis import die_with_parent
from tests.faults.fleet import VISIBILITY_TIMEOUT_S, Fleet, wait_until
from tests.fleet import by_text, clean_environment
from tests.http_judge import HttpJudge, http_judge
from tests.tiny_models import save_tiny_model
from traitlens.vectors.files import load_vectors
from workers.engine.resident import jobs_in_flight

SHAPE = [
    *("--traits", "refusal", "--instructions", "2", "--questions", "4", "--rollouts", "3"),
    # the checks are further samples on the same path
    *("--evaluation", "0", "--causal", "0", "--contexts", "0"),
]
N_SAMPLES = 2 * 2 * 4 * 3
SHARD = 6
N_SHARDS = N_SAMPLES // SHARD
# A random model ends a text by chance, after 270 tokens on average: long enough to hit in between.
LENGTH = ["--max-new-tokens", "160", "--shard-samples", str(SHARD)]
# Jobs that one judge worker holds at a time.
JUDGE_IN_FLIGHT = 4
# For a machine that does much else beside.
PATIENCE_S = 300.0
FINISHED = 3  # scores at random: finished, not usable
GPU = ("gpu", "--device", "cpu", "--pinned", "cpu")
# Jobs that one GPU worker holds at a time; what one death may cost.
IN_FLIGHT = jobs_in_flight("cpu")
GENERATE, JUDGE, REDUCE = "/generate/", "/judge/", "/reduce"
STAGES = {"gpu": GENERATE, "judge": JUDGE, "reduce": REDUCE}
# How long a job has been under way when the fault hits; a reduce takes less than a second.
MOMENT_S = {GENERATE: 0.3, JUDGE: 0.1, REDUCE: 0.05}
# A judge that takes a moment, so that a fault can hit in the middle of a shard.
JUDGE_DELAY_S = 0.3
POSITIONS = ("response_avg", "prompt_avg", "prompt_last")


@dataclass
class Scene:
    """What the cases share: the fleet, the judge, the model, and the undisturbed result."""

    fleet: Fleet
    judge: HttpJudge
    model: str
    runs: Path
    prefix: Sequence[str] = ()
    undisturbed: Path | None = None
    # where a case notes what it saw; tests/faults/conftest.py sets it before each
    note: Callable[[str, object], None] = lambda name, value: None

    def run(self, name: str, *, runs: Path | None = None) -> DisturbedRun:
        """A run of that name, not started yet; no reply of an earlier one helps it."""
        with connect(self.fleet.broker_url) as client:
            for key in client.scan_iter("orchestrate:reply:*", count=1000):
                client.delete(key)
        return DisturbedRun(self, name, runs or self.runs)


@dataclass
class DisturbedRun:
    """A run on the scene's fleet: its orchestrators, and what was done for it."""

    scene: Scene
    name: str
    runs: Path
    marks: dict[str, int] = field(default_factory=dict)
    asked_before: int = 0

    def __post_init__(self) -> None:
        self.marks = self.scene.fleet.marks()
        self.asked_before = len(self.scene.judge.asked)

    @property
    def folder(self) -> Path:
        """The trait's folder of the run."""
        return self.runs / self.name / "traits" / "refusal"

    def command(self) -> list[str]:
        """The one command that a person repeats."""
        judge = ["--judge-url", self.scene.judge.url, "--judge-model", "test"]
        where = ["--runs-dir", str(self.runs), "--run", self.name]
        return orchestrate(
            "extract", *SHAPE, *LENGTH, "--model", self.scene.model, *judge, *where, "--json"
        )

    def start(self, command: list[str] | None = None) -> subprocess.Popen[str]:
        """Start the command."""
        environment = {
            **clean_environment(),
            "ORCHESTRATE_BROKER_URL": self.scene.fleet.broker_url,
            "ORCHESTRATE_VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT_S),
        }
        # a file, not a pipe: nobody reads while the run goes on
        with (self.scene.fleet.folder / f"command_{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                [*self.scene.prefix, *(command or self.command())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                preexec_fn=die_with_parent,
            )

    def finish(self, process: subprocess.Popen[str], *, timeout_s: float = PATIENCE_S) -> int:
        """Wait for a command; returns its exit code. One that does not end is killed."""
        try:
            return process.wait(timeout=timeout_s)
        finally:
            end(process)

    def check(self, fault: str, *, at_most: int) -> None:
        """The same vectors, every sample once, and at most so many repeated jobs."""
        table = pd.read_parquet(self.folder / "responses.parquet")
        assert len(table) == table["key"].nunique() == N_SAMPLES
        if self.scene.undisturbed is not None:
            reference = pd.read_parquet(self.scene.undisturbed / "responses.parquet")
            assert list(table["response"]) == list(reference["response"])
            for position in POSITIONS:
                ours, theirs = (
                    load_vectors(folder).at_position(position).tensor
                    for folder in (self.folder, self.scene.undisturbed)
                )
                assert torch.linalg.norm(ours - theirs) <= 1e-5 * torch.linalg.norm(theirs)
        jobs, verdicts = self.repeated()
        noted = {"fault": fault, "generations": jobs * SHARD, "verdicts": verdicts}
        for name, value in noted.items():
            self.scene.note(name, value)
        assert jobs <= at_most, noted
        assert verdicts <= JUDGE_IN_FLIGHT * 2 * SHARD, noted

    def repeated(self) -> tuple[int, int]:
        """Generate jobs begun, and questions asked of the judge, beyond the first time."""
        begun = Counter(j for j in self.scene.fleet.begun(self.marks) if "/generate/" in j)
        asked = Counter(
            json.dumps(body, sort_keys=True)
            for body in self.scene.judge.asked[self.asked_before :]
            if "Boil it for eight minutes" not in str(body)
        )
        return sum(n - 1 for n in begun.values()), sum(n - 1 for n in asked.values())


def end(process: subprocess.Popen[str]) -> None:
    """Kill a command that a case left behind."""
    if process.poll() is None:
        process.kill()
        process.wait()


@contextmanager
def whole_scene(broker_url: str, folder: Path) -> Iterator[Scene]:
    """Two GPU workers, a judge and a reduce worker, and the run that nothing disturbs."""
    model = save_tiny_model(folder / "model", "llama")
    fleet = Fleet(broker_url, folder / "logs")
    with http_judge(by_text) as judge, fleet.tended():
        judge.delay_s = JUDGE_DELAY_S
        for name in ("gpu-0", "gpu-1"):
            fleet.add(name, *GPU)
        fleet.add("judge-0", "judge", "--no-embedded")
        fleet.add("reduce-0", "reduce")
        scene = Scene(fleet, judge, model, folder / "runs")
        first = scene.run("undisturbed")
        assert first.finish(first.start()) == FINISHED
        scene.undisturbed = first.folder
        yield scene


@contextmanager
def disturbed(scene: Scene, name: str) -> Iterator[tuple[DisturbedRun, subprocess.Popen[str]]]:
    """A run under way; the case breaks something and the command ends well all the same."""
    run = scene.run(name)
    process = run.start()
    try:
        yield run, process
    except BaseException as error:
        end(process)
        for log in sorted(scene.fleet.folder.iterdir()):
            if log.name == f"command_{name}.log" or not log.name.startswith("command_"):
                error.add_note(f"The end of {log.name}:\n{log.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        end(process)


def while_busy(scene: Scene, run: DisturbedRun, stage: str, *names: str) -> str:
    """Wait until one of the workers is in the middle of a job of the stage; returns which."""
    since: dict[tuple[str, str], float] = {}
    found = ""

    def busy() -> bool:
        nonlocal since, found
        now = time.monotonic()
        jobs = [(name, j) for name in names for j in scene.fleet.busy_with(name, stage, run.marks)]
        since = {job: since.get(job, now) for job in jobs}
        found = next((n for (n, _), t in since.items() if now - t >= MOMENT_S[stage]), "")
        return bool(found) and (stage != JUDGE or scene.judge.n_waiting > 0)

    wait_until(busy, timeout_s=PATIENCE_S, what=f"a worker on {stage}")
    return found
