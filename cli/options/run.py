"""The settings of a run as options of a command, and the run that they describe.

The options are made from the fields of the specification, which declare name, type, default and
help. What judging costs and how it is done stands beside them: none of that changes a result, so a
later command may give others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import annotated_types as bounds
import click
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from cli.options.judge_url import JudgeUrl, default_judge_url
from cli.options.settings import finite, option, runs_dir_option, together
from domain.errors import UsageError
from domain.plan.spec import (
    DEMO_MODEL,
    METHODS,
    NO_JUDGE,
    JudgeSpec,
    RunSpec,
    Setting,
    TraitRef,
    spec_settings,
)
from domain.scoring.prices import FREE, Price, parse_prices, price_of
from domain.traits.definition import BUNDLED_TRAITS, TraitDefinition
from domain.traits.judge_prompt import named_trait
from orchestrator.runs import run_store
from storage.files.reading import MOST_WRITTEN_BYTES, read_text
from storage.files.trait_files import read_traits
from storage.record.spending import Terms
from storage.record.store import Store

EMBEDDED_JUDGE = "embedded-judge"
SETTINGS = {setting.name: setting for setting in spec_settings()}

EXTRACTED, ANSWERS, KEPT_IN = "What is extracted", "How the model answers", "The run"
# part of the specification -> what its options stand under in help
HEADINGS = {
    "model": "The model",
    "judge": "The judge",
    "sampling": ANSWERS,
    "seed": ANSWERS,
    "filter": "Which responses are kept",
    "checks": "Tests of the vectors",
    "until": "When a trait is done",
    "converged_degrees": "When a trait is done",
    "shard_samples": KEPT_IN,
}


def setting_option(name: str, *, help: str | None = None) -> Callable[[Any], Any]:
    """A field of the specification as an option with its environment twin."""
    setting = SETTINGS[name]
    default = setting.field.default if setting.option.has_default else None
    if default is PydanticUndefined:
        default = None
    made = option(
        f"--{name}",
        *([f"--{setting.option.also}"] if setting.option.also else []),
        default=",".join(default) if isinstance(default, tuple) else default,
        help=help or setting.field.description,
        **_taken_as(setting),
    )
    return together(made, heading=HEADINGS.get(setting.path[0], EXTRACTED))


def own_option(name: str, *, help: str | None = None) -> Callable[[Any], Any]:
    """A setting as an option of a command on a recorded run, whose own counts without it.

    No variable sets it: what is set for extract would silently replace the run's own.
    """
    setting = SETTINGS[name]
    text = f"{help or setting.field.description}  [default: the run's own]"
    made = click.option(f"--{name}", default=None, help=text, callback=finite, **_taken_as(setting))
    return together(made, heading=HEADINGS.get(setting.path[0], EXTRACTED))


def _taken_as(setting: Setting) -> dict[str, Any]:
    """click's words for what a field may hold."""
    kind: Any = setting.field.annotation
    if setting.name == "judge-url":
        return {"type": JudgeUrl(), "metavar": setting.option.metavar}
    if kind is bool:
        return {"is_flag": True}
    if get_origin(kind) is Literal:
        return {"type": click.Choice(get_args(kind))}
    if type(None) in get_args(kind):
        (kind,) = set(get_args(kind)) - {NoneType}
    limits: dict[str, Any] = {}
    for one in setting.field.metadata:
        if isinstance(one, bounds.Ge | bounds.Gt):
            limits["min"] = one.ge if isinstance(one, bounds.Ge) else one.gt
            limits["min_open"] = isinstance(one, bounds.Gt)
        elif isinstance(one, bounds.Le | bounds.Lt):
            limits["max"] = one.le if isinstance(one, bounds.Le) else one.lt
            limits["max_open"] = isinstance(one, bounds.Lt)
    ranges = {int: click.IntRange, float: click.FloatRange}
    taken = ranges[kind](**limits) if limits else kind if kind in ranges else str
    return {"type": taken, "metavar": setting.option.metavar}


