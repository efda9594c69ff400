"""What the page of a run holds, or that of two runs, gathered from their stores."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import numpy as np

from cli.options.run import EMBEDDED_JUDGE
from cli.pages.answers import EXTRACTION, Answer, answer_table, trait_answers
from cli.screens.next_steps import next_steps
from domain.errors import UsageError
from domain.plan.jobs import Stage
from domain.plan.samples import POLARITIES
from domain.plan.spec import DEFAULT_POSITION, RunSpec, Setting, TraitRef, spec_settings
from domain.scoring.thresholds import Fall
from domain.verdict.record import Quality, TraitMetrics
from domain.verdict.uses import use_layers
from storage.record.artifacts import DamagedArtifactError, load_record
from storage.record.judged_samples import kept_training
from storage.record.results import finished_metrics, kept_keys, read_response_vectors
from storage.record.run import Run, load_definition, read_recorded_run
from storage.record.spending import read_terms, recorded_usd
from traitlens.arrays import Float64, Floats
from traitlens.assess.cosines import (
    LeftOut,
    cosine_matrices,
    interval_of_two_runs,
    interval_of_two_traits,
)

VERSION = 1
N_BINS = 20

# Step -> what makes a response fall there.
FUNNEL = {
    "scored": {Fall.UNSCORED, Fall.THOUGHT_OPEN},
    "coherent": {Fall.EMPTY, Fall.COHERENCE_LOW},
    "past the trait threshold": {Fall.TRAIT_LOW, Fall.TRAIT_HIGH},
    "kept": {Fall.UNPAIRED},
}


def reported_metrics(run: Run) -> list[TraitMetrics]:
    """Metrics of the traits that are reduced; raises UsageError when a report cannot be made."""
    found = finished_metrics(run.store, [trait.name for trait in run.spec.traits])
    if not found:
        raise UsageError(f"no trait of {run.name} is finished yet: see `orchestrate status`")
    if any("quality" not in one.model_fields_set for one in found):
        raise UsageError(
            f"{run.name} was reduced by an earlier version, without quality: "
            "remove its traits/*/reduce.json, and `orchestrate resume` measures it from what is "
            "stored"
        )
    return found


def report_data(
    run: Run, metrics: Sequence[TraitMetrics], cosines: dict[str, Any] | None
) -> dict[str, Any]:
    """Everything that the page of a run shows; metrics stand in it as they are stored."""
    return {
        **run_data(run),
        "version": VERSION,
        "kind": "run",
        "name": run.name,
        "url": run.store.url,
        "traits": [_trait_data(run, one) for one in metrics],
        "unfinished": sorted({t.name for t in run.spec.traits} - {m.trait for m in metrics}),
        "cosine_between_traits": cosines,
    }


def _trait_data(run: Run, metrics: TraitMetrics) -> dict[str, Any]:
    answers = trait_answers(run, metrics)
    made_from = [one for one in answers if one.part == EXTRACTION]
    return {
        "metrics": metrics.model_dump(mode="json"),
        "histograms": report_histograms(made_from),
        "funnel": report_funnel(made_from),
        "answers": answer_table(answers, metrics),
        "next": next_steps(run.name, metrics),
        "load": metrics.quality and report_snippet(run.store.url, metrics.trait, metrics.quality),
    }


def report_histograms(rows: Sequence[Answer]) -> dict[str, dict[str, list[int]]]:
    """Scored samples in N_BINS bins of 0 to 100: polarity -> trait, coherence -> counts."""
    found = {p: {m: [0] * N_BINS for m in ("trait", "coherence")} for p in POLARITIES}
    for row in rows:
        for metric, score in (("trait", row.trait_score), ("coherence", row.coherence_score)):
            if score is not None:
                bin_index = min(int(score * N_BINS / 100), N_BINS - 1)
                found[row.polarity][metric][bin_index] += 1  # type: ignore[index]
    return {str(polarity): counts for polarity, counts in found.items()}


def report_funnel(rows: Sequence[Answer]) -> dict[str, list[dict[str, Any]]]:
    """Polarity -> steps from generated to kept, each with the number that passed it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for polarity in POLARITIES:
        falls = [row.fall for row in rows if row.polarity == polarity]
        found[polarity] = [{"step": "generated", "n": len(falls)}]
        for step, here in FUNNEL.items():
            falls = [fall for fall in falls if fall not in here]
            found[polarity].append({"step": step, "n": len(falls)})
    return found


