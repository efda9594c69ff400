"""Writes what the cases saw into docs/reliability.md.

    make test-faults fault-tables

Cases that end in a run's comparison make the fault matrix, other cases that noted what they saw
the table after it. Everything between the marks of a table is replaced.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path

MATRIX = ("| fault | promise | what the test does | result | repeated |", "|---|---|---|---|---|")
OTHERS = ("| promise | what the test does | result | seen |", "|---|---|---|---|")


def main(page: str, *results: str) -> None:
    """Replace both tables of the page by what stands in the files of results.

    A case that was run again stands as in the last file.
    """
    last: dict[str, dict[str, str]] = {}
    for name in results:
        last.update(read_cases(Path(name)))
    # files that ran side by side end in any order
    cases = [case for _, case in sorted(last.items(), key=lambda one: one[1]["file"])]
    file = Path(page)
    text = file.read_text()
    text = replaced(text, "matrix", [*MATRIX, *(matrix_row(c) for c in cases if "fault" in c)])
    text = replaced(text, "others", [*OTHERS, *(other_row(c) for c in cases if "seen" in c)])
    file.write_text(text)


def read_cases(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each case's name, properties and result, in the order in which they ran."""
    for case in ElementTree.parse(file).iter("testcase"):
        found = {p.get("name", ""): p.get("value", "") for p in case.iter("property")}
        bad = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
        module = case.get("classname", "")
        result = bad[0] if bad else "passed"
        yield f"{module}.{case.get('name')}", {**found, "file": module, "result": result}


def matrix_row(case: Mapping[str, str]) -> str:
    """A row of the fault matrix."""
    repeated = f"{case['generations']} generations, {case['verdicts']} verdicts"
    return row(case["fault"], case["promise"], case["does"], case["result"], repeated)


def other_row(case: Mapping[str, str]) -> str:
    """A row of the table after it."""
    return row(case["promise"], case["does"], case["result"], case["seen"])


def row(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def replaced(text: str, name: str, lines: list[str], *, by: str = "table.py") -> str:
    """The text with the lines between the marks of that name; raises ValueError without marks."""
    begin, end = f"<!-- {name}: written by tests/faults/{by} -->", f"<!-- end of {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"the page has no marks {begin} and {end}")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return "\n".join([before + begin, *lines, end + after])


if __name__ == "__main__":
    main(*sys.argv[1:])
