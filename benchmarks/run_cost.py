"""What one run costs in processor time, by process, in this checkout and in another one.

    git worktree add ../before COMMIT && make -C ../before .venv/installed
    python benchmarks/run_cost.py ../before --traits evil,sycophantic,verbosity

Both have environments of their own (`make .venv/installed`), run `orchestrate extract` on the demo
model with the options that are given, one after the other, and should have the machine alone.
Peaks are of resident memory, in which files that processes share count for each.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).parent.parent
LOOK_EVERY_S = 0.25
KINDS = ("worker gpu", "worker judge", "worker reduce", "judge-server", "redis-server")


@dataclass
class Cost:
    """Processor seconds of one process, and the most memory that it was seen to hold."""

    seconds: float = 0.0
    peak: int = 0


def main() -> None:
    """Print both runs' costs and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="another checkout with its environment")
    given, options = parser.parse_known_args()
    found = {
        name: _run(place, options) for name, place in (("before", given.before), ("now", HERE))
    }
    print("| process | CPU s before | now | peak MB before | now |\n|---|--:|--:|--:|--:|")
    for kind in (*KINDS, "command"):
        costs = [found[name][1].get(kind, []) for name in ("before", "now")]
        seconds = [f"{sum(one.seconds for one in of_kind):.0f}" for of_kind in costs]
        peaks = [", ".join(str(one.peak >> 20) for one in of_kind) for of_kind in costs]
        print(f"| {kind} | {' | '.join(seconds)} | {' | '.join(peaks)} |")
    totals = [_total(found[name][1]) for name in ("before", "now")]
    print(f"| all | {totals[0]:.0f} | {totals[1]:.0f} | | |\n")
    print(f"CPU seconds: {totals[1] / totals[0]:.2f}x; ", end="")
    print(f"wall {found['before'][0]:.0f} s before, {found['now'][0]:.0f} s now")


def _run(checkout: Path, options: list[str]) -> tuple[float, dict[str, list[Cost]]]:
    """Wall seconds of a run, and what each of its processes took, by kind."""
    with tempfile.TemporaryDirectory() as runs, tempfile.TemporaryFile() as said:
        command = [".venv/bin/orchestrate", "extract", *options, "--runs-dir", runs]
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=checkout, stdout=said, stderr=said)
        costs: dict[int, tuple[str, Cost]] = {}
        while process.poll() is None:
            _look(process.pid, costs)
            time.sleep(LOOK_EVERY_S)
        # 3: a trait that is not usable, which is a result
        if process.returncode not in (0, 3):
            said.seek(0)
            raise SystemExit(f"{checkout}: {said.read().decode(errors='replace')[-2000:]}")
        wall = time.monotonic() - began
    by_kind: dict[str, list[Cost]] = {}
    for kind, cost in costs.values():
        by_kind.setdefault(kind, []).append(cost)
    return wall, by_kind


def _look(pid: int, costs: dict[int, tuple[str, Cost]]) -> None:
    try:
        command = psutil.Process(pid)
        processes = [command, *command.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in processes:
        try:
            line, times, held = " ".join(one.cmdline()), one.cpu_times(), one.memory_info().rss
        except psutil.Error:
            continue
        kind = next((kind for kind in KINDS if kind in line), "command")
        # a process that was only just forked still has its parent's command line
        cost = costs[one.pid][1] if one.pid in costs else Cost()
        costs[one.pid] = kind, cost
        cost.seconds = times.user + times.system
        cost.peak = max(cost.peak, held)


def _total(costs: dict[str, list[Cost]]) -> float:
    return sum(one.seconds for of_kind in costs.values() for one in of_kind)


if __name__ == "__main__":
    main()
