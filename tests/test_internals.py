"""Protects workers from a Celery or kombu whose insides are not those that we use."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import version

import pytest

from tasks.fleet.kombu_internals import USED, Internal


def lacks(used: Internal) -> list[str]:
    module, _, name = used.owner.partition(":")
    owner = importlib.import_module(module)
    if name:
        owner = getattr(owner, name)
    # what only an instance has is set by its class
    written = "" if not name else "".join(inspect.getsource(one) for one in owner.__mro__[:-1])
    return [one for one in used.names if not hasattr(owner, one) and f"self.{one} " not in written]


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3])


@pytest.mark.parametrize("used", USED, ids=lambda used: used.owner)
def test_what_we_use_of_the_insides_of_a_library_is_there(used: Internal) -> None:
    library = used.owner.partition(".")[0]
    there = version(library)

    assert not lacks(used), (
        f"{library} {there} has no {lacks(used)} in {used.owner}, which we need for: {used.why}"
    )
    assert numbers(there) <= numbers(used.seen), (
        f"{library} {there} is newer than {used.seen}, where {used.owner} was looked at: read what "
        "changed in it, run the fault tests, then raise the version in tasks/fleet/kombu_internals"
    )


def test_a_name_that_is_not_there_is_missed() -> None:
    assert lacks(Internal("kombu.transport.redis:QoS", ("append", "_gone"), "")) == ["_gone"]
