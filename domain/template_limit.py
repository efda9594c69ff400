"""Bounds on a chat template, which is a program of whoever made the model: its time, its errors."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

from jinja2 import TemplateError

from domain.errors import ModelError

# One takes milliseconds.
MOST_SECONDS = 10.0


class _TooLong(BaseException):
    """Raised inside the template, past whatever it or its library catches."""


def within_limit(render: Callable[[], str]) -> str:
    """What `render` gives; raises ModelError when it has not ended in MOST_SECONDS, and
    TemplateError for whatever the template raises.

    It is stopped where it stands, in whichever thread, as long as it runs Python's own steps.
    """
    me, lock, is_over = threading.get_ident(), threading.Lock(), False

    def stop() -> None:
        with lock:
            if not is_over:
                raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
                raise_in(ctypes.c_ulong(me), ctypes.py_object(_TooLong))

    timer = threading.Timer(MOST_SECONDS, stop)
    timer.daemon = True
    try:
        timer.start()
        try:
            return render()
        except TemplateError:
            raise
        # a division, a type, a recursion: it may be anything
        except Exception as error:
            raise TemplateError(f"{type(error).__name__}: {error}") from error
        finally:
            # once this is held, what stop has sent arrives before the next line
            with lock:
                is_over = True
            timer.cancel()
    except _TooLong:
        raise ModelError(
            f"the model's chat template has not ended after {MOST_SECONDS:.0f} s",
            advice="use the template of another version of the model",
        ) from None
