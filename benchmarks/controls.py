"""Negative and positive controls on a real model: how often a verdict is passed on what means
nothing, and how often what is there is found.

    make controls
    python benchmarks/controls.py --model google/gemma-2-2b-it --device cuda --rollouts 4

Responses are generated once and kept in --keep; every control is then arithmetic on them, 40 times
with another draw, through the stages of a run (controls_verdict.py). Nothing is judged by a model:
each control has a judge of its own. `side` is the worst: it gives what was asked for a high score
whatever the text says, so that no gate on scores helps. Ends with 1 where a control misses its bar.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.controls_texts import OF_TRAITS, PAIRS, Set, stored_sets
from benchmarks.controls_verdict import Case, verdict_of
from domain.verdict.record import UseState, VerdictName
from traitlens.arrays import Bools, Float64
from traitlens.assess.random_directions import covariance_matched
from traitlens.stats.intervals import exact_share_interval

N_SEEDS = 40
MOST_FALSE, LEAST_FOUND = 0.05, 0.8
LONGEST = 48
MARK, END = "<!-- controls -->", "<!-- end -->"

Sets = dict[str, Set]
Draw = Callable[[Sets, np.random.Generator], Case]


class Control(NamedTuple):
    """What is drawn, which judge scores it, and whether what is found is there."""

    name: str
    draw: Draw
    judge: str = "side"
    is_there: bool = False


class Ended(NamedTuple):
    """What a verdict came to."""

    verdict: VerdictName
    reads: UseState


def by_side(is_pos: Bools, rng: np.random.Generator) -> Float64:
    """85 for the positive side and 15 for the other, with a judge's usual noise."""
    return np.where(is_pos, 85.0, 15.0) + 5 * rng.standard_normal(len(is_pos))


def _case(found: Set, is_pos: Bools, score: Float64) -> Case:
    arrays = {name: value for name, value in vars(found).items() if name != "first_token"}
    return Case(**{**arrays, "is_pos": is_pos, "score": score})


def same_texts(sets: Sets, rng: np.random.Generator) -> Case:
    """Each text on both sides, behind the positive and behind the negative instruction."""
    found = sets[str(rng.choice([one for one in sets if one not in PAIRS]))]
    few = np.isin(found.question, rng.permutation(np.unique(found.question))[:8])
    is_pos = np.arange(2 * few.sum()) < few.sum()
    twice = {
        name: np.concatenate([value[few]] * 2)
        for name, value in vars(found).items()
        if name != "first_token"
    }
    own, other = found.own[few], found.opposite[few]
    twice |= {"own": np.concatenate([own, other]), "opposite": np.concatenate([other, own])}
    twice |= {"question": np.unique(twice["question"], return_inverse=True)[1]}
    return Case(**{**twice, "is_pos": is_pos, "score": by_side(is_pos, rng)})


def like_texts(sets: Sets, rng: np.random.Generator) -> Case:
    """Each text on one side, by lot, and behind that side's instruction."""
    found = sets[str(rng.choice([one for one in sets if one not in PAIRS]))]
    # as many of a side of each question as may be
    order = np.lexsort((rng.random(len(found.question)), found.question))
    is_pos = np.zeros(len(order), bool)
    is_pos[order] = (np.arange(len(order)) + rng.integers(2)) % 2 == 0
    side = is_pos[:, None, None]
    moved = {
        "own": np.where(side, found.own, found.opposite),
        "opposite": np.where(side, found.opposite, found.own),
    }
    return _case(Set(**{**vars(found), **moved}), is_pos, by_side(is_pos, rng))


def exchanged(sets: Sets, rng: np.random.Generator) -> Case:
    """Sides change places in half of the cells, with everything that belongs to them."""
    found = sets[str(rng.choice(["length", "format", "language"]))]
    cell = found.instruction * 1000 + found.question
    swapped = rng.permutation(np.unique(cell))[::2]
    is_pos = (found.is_pos > 0) ^ np.isin(cell, swapped)
    return _case(found, is_pos, by_side(is_pos, rng))


def badges(sets: Sets, rng: np.random.Generator) -> Case:
    """Which badge of a pair is called positive is drawn by lot."""
    found = sets["badge"]
    turned = rng.random(found.instruction.max() + 1) < 0.5
    is_pos = (found.is_pos > 0) ^ turned[found.instruction]
    return _case(found, is_pos, by_side(is_pos, rng))


def first_token(sets: Sets, rng: np.random.Generator) -> Case:
    """Badges, scored by the first token alone: half of all tokens are worth 100."""
    found = badges(sets, rng)
    tokens = sets["badge"].first_token
    worth = rng.random(tokens.max() + 1) < 0.5
    return Case(**{**vars(found), "score": np.where(worth[tokens], 90.0, 10.0)})


