"""A trait definition: what to ask a model, under which instructions, how to score its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from domain.errors import TraitFileError
from domain.plan.samples import AnyPolarity, Polarity
from domain.plan.spec import ScenariosAs, json_digest
from domain.traits.check import (
    FEWEST_HELD_OUT,
    FEWEST_SCENARIOS,
    N_PARTED,
    N_QUESTIONS,
    SCENARIOS,
    SCENARIOS_BY_HELD_OUT,
    TRAIT_NAME,
    check_trait,
    eval_questions_of,
    folded,
    has_scenarios,
    is_text,
    question_of,
)
from domain.traits.judge_prompt import (
    COHERENCE_PROMPT,
    CONTINUED,
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


_PARTED = (("questions", "eval_questions"), ("opposites", "eval_opposites"))
"""What vectors are made of, and what they are tested on."""

# Of the questions that a file did not hold out as it says, as notes of a recorded definition.
_COUNTS = ("n_shared", "n_parted", "n_unpaired")


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

    A trait of scenarios has no instructions: its questions are texts that call the trait up by
    themselves, and each has one of the `opposites`, which does not; `n_unpaired` is how many were
    left out because one side has more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: TraitName
    instruction: tuple[InstructionPair, ...] = ()
    questions: tuple[str, ...] = Field(min_length=1)
    eval_prompt: EvalPrompt
    eval_questions: tuple[str, ...] = ()
    measure: Measure | None = None
    opposites: tuple[str, ...] = ()
    eval_opposites: tuple[str, ...] = ()
    n_shared: int = 0
    n_parted: int = 0
    n_unpaired: int = 0

    @classmethod
    def from_json(
        cls, name: str, data: object, *, eval_data: object = None, file: str = ""
    ) -> Self:
        """The definition in a parsed trait file, and its second file where the layout has two.

        Raises TraitFileError naming the `file`, the first error and how many there are.
        """
        errors = [p for p in check_trait(data, name, eval_data=eval_data) if p.severity == "error"]
        if errors:
            more = (
                f" ({len(errors) - 1} more, see `orchestrate traits check`)" if errors[1:] else ""
            )
            first, of = errors[0], f" of {file}" if file else ""
            raise TraitFileError(f"trait {name!r}{of}: {first.where} {first.message}{more}")
        body: Any = data  # check saw to it
        measure = Measure.model_validate(body["measure"]) if "measure" in body else None
        texts = _scenarios(body) if has_scenarios(body) else _questions(body, eval_data)
        counts = {name: n for name in _COUNTS if type(n := body.get(f"_{name}")) is int}
        return cls(
            name=name,
            eval_prompt=measure.prompt() if measure else body["eval_prompt"],
            measure=measure,
            **(texts | counts),
        )

    def held_apart(self) -> Self:
        """The definition as a run takes it up: no held-out question is one that vectors are made
        from, and of many questions some are held out where the file held out none."""
        asked = set(map(folded, self.questions))
        own = [k for k, q in enumerate(self.eval_questions) if folded(q) not in asked]
        n_shared = self.n_shared + len(self.eval_questions) - len(own)
        n_parted = N_QUESTIONS if len(self.questions) >= N_PARTED else 0
        if self.is_scenarios:
            n_parted = min(N_QUESTIONS, len(self.questions) // SCENARIOS_BY_HELD_OUT)
            if len(self.questions) >= FEWEST_SCENARIOS:
                n_parted = max(n_parted, FEWEST_HELD_OUT)
        if own or not n_parted:
            kept = {name: _at(getattr(self, name), own) for _, name in _PARTED}
            return self.model_copy(update={**kept, "n_shared": n_shared})
        # evenly, since neighbors are often of one topic
        step = len(self.questions) / n_parted
        taken = [int(k * step) for k in range(n_parted)]
        left = sorted({*range(len(self.questions))} - {*taken})
        asked = {folded(self.questions[k]) for k in left}
        taken = [k for k in taken if folded(self.questions[k]) not in asked]
        parted: dict[str, object] = {"n_shared": n_shared, "n_parted": len(taken)}
        for made_of, held_out in _PARTED:
            texts = getattr(self, made_of)
            parted |= {made_of: _at(texts, left), held_out: _at(texts, taken)}
        return self.model_copy(update=parted)

    def to_json(self) -> dict[str, object]:
        """The definition in the trait files' schema; `from_json` reads it back to an equal one."""
        pairs = [{"pos": p.positive, "neg": p.negative} for p in self.instruction]
        body: dict[str, object] = {"instruction": pairs, "questions": list(self.questions)}
        held_out: dict[str, tuple[str, ...]] = {"eval_questions": self.eval_questions}
        if self.is_scenarios:
            body = dict(zip(SCENARIOS[0], map(list, (self.questions, self.opposites)), strict=True))
            both = self.eval_questions, self.eval_opposites
            held_out = dict(zip(SCENARIOS[1], both, strict=True))
        if self.measure is None:
            body["eval_prompt"] = self.eval_prompt
        else:
            body["measure"] = self.measure.model_dump(mode="json", exclude_defaults=True)
        body |= {key: list(texts) for key, texts in held_out.items() if texts}
        return body | {f"_{name}": n for name in _COUNTS if (n := getattr(self, name))}

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the name and every text of the definition."""
        texts = {name: one for name, one in self.to_json().items() if not name.startswith("_")}
        return json_digest({"name": self.name, **texts})

    def instruction_text(self, index: int, polarity: AnyPolarity) -> str:
        """The instruction of one pair for one polarity; nothing for `plain` and for scenarios."""
        if polarity == "plain" or self.is_scenarios:
            return ""
        pair = self.instruction[index]
        return pair.positive if polarity == "positive" else pair.negative

    def system_turn(self, index: int, polarity: AnyPolarity) -> str | None:
        """What the model reads before a question; None for `plain`."""
        if polarity == "plain" or self.is_scenarios:
            return None
        return system_instruction(self.name, polarity, self.instruction_text(index, polarity))

    def questions_of(self, part: str) -> tuple[str, ...]:
        """What the samples of a part ask: vectors are tested on questions that they were not made
        from."""
        return self.eval_questions if part else self.questions

    @property
    def is_scenarios(self) -> bool:
        """Whether texts call the trait up by themselves, without instructions."""
        return bool(self.opposites)

    def asked(self, part: str, index: int, polarity: AnyPolarity) -> str:
        """The question of a sample: of scenarios that of its polarity, and the negative one where
        nothing is to call the trait up."""
        if self.is_scenarios and polarity != "positive":
            return (self.eval_opposites if part else self.opposites)[index]
        return self.questions_of(part)[index]

    def judged_question(
        self, part: str, index: int, polarity: AnyPolarity, *, put: ScenariosAs
    ) -> str:
        """What a judge reads before the response: nothing where the text is all there is."""
        is_whole = self.is_scenarios and put == "read"
        return "" if is_whole else self.asked(part, index, polarity)

    def judge_prompt(self, question: str, answer: str) -> str:
        """What the judge reads; both texts appear verbatim, whatever braces they hold."""
        return fill_judge_prompt(self.eval_prompt, question=question, answer=answer)

    def coherence_prompt(self, question: str, answer: str) -> str:
        """What the judge reads to score coherence; measured where the trait is."""
        asks = CONTINUED + COHERENCE_PROMPT if self.is_scenarios else COHERENCE_PROMPT
        prompt = COHERENCE.prompt() if self.measure else asks
        return fill_judge_prompt(prompt, question=question, answer=answer)


def _questions(body: Mapping[str, Any], eval_data: object) -> dict[str, Any]:
    """The instructions and questions of a checked file, and of its second one."""
    pairs = [InstructionPair(positive=p["pos"], negative=p["neg"]) for p in body["instruction"]]
    held_out = eval_questions_of(body, eval_data)[1]
    texts = map(question_of, held_out if isinstance(held_out, list) else ())
    return {
        "instruction": tuple(pairs),
        "questions": tuple(str(question_of(one)) for one in body["questions"]),
        # of the second file some may be none
        "eval_questions": tuple(one for one in texts if isinstance(one, str) and is_text(one)),
    }


def _scenarios(body: Mapping[str, Any]) -> dict[str, Any]:
    """The scenarios of a checked file."""
    found: dict[str, Any] = {"n_unpaired": 0}
    for names, keys in zip(zip(*_PARTED, strict=True), SCENARIOS, strict=True):
        sides = [body.get(key, ()) for key in keys]
        n_pairs = min(map(len, sides))
        found |= {name: tuple(side[:n_pairs]) for name, side in zip(names, sides, strict=True)}
        found["n_unpaired"] += sum(map(len, sides)) - 2 * n_pairs
    return found


def _at(texts: Sequence[str], places: Sequence[int]) -> tuple[str, ...]:
    return tuple(texts[place] for place in places) if texts else ()
