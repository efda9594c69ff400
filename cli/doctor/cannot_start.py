"""What would end a run before its first response, found before anything is recorded or spent."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from cli.doctor.model import check_model_fits
from cli.doctor.thinking import lacks_template, thinking_here, thinking_on_hub, unsaid_measure
from cli.options.working_folder import OPENAI_URL
from domain.errors import JudgeError, ModelError, OrchestrateError
from domain.plan.spec import JudgeSpec, RunSpec
from domain.redaction import JUDGE_KEYS
from domain.traits.definition import TraitDefinition
from storage.record.run import Run, load_definition
from workers.judge.measures import lexicon

# A Hub that is slower says what it has to say when the model is loaded.
PATIENCE_S = 2.0


def refuse_what_cannot_start(
    spec: RunSpec, traits: Iterable[TraitDefinition], *, says_measure: bool, on_fleet: bool
) -> None:
    """Raises JudgeError, ModelError or, where what is measured has to be said, UsageError, with the
    way out; scenarios alone need no chat template.

    The workers of a fleet have their own models and keys.
    """
    traits = list(traits)
    if not on_fleet:
        refuse_judge(spec.judge, traits)
    needs_template = spec.scenarios == "turn" or not all(one.is_scenarios for one in traits)
    needs_measure, model_id = needs_template and not says_measure, spec.model.model_id
    thinks = thinking_here(model_id) if needs_measure else None
    if unsaid := unsaid_measure(model_id, thinks, spec.sampling):
        raise unsaid
    errors: list[Iterator[OrchestrateError]] = []
    if not on_fleet:
        errors.append(_wrong_with(model_id, needs_template=needs_template))
    if needs_measure and thinks is None:
        errors.append(_unsaid_on_hub(spec))
    wrong = _first_in_time(itertools.chain(*errors))
    if wrong is not None:
        raise wrong


def refuse_judge(judge: JudgeSpec, traits: Iterable[TraitDefinition]) -> None:
    """Raises JudgeError for a judge that no worker of this machine can ask about these traits."""
    hosted = urlsplit(OPENAI_URL).hostname
    if urlsplit(judge.url).hostname == hosted and not any(map(os.environ.get, JUDGE_KEYS)):
        raise JudgeError(
            f"judge {judge.model} at {hosted} needs a key and none is set here",
            advice=f"set {JUDGE_KEYS[0]}, or --judge-url for another endpoint; --traits measured "
            "needs no judge, and --judge none does without",
        )
    if any(one.measure and one.measure.by == "sentiment" for one in traits) and judge.scores:
        lexicon()


def refuse_judge_here(run: Run, judge: JudgeSpec) -> None:
    """Raises JudgeError where no worker of this machine can ask the judge about the run."""
    refuse_judge(judge, [load_definition(run, trait.name) for trait in run.spec.traits])


def _wrong_with(model_id: str, *, needs_template: bool) -> Iterator[OrchestrateError]:
    checked = check_model_fits(model_id, [])
    failed = (one for one in checked if one.state == "fail")
    yield from (ModelError(one.found, advice=one.advice) for one in failed)
    if needs_template and lacks_template(model_id):
        wrong = f"{model_id} is a base model: it has no chat template to put a trait's"
        advice = (
            "choose its instruction-tuned version, or a trait of scenarios, texts that it "
            "goes on with (docs/traits.md#scenarios)"
        )
        yield ModelError(f"{wrong} instructions and questions in", advice=advice)


def _unsaid_on_hub(spec: RunSpec) -> Iterator[OrchestrateError]:
    model_id = spec.model.model_id
    if unsaid := unsaid_measure(model_id, thinking_on_hub(model_id), spec.sampling):
        yield unsaid


def _first_in_time(errors: Iterator[OrchestrateError]) -> OrchestrateError | None:
    found: list[OrchestrateError] = []

    def look() -> None:
        try:
            found.extend(itertools.islice(errors, 1))
        except OrchestrateError as error:
            found.append(error)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return found[0] if found else None
