"""Protects the promise for every family: whichever core it gets, its tokens and states are those of
each request alone in a plain pass without cache and padding.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine_work import compared, tiny, work
from tests.tiny_families import EVERY_FAMILY


@pytest.mark.slow
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_family_is_exact_on_the_core_it_gets(family: str, tmp_path: Path) -> None:
    model = tiny(tmp_path, family, changes=EVERY_FAMILY[family])

    found = compared(model, work(3, 2, longest=10))

    assert found.other_texts == 0
    assert found.error < 1e-5