run_options = together(
    together(
        option(
            "--traits",
            default="all",
            metavar="LIST",
            help="all, or names and paths to trait files or folders of scenarios, comma-separated.",
        ),
        option("--questions", type=click.IntRange(1), help="Use the first N questions only."),
        option(
            "--instructions", type=click.IntRange(1), help="Use the first N instruction pairs only."
        ),
        heading=EXTRACTED,
    ),
    *map(setting_option, SETTINGS),
    together(
        option(
            "--run",
            metavar="NAME",
            help="Name of the run's folder.  [default: from the model and the settings]",
        ),
        runs_dir_option,
        heading=KEPT_IN,
    ),
)

terms_options = together(
    option(
        "--budget",
        metavar="USD",
        type=click.FloatRange(0, min_open=True),
        help="Most the judge may cost this run in all; reached, the run stops (exit 4) and resume "
        "with a larger one continues.",
    ),
    option(
        "--prices",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="JSON file with prices of judges per million tokens; goes before the known ones.",
    ),
    click.option(
        "--no-judge-cache",
        is_flag=True,
        help="Ask again what this judge was asked before in any run on this broker.",
    ),
    click.option(
        "--judge-batch",
        is_flag=True,
        help="Ask through OpenAI's Batch API: half the price, up to 24 hours.",
    ),
    heading="What judging may cost",
)


@dataclass(frozen=True)
class AskedRun:
    """The run that a command's values describe, and whether they name what is measured; nothing
    is recorded yet. `warnings` are those of the trait files."""

    spec: RunSpec
    definitions: Mapping[str, TraitDefinition]
    store: Store
    says_measure: bool
    warnings: tuple[str, ...] = ()


def asked_run(
    values: Mapping[str, Any], traits: Iterable[TraitDefinition] | None = None
) -> AskedRun:
    """The run of a command with `run_options`, of other traits where they are given; raises
    UsageError or TraitFileError."""
    sources = read_traits(values["traits"]) if traits is None else ()
    traits = [one.definition() for one in sources] if traits is None else traits
    definitions = {one.name: one for one in traits}
    body: dict[str, Any] = {}
    for setting in SETTINGS.values():
        inside = body
        for part in setting.path[:-1]:
            inside = inside.setdefault(part, {})
        inside[setting.path[-1]] = values[setting.name.replace("-", "_")]
    body["traits"] = [_trait_ref(one, values) for one in definitions.values()]
    body["methods"] = asked_methods(values["methods"])
    says_measure = body["measure"] is not None
    if not says_measure:
        body["measure"] = SETTINGS["measure"].field.default
    judge = asked_judge(
        body["judge"]["model"],
        body["judge"]["url"],
        definitions.values(),
        model=values["model"],
    )
    body["judge"] |= judge
    if judge["url"] == NO_JUDGE:
        # the search for the best push goes by scores
        body["checks"]["causal"] = 0
    if body["scenarios"] == "read":
        _refuse_to_ask(definitions.values())
        # a text is the same each time it is read, and goes nowhere that a push could change
        body |= {"rollouts": 1, "until": "all"}
        body["checks"] |= {"causal": 0, "evaluation": min(1, body["checks"]["evaluation"])}
    try:
        spec = RunSpec.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"setting {where}: {first['msg']}") from error
    store = run_store(values["runs_dir"], _name(values["run"], spec))
    warnings = tuple(warning for one in sources for warning in one.warnings())
    return AskedRun(spec, definitions, store, says_measure, warnings)


def _refuse_to_ask(traits: Iterable[TraitDefinition]) -> None:
    asking = next((one.name for one in traits if not one.is_scenarios), None)
    if asking is not None:
        raise UsageError(
            f"--scenarios read asks a model nothing, and the trait {asking} has questions: give it "
            "a run of its own"
        )


def asked_methods(text: str) -> tuple[str, ...]:
    """The methods of a comma-separated list; raises UsageError for an unknown one."""
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in chosen if name not in METHODS]
    if unknown or not chosen:
        raise UsageError(f"--methods {text!r}: choose from {', '.join(METHODS)}")
    return chosen


