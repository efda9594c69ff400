"""What a report shows, from a run's tables: score histograms, the kept/dropped funnel, a choice of
responses, the command that repeats the run.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from domain.plan.samples import POLARITIES
from domain.plan.spec import (
    CONVERGED_DEGREES,
    ChecksSpec,
    FilterSpec,
    JudgeSpec,
    ModelSpec,
    RunSpec,
    SamplingSpec,
)
from domain.scoring.scores import Score, Scoring
from domain.scoring.thresholds import Fall
from domain.verdict.record import Quality
from storage.record.results import SampleRow

N_BINS = 20

# Responses of one trait in the page, in characters: eleven traits stay under 2 MB.
CHARACTERS_PER_TRAIT = 150_000

ROWS_PER_TRAIT = 240

# The tail of the judge's alternatives holds almost no mass.
CANDIDATES_SHOWN = 5


# Step -> what makes a response fall there.
FUNNEL = {
    "scored": {Fall.UNSCORED},
    "coherent": {Fall.EMPTY, Fall.COHERENCE_LOW},
    "past the trait threshold": {Fall.TRAIT_LOW, Fall.TRAIT_HIGH},
    "kept": {Fall.UNPAIRED},
}


def histograms(rows: Sequence[SampleRow]) -> dict[str, dict[str, list[int]]]:
    """Scored samples in N_BINS bins of 0 to 100: polarity -> trait, coherence -> counts."""
    found = {p: {m: [0] * N_BINS for m in ("trait", "coherence")} for p in POLARITIES}
    for row in rows:
        for metric, score in (("trait", row.trait_score), ("coherence", row.coherence_score)):
            if score is not None:
                bin_index = min(int(score * N_BINS / 100), N_BINS - 1)
                found[row.polarity][metric][bin_index] += 1  # type: ignore[index]
    return {str(polarity): counts for polarity, counts in found.items()}


def funnel(rows: Sequence[SampleRow]) -> dict[str, list[dict[str, Any]]]:
    """Polarity -> steps from generated to kept, each with the number that passed it."""
    return {str(p): _funnel([row for row in rows if row.polarity == p]) for p in POLARITIES}


def _funnel(rows: Sequence[SampleRow]) -> list[dict[str, Any]]:
    left = len(rows)
    steps = [{"step": "generated", "n": left}]
    for step, falls in FUNNEL.items():
        left -= sum(row.fall in falls for row in rows)
        steps.append({"step": step, "n": left})
    return steps


def chosen_rows(rows: Sequence[SampleRow]) -> list[SampleRow]:
    """The rows a page has room for: each polarity and status in turn, by a hash of the key, so
    that the rare outcomes are there and nobody picked them."""
    strata: dict[tuple[str, str], list[SampleRow]] = {}
    for row in sorted(rows, key=lambda r: hashlib.sha256(r.key.encode()).digest()):
        strata.setdefault((row.polarity, row.status), []).append(row)
    chosen: list[SampleRow] = []
    size = 0
    for depth in range(max((len(side) for side in strata.values()), default=0)):
        for side in strata.values():
            if depth < len(side):
                size += len(side[depth].response)
                if len(chosen) == ROWS_PER_TRAIT or (chosen and size > CHARACTERS_PER_TRAIT):
                    return _in_order(chosen)
                chosen.append(side[depth])
    return _in_order(chosen)


def _in_order(rows: Sequence[SampleRow]) -> list[SampleRow]:
    return sorted(rows, key=lambda row: (row.polarity == "negative", row.key))


def raw_reply(scoring: Scoring | None) -> dict[str, Any] | None:
    """What the judge answered, word for word, with its likeliest tokens; None without a scoring."""
    if scoring is None:
        return None
    evidence = scoring.evidence
    found: dict[str, Any] = {
        "replies": [
            {
                "text": reply.text,
                "tokens": [
                    [c.token, round(c.probability, 4)]
                    for c in sorted(reply.candidates, key=lambda c: -c.probability)
                ][:CANDIDATES_SHOWN],
            }
            for reply in (evidence.replies if evidence else ())
        ]
    }
    if not isinstance(scoring, Score):
        found["unscored"] = f"{scoring.reason}: {scoring.detail}".rstrip(": ")
    return found


def repeat_command(
    spec: RunSpec, *, traits: str | None, full: Mapping[str, tuple[int, int]]
) -> str:
    """The command whose settings give the same run.

    `traits` is --traits as it was given, None when it was not; `full` maps a trait to the numbers
    of instructions and questions of its whole definition.
    """
    names = ",".join(trait.name for trait in spec.traits)
    parts = ["orchestrate", "extract", "--traits", traits or names]
    parts += _limits(spec, full)
    given = {
        "model": (spec.model.model_id, "demo"),
        **_named(spec.model, ModelSpec(model_id=""), {n: n for n in ("revision", "dtype")}),
        "judge-model": (spec.judge.model, "embedded-judge"),
        "judge-url": (spec.judge.url, "embedded"),
        **_named(spec.judge, JudgeSpec(model=""), {"scale": "judge-scale", "votes": "judge-votes"}),
        "rollouts": (spec.rollouts, 10),
        **_named(spec.sampling, SamplingSpec(), {n: n for n in SamplingSpec.model_fields}),
        **_named(spec.filter, FilterSpec(), {n: n for n in ("threshold", "coherence")}),
        "filter": (spec.filter.pairing, "unpaired"),
        "methods": (",".join(spec.methods), "mean_diff"),
        **_named(spec.checks, ChecksSpec(), {n: n for n in ChecksSpec.model_fields}),
        "until": (spec.until, "all"),
        "converged-degrees": (spec.converged_degrees, CONVERGED_DEGREES),
        "seed": (spec.seed, 0),
    }
    for name, (value, default) in given.items():
        if value != default:
            parts += [f"--{name.replace('_', '-')}", _plain(value)]
    if spec.model.trust_remote_code:
        parts.append("--trust-remote-code")
    return shlex.join(parts)


def settings_compared(first: RunSpec, second: RunSpec) -> list[str]:
    """A sentence for each setting in which two runs differ, the traits among them."""
    a, b = ({t.name: t for t in spec.traits} for spec in (first, second))
    found = []
    for name, one, other in (("first", a, b), ("second", b, a)):
        alone = [trait for trait in one if trait not in other]
        if alone:
            found.append(f"only the {name} run has {', '.join(alone)}")
    changed = [name for name in a if name in b and a[name] != b[name]]
    if changed:
        found.append(f"the definitions or limits of {', '.join(changed)} differ")
    left, right = (_settings(spec) for spec in (first, second))
    return found + [
        f"{name}: {value} in the first, {right[name]} in the second"
        for name, value in left.items()
        if value != right[name]
    ]


def _settings(spec: RunSpec) -> dict[str, str]:
    """What decides a run's results beside its traits, as people read it."""
    found: dict[str, str] = {}
    for name, value in spec.model_dump(exclude={"traits", "shard_samples"}).items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for part, one in parts:
            text = ", ".join(one) if isinstance(one, tuple) else str(one)
            found[f"{name} {part}".rstrip()] = text
    return found


