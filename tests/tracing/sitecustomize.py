"""Notes which of our functions a value passes through: loaded by every process of a traced run.

A function counts when it is handed, or gives back, one of the wanted strings or numbers, by itself
or inside what it is handed: items of collections and attributes of our own objects, three deep.
What is seen is kept by tests.walk; `PYTHON_WALK_WANTED` says what is looked for.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

DEPTH = 3
MOST_ITEMS = 40
FOLDERS = ("cli", "orchestrator", "tasks", "workers", "storage", "traitlens", "domain")
# They are handed to everything and hold everything: that they know a sample says nothing.
HOLD_EVERYTHING = ("Run", "Plan", "Driver", "Resident", "Residents", "EngineThread", "RefillCore")
WRITE_EVERY_S = 1.0


class Tracer:
    """The steps that one process has seen, with when each was seen first."""

    def __init__(self, root: str, wanted: list[str | float], out: Path) -> None:
        self.root, self.wanted, self.out = root, frozenset(wanted), out
        self.steps: dict[str, float] = {}
        self.known: dict[CodeType, str] = {}
        self.looking = threading.local()

    def profile(self, frame: FrameType, event: str, given: object) -> None:
        """What sys.setprofile calls."""
        if event not in ("call", "return") or getattr(self.looking, "now", False):
            return
        code = frame.f_code
        step = self.known.get(code)
        if step is None:
            step = self.known[code] = self._step(code)
        if not step or step in self.steps:
            return
        self.looking.now = True
        try:
            if event == "return":
                found = self._holds(given)
            else:
                n = code.co_argcount + code.co_kwonlyargcount
                n += bool(code.co_flags & 4) + bool(code.co_flags & 8)
                names = code.co_varnames[:n]
                found = any(self._holds(frame.f_locals.get(name)) for name in names)
            if found:
                self.steps[step] = time.time()
        # a property that raises is no step
        except Exception:
            return
        finally:
            self.looking.now = False

    def write(self) -> None:
        """Keep what was seen so far: a worker may be ended at any time."""
        if self.steps:
            # whole or not at all: two threads may write
            place = self.out.with_suffix(f".{threading.get_ident()}")
            place.write_text(json.dumps(self.steps.copy()))
            place.replace(self.out)

    def _step(self, code: CodeType) -> str:
        if not code.co_filename.startswith(self.root):
            return ""
        file = Path(code.co_filename).relative_to(self.root).as_posix()
        name = code.co_qualname.replace(".<locals>", "")
        if file.partition("/")[0] not in FOLDERS or "<" in name:
            return ""
        return f"{file}:{name}"

    def _holds(self, value: Any, depth: int = 0) -> bool:
        kind = type(value)
        if kind in (str, float, int):
            return value in self.wanted
        if depth > DEPTH or value is None:
            return False
        if kind is dict:
            items = list(value.items())[:MOST_ITEMS]
            return any(self._holds(k, depth + 1) or self._holds(v, depth + 1) for k, v in items)
        if kind in (list, tuple, set, frozenset):
            return any(self._holds(item, depth + 1) for item in list(value)[:MOST_ITEMS])
        if kind.__module__.partition(".")[0] not in FOLDERS or kind.__name__ in HOLD_EVERYTHING:
            return False
        known_by = (getattr(value, name, None) for name in ("key", "sample"))
        if any(self._holds(one, depth + 1) for one in known_by):
            return True
        return self._holds(dict(getattr(value, "__dict__", {})), depth + 1)


def _start() -> None:
    wanted = json.loads(bytes.fromhex(os.environ["PYTHON_WALK_WANTED"]))
    out = Path(os.environ["PYTHON_WALK_OUT"]) / f"{os.getpid()}.json"
    tracer = Tracer(os.environ["PYTHON_WALK_ROOT"] + "/", wanted, out)

    def write_again_and_again() -> None:
        while True:
            time.sleep(WRITE_EVERY_S)
            tracer.write()

    exit_at_once = os._exit

    def write_and_exit(status: int) -> NoReturn:
        tracer.write()
        exit_at_once(status)

    # the command ends by it, without what atexit knows
    os._exit = write_and_exit
    atexit.register(tracer.write)
    threading.Thread(target=write_again_and_again, daemon=True).start()
    threading.setprofile(tracer.profile)
    sys.setprofile(tracer.profile)


if "PYTHON_WALK_OUT" in os.environ:
    _start()
