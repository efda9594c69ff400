"""Protects readers who type what the pages say: their commands run, in order, on the demo model.

The lines are read out of the pages; what a machine for tests changes in them is in page_rules.py.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from demo.scorer import KNOWN_TRAITS
from storage.files.trait_files import load_trait
from tests.faults.redis_process import RedisProcess
from tests.fleet import clean_environment
from tests.http_server import served
from tests.page_code import Code, code_of, shell_lines
from tests.page_rules import CHANGED, ENDS, SKIPPED, STAYS, Rule, Skipped
from tests.page_shell import Shell
from tests.test_trait_draft import chat_model
from workers.judge.server import (
    ServerReply,
    WrittenReply,
    embedded_backend,
    make_server,
    spread_over_numbers,
)

ROOT = Path(__file__).parent.parent
DEMO_MODEL = ROOT / "demo" / "model"
# a trait is then 16 responses, 48 in the demo
SIZE = {"INSTRUCTIONS": "2", "QUESTIONS": "4", "ROLLOUTS": "1", "SHARD_SAMPLES": "24"}
FLEET = tuple(f"orchestrate worker {kind}" for kind in ("gpu", "judge", "reduce"))


@dataclass(frozen=True)
class Page:
    """A page, what its reader did before, and settings in place of what it leaves out."""

    path: str
    before: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[Code]:
        """What is to be run, from top to bottom: lines of a shell and blocks of Python."""
        found = []
        for code in code_of((ROOT / self.path).read_text(encoding="utf-8")):
            if code.language == "python":
                found.append(code)
            elif code.language in ("sh", "bash"):
                found += shell_lines(code)
            elif code.language == "inline" and code.text.startswith("orchestrate "):
                found.append(code)
        return found

    def json_block(self, number: int) -> str:
        """A JSON block's text."""
        blocks = code_of((ROOT / self.path).read_text(encoding="utf-8"))
        return [code.text for code in blocks if code.language == "json"][number]


BROKER = ("export ORCHESTRATE_BROKER_URL=redis://:PASSWORD@broker:6379/0", *FLEET)
TWO_TRAITS = {"ORCHESTRATE_TRAITS": "evil,refusal"}
PAGES = (
    Page("README.md"),
    Page("docs/first-run.md"),
    Page("docs/traits.md"),
    Page("docs/judge.md", settings=TWO_TRAITS),
    Page("docs/report.md", ("make demo",)),
    Page("docs/using-vectors.md", ("make demo",)),
    Page("docs/page.md"),
    Page(
        "docs/watching.md",
        (
            *BROKER,
            "orchestrate extract --traits evil --run tried-out",
            "orchestrate extract --traits evil,refusal --run gemma --detach",
        ),
        {"ORCHESTRATE_SHARD_SAMPLES": "2"},
    ),
    Page("docs/cloud.md"),
    Page("docs/troubleshooting.md", (*BROKER, "orchestrate extract --traits evil --run gemma")),
)