def _trait_ref(definition: TraitDefinition, values: Mapping[str, Any]) -> TraitRef:
    # a trait of scenarios has none, and each scenario is asked once
    n_instructions, n_questions = len(definition.instruction) or 1, len(definition.questions)
    n_eval = len(definition.eval_questions)
    return TraitRef(
        name=definition.name,
        fingerprint=definition.fingerprint(),
        n_instructions=min(n_instructions, values["instructions"] or n_instructions),
        n_questions=min(n_questions, values["questions"] or n_questions),
        n_eval_questions=min(n_eval, values["questions"] or n_eval),
    )


def asked_judge(
    judge_model: str | None, url: str | None, traits: Iterable[TraitDefinition], *, model: str
) -> dict[str, str]:
    """The judge's name and place; raises UsageError for one that cannot score these traits in
    texts of the model."""
    if NO_JUDGE in (judge_model, url):
        if {judge_model, url} - {NO_JUDGE, None}:
            raise UsageError("--judge none asks nobody: leave --judge-url out, or name a judge")
        return {"model": NO_JUDGE, "url": NO_JUDGE}
    traits = list(traits)
    measured = [one.name for one in traits if one.measure]
    read = {one.name: named_trait(one.eval_prompt) for one in traits if not one.measure}
    if url == "embedded" or (url is None and judge_model is None):
        if read and model != DEMO_MODEL:
            raise UsageError(
                f"a judge is needed to score {model}: give --judge-model NAME, and --judge-url for "
                "an endpoint other than OpenAI's, or --judge none; the embedded judge reads only "
                "texts of the demo model, and scores on others only traits with a `measure`, as "
                "--traits measured has"
            )
        unknown = [name for name, asked in read.items() if asked not in BUNDLED_TRAITS]
        if unknown:
            raise UsageError(
                f"the embedded judge cannot score {unknown[0]}, whose prompt names no bundled "
                "trait in **bold**: give --judge-model NAME (and --judge-url), put a `measure` "
                "into its file, or do without scores by --judge none"
            )
        return {"model": EMBEDDED_JUDGE, "url": "embedded"}
    if judge_model is None:
        raise UsageError(
            "--judge-url needs --judge-model, the name the endpoint knows the judge by"
        )
    if measured:
        raise UsageError(
            f"{measured[0]} is scored by its formula, and {judge_model} follows none: leave "
            "--judge-model and --judge-url out, or give it a run of its own"
        )
    return {"model": judge_model, "url": url or default_judge_url()}


def _name(given: str | None, spec: RunSpec) -> str:
    """The run's folder: as given, else the model's short name and the settings' hash."""
    if given is None:
        last = spec.model.model_id.rstrip("/").rpartition("/")[2]
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', last)}-{spec.digest()[:8]}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", given):
        raise UsageError(
            f"--run {given!r} is not a folder name: use letters, digits, '.', '_' and '-'"
        )
    return given


def asked_terms(
    values: Mapping[str, Any], judge: JudgeSpec, *, before: Terms | None = None
) -> Terms:
    """The terms that a command's values mean for a judge; what they leave out stays as `before`.

    Raises UsageError for a budget whose judge has no known price.
    """
    earlier = before or Terms()
    price = earlier.price
    if price is None or values["prices"] is not None:
        price = _price_for(judge, values["prices"]) or price
    cap = earlier.cap_usd if values["budget"] is None else float(values["budget"])
    if cap is not None and price is None:
        entry = f'{{"models": {{"{judge.model}": {{"input": USD, "output": USD}}}}}}'
        raise UsageError(
            f"the price of judge {judge.model} is unknown, so --budget cannot be kept: give "
            f"--prices FILE with {entry} per million tokens"
        )
    return Terms(
        price=price,
        cap_usd=cap,
        use_cache=earlier.use_cache and not values["no_judge_cache"],
        batch=earlier.batch or values["judge_batch"],
    )


def _price_for(judge: JudgeSpec, prices: Path | None) -> Price | None:
    """The judge's price: from the user's file, else the listed one; None when unknown."""
    if judge.url in ("embedded", NO_JUDGE):
        return FREE
    own: dict[str, Price] = {}
    if prices is not None:
        text = read_text(prices, most=MOST_WRITTEN_BYTES)
        own = parse_prices(text, name=str(prices))
    return price_of(judge.model, judge.url, own=own)