def load_snippet(url: str, trait: str, quality: Quality) -> str:
    """Python that loads a trait's best vectors, takes the layer that separates best, and steers
    with the strongest push that surely raises the trait and stays readable, where one does."""
    method, layer, causal = quality.best.method, quality.best.layer, quality.causal
    push, coefficient, note = layer, 1.0, "  # no push was confirmed: try strengths"
    if causal is not None and causal.vector.rise_at and (causal.vector.rise.interval[0] or 0) > 0:
        # what to multiply the raw vector by for the push whose rise was measured
        norm = quality.methods[causal.method].norm[causal.layer] or math.nan
        push, coefficient, note = causal.layer, causal.vector.rise_at * causal.step / norm, ""
    return (
        "from traitlens import load_vectors\n\n"
        f'v = load_vectors("{url}/traits/{trait}", method="{method}")\n'
        f"direction = v.at({layer})  # output of block {layer - 1}\n"
        f"with v.steer(model, layer={push}, coefficient={coefficient:.3g}):{note}\n"
        "    out = model.generate(**inputs)"
    )


def _limits(spec: RunSpec, full: Mapping[str, tuple[int, int]]) -> list[str]:
    """--instructions and --questions when some definition holds more than was used."""
    parts = []
    for index, name in enumerate(("instructions", "questions")):
        used = {t.name: (t.n_instructions, t.n_questions)[index] for t in spec.traits}
        if any(used[trait] < counts[index] for trait, counts in full.items()):
            parts += [f"--{name}", str(max(used.values()))]
    return parts


def _named(value: Any, default: Any, options: Mapping[str, str]) -> dict[str, tuple[Any, Any]]:
    """Option -> (value, default) of a specification's fields."""
    return {o: (getattr(value, field), getattr(default, field)) for field, o in options.items()}


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
