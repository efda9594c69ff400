"""The way in of the `orchestrate` script, of `python -m cli` and of every process they start.

Our packages have ordinary names, so a foreign `cli.py` or `tasks/` may stand before them on
Python's path. This module's name is nobody else's: what lies beside it is ours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

HOME = Path(__file__).absolute().parent
PACKAGES = ("domain", "traitlens", "storage", "workers", "tasks", "orchestrator", "cli", "demo")
USAGE = 2


class OwnPackages:
    """Finds our top-level packages beside this file, before Python's path is searched."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a package of ours lies; None for every other name."""
        return PathFinder.find_spec(name, [str(HOME)]) if name in PACKAGES else None


def main() -> None:
    """Run the command with our own packages, or say in one sentence what stands in the way."""
    sys.meta_path.insert(0, OwnPackages)
    # Run as a file, it is __main__; its own packages ask for it by name.
    sys.modules.setdefault("trait_vector_orchestrator", sys.modules[__name__])
    for name in PACKAGES:
        if name in sys.modules and (place := _foreign_place(sys.modules[name].__spec__)):
            _stop(f"{place} was loaded as `{name}` before this program began")
    try:
        from cli.main import main as command
    except ImportError as error:
        if str(error.name).partition(".")[0] not in PACKAGES:
            raise
        _stop(f"another package has written over `{error.name}` in {HOME}")
    command()


def on_the_path() -> dict[str, str]:
    """Our names under which Python's path, searched without this module, has something foreign."""
    found = {name: _foreign_place(PathFinder.find_spec(name)) for name in PACKAGES}
    return {name: place for name, place in found.items() if place is not None}


def _foreign_place(spec: ModuleSpec | None) -> str | None:
    """Where a module lies that does not lie beside this file."""
    if spec is None:
        return None
    if spec.origin is not None:
        return None if Path(spec.origin).absolute().parent.parent.samefile(HOME) else spec.origin
    # a folder without __init__.py; an editable installation may add names that are no folders
    folders = [place for place in spec.submodule_search_locations or () if Path(place).is_dir()]
    return folders[0] if folders else None


def _stop(what: str) -> None:
    sys.stderr.write(
        f"Error: {what}: remove it, or install this program in an environment of its own "
        "(pipx install, uv tool install) and run it with PYTHONPATH unset\n"
    )
    sys.exit(USAGE)


if __name__ == "__main__":
    main()
