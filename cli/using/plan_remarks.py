"""What should be known of a plan before it is begun: what is left out, not known or too long."""

from __future__ import annotations

from collections.abc import Mapping

from domain.plan.spec import RunSpec
from domain.scoring.prices import price_of
from domain.traits.definition import TraitDefinition
from domain.traits.room import longest_prompt
from domain.verdict.gates import held_out_findings
from domain.verdict.sentences import finding_text


def plan_remarks(definitions: Mapping[str, TraitDefinition], spec: RunSpec) -> list[str]:
    """What of the definitions is not used as it stands, and whether the model has room for them."""
    # what asks the Hub is not loaded for --help
    from cli.doctor.model import model_positions
    from cli.doctor.thinking import thinking_here

    thinks = thinking_here(spec.model.model_id)
    found = [
        f"{name}: {finding_text(one)}"
        for name, definition in definitions.items()
        for one in held_out_findings(definition.n_shared, definition.n_parted)
    ]
    found += [
        f"{name}: {plan_scenarios_line(definition, spec)}"
        for name, definition in definitions.items()
        if definition.is_scenarios
    ]
    judge = spec.judge
    if not judge.scores:
        found.append(
            "nothing is judged: every response is used, and no verdict is better than usable with "
            "a doubt"
        )
    elif judge.url != "embedded" and price_of(judge.model, judge.url) is None:
        found.append(
            f"whether {judge.model} can tell what it scores apart is not known here: `orchestrate "
            f"judge-server --check --model {judge.model} --url {judge.url}` tries it"
        )
    trait, n_tokens = longest_prompt(definitions.values())
    most, n_more = model_positions(spec.model.model_id), spec.sampling.max_new_tokens
    if thinks is not None and thinks.may_think:
        n_more += spec.sampling.max_thought_tokens
    n_more = 0 if spec.scenarios == "read" else n_more
    if most is not None and n_tokens + n_more > most:
        found.append(
            f"{trait}: its longest prompt has about {n_tokens:,.0f} tokens, and up to {n_more} "
            f"more follow, where {spec.model.model_id} has {most:,} positions: what is longer is "
            "refused"
        )
    return found


def plan_scenarios_line(definition: TraitDefinition, spec: RunSpec) -> str:
    """What a run does with scenarios."""
    n_made, n_held_out = len(definition.questions), len(definition.eval_questions)
    does = "the model goes on with each as it stands, without a chat template"
    if spec.scenarios == "turn":
        does = "the model answers each as what a user says, in its chat template"
    does += f", for up to {spec.sampling.max_new_tokens} tokens, and what it writes is measured"
    if spec.scenarios == "read":
        does = "each is read and is itself what is measured; nothing is generated or steered"
    n_unpaired = definition.n_unpaired
    left_out = f" ({n_unpaired} have no pair and are left out)" if n_unpaired else ""
    return (
        f"pairs of scenarios, {n_made} to make vectors of and {n_held_out} held out{left_out}: "
        f"{does}"
    )
