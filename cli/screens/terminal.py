"""The one way to the terminal: what would steer it is written out, what is secret left out.

Texts come from models, judges, files, folders and the broker. All that is printed or logged goes
through `guarded`; only what rich draws on a `Screen` brings escape sequences of its own, and there
the texts are made visible before they are drawn.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from domain.redaction import Redactor, visible


class Screen(Console):
    """rich's console on our terminal; the texts of what it draws are made visible."""

    def __init__(
        self, *, to_stderr: bool = False, highlight: bool = True, wrap: bool = True
    ) -> None:
        """`wrap` breaks long lines at the terminal's width."""
        stream = sys.stderr if to_stderr else sys.stdout
        self._redact = Redactor.from_environment(os.environ)
        super().__init__(file=_beneath(stream), highlight=highlight, soft_wrap=not wrap)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See rich."""
        for one in super().render(renderable, options):
            yield one if one.control else Segment(visible(self._redact(one.text)), one.style)


def say(console: Console, text: str, *, style: str | None = None, wrap: bool = False) -> None:
    """A line as it is: unbroken, nothing in it coloured or taken for markup; a sentence, which has
    no command in it that somebody copies, may `wrap` between its words on a terminal."""
    unbroken = not (wrap and console.is_terminal)
    console.print(text, style=style, highlight=False, soft_wrap=unbroken, markup=False)


class Guarded(io.TextIOBase):
    """A text stream that passes on no control sequence and no secret."""

    def __init__(self, stream: TextIO, redact: Redactor) -> None:
        self.stream, self._redact = stream, redact

    def write(self, text: str | bytes) -> int:
        """Write a text, made visible; returns the length that was given."""
        if isinstance(text, bytes):  # as click writes what a shell completes by
            return len(text) if self.write(text.decode(errors="replace")) else 0
        # a progress bar begins its line anew
        returns = len(text) - len(text.lstrip("\r"))
        safe = text[returns:].replace("\r\n", "\n")
        self.stream.write(text[:returns] + visible(self._redact(safe)))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors


@contextlib.contextmanager
def guarded_output() -> Iterator[None]:
    """Standard output and error are guarded while the context is open."""
    redact = Redactor.from_environment(os.environ)
    outside = sys.stdout, sys.stderr
    for stream in outside:
        # under LC_ALL=C what the terminal has no letter for is written out too
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (Guarded(stream, redact) for stream in outside)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = outside
        try:
            sys.stdout.flush()
        except OSError:
            # said already where it was written; Python would say it again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _beneath(stream: TextIO) -> TextIO:
    return stream.stream if isinstance(stream, Guarded) else stream
