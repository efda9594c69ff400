"""Protects readers of the documents: every command parses, every link leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.command_lines import commands_in, parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_of_a_page_is_one_that_the_program_takes(page: Path) -> None:
    refused = []
    for command in commands_in(page.read_text(encoding="utf-8")):
        try:
            parse(command)
        except click.ClickException as error:
            refused.append(f"{command}: {error.format_message()}")

    assert refused == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_within_the_repository_leads_to_a_file(page: Path) -> None:
    targets = [t for t in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in t]

    broken = [t for t in targets if not (page.parent / t.partition("#")[0]).exists()]

    assert broken == []


def test_the_search_finds_commands_wherever_pages_put_them() -> None:
    page = """
Run `orchestrate status demo`, or:

    export X=1
    X=1 orchestrate extract --traits all \\
        --model m   # a remark
    docker compose run --rm orchestrate doctor

```bash
orchestrate traits list && orchestrate flower
orchestrate extract ...
```
"""

    assert sorted(commands_in(page)) == [
        "orchestrate doctor",
        "orchestrate extract --traits all --model m",
        "orchestrate flower",
        "orchestrate status demo",
        "orchestrate traits list",
    ]


@pytest.mark.parametrize(
    "command",
    ["orchestrate dance", "orchestrate doctor --brokr-url x", "orchestrate extract --rollouts no"],
)
def test_a_command_with_a_mistake_is_refused(command: str) -> None:
    with pytest.raises(click.UsageError):
        parse(command)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason='pip install ".[docs]"')

    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert (built.returncode, built.stderr) == (0, "")
    # the site needs no other server: it opens from a folder
    text = (tmp_path / "index.html").read_text()
    assert re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?://', text) == []
