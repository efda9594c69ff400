"""Everything that only a device can show, in one run of under eight minutes, with a small report.

    python benchmarks/gpu_check.py                 # the first CUDA device
    python benchmarks/gpu_check.py --device cpu    # the same in small

Proves: a run of the demo model on this device through Redis and real workers; the engine's tokens
and states against a plain pass in float32 and bfloat16; that memory does not grow; that an
out-of-memory error loses nothing; steering and projections. Measures on random weights: tokens per
second beside transformers' `generate` and `generate_batch`, the share of the roofline, one decode
step's profile. A part that fails is reported and the others go on; ends with 1 if one failed.
`report.md` and `report.json` are written again after every part, so that a run cut short leaves
what it found.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import gpu_proofs, gpu_speed

Facts = dict[str, object]
RUN_SECONDS = 200


@dataclass
class Part:
    """One part of the check: its figures, what did not hold, and how long it took."""

    facts: Facts = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0


def main() -> int:
    """Run all parts and write the report; 1 when something does not hold."""
    given = _arguments()
    device = torch.device(given.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + given.seconds
    small = device.type == "cpu"
    if small:
        torch.set_num_threads(1)
    models = gpu_proofs.SMALL_MODELS if small else gpu_proofs.MODELS
    parts: dict[str, Part] = {"machine": Part(_machine(device))}
    with tempfile.TemporaryDirectory() as folder, _demo_run(device, Path(folder)) as finish:
        work: dict[str, Callable[[], tuple[Facts, list[str]]]] = {
            "parity": lambda: gpu_proofs.parity(device, models),
            "steering": lambda: gpu_proofs.steering(device),
            "memory": lambda: gpu_proofs.memory(device),
            "out of memory": lambda: gpu_proofs.out_of_memory(device, models[1]),
            # the run of the demo model went on beside these; speed wants the device for itself
            "run": finish,
        }
        for name in gpu_speed.shapes(small=small):
            work[f"speed of {name}"] = partial(gpu_speed.measured, name, device)
        for name, part in work.items():
            if given.only and not any(word in name for word in given.only.split(",")):
                continue
            if time.monotonic() > until:
                parts[name] = Part(failed=["not reached in the time given"])
            else:
                parts[name] = _done(part)
            _write(out, parts)
            print(f"{name}: {parts[name].seconds:.0f} s {parts[name].failed or 'ok'}", flush=True)
    print((out / "report.md").read_text())
    return 1 if any(part.failed for part in parts.values()) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", default=str(ROOT / "build" / "gpu-check"))
    parser.add_argument("--seconds", type=float, default=420, help="start no part after these")
    parser.add_argument("--only", help="parts whose name holds one of these, comma-separated")
    return parser.parse_args()


def _done(work: Callable[[], tuple[Facts, list[str]]]) -> Part:
    started = time.monotonic()
    try:
        facts, failed = work()
    except Exception:  # a part's edge: the report shows it and the other parts go on
        facts, failed = {}, [traceback.format_exc()]
    return Part(facts, failed, time.monotonic() - started)


def _machine(device: torch.device) -> Facts:
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": card,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cores": os.cpu_count(),
    }


@contextmanager
def _demo_run(
    device: torch.device, folder: Path
) -> Iterator[Callable[[], tuple[Facts, list[str]]]]:
    """Start a run of the demo model on a private Redis and this device; what waits for its end."""
    # Without a CUDA device in sight the private fleet takes the CPU.
    hidden = {} if device.type == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    command = ["extract", "--traits", "refusal", "--rollouts", "3", "--run", "check", "--runs-dir"]
    log = folder / "log"
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", *command, str(folder / "runs")],
        cwd=ROOT,
        env={**os.environ, **hidden},
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def finish() -> tuple[Facts, list[str]]:
        try:
            code = process.wait(max(1.0, started + RUN_SECONDS - time.monotonic()))
        except subprocess.TimeoutExpired:
            return {}, [f"not done after {RUN_SECONDS} s: " + log.read_text()[-3000:]]
        if code:
            return {}, [f"ended with {code}: " + log.read_text()[-3000:]]
        return _run_facts(folder / "runs" / "check", device, time.monotonic() - started)

    try:
        yield finish
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _run_facts(run: Path, device: torch.device, wall: float) -> tuple[Facts, list[str]]:
    metrics = json.loads((run / "traits" / "refusal" / "metrics.json").read_text())
    made = metrics["generation"]
    facts = {
        "seconds, start to end": round(wall, 1),
        "verdict": metrics["verdict"],
        "ran on": ", ".join(made["devices"]),
        "core": made["path"],
        "dtype": made["dtype"],
        "busy share": made["busy_share"],
    }
    here = all(str(one).startswith(device.type) for one in made["devices"])
    return facts, [] if here else ["it ran elsewhere"]


def _write(out: Path, parts: dict[str, Part]) -> None:
    data = {name: vars(part) for name, part in parts.items()}
    (out / "report.json").write_text(json.dumps(data, indent=2, default=str))
    lines = ["# What a device showed", ""]
    lines.append(", ".join(f"{key} {value}" for key, value in parts["machine"].facts.items()))
    for name, part in list(parts.items())[1:]:
        lines += [
            "",
            f"## {name}: {'FAILED' if part.failed else 'held'} ({part.seconds:.0f} s)",
            "",
        ]
        lines += [f"    {line}" for reason in part.failed for line in reason.splitlines()]
        lines += _table(part.facts)
    (out / "report.md").write_text("\n".join(lines) + "\n")


def _table(facts: Facts) -> list[str]:
    plain = {key: value for key, value in facts.items() if not isinstance(value, list)}
    rows = [f"| {key} | {_shown(value)} |" for key, value in plain.items()]
    lines = ["| | |", "|---|--:|", *rows] if rows else []
    for key, table in facts.items():
        if isinstance(table, list) and table:
            heads = list(table[0])
            lines += ["", f"{key}:", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
            lines += ["| " + " | ".join(_shown(row[h]) for h in heads) + " |" for row in table]
    return lines


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
