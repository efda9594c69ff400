"""What a machine for tests changes in the pages' commands, and why: the whole list.

A rule that matches no line of the pages fails a test, so this list cannot outgrow them.
"""

from __future__ import annotations

from dataclasses import dataclass

HOSTS_TESTS = "tests/faults/test_several_machines.py runs it, on hosts of its own"


@dataclass(frozen=True)
class Skipped:
    """Lines that are not run. `inline`: where it stands within a sentence only."""

    pattern: str
    reason: str
    inline: bool = False


@dataclass(frozen=True)
class Stays:
    """A command that runs until it is stopped; up once its output matches `up`.

    A capturing group in `up` is an address that then answers.
    """

    pattern: str
    up: str


@dataclass(frozen=True)
class Changed:
    """Words of a line that are replaced; {broker}, {judge}, {host} and {run} are the test's."""

    pattern: str
    replacement: str
    reason: str


@dataclass(frozen=True)
class Ends:
    """A command that may end with another code than 0, having said `says`."""

    pattern: str
    code: int
    reason: str
    says: str = ""


Rule = Skipped | Stays | Changed | Ends

SKIPPED = (
    Skipped(r"make (test|docs)", "the suite itself; test_docs.py builds the site"),
    Skipped(r"\. \.venv/bin/activate", "the test has its environment"),
    Skipped(r"\{ cat deploy/redis\.conf.*", HOSTS_TESTS),
    Skipped(r"(pipx|pip|uv tool) install .*", "downloads; test_packaging.py tries ./traitlens"),
    Skipped(r"ssh .*", "another host"),
    Skipped(r"orchestrate publish .* --upload .*", "a hub, and a token; test_publish.py has one"),
    Skipped(r"orchestrate extract --traits all --rollouts 3", "is what `make demo` runs", True),
    Skipped(
        r"orchestrate (extract|plan|status|flower|view|judge-server|worker gpu|cancel)",
        "a name within a sentence; blocks run it with what it needs",
        True,
    ),
    Skipped(
        r"orchestrate worker judge --concurrency N", "an option's name within a sentence", True
    ),
    Skipped(
        r"orchestrate judge-server --check .*",
        "no stand-in can judge; test_judge_check.py asks judges that can and that cannot",
    ),
    Skipped(r"orchestrate traits check REF\.\.\.", "a synopsis; blocks run it", True),
)

STAYS = (
    Stays(r"orchestrate worker (gpu|judge|reduce)\b.*", r" ready\."),
    Stays(r"orchestrate judge-server\b.*", r"(http://\S+) judges as"),
    Stays(r"orchestrate flower", r"Flower on (http://\S+) for"),
    Stays(r"orchestrate metrics", r"Metrics on (http://\S+) for"),
    # draws on a terminal only, so here it is up when it can be interrupted
    Stays(r"orchestrate status .* --watch", r""),
    Stays(r"orchestrate view (?!.*--output).*", r"(http://\S+)"),
    Stays(r"orchestrate monitor .* --view", r"(http://\S+)"),
    Stays(r"orchestrate logs .* --follow", r"refusal/judge/"),
)

CHANGED = (
    Changed(r"google/gemma-2-2b(-it)?", "demo", "its weights are not here"),
    Changed(r"(?<=--model )Qwen/Qwen2\.5-7B-Instruct", "{model}", "nor are its"),
    Changed(r"http://127\.0\.0\.1:8011/v1", "{judge}", "a judge that stands in for it"),
    Changed(r"redis://:\$?PASSWORD@[\w.]+:6379/0", "{broker}", "one of the test's own"),
    Changed(r"/shared/runs", "shared-runs", "a folder here"),
    Changed(r"(?<=model )other", "Qwen/Qwen2.5-7B-Instruct --judge-url {judge}", "the reader's"),
    Changed(r"s3://bucket/runs", "runs", "a folder here"),
    Changed(r"=/models", "=models", "a folder here"),
    Changed(r"\bRUN\b", "{run}", "the reader's"),
    Changed(r"\bMORE\b", "9", "the reader's"),
    Changed(r"gpu-cuda:0-\*@gpu2", "gpu-cpu-*@{host}", "this host, which has no GPU"),
    Changed(r"\bgpu1\b", "{host}", "this host"),
    Changed(r"--device cuda:0", "--device cpu", "no GPU here"),
)

ENDS = (
    Ends(
        r"orchestrate (extract|resume|retry|rejudge)\b.*",
        3,
        "so few responses may make a weak vector",
    ),
    Ends(r"make demo", 2, "make's word for the same", says="demo] Error 3"),
    Ends(r"orchestrate rm tried-out", 2, "nobody sits there to be asked", says="say --yes"),
    Ends(r"orchestrate traits pilot .*", 3, "the stand-in judge finds every answer alike"),
    Ends(r"orchestrate worker drain 'gpu-cuda.*'", 2, "all of the one host left a line before"),
)
