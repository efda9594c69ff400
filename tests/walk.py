"""The way of a response through the code, from a traced run, and the walks that a page shows.

    python -m tests.walk docs/how-it-works.md

runs two samples through the real command and its workers, notes which of our functions one of
them passes through (tests/tracing/sitecustomize.py), and writes the list into the page.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from tests.fleet import run_command

ROOT = Path(__file__).parent.parent
TRACING = Path(__file__).parent / "tracing"
SIZE = ["--traits", "refusal", "--instructions", "1", "--questions", "1", "--rollouts", "1"]
# The sample, and the jobs it travels in.
JOBS = ("generate/positive-000", "judge/positive-000", "reduce", "verify")
WANTED = ["refusal/positive/i0/q00/r0", *(f"refusal/{job}" for job in JOBS)]
PARTS = {
    "the gpu worker": "tasks/stages/generate.py:generate",
    "the judge worker": "tasks/stages/judge.py:judge",
    "the reduce worker": "tasks/stages/reduce.py:reduce",
}
Walk = dict[str, list[str]]
"""What a part of the fleet does -> `file:function` of each step, once, in order."""


def response_walk() -> Walk:
    """Trace a run of two samples; a step stands where it comes first."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "steps"
        out.mkdir()
        environment = {
            # a child of the command is given what begins like this
            "PYTHON_WALK_WANTED": json.dumps(WANTED).encode().hex(),
            "PYTHON_WALK_OUT": str(out),
            "PYTHON_WALK_ROOT": str(ROOT),
            "PYTHONPATH": os.pathsep.join([str(TRACING), str(ROOT)]),
            # the reconciler looks in a third of it: it has no part in a run that nothing disturbs
            "ORCHESTRATE_VISIBILITY_TIMEOUT": "900",
        }
        ended = run_command(
            *("extract", *SIZE, "--runs-dir", f"{folder}/runs"),
            environment=environment,
            cwd=Path(folder),
        )
        if ended.returncode not in (0, 3):
            raise RuntimeError(ended.stderr)
        seen = [json.loads(file.read_text()) for file in out.glob("*.json")]
    return _in_order(seen)


def count(steps: Walk) -> tuple[int, int]:
    """Functions, and changes of folder from one to the next."""
    files = [Path(step.partition(":")[0]) for part in steps.values() for step in part]
    return len(files), sum(a.parent != b.parent for a, b in pairwise(files))


def read(page: str, what: str) -> Walk:
    """The walk that a page shows."""
    steps: Walk = {}
    for line in _block(page, what).splitlines():
        if line.startswith("  "):
            steps[list(steps)[-1]].append(line.strip())
        elif line and not line.startswith(("```", "<!--")):
            steps[line] = []
    return steps


def _in_order(seen: list[dict[str, float]]) -> Walk:
    """The command until a worker begins, each worker's part, and the command from there on."""
    working = {part: next((one for one in seen if mark in one), {}) for part, mark in PARTS.items()}
    command = min(
        (one for one in seen if one not in working.values()), key=lambda s: min(s.values())
    )
    begins = min((t for one in working.values() for t in one.values()), default=float("inf"))
    parts = {
        "the command plans and sends": [s for s, at in command.items() if at < begins],
        **{part: list(one) for part, one in working.items()},
        "the command watches and reports": [s for s, at in command.items() if at >= begins],
    }
    once: set[str] = set()
    steps: Walk = {}
    for part, names in parts.items():
        steps[part] = [name for name in names if name not in once]
        once.update(names)
    return {part: names for part, names in steps.items() if names}


def _block(page: str, what: str = "response") -> str:
    found = re.search(rf"<!-- walk: {what} -->.*?<!-- end -->", page, re.DOTALL)
    if found is None:
        raise ValueError(f"the page has no place for the walk of a {what}")
    return found.group()


def _shown(steps: Walk) -> str:
    lines = [line for part, names in steps.items() for line in (part, *(f"  {n}" for n in names))]
    return "\n".join(["<!-- walk: response -->", "```text", *lines, "```", "<!-- end -->"])


if __name__ == "__main__":
    target = Path(sys.argv[1])
    text = target.read_text(encoding="utf-8")
    target.write_text(text.replace(_block(text), _shown(response_walk())), encoding="utf-8")
