"""Protects that the limits of a container or a scheduler's job count as the machine's memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from workers.models.memory import main_memory

MIB = 2**20


def planted(folder: Path, files: Mapping[str, str]) -> None:
    """A control group with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def newer(limit: str, held: int, files: int) -> dict[str, str]:
    """A group as version 2 shows it, of which some is held by files in equal parts."""
    stat = f"anon {held - files}\nfile {files}\nactive_file {files // 2}\n"
    stat += f"inactive_file {files // 2}\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{held}\n", "memory.stat": stat}


def older(limit: int, held: int, files: int) -> dict[str, str]:
    """The same of version 1, whose stat tells of the group alone first, and then of all in it."""
    stat = f"active_file 0\ninactive_file 0\ntotal_active_file {files // 2}\n"
    stat += f"total_inactive_file {files // 2}\n"
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": f"{held}\n",
        "memory.stat": stat,
    }


def found(folder: Path, own: str) -> tuple[int, int]:
    (folder / "own").write_text(own)
    return main_memory(folder / "groups", folder / "own")


def test_a_job_has_what_its_own_group_or_one_around_it_leaves(tmp_path: Path) -> None:
    job = tmp_path / "groups" / "slurm" / "job_7"
    planted(job / "step_0", newer("max", 10 * MIB, 2 * MIB))
    planted(job, newer(str(64 * MIB), 30 * MIB, 8 * MIB))
    # its neighbours hold most of what the group around all jobs may have
    planted(job.parent, newer(str(100 * MIB), 90 * MIB, 0))
    planted(tmp_path / "groups" / "others", newer(str(MIB), MIB, 0))

    assert found(tmp_path, "0::/slurm/job_7/step_0\n") == (64 * MIB, 10 * MIB)


def test_files_that_a_group_holds_are_available(tmp_path: Path) -> None:
    planted(tmp_path / "groups" / "job", newer(str(64 * MIB), 60 * MIB, 40 * MIB))

    assert found(tmp_path, "0::/job\n") == (64 * MIB, 44 * MIB)


@pytest.mark.parametrize("name", ["/", "/docker/4f1e"])
def test_a_container_has_its_own_group_at_the_root(tmp_path: Path, name: str) -> None:
    groups = tmp_path / "groups"
    planted(groups, newer(str(64 * MIB), 20 * MIB, 0))
    planted(groups / "memory", older(48 * MIB, 20 * MIB, 4 * MIB))

    assert found(tmp_path, f"0::{name}\n") == (64 * MIB, 44 * MIB)
    both = f"7:cpu,cpuacct:{name}\n4:memory:{name}\n1:name=systemd:{name}\n"
    assert found(tmp_path, both) == (48 * MIB, 32 * MIB)


def test_more_than_the_machine_has_is_not_had(tmp_path: Path) -> None:
    planted(tmp_path / "groups" / "memory", older(2**63 - 4096, 20 * MIB, 0))

    total, available = found(tmp_path, "4:memory:/\n")

    assert total == psutil.virtual_memory().total
    assert 0 < available <= total


def test_a_group_beyond_its_limit_leaves_nothing(tmp_path: Path) -> None:
    planted(tmp_path / "groups" / "job", newer(str(64 * MIB), 65 * MIB, 0))

    assert found(tmp_path, "0::/job\n") == (64 * MIB, 0)


def test_a_system_without_control_groups_has_the_machines_memory(tmp_path: Path) -> None:
    total, available = main_memory(tmp_path / "groups", tmp_path / "own")

    assert total == psutil.virtual_memory().total
    assert 0 < available <= total
