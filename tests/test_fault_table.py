"""Protects docs/reliability.md: its tables come from the cases' own output and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.table import main

RESULTS = """<testsuites><testsuite>
<testcase name="a"><properties>
  <property name="promise" value="It goes on."/><property name="does" value="Kills | waits."/>
  <property name="fault" value="SIGKILL"/>
  <property name="generations" value="6"/><property name="verdicts" value="0"/>
</properties></testcase>
<testcase name="b"><properties>
  <property name="promise" value="It is found."/><property name="does" value="Flips."/>
  <property name="seen" value="100 of 100"/>
</properties><skipped/></testcase>
<testcase name="c"/>
</testsuite></testsuites>"""

PAGE = """before
<!-- matrix: written by tests/faults/table.py -->
old
<!-- end of matrix -->
between
<!-- others: written by tests/faults/table.py -->
<!-- end of others -->
after
"""


def test_each_case_has_its_row_in_its_table_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    results, page = tmp_path / "faults.xml", tmp_path / "page.md"
    results.write_text(RESULTS)
    page.write_text(PAGE)

    main(str(page), str(results))

    lines = page.read_text().splitlines()
    row = "| SIGKILL | It goes on. | Kills / waits. | passed | 6 generations, 0 verdicts |"
    assert (lines[0], lines[4], lines[6]) == ("before", row, "between")
    assert "| It is found. | Flips. | skipped | 100 of 100 |" in lines
    assert lines[-1] == "after"
    assert "old" not in lines


def test_a_case_that_was_run_again_stands_as_it_ended_last(tmp_path: Path) -> None:
    first, again, page = tmp_path / "1.xml", tmp_path / "2.xml", tmp_path / "page.md"
    first.write_text(RESULTS)
    again.write_text(RESULTS.replace("<skipped/>", ""))
    page.write_text(PAGE)

    main(str(page), str(first), str(again))

    assert page.read_text().count("It is found.") == 1
    assert "| It is found. | Flips. | passed | 100 of 100 |" in page.read_text()


def test_a_page_without_the_marks_is_refused(tmp_path: Path) -> None:
    results, page = tmp_path / "faults.xml", tmp_path / "page.md"
    results.write_text(RESULTS)
    page.write_text("nothing here")

    with pytest.raises(ValueError, match="no marks"):
        main(str(page), str(results))


def test_rows_stand_by_file_whichever_file_ended_first(tmp_path: Path) -> None:
    results, page = tmp_path / "faults.xml", tmp_path / "page.md"
    later = RESULTS.replace("<testcase ", '<testcase classname="z" ').replace("SIGKILL", "SIGTERM")
    both = (later, RESULTS)
    cases = [one[one.index("<testcase") : one.rindex("</testsuite>")] for one in both]
    results.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    page.write_text(PAGE)

    main(str(page), str(results))

    text = page.read_text()
    assert 0 < text.index("SIGKILL") < text.index("SIGTERM")