def report_snippet(url: str, trait: str, quality: Quality) -> str:
    """Python that loads a trait's best vectors, takes the reading layer, and steers at the steering
    layer, with the strongest push that surely raises the trait and stays readable where one does.
    """
    method, causal = quality.best.method, quality.causal
    layer, push = use_layers(quality, method)
    coefficient, note = 1.0, "  # no push was confirmed: try strengths"
    tested = causal.vector if causal is not None and causal.method == method else None
    if causal and tested and tested.rise_at and (tested.rise.interval[0] or 0) > 0:
        # what to multiply the raw vector by for the push whose rise was measured
        norm = quality.methods[method].norm[causal.layer] or math.nan
        push, coefficient, note = causal.layer, tested.rise_at * causal.step / norm, ""
    return (
        "from traitlens import load_vectors\n\n"
        f'v = load_vectors("{url}/traits/{trait}", method="{method}")\n'
        f"direction = v.at({layer})  # output of block {layer - 1}\n"
        f"with v.steer(model, layer={push}, coefficient={coefficient:.3g}):{note}\n"
        "    out = model.generate(**inputs)"
    )


def run_data(run: Run) -> dict[str, Any]:
    """A run's settings, versions, cost and the command that repeats it."""
    recorded = read_recorded_run(run)
    is_priced = read_terms(run.store).price is not None
    full = {
        trait.name: (len(definition.instruction), len(definition.questions))
        for trait in run.spec.traits
        for definition in (load_definition(run, trait.name),)
    }
    return {
        "spec": run.spec.model_dump(mode="json", exclude={"traits"}),
        "spec_sha256": run.spec.digest(),
        "run_id": run.run_id,
        "provenance": {k: v for k, v in recorded["provenance"].items() if k != "command"},
        "repeat": reported_command(run.spec, traits=_given_traits(recorded), full=full),
        "cost": {**_work_spent(run), "judge_usd": recorded_usd(run.store) if is_priced else None},
        "times": _times(run),
    }


def _times(run: Run) -> dict[str, str | float | None]:
    """When it was planned, when the last trait ended and when the page was written, in UTC; and
    the seconds between the first two; None where one is not known, as in runs of before."""
    written = datetime.now(UTC)
    ends = [_ended_at(run, trait) for trait in run.spec.traits]
    end = max((one for one in ends if one is not None), default=None)
    start = datetime.fromisoformat(run.planned_at) if run.planned_at else None
    return {
        "planned": run.planned_at,
        "ended": end.isoformat(timespec="seconds") if end else None,
        "seconds": (end - start).total_seconds() if end and start else None,
        "written": written.isoformat(timespec="seconds"),
    }


def _ended_at(run: Run, trait: TraitRef) -> datetime | None:
    try:
        said = load_record(run.store, run.plan.last_job(trait)).ended_at
    except (KeyError, DamagedArtifactError):
        # not done, or to be made again by the next command that continues the run
        return None
    return datetime.fromisoformat(said) if said else None


def _given_traits(recorded: Any) -> str | None:
    """--traits as it stood on the command line: a path there says more than a trait's name."""
    words = recorded["provenance"].get("command", [])
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--traits":
            return str(following)
        if word.startswith("--traits="):
            return str(word.removeprefix("--traits="))
    return None


def reported_command(
    spec: RunSpec, *, traits: str | None, full: Mapping[str, tuple[int, int]]
) -> str:
    """The command whose settings give the same run.

    `traits` is --traits as it was given, None when it was not; `full` maps a trait to the numbers
    of instructions and questions of its whole definition.
    """
    names = ",".join(trait.name for trait in spec.traits)
    parts = ["orchestrate", "extract", "--traits", traits or names]
    for index, name in enumerate(("instructions", "questions")):
        used = {t.name: (t.n_instructions, t.n_questions)[index] for t in spec.traits}
        if any(used[trait] < counts[index] for trait, counts in full.items()):
            parts += [f"--{name}", str(max(used.values()))]
    for setting in _deciding():
        value = setting.of(spec)
        usual = EMBEDDED_JUDGE if setting.name == "judge-model" else setting.field.default
        if value != usual:
            parts += [f"--{setting.name}", *([] if value is True else [_plain(value)])]
    return shlex.join(parts)


def reported_cosines(run: Run, metrics: Sequence[TraitMetrics]) -> dict[str, Any] | None:
    """Between the traits that have vectors, by the run's first method; None with fewer than two."""
    qualities = {one.trait: one.quality for one in metrics if one.quality is not None}
    if len(qualities) < 2:
        return None
    method = run.spec.methods[0]
    vectors = {trait: read_response_vectors(run.store, trait, method) for trait in qualities}
    return {
        "method": method,
        "traits": list(vectors),
        "by_layer": np.clip(cosine_matrices(vectors), -1, 1).tolist(),
        "interval": _cosine_intervals(run, vectors) if method == "mean_diff" else None,
    }