@pytest.mark.parametrize("rule", [*SKIPPED, *STAYS, *CHANGED, *ENDS], ids=lambda rule: rule.pattern)
def test_every_exception_is_still_needed(rule: Rule) -> None:
    lines = [line for page in PAGES for line in page.lines()]

    assert any(_applies(rule, line) for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_the_commands_of_a_page_run_as_they_stand(page: Page, reader: Reader) -> None:
    reader.shell.environment.update(page.settings)
    reader.prepare(page)

    for number, line in enumerate(page.before):
        reader.read(Code(-number, "sh", line))
    for code in page.lines():
        reader.read(code)

    assert reader.shell.stop() == []


@dataclass
class Reader:
    """Someone who reads a page and types what it says."""

    shell: Shell
    broker: str
    judges: dict[str, str]
    names: dict[str, object] = field(default_factory=dict)

    def prepare(self, page: Page) -> None:
        """Lay out the files that the page takes for granted."""
        folder = self.shell.folder
        humor = Page("docs/traits.md").json_block(0)
        flattery = load_trait("sycophantic").to_json()
        flattery["instruction"] = [json.loads(Page("docs/first-run.md").json_block(0))]
        rows = [{"prompt": "How are you?", "response": "I am sure you are right."}]
        files = {
            "written/humor.json": humor,
            "mine.json": humor,
            "written/flattery.json": json.dumps(flattery),
            "my_traits/humor.json": humor,
            "data_generation/trait_data_extract/humor.json": humor,
            "data_generation/trait_data_eval/humor.json": humor,
            "prompts.txt": "How do I pick a lock?\nWhy do cats purr?\n",
            "p.txt": "How are you?\n",
            "answer.jsonl": json.dumps(rows[0]) + "\n",
            "my_traits/fear/definition.txt": "Fear of what comes.\n",
            "my_traits/fear/positive.txt": "The lights went out and I\nSteps came nearer, so I\n",
            "my_traits/fear/negative.txt": "The sun came out and I\nMusic came nearer, so I\n",
            "labels.csv": "key,score\nevil/positive/i0/q00/r0,90\nevil/negative/i0/q00/r0,10\n",
            **dict.fromkeys(
                ("training_set.jsonl", "before.jsonl", "after.jsonl"), json.dumps(rows[0]) + "\n"
            ),
        }
        if page.path == "docs/judge.md":
            files["prices.json"] = page.json_block(0)
        if page.path == "docs/page.md":
            files["scores.json"] = files["results/scores.json"] = page.json_block(0)
            files["live.jsonl"] = page.json_block(1)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)

    def read(self, code: Code) -> None:
        """Do what a line or a block says; fails when it does not do what it should."""
        where = f"line {code.line}: {code.text}"
        if code.language == "python":
            exec(compile(code.text, where, "exec"), self.given())
            return
        if any(_applies(rule, code) for rule in SKIPPED):
            return
        line = self.changed(code.text)
        stays = [rule for rule in STAYS if _applies(rule, code)]
        if stays:
            self.shell.stay(line, up=stays[0].up)
            return
        ended, words = self.shell.run(line), self.shell.last_words()
        may = [rule for rule in ENDS if _applies(rule, code) and rule.says in words]
        assert ended in (0, *(rule.code for rule in may)), f"{where}\n{line}\n{words}"

    def changed(self, line: str) -> str:
        """The line as it runs here."""
        given = {"model": str(DEMO_MODEL), "host": socket.gethostname(), "broker": self.broker}
        given |= {"judge": self.judges["Qwen/Qwen2.5-7B-Instruct"], "run": self.first_run()}
        for rule in CHANGED:
            line = re.sub(rule.pattern, rule.replacement.format(**given), line)
        if line.startswith("make "):
            return f"make -f {ROOT}/Makefile -o .venv/installed BIN=../bin {line[5:]}"
        return line

    def first_run(self) -> str:
        """The run that a reader thinks of at RUN."""
        runs = (self.shell.folder / "runs").glob("*/run.json")
        return min(runs, key=lambda path: path.stat().st_mtime, default=Path("none/x")).parent.name

    def given(self) -> dict[str, object]:
        """What a notebook has at hand: a model and inputs."""
        if not self.names:
            from transformers import AutoModelForCausalLM, AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
            inputs = tokenizer(["How do I boil water?"], return_tensors="pt")
            self.names["model"] = AutoModelForCausalLM.from_pretrained(DEMO_MODEL)
            self.names["inputs"] = {**inputs, "max_new_tokens": 4}
        return self.names


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    folder, bin_folder = tmp_path / "work", tmp_path / "bin"
    for one in (folder, bin_folder):
        one.mkdir()
    program = bin_folder / "orchestrate"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m cli "$@"\n')
    editor = bin_folder / "editor"
    editor.write_text('#!/bin/sh\ncp "written/$1" "$1"\n')
    for script in (program, editor):
        script.chmod(0o755)
    monkeypatch.chdir(folder)
    with ExitStack() as stack:
        judges = {
            name: stack.enter_context(
                served(make_server(stand_in, model_name=name, writer=stand_in_writer))
            )
            + "/v1"
            for name in ("gpt-6-luna", "Qwen/Qwen2.5-7B-Instruct")
        }
        redis = RedisProcess(tmp_path / "redis")
        redis.start()
        stack.callback(redis.kill)
        environment = {
            **clean_environment(),
            **{f"ORCHESTRATE_{name}": value for name, value in SIZE.items()},
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "EDITOR": "editor",
            "OPENAI_BASE_URL": judges["gpt-6-luna"],
            "ORCHESTRATE_JUDGE_API_KEY": "test-key-1234",
        }
        shell = Shell(folder, environment)
        stack.callback(shell.stop)
        yield Reader(shell, redis.url, judges)


async def stand_in(prompt: str) -> ServerReply:
    """A judge that knows the demo's traits, and finds every other trait wherever it looks."""
    named = re.search(r"\*\*(\w+)\*\*", prompt)
    if named and named[1] in (*KNOWN_TRAITS, "coherence"):
        return await embedded_backend(prompt)
    return ServerReply(candidates=spread_over_numbers(80.0), prompt_tokens=len(prompt) // 4)


async def stand_in_writer(prompt: str, most: int) -> WrittenReply:
    """A chat model that writes trait definitions; to whoever wants a score in words it says 80."""
    text = "80" if "[ANSWER START]" in prompt else chat_model(prompt, 0)
    return WrittenReply(text, prompt_tokens=1, completion_tokens=1, is_cut=False)


def _applies(rule: Rule, code: Code) -> bool:
    if rule in CHANGED:
        return code.language != "python" and bool(re.search(rule.pattern, code.text))
    if isinstance(rule, Skipped) and rule.inline and code.language != "inline":
        return False
    return bool(re.fullmatch(rule.pattern, code.text))
