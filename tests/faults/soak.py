"""Random harm for ten minutes, every 5 to 15 s, while runs follow one another.

    python -m tests.faults.soak --minutes 10 --seed 27 --page docs/reliability.md

Three GPU workers and two judge workers work on a full-size trait of the demo model (5 instruction
pairs x 20 questions x 10 rollouts x 2 = 2000 samples) with the embedded judge, on one Redis with an
append-only file. Workers and Redis are killed and started again, Redis is full or a replica for a
while, and a run is cancelled and resumed, by a command that stays or one that does not. Ends with 0
when every sample of every run is there exactly once, the texts and vectors are those of a run that
nobody disturbed, and no worker ended by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import redis
import torch

from orchestrator.processes import orchestrate
from tests.faults.fleet import Fleet
from tests.faults.redis_process import RedisProcess
from tests.faults.table import replaced
from tests.fleet import clean_environment, run_command
from traitlens.vectors.files import load_vectors

# Long enough that a loaded machine's worker is not taken for dead. Kills are random here and no
# job's fault: on a fleet that loses a worker every ten seconds five deaths of a job are chance.
SETTINGS = {"ORCHESTRATE_VISIBILITY_TIMEOUT": "5", "ORCHESTRATE_MAX_DEATHS": "20"}
EVERY_S = (5.0, 15.0)
FINISHED = (0, 3)
CANCELLED = 130
# Longer than a lease; a run that nobody drives has to end within the other.
CANNOT_S, DETACHED_S = 8.0, 300.0
FULL, REPLICA, CANCEL = "redis full", "redis a replica", "cancelled"
RUN = ["extract", "--traits", "refusal", "--rollouts", "10", "--causal", "0", "--json"]


@dataclass
class Tally:
    """What happened so far."""

    samples: int = 0
    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    # the run that is under way
    run: str = ""

    def sentence(self, minutes: float, seed: int) -> str:
        """The result in words."""
        kills = ", ".join(f"{name} {n}" for name, n in sorted(self.kills.items()))
        return (
            f"{minutes:g} minutes, seed {seed}: {self.kills.total()} faults ({kills}); {self.runs} "
            f"runs of {self.samples} samples each; {self.again['generate']} generate and "
            f"{self.again['judge']} judge jobs were begun again; "
            + ("; ".join(self.wrong) or "nothing was lost, no worker ended by itself")
            + "."
        )


def main() -> int:
    """Soak, and say how it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--page", type=Path, help="Write the result between the marks there.")
    arguments = parser.parse_args()
    _say(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        tally = _soak(Path(name), arguments.minutes, random.Random(arguments.seed))
    said = tally.sentence(arguments.minutes, arguments.seed)
    _say(said)
    if arguments.page:
        text = replaced(arguments.page.read_text(), "soak", [said], by="soak.py")
        arguments.page.write_text(text)
    return 1 if tally.wrong else 0


def _soak(folder: Path, minutes: float, dice: random.Random) -> Tally:
    broker = RedisProcess(folder / "redis", persistent=True)
    broker.start()
    fleet, tally, done = (
        Fleet(broker.url, folder / "logs", dict(SETTINGS)),
        Tally(),
        threading.Event(),
    )
    with fleet.tended():
        for number in range(3):
            fleet.add(f"gpu-{number}", "gpu", "--device", "cpu", "--pinned", "cpu")
        for number in range(2):
            fleet.add(f"judge-{number}", "judge")
        fleet.add("reduce-0", "reduce")
        _extract(fleet, folder, "undisturbed", tally)
        killer = threading.Thread(target=_harm, args=(fleet, broker, dice, done, tally, folder))
        ends = time.monotonic() + 60 * minutes
        killer.start()
        try:
            while time.monotonic() < ends:
                _extract(fleet, folder, f"run-{tally.runs}", tally)
                tally.runs += 1
        finally:
            done.set()
            killer.join()
        time.sleep(1.0)  # the last death is noticed too
        by_themselves = fleet.deaths - sum(tally.kills[name] for name in fleet.workers)
    broker.kill()
    if by_themselves > 0:
        tally.wrong.append(f"{by_themselves} workers ended by themselves")
    return tally


def _extract(fleet: Fleet, folder: Path, name: str, tally: Tally) -> None:
    started, marks = time.monotonic(), fleet.marks()
    environment = {**clean_environment(), **SETTINGS, "ORCHESTRATE_BROKER_URL": fleet.broker_url}
    where = ("--runs-dir", str(folder / "runs"))
    command = orchestrate(*RUN, *where, "--run", name)
    tally.run = name
    with (folder / f"{name}.log").open("wb") as log:
        ended = subprocess.run(command, env=environment, stdout=log, stderr=log)
        while ended.returncode == CANCELLED:
            if tally.kills[CANCEL] % 2 and not _goes_on_by_itself(name, where, fleet.broker_url):
                tally.wrong.append(f"{name} did not go on after `resume --detach`")
            ended = subprocess.run(command, env=environment, stdout=log, stderr=log)
    tally.run = ""
    if ended.returncode not in FINISHED:
        _say((folder / f"{name}.log").read_text()[-1500:])
    begun = Counter(job for job in fleet.begun(marks) if "/" in job)
    for job, times in begun.items():
        tally.again[job.split("/")[1]] += times - 1
    found = _faults(folder, name, ended.returncode, tally)
    tally.wrong += [f"{name}: {fault}" for fault in found]
    again = sum(begun.values()) - len(begun)
    seconds = time.monotonic() - started
    _say(f"{name}: exit {ended.returncode} after {seconds:.0f} s, {again} jobs again, {found}")


def _goes_on_by_itself(name: str, where: Sequence[str], broker_url: str) -> bool:
    """Whether a cancelled run comes to its end by `resume --detach`; others may cancel it again."""
    until = time.monotonic() + DETACHED_S
    resumed = ("resume", name, "--detach", *where)
    run_command(*resumed, broker_url=broker_url)
    while time.monotonic() < until:
        shown = run_command("status", name, *where, "--json", broker_url=broker_url).stdout
        state = json.loads(shown)["state"] if shown else ""
        if state == "finished":
            return True
        if state == CANCEL:
            run_command(*resumed, broker_url=broker_url)
        time.sleep(1.0)
    return False


def _harm(
    fleet: Fleet,
    broker: RedisProcess,
    dice: random.Random,
    done: threading.Event,
    tally: Tally,
    folder: Path,
) -> None:
    while not done.wait(dice.uniform(*EVERY_S)):
        victim = dice.choice([*sorted(fleet.workers), "redis", FULL, REPLICA, CANCEL])
        run = tally.run
        if victim == CANCEL and not run:
            continue
        tally.kills[victim] += 1
        if victim == "redis":
            broker.kill()
            broker.start()
        elif victim == CANCEL:
            where = ("--runs-dir", str(folder / "runs"))
            run_command("cancel", run, *where, broker_url=broker.url)
        elif victim in (FULL, REPLICA):
            with broker.client() as client, cannot(client, victim):
                done.wait(CANNOT_S)
        else:
            fleet.kill(victim)


@contextlib.contextmanager
def cannot(client: redis.Redis, why: str) -> Iterator[None]:
    """The server takes no writes while the context is open."""
    if why == FULL:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)
        return
    client.replicaof("127.0.0.1", "1")
    yield
    client.replicaof("NO", "ONE")


def _faults(folder: Path, name: str, code: int, tally: Tally) -> list[str]:
    """What a run lacks beside the undisturbed one; its samples are counted on the way."""
    trait, reference = (folder / "runs" / n / "traits" / "refusal" for n in (name, "undisturbed"))
    if code not in FINISHED:
        return [f"the command ended with {code}"]
    table, whole = (pd.read_parquet(p / "responses.parquet") for p in (trait, reference))
    tally.samples = len(whole)
    found = []
    if list(table["key"]) != list(whole["key"]) or table["key"].duplicated().any():
        found.append(f"{len(table)} samples of {len(whole)}, or some twice")
    elif list(table["response"]) != list(whole["response"]):
        found.append("other texts")
    ours, theirs = (load_vectors(p).tensor for p in (trait, reference))
    if torch.linalg.norm(ours - theirs) > 1e-5 * torch.linalg.norm(theirs):
        found.append("other vectors")
    if json.loads((trait / "metrics.json").read_text())["n_generated"] != len(whole):
        found.append("metrics.json counts other samples")
    return found


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
