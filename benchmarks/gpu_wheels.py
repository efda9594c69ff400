"""Collects the wheels that a bare CUDA machine with torch and transformers still lacks.

    python benchmarks/gpu_wheels.py --python 3.12 --have pandas,pyarrow,scipy,scikit-learn wheels

There: `python3 -m pip install --no-index --no-deps --target site wheels/*.whl`, then
`PYTHONPATH=site python3 benchmarks/gpu_check.py`. Versions are those installed here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PRESENT = ("torch", "transformers", "accelerate")
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (17, 24, 26, 27, 28, 31, 34, 35)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64", "manylinux2010_x86_64"]


def main() -> int:
    """Download into the folder; 1 when a package has no wheel for that Python."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}")
    parser.add_argument("--have", default="", help="more packages that are there, with their needs")
    given = parser.parse_args()
    wanted = (ROOT / "requirements.txt").read_text().splitlines()
    own = (need for name in PRESENT for need in _needs(name) if _holds(need, given.python, ""))
    there = {*PRESENT, *(canonicalize_name(need.name) for need in own)}
    there |= {canonicalize_name(name) for name in given.have.split(",") if name}
    needed = _closure([line for line in wanted if line and line[0] != "#"], there, given.python)
    pins = [f"{name}=={distribution(name).version}" for name in sorted(needed)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", given.python, "--implementation", "cp"]
    command += [part for name in PLATFORMS for part in ("--platform", name)]
    done = subprocess.run([*command, "--dest", str(given.folder), *pins], check=False)
    size = sum(file.stat().st_size for file in given.folder.glob("*.whl"))
    print(f"{len(pins)} packages, {size / 2**20:.0f} MiB")
    return done.returncode


def _closure(requirements: Iterable[str], there: set[str], python: str) -> set[str]:
    found: set[str] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    while waiting:
        requirement, of_extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in there or not _holds(requirement, python, of_extra):
            continue
        for extra in requirement.extras | (set() if name in found else {""}):
            waiting += [(need, extra) for need in _needs(name)]
        found.add(name)
    return {name for name in found if _installed(name)}


def _holds(requirement: Requirement, python: str, extra: str) -> bool:
    environment = {"python_version": python, "extra": extra}  # the rest is this machine's
    return requirement.marker is None or requirement.marker.evaluate(environment)


def _needs(name: str) -> Iterator[Requirement]:
    if _installed(name):
        yield from map(Requirement, distribution(name).requires or ())


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
