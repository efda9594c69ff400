"""The pages at their largest in a real Chromium.

The report of eleven traits with 2300 responses each: its size, how long it takes to open from disk
and how long to sort and to search all of it. The viewer: what a step from token to token costs in a
long response and in a short one, and what scrolling costs in a long list and in a short one.

python benchmarks/pages.py [--characters 900]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli.commands.report import reported
from cli.pages.build import report_page
from domain.plan.spec import ChecksSpec
from domain.traits.definition import BUNDLED_TRAITS
from tests.chromium import Tab, chromium_or_skip, running_chromium
from tests.page_data import carrying, judged, long_record
from tests.stored_run import stored_run

N_RESPONSES = 2300
REPEATS = 7
STEPS = 60
FRAME_MS = 1000 / 60
SELECT = """(([label, value]) => {
    const one = [...document.querySelectorAll('#panel-answers label')]
        .find(e => e.firstChild.textContent === label).querySelector('select');
    one.value = value;
    const began = performance.now();
    one.dispatchEvent(new Event('change'));
    document.querySelector('#answers').getBoundingClientRect();
    return performance.now() - began;
})"""
SEARCH = """(async (words) => {
    const box = document.querySelector('#panel-answers input');
    const count = document.querySelector('[role=status]');
    box.value = words;
    const before = count.textContent, began = performance.now();
    box.dispatchEvent(new Event('input'));
    while (count.textContent === before) await new Promise(requestAnimationFrame);
    return performance.now() - began;
})"""


SLIDE = f"""(async () => {{
    const slider = document.querySelector('#token');
    for (let i = 0; i < {STEPS}; i++) {{
        slider.value = String(Math.floor(i * slider.max / {STEPS}));
        slider.dispatchEvent(new Event('input', {{bubbles: true}}));
        await new Promise(requestAnimationFrame);
    }}
}})()"""
SCROLL = f"""(async () => {{
    const box = document.querySelector('#records');
    for (let i = 0; i < {STEPS}; i++) {{
        box.scrollTop = (i * 7919) % (box.scrollHeight - box.clientHeight);
        await new Promise(requestAnimationFrame);
    }}
}})()"""
SORT_LIST = """(async () => {
    const select = document.querySelector('#by-order'), begun = performance.now();
    select.value = select.value === 'low' ? 'high' : 'low';
    select.dispatchEvent(new Event('change', {bubbles: true}));
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    return performance.now() - begun;
})()"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--characters", type=int, default=900, help="of a response, on average")
    characters = parser.parse_args().characters
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        data = grown(reported(_run(Path(place) / "run")), characters)
        page = Path(place) / "report.html"
        packing = time.perf_counter()
        page.write_bytes(report_page("benchmark", data))
        print(
            f"{len(data['traits'])} traits of {N_RESPONSES}: {page.stat().st_size / 1e6:.1f} MB, "
        )
        print(
            f"packed in {time.perf_counter() - packing:.1f} s of {time.perf_counter() - began:.1f}"
        )
        with running_chromium(chromium_or_skip(), Path(place) / "profile") as tab:
            measure_report(tab, page)
            measure_viewer(tab, Path(place))


def _run(folder: Path) -> Any:
    checks = ChecksSpec(evaluation=1, causal=4)
    return stored_run(folder, checks=checks, rollouts=4)


