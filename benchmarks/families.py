"""Which core each family of models gets, and how far its states are from a plain pass.

Run: python benchmarks/families.py [family ...]. Prints a table, a line as soon as it is there. The
models are small and random; the plain pass takes each request alone and runs the whole text again
for every token, without cache and padding.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from transformers.utils.logging import set_verbosity_error

from tests.engine_work import compared, tiny, work
from tests.tiny_families import EVERY_FAMILY

CORES = {"engine": "fast", "fallback": "slow"}


def main(families: list[str]) -> None:
    """Print the table of these families."""
    set_verbosity_error()
    # the table says which core; why is the log's business
    logging.getLogger("workers").setLevel(logging.ERROR)
    print("| family | core | other texts | largest error of a state |\n|---|---|--:|--:|")
    for family in sorted(families):
        with tempfile.TemporaryDirectory() as folder:
            model = tiny(Path(folder), family, changes=EVERY_FAMILY[family])
            found = compared(model, work(3, 2, longest=10))
        print(
            f"| {family} | {CORES[found.path]} | {found.other_texts} | {found.error:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:] or list(EVERY_FAMILY))
