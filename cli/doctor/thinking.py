"""The chat template of a model on this machine, and what it does with thoughts; rendered without
transformers, which takes seconds to load.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cli.doctor.machine import Checked, State
from cli.doctor.model import hub_template, local_model_folder
from domain.errors import ModelError, UsageError
from domain.plan.spec import RunSpec, SamplingSpec
from domain.template_limit import within_limit
from domain.thoughts import Case, Thinking, thinking_of
from workers.models.files import adapter_here


def template_of(folder: Path) -> str | None:
    """A model's chat template; None without one."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    # a file in another encoding is none that transformers could read
    except (OSError, UnicodeDecodeError):
        pass
    try:
        body = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return _usual_template(body.get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return None


def _usual_template(found: object) -> str | None:
    """Of what a tokenizer's settings name, the one that is used when none is asked for."""
    if isinstance(found, list):
        named = (one for one in found if isinstance(one, dict) and one.get("name") == "default")
        found = next((one.get("template") for one in named), None)
    return found if isinstance(found, str) else None


# Where a template may be; a tokenizer without any of these, whose settings name none, has none.
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")


def lacks_template(model_id: str) -> bool:
    """Whether a model on this machine has no chat template for certain: a base model. Raises
    ModelError for a path that holds no model."""
    folder = None if adapter_here(model_id) else local_model_folder(model_id)
    if folder is None or not (folder / "tokenizer_config.json").is_file():
        return False
    is_elsewhere = any((folder / name).exists() for name in _TEMPLATE_FILES)
    return not is_elsewhere and template_of(folder) is None


def thinking_here(model_id: str) -> Thinking | None:
    """What the template does with thoughts; None where it is not on this machine, or cannot be
    rendered here."""
    try:
        folder = local_model_folder(model_id)
    except ModelError:
        return None
    template = template_of(folder) if folder else None
    return None if template is None else thinking_of_template(template)


def thinking_on_hub(model_id: str) -> Thinking | None:
    """What the template that the Hub states does with thoughts; None where it states none."""
    template = _usual_template(hub_template(model_id))
    return None if template is None else thinking_of_template(template)


class _Generation(Extension):
    """The tag that marks what the model writes, for training; here it is what stands in it."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements up to its end."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def thinking_of_template(template: str) -> Thinking | None:
    """What a template's source does with thoughts; None where it is no template."""
    world = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    world.globals.update(raise_exception=_refuse, strftime_now=lambda pattern: "2024-07-26")
    try:
        compiled = world.from_string(template)
    except TemplateError:
        return None

    def render(turns: Sequence[tuple[str, str]], variables: Mapping[str, object]) -> str | None:
        chat = [{"role": role, "content": content} for role, content in turns]
        about = {"bos_token": "", "eos_token": "", "add_generation_prompt": True}
        try:
            return within_limit(lambda: compiled.render(messages=chat, **about, **variables))
        except TemplateError:
            return None

    return thinking_of(render, template)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def thinking_text(found: Thinking) -> str:
    """Which case a model is, in words."""
    told = f" ({found.switch})" if str(found.switch) else ""
    return {
        Case.NONE: "its template knows no thoughts",
        Case.OFF: f"its prompts leave the thought out{told}, so it answers at once",
        Case.SOMETIMES: f"it may think before it answers{told}: thought and answer are told apart",
        Case.ALWAYS: f"it always thinks before it answers{told}: thought and answer are told apart",
    }[found.case]


def thinking_remark(thinks: Thinking | None, spec: RunSpec) -> str:
    """Which case the model is, and what that means for the run."""
    if thinks is None:
        return "Thoughts: none are counted, no template of the model's can be read here."
    text = f"Thoughts: {thinking_text(thinks)}"
    if thinks.may_think:
        limit = spec.sampling.max_thought_tokens
        of = "both" if spec.measure == "both" else f"the {spec.measure}"
        text += f", at most {limit:,} tokens of thought, vectors of {of}"
    return f"{text}."


def check_thoughts(model_id: str) -> Iterator[Checked]:
    """Which case a model is; nothing where its template cannot be had."""
    found = thinking_here(model_id) or thinking_on_hub(model_id)
    if found is None:
        return
    refusal = unsaid_measure(model_id, found, SamplingSpec())
    state: State = "ok" if refusal is None else "warn"
    advice = refusal.advice if refusal else ""
    yield Checked("thoughts", state, f"{model_id}: {thinking_text(found)}", advice)


def unsaid_measure(
    model_id: str, thinks: Thinking | None, sampling: SamplingSpec
) -> UsageError | None:
    """What a run is refused with where nobody has said what of the model's responses is measured;
    None where the model answers at once, or that is not known."""
    if thinks is None or not thinks.cannot_be_stopped:
        return None
    does = "thinks" if thinks.case == Case.ALWAYS else "may think"
    return UsageError(
        f"{model_id} {does} before it answers and cannot be told not to",
        advice="say what vectors are made of with --measure answer, --measure thought or --measure "
        f"both; each response costs up to {sampling.max_thought_tokens:,} tokens of thought "
        "(--max-thought-tokens), which the judge never reads and --measure answer leaves out of "
        "the vectors",
    )
