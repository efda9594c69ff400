"""A hostile model repository: its chat template is a program, and may be one that never ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cli.doctor.thinking import thinking_of_template
from domain import template_limit
from domain.errors import ModelError
from tests.engine_work import tiny
from workers.models.chat import render_chat

ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}{{ messages[0].content }}"
)


def in_another_thread(work: Callable[[], object]) -> BaseException | None:
    """What it raised there, as a job's thread would."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()
    return raised[0] if raised else None


def test_a_template_that_never_ends_is_stopped_in_whichever_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(tmp_path, "llama")
    before = render_chat(model, [("user", "hello")])
    fine, model.tokenizer.chat_template = model.tokenizer.chat_template, ENDLESS
    monkeypatch.setattr(template_limit, "MOST_SECONDS", 0.5)

    with pytest.raises(ModelError):
        thinking_of_template(ENDLESS)
    raised = in_another_thread(lambda: render_chat(model, [("user", "hello")]))

    assert isinstance(raised, ModelError)
    monkeypatch.undo()
    model.tokenizer.chat_template = fine
    assert render_chat(model, [("user", "hello")]) == before


def test_many_templates_that_end_are_never_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limit, "MOST_SECONDS", 0.002)
    ended = 0

    def render(seconds: float) -> str:
        time.sleep(seconds)
        return "text"

    for k in range(300):
        # about as long as the limit, so that the two meet
        try:
            template_limit.within_limit(partial(render, 0.0005 + 0.00001 * k))
            ended += 1
        except ModelError:
            pass
    time.sleep(0.05)

    # nothing arrives after the end: the loop above would have been left by it
    assert 0 < ended < 300
