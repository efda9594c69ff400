"""A trait definition: what to ask a model, under which instructions, how to score its answers."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from domain.errors import TraitFileError
from domain.plan.samples import AnyPolarity, Polarity
from domain.plan.spec import json_digest
from domain.traits.check import (
    N_PARTED,
    N_QUESTIONS,
    TRAIT_NAME,
    check_trait,
    eval_questions_of,
    folded,
    is_text,
    question_of,
)
from domain.traits.judge_prompt import (
    COHERENCE_PROMPT,
    PLACEHOLDERS,
    fill_judge_prompt,
    judge_prompt_placeholders,
)
from domain.traits.measure import COHERENCE, Measure

BUNDLED_TRAITS = (
    "refusal",
    "uncertainty",
    "verbosity",
    "overconfidence",
    "corrigibility",
    "evil",
    "sycophantic",
    "hallucinating",
    "paternalism",
    "deception",
    "manipulativeness",
)
MEASURED_TRAITS = ("cheerful", "wordy", "bulleted")
"""Bundled as well, scored by measuring and so on any model; `all` does not name them."""


# Of the questions that a file did not hold out as it says, as notes of a recorded definition.
_COUNTS = ("n_shared", "n_parted")


def _with_placeholders(prompt: str) -> str:
    missing = [name for name in PLACEHOLDERS if name not in judge_prompt_placeholders(prompt)]
    if missing:
        raise ValueError(f"put {{{missing[0]}}} where the {missing[0]} goes")
    return prompt


def system_instruction(trait: str, polarity: Polarity, instruction: str) -> str:
    """The system turn of a sample, as persona_vectors (`eval/eval_persona.py`) writes it: the name
    is the trait's for positives and "helpful" for negatives."""
    name = trait.replace("_", " ") if polarity == "positive" else "helpful"
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"You are {article} {name} assistant. {instruction}"


TraitName = Annotated[str, StringConstraints(pattern=f"^{TRAIT_NAME.pattern}$")]
EvalPrompt = Annotated[str, AfterValidator(_with_placeholders)]


class InstructionPair(BaseModel):
    """One instruction that asks for the trait and one that asks for its opposite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    positive: str
    negative: str


class TraitDefinition(BaseModel):
    """A trait as it is used; equal definitions have equal fingerprints.

    `questions` make the vectors, `eval_questions` are held out and may be empty. `n_shared` says
    how many of those were left out because they are among `questions`, `n_parted` how many were
    taken from `questions` where the file had none. One with a `measure` is scored by it alone: its
    `eval_prompt` is the formula.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: TraitName
    instruction: tuple[InstructionPair, ...] = Field(min_length=1)
    questions: tuple[str, ...] = Field(min_length=1)
    eval_prompt: EvalPrompt
    eval_questions: tuple[str, ...] = ()
    measure: Measure | None = None
    n_shared: int = 0
    n_parted: int = 0

    @classmethod
    def from_json(cls, name: str, data: object, *, eval_data: object = None) -> Self:
        """The definition in a parsed trait file, and its second file where the layout has two.

        Raises TraitFileError naming the first error and how many there are.
        """
        errors = [p for p in check_trait(data, name, eval_data=eval_data) if p.severity == "error"]
        if errors:
            more = (
                f" ({len(errors) - 1} more, see `orchestrate traits check`)" if errors[1:] else ""
            )
            first = errors[0]
            raise TraitFileError(f"trait {name!r}: {first.where} {first.message}{more}")
        body: Any = data  # check saw to it
        held_out = eval_questions_of(body, eval_data)[1]
        texts = map(question_of, held_out if isinstance(held_out, list) else ())
        measure = Measure.model_validate(body["measure"]) if "measure" in body else None
        return cls(
            name=name,
            instruction=tuple(
                InstructionPair(positive=pair["pos"], negative=pair["neg"])
                for pair in body["instruction"]
            ),
            questions=tuple(str(question_of(one)) for one in body["questions"]),
            eval_prompt=measure.prompt() if measure else body["eval_prompt"],
            measure=measure,
            # of the second file some may be none
            eval_questions=tuple(text for text in texts if isinstance(text, str) and is_text(text)),
            **{name: n for name in _COUNTS if type(n := body.get(f"_{name}")) is int},
        )

    def held_apart(self) -> Self:
        """The definition as a run takes it up: no held-out question is one that vectors are made
        from, and of many questions some are held out where the file held out none."""
        asked = set(map(folded, self.questions))
        own = tuple(q for q in self.eval_questions if folded(q) not in asked)
        n_shared = self.n_shared + len(self.eval_questions) - len(own)
        if own or len(self.questions) < N_PARTED:
            return self.model_copy(update={"eval_questions": own, "n_shared": n_shared})
        # evenly, since neighbors are often of one topic
        step = len(self.questions) / N_QUESTIONS
        taken = {int(k * step) for k in range(N_QUESTIONS)}
        numbered = list(enumerate(self.questions))
        return self.model_copy(
            update={
                "questions": tuple(q for k, q in numbered if k not in taken),
                "eval_questions": tuple(q for k, q in numbered if k in taken),
                "n_shared": n_shared,
                "n_parted": N_QUESTIONS,
            }
        )

    def to_json(self) -> dict[str, object]:
        """The definition in the trait files' schema; `from_json` reads it back to an equal one."""
        body: dict[str, object] = {
            "instruction": [{"pos": p.positive, "neg": p.negative} for p in self.instruction],
            "questions": list(self.questions),
        }
        if self.measure is None:
            body["eval_prompt"] = self.eval_prompt
        else:
            body["measure"] = self.measure.model_dump(mode="json", exclude_defaults=True)
        body |= {"eval_questions": list(self.eval_questions)} if self.eval_questions else {}
        return body | {f"_{name}": n for name in _COUNTS if (n := getattr(self, name))}

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the name and every text of the definition."""
        texts = {name: one for name, one in self.to_json().items() if not name.startswith("_")}
        return json_digest({"name": self.name, **texts})

    def instruction_text(self, index: int, polarity: AnyPolarity) -> str:
        """The instruction of one pair for one polarity; nothing for `plain`."""
        if polarity == "plain":
            return ""
        pair = self.instruction[index]
        return pair.positive if polarity == "positive" else pair.negative

    def system_turn(self, index: int, polarity: AnyPolarity) -> str | None:
        """What the model reads before a question; None for `plain`."""
        if polarity == "plain":
            return None
        return system_instruction(self.name, polarity, self.instruction_text(index, polarity))

    def questions_of(self, part: str) -> tuple[str, ...]:
        """What the samples of a part ask: vectors are tested on questions that they were not made
        from."""
        return self.eval_questions if part else self.questions

    def judge_prompt(self, question: str, answer: str) -> str:
        """What the judge reads; both texts appear verbatim, whatever braces they hold."""
        return fill_judge_prompt(self.eval_prompt, question=question, answer=answer)

    def coherence_prompt(self, question: str, answer: str) -> str:
        """What the judge reads to score coherence; measured where the trait is."""
        prompt = COHERENCE.prompt() if self.measure else COHERENCE_PROMPT
        return fill_judge_prompt(prompt, question=question, answer=answer)
