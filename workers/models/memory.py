"""The main memory that this process may use; read without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def main_memory(groups: Path = GROUPS, own_groups: Path = OWN_GROUPS) -> tuple[int, int]:
    """(total, available) bytes of this machine, or of the container or job that limits us to less.

    What a control group holds of files counts as available, as it does for the machine.
    """
    memory = psutil.virtual_memory()
    total, available = int(memory.total), int(memory.available)
    for limit, held in _limits(groups, own_groups):
        total, available = min(total, limit), min(available, max(0, limit - held))
    return total, available


def _limits(groups: Path, own_groups: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes held beside files) of each control group that we are in and that has a limit;
    see the kernel's admin-guide/cgroup-v2 and cgroup-v1/memory."""
    for line in own_groups.read_text().splitlines() if own_groups.is_file() else []:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            root, names = groups, ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            root = groups / controllers
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        own = root / name.strip("/")
        # a container that sees the machine's names has its own group at the root
        for folder in (own, *(one for one in own.parents if one.is_relative_to(root))):
            yield from _limit_of(folder, *names)


def _limit_of(folder: Path, limit: str, held: str, prefix: str) -> Iterator[tuple[int, int]]:
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / held).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    # no such group here, or one that others may not read
    except OSError:
        return
    if most != "max":
        holds = dict(line.split(maxsplit=1) for line in lines)
        files = sum(int(holds.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
        yield int(most), now - files