def _cosine_intervals(run: Run, vectors: Mapping[str, Floats]) -> list[Any] | None:
    """[L+1, k, k, 2]; None where no activations are stored."""
    others = list(vectors.values())
    try:
        # one trait at a time: what leaving out makes of it is as large as its activations
        moved = [_left_out(run, trait).beside(others) for trait in vectors]
    except KeyError:
        return None
    found = np.ones((len(others[0]), len(others), len(others), 2))
    for i, j in combinations(range(len(others)), 2):
        found[:, i, j] = found[:, j, i] = interval_of_two_traits(moved, i, j)
    return _plain_numbers(found)


def _left_out(run: Run, trait: str) -> LeftOut:
    """Of the kept responses; raises KeyError where their activations are not stored."""
    kept = kept_keys(run.store, f"traits/{trait}")
    batches = kept_training(run, run.spec.trait(trait), kept, DEFAULT_POSITION)
    return LeftOut.of(
        (
            rows,
            np.array([sample.polarity == "positive" for sample in samples]),
            [(sample.instruction, sample.question) for sample in samples],
        )
        for samples, rows in batches
    )


def _plain_numbers(found: Float64) -> list[Any]:
    """None for what is not finite."""
    held = found.astype(object)
    held[~np.isfinite(found)] = None
    numbers: list[Any] = held.tolist()
    return numbers


def compare_data(first: Run, second: Run) -> dict[str, Any]:
    """Everything that the page of two runs shows."""
    both = [{m.trait: m for m in reported_metrics(run)} for run in (first, second)]
    traits = [name for name in both[0] if name in both[1]]
    if not traits:
        raise UsageError(f"{first.name} and {second.name} have no finished trait in common")
    return {
        "version": VERSION,
        "kind": "compare",
        "names": [first.name, second.name],
        "runs": [run_data(first), run_data(second)],
        "differences": compared_report_settings(first.spec, second.spec),
        "traits": [
            {
                "trait": name,
                "metrics": [found[name].model_dump(mode="json") for found in both],
                "cosine": _cosine_of_two(first, second, both[0][name], both[1][name]),
            }
            for name in traits
        ],
    }


def _cosine_of_two(
    first: Run, second: Run, a: TraitMetrics, b: TraitMetrics
) -> dict[str, Any] | None:
    """Cosine per layer of a trait's vectors in two runs, by the best method of the first, or of the
    second, or any of both; None when they are not of one shape."""
    if a.quality is None or b.quality is None:
        return None
    qualities = {"first": a.quality, "second": b.quality}
    wanted = (a.quality.best.method, b.quality.best.method, *a.quality.methods)
    common = [m for m in wanted if all(m in quality.methods for quality in qualities.values())]
    if not common:
        return None
    method, runs = common[0], {"first": first, "second": second}
    found = {name: read_response_vectors(r.store, a.trait, method) for name, r in runs.items()}
    if found["first"].shape != found["second"].shape:
        return None
    interval = None
    if method == "mean_diff":
        with suppress(KeyError):
            left_out = [_left_out(run, a.trait) for run in runs.values()]
            interval = _plain_numbers(interval_of_two_runs(*left_out))
    return {
        "method": method,
        "same_model": a.generation.model_hash == b.generation.model_hash,
        "value": np.clip(cosine_matrices(found)[:, 0, 1], -1, 1).tolist(),
        "interval": interval,
    }


def compared_report_settings(first: RunSpec, second: RunSpec) -> list[str]:
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
    for setting in _deciding():
        left, right = setting.of(first), setting.of(second)
        if left != right:
            values = f"{_plain(left)} in the first, {_plain(right)} in the second"
            found.append(f"{' '.join(setting.path)}: {values}")
    return found


def _deciding() -> list[Setting]:
    """The settings that a result may depend on."""
    return [setting for setting in spec_settings() if setting.name != "shard-samples"]


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _work_spent(run: Run) -> dict[str, Any]:
    """What the run's generate and judge records say they took; jobs not done count nothing."""
    generate, judge = _facts(run, "generate"), _facts(run, "judge")
    return {
        "responses": sum(int(str(i.get("n_samples", 0))) for i in generate),
        "generated_tokens": sum(int(str(i.get("n_tokens", 0))) for i in generate),
        "devices": sorted({str(i.get("device")) for i in generate}),
        "verdicts": sum(int(str(i.get("n_verdicts", 0))) for i in judge),
        "judge_prompt_tokens": sum(int(str(i.get("prompt_tokens", 0))) for i in judge),
        "judge_completion_tokens": sum(int(str(i.get("completion_tokens", 0))) for i in judge),
    }


def _facts(run: Run, stage: Stage) -> list[Mapping[str, object]]:
    """What the records of a stage's jobs say beside their files."""
    found: list[Mapping[str, object]] = []
    for trait in run.spec.traits:
        for job in run.plan.part_jobs(trait, stage):
            try:
                found.append(load_record(run.store, job).info)
            except KeyError:
                continue
    return found
