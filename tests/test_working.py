"""Protects people from silence: what takes long says what it is and how far, and no more."""

from __future__ import annotations

import time

import pytest

from cli.screens import working as subject
from cli.screens.working import working


def test_what_is_done_soon_is_not_spoken_of(capsys: pytest.CaptureFixture[str]) -> None:
    with working("Loading"):
        pass

    assert capsys.readouterr() == ("", "")


def test_what_takes_long_says_how_far_it_is_and_stops_at_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "SILENT_S", 0.05)
    monkeypatch.setattr(subject, "LINE_AFTER_S", 0.05)
    said = ""
    deadline = time.monotonic() + 60
    with working("Reading", total=7) as note:
        note(3)
        while said.count("Reading: 3/7") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
            said += capsys.readouterr().err
    capsys.readouterr()
    time.sleep(0.2)

    assert said.count("Reading: 3/7") >= 2
    assert capsys.readouterr() == ("", "")


def test_an_error_passes_and_ends_the_talk(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), working("Dividing"):
        1 / 0  # noqa: B018

    assert capsys.readouterr() == ("", "")
