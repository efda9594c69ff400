"""This machine: our packages, the broker's binary, its devices and their driver; how checks run.

torch is never imported: it takes seconds, and what is asked stands in its version file.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from domain.errors import BrokerError, OrchestrateError
from orchestrator.devices import shown_ids, usable_cores, visible_devices
from trait_vector_orchestrator import PACKAGES, on_the_path
from workers.models.memory import main_memory

DISTRIBUTION = "trait-vector-orchestrator"
State = Literal["ok", "warn", "fail"]
GIB = 2**30


@dataclass(frozen=True)
class Checked:
    """One line: what was looked at, how it stands, what was found, and what to do."""

    check: str
    state: State
    found: str
    advice: str = ""


Check = Callable[[], Iterable[Checked]]


def run_checks(checks: Mapping[str, Check], *, timeout_s: float) -> list[Checked]:
    """The findings of all checks in their order; one that hangs or breaks is a finding itself."""
    results: dict[str, list[Checked]] = {}

    def run(name: str, check: Check) -> None:
        found: list[Checked] = []
        try:
            found.extend(check())
        except OrchestrateError as error:
            found.append(Checked(name, "fail", error.wrong, error.advice))
        # an edge: one broken check must not hide what the others found
        except Exception as error:
            found.append(Checked(name, "fail", f"{type(error).__name__}: {error}"))
        results[name] = found

    # daemon threads: a dead file server must not keep the command from ending
    threads = [threading.Thread(target=run, args=one, daemon=True) for one in checks.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silent = f"no answer within {timeout_s:.0f} s"
    hint = "something it needs hangs: a file server, a network name, a firewall that drops"
    return [
        finding
        for name in checks
        for finding in results.get(name, [Checked(name, "fail", silent, hint)])
    ]


@dataclass(frozen=True)
class Device:
    """A device as a GPU worker would get it; free_bytes is what nobody holds now."""

    name: str
    label: str
    total_bytes: int
    free_bytes: int


def check_packages() -> Iterator[Checked]:
    """Whether our flat package names are ours alone, and whether .env keeps its secrets."""
    owners = importlib.metadata.packages_distributions()
    mixed = [
        f"{name} of {owner}"
        for name in PACKAGES
        for owner in set(owners.get(name, ())) - {DISTRIBUTION}
    ]
    before = [f"{name} in {place}" for name, place in on_the_path().items()]
    if mixed:
        found = f"other packages use our names: {'; '.join(mixed)}"
        advice = "uninstall them, or install this program in an environment of its own"
        yield Checked("packages", "fail", found, advice)
    elif before:
        found = f"Python finds others under our names: {'; '.join(before)}"
        advice = "orchestrate uses its own; for a notebook, unset PYTHONPATH or start it elsewhere"
        yield Checked("packages", "warn", found, advice)
    else:
        version = "(not installed, run from its folder)"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(DISTRIBUTION)
        python = platform.python_version()
        yield Checked("packages", "ok", f"orchestrate {version} on Python {python}")
    env_file = Path(".env")
    if env_file.is_file() and os.name == "posix" and env_file.stat().st_mode & 0o077:
        yield Checked(".env", "warn", "other users of this machine can read it", "chmod 600 .env")


def check_redis_binary(*, needed: bool) -> Iterator[Checked]:
    """Whether a run without a broker could start its own."""
    from storage.broker.embedded_redis import find_redis_server

    try:
        binary = find_redis_server()
    except BrokerError as error:
        if needed:
            found = "none, so a run without a fleet has no broker"
            yield Checked("redis-server", "fail", found, error.advice)
        return
    yield Checked("redis-server", "ok", f"{binary} (for runs without a fleet)")


def check_devices(found: list[Device]) -> Iterator[Checked]:
    """One line a device."""
    for one in found:
        free, total = one.free_bytes / GIB, one.total_bytes / GIB
        text = f"{one.label}, {free:.1f} GiB of {total:.1f} GiB free"
        busy = one.name.startswith("cuda") and free / total < 0.9
        advice = "another process holds memory there; `nvidia-smi` names it" if busy else ""
        yield Checked(one.name, "warn" if busy else "ok", text, advice)


def machine_devices() -> list[Device]:
    """The devices that `orchestrate worker gpu` would start on."""
    names = visible_devices()
    if names[0].startswith("cuda"):
        ids = shown_ids() or [str(index) for index in range(len(names))]
        with _driver_library() as nvml:
            return [_cuda_device(nvml, *one) for one in zip(names, ids, strict=False)]
    label = f"{usable_cores()} cores" if names[0] == "cpu" else platform.processor()
    total, free = main_memory()
    return [Device(names[0], label, total, free)]


@contextlib.contextmanager
def _driver_library() -> Iterator[ModuleType]:
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _cuda_device(nvml: ModuleType, name: str, identity: str) -> Device:
    if identity.isdecimal():
        handle = nvml.nvmlDeviceGetHandleByIndex(int(identity))
    else:
        handle = nvml.nvmlDeviceGetHandleByUUID(identity)
    memory, label = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
    return Device(name, str(label), int(memory.total), int(memory.free))


def check_driver(found: list[Device]) -> Iterator[Checked]:
    """Whether the installed torch can use the devices, or why there are none."""
    if found[0].name.startswith("cuda"):
        with _driver_library() as nvml:
            driver = str(nvml.nvmlSystemGetDriverVersion())
            serves = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
        yield check_driver_version(driver, serves=serves, built_for=_torch_cuda())
    elif shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        advice = "check `nvidia-smi` and CUDA_VISIBLE_DEVICES; in a container pass --gpus all"
        yield Checked("driver", "warn", "an NVIDIA device is here but none can be used", advice)


def check_driver_version(driver: str, *, serves: int, built_for: str | None) -> Checked:
    """A driver against torch; `serves` is its newest CUDA, 12080 for 12.8."""
    if built_for is None:
        found = f"driver {driver} is here, but torch is a build for CPUs"
        advice = "install torch for CUDA in this environment (see pytorch.org)"
        return Checked("driver", "fail", found, advice)
    # within a major version an older driver serves newer libraries
    if int(built_for.partition(".")[0]) > serves // 1000:
        found = f"driver {driver} serves CUDA {serves // 1000}, torch is built for {built_for}"
        advice = "update the driver, or install a torch built for the driver's CUDA"
        return Checked("driver", "fail", found, advice)
    return Checked("driver", "ok", f"NVIDIA {driver}, torch built for CUDA {built_for}")


def _torch_cuda() -> str | None:
    """The CUDA version the installed torch was built for; None without torch or for a CPU build."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    built_for = re.search(r"^cuda\b[^=]*= '([\d.]+)'", text, re.MULTILINE)
    return built_for.group(1) if built_for else None