def by_length(sets: Sets, rng: np.random.Generator, *, name: str) -> Case:
    """Instructions that change one thing, scored by length; eight of the questions by lot."""
    found = sets[name]
    score = 100.0 * np.minimum(found.n_tokens / LONGEST, 1.0)
    case = _case(found, found.is_pos > 0, score)
    few = rng.permutation(np.unique(found.question))[:8]
    case = case.rows(np.isin(case.question, few))
    return Case(**{**vars(case), "question": np.unique(case.question, return_inverse=True)[1]})


def planted(sets: Sets, rng: np.random.Generator, *, d: float) -> Case:
    """Badges by lot, and a shift of d standard deviations between the sides, in the texts: along a
    direction that the responses vary in, in every context alike."""
    case = badges(sets, rng)
    centered = case.own - case.own.mean(axis=0)
    unit = covariance_matched(centered, 1, seed=int(rng.integers(2**31)))[0]
    spread = np.einsum("nld,ld->nl", centered, unit).std(axis=0)
    sign = np.where(case.is_pos, 0.5, -0.5)[:, None, None]
    shift = (d * sign * spread[:, None] * unit).astype(np.float32)
    moved = {name: getattr(case, name) + shift for name in ("own", "opposite", "plain")}
    return Case(**{**vars(case), **moved})


CONTROLS = (
    Control("identical texts, a trait's instructions", same_texts),
    Control("texts by lot, a trait's instructions", like_texts),
    Control("labels exchanged within cells", exchanged),
    Control("badge numbers for instructions", badges),
    Control("badge numbers, scored by the first token", first_token, judge="first token"),
    *(
        Control(f"{one} alone changes, scored by length", partial(by_length, name=one), "length")
        for one in ("length", "format", "language")
    ),
    *(
        Control(f"a planted direction, d = {d}", partial(planted, d=d), is_there=True)
        for d in (0.3, 0.5, 1.0)
    ),
)


def ended(number: int, seed: int, sets: Sets) -> Ended:
    """The verdict of a control with one draw."""
    case = CONTROLS[number].draw(sets, np.random.default_rng([number, seed]))
    with tempfile.TemporaryDirectory() as folder:
        found = verdict_of(case, Path(folder))
    return Ended(found.verdict, found.uses.reads.state)


_sets: Sets = {}


def _begin(keep: Path, model: str, device: str, rollouts: int) -> None:
    torch.set_num_threads(1)
    _sets.update(stored_sets(keep, model, device, rollouts))


def _ended(work: tuple[int, int]) -> Ended:
    return ended(*work, _sets)


def row(control: Control, found: Sequence[Ended]) -> tuple[str, bool]:
    """A row of the table, and whether the control meets its bar."""
    verdicts = Counter(one.verdict for one in found)
    usable = verdicts[VerdictName.USABLE]
    doubted = verdicts[VerdictName.USABLE_WITH_A_DOUBT]
    reads = sum(one.reads in (UseState.YES, UseState.DOUBT) for one in found)
    shares = [_share(n, len(found)) for n in (usable, doubted, reads)]
    least = reads / len(found)
    met = (
        least >= LEAST_FOUND if control.is_there else max(usable, reads) / len(found) <= MOST_FALSE
    )
    return f"| {control.name} | {len(found)} | {' | '.join(shares)} |", met


def _share(count: int, n: int) -> str:
    exact = exact_share_interval(np.array([count]), n)
    return f"{count / n:.0%} ({exact.low[0]:.0%} to {exact.high[0]:.0%})"


def main() -> None:
    """Generate what is missing, try every control, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rollouts", type=int, default=2, help="2: 800 responses")
    parser.add_argument("--seeds", type=int, default=N_SEEDS)
    parser.add_argument("--keep", type=Path, default=Path("build/controls"))
    parser.add_argument("--write", type=Path, help="a page with a place for the table")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    made = (options.keep, options.model, options.device, options.rollouts)
    _begin(*made)
    n = sum(len(_sets[name].own) for name in _sets if name not in OF_TRAITS)
    lines = [f"{n} responses of {Path(options.model).name}.\n"]
    lines += ["| control | draws | `usable` | with a doubt | reads |", "|---|--:|--:|--:|--:|"]
    with ProcessPoolExecutor(options.processes, initializer=_begin, initargs=made) as pool:
        all_met = True
        for number, control in enumerate(CONTROLS):
            found = list(pool.map(_ended, [(number, seed) for seed in range(options.seeds)]))
            line, met = row(control, found)
            all_met &= met
            lines.append(line)
            print(line, "" if met else "MISSED", flush=True)
    if options.write:
        page = options.write.read_text()
        before, rest = page.split(MARK)
        table = "\n".join(lines)
        options.write.write_text(f"{before}{MARK}\n{table}\n{END}{rest.split(END, 1)[1]}")
    sys.exit(0 if all_met else 1)


if __name__ == "__main__":
    main()