def grown(data: dict[str, Any], characters: int) -> dict[str, Any]:
    """The report's data with eleven traits, each with its answers repeated, their texts and scores
    drawn anew: words of a frequency like that of English, so that they compress like it."""
    rng = random.Random(0)
    words = [
        "".join(rng.choices("etaoinshrdlucmfwypvbgk", k=rng.randint(1, 11))) for _ in range(9000)
    ]
    weights = [1 / (k + 3) for k in range(len(words))]
    pool = " ".join(rng.choices(words, weights, k=400_000))
    first = data["traits"][0]
    traits = []
    for name in BUNDLED_TRAITS:
        table: dict[str, Any] = {}
        for column, values in first["answers"].items():
            if isinstance(values, list):
                table[column] = _repeated(values)
            elif isinstance(values, dict) and "of" in values:
                table[column] = {**values, "of": _repeated(values["of"])}
            else:
                table[column] = values
        # far apart from one another: compression looks back 32 kB
        starts = [rng.randrange(len(pool) - 20 * characters) for _ in range(N_RESPONSES)]
        lengths = [min(20 * characters, int(rng.expovariate(1 / characters))) for _ in starts]
        table["response"] = [pool[s : s + n] for s, n in zip(starts, lengths, strict=True)]
        table["key"] = [f"{name}/{key}/{k}" for k, key in enumerate(table["key"])]
        for column in ("trait_score", "coherence_score", "projection"):
            table[column] = [rng.uniform(0, 100) for _ in range(N_RESPONSES)]
        traits.append({**first, "metrics": {**first["metrics"], "trait": name}})
        traits[-1]["answers"] = {**table, "n": N_RESPONSES}
    return {**data, "traits": traits}


def _repeated(values: list[Any]) -> list[Any]:
    return (values * (N_RESPONSES // len(values) + 1))[:N_RESPONSES]


def measure_report(tab: Tab, page: Path) -> None:
    """Print how long a person waits."""
    opened, ready = [], []
    for _ in range(3):
        began = time.perf_counter()
        tab.open_anew(f"{page.as_uri()}#view=answers")
        opened.append(time.perf_counter() - began)
        tab.wait("document.body.dataset.ready")
        ready.append(time.perf_counter() - began)
    print(f"opened: verdicts after {min(opened):.2f} s, every answer after {min(ready):.2f} s")
    for order in ("trait_score", "coherence_score", "projection", "n_tokens"):
        times = []
        for _ in range(REPEATS):
            tab.evaluate(f"{SELECT}({json.dumps(['sort by', ''])})")
            times.append(tab.evaluate(f"{SELECT}({json.dumps(['sort by', order])})"))
        print(
            f"sorting by {order}: first {times[0]:.0f} ms, median {statistics.median(times):.0f} ms"
        )
    times = [tab.evaluate(f"{SEARCH}({json.dumps(text)})") for text in ("the", "ab", "evil q03")]
    print(f"searching, 150 ms of waiting for more included: {[round(t) for t in times]} ms")


def measure_viewer(tab: Tab, folder: Path) -> None:
    """Print the page's own processor time a step, for much and for little, and the ratio."""
    tab.call("Performance.enable", {"timeDomain": "threadTicks"})
    tokens = {n: [long_record(n)] for n in (5000, 200)}
    records = {n: [judged(i) for i in range(n)] for n in (5000, 100)}
    for what, script, sizes in (
        ("a step between tokens", SLIDE, tokens),
        ("a step of scrolling", SCROLL, records),
    ):
        costs = [_thread_ms(tab, folder, one, script) for one in sizes.values()]
        print(
            f"{what}: {costs[0]:.1f} ms of processor time of a frame's {FRAME_MS:.1f}, "
            f"{costs[0] / costs[1]:.2f}x that of a small one"
        )
    for n, some in records.items():
        tab.open_anew(carrying(folder, {"records.json": some}).as_uri())
        times = [tab.evaluate(SORT_LIST) for _ in range(REPEATS)]
        print(f"sorting {n} records, to the next frame but one: {statistics.median(times):.0f} ms")


def _thread_ms(tab: Tab, folder: Path, records: list[Any], script: str) -> float:
    tab.open_anew(carrying(folder, {"records.json": records}).as_uri())
    tab.wait("!document.querySelector('#content').hidden")
    costs = []
    for _ in range(3):
        before = _thread_s(tab)
        tab.evaluate(script)
        costs.append(1000 * (_thread_s(tab) - before) / STEPS)
    return min(costs)


def _thread_s(tab: Tab) -> float:
    metrics = tab.call("Performance.getMetrics")["metrics"]
    return next(float(m["value"]) for m in metrics if m["name"] == "TaskDuration")


if __name__ == "__main__":
    main()
