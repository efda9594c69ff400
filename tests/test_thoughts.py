"""Protects thinking models: whether a thought is open is read from the prompt, a response is split
at the right token, each part has its budget, and the judge reads the answer alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from starlette.responses import Response

from cli.doctor.thinking import thinking_here, thinking_of_template
from domain.thoughts import (
    MARKS,
    NO_THINKING,
    SWITCHES,
    Case,
    Marks,
    ResponseParts,
    open_thought,
)
from tests.engine_work import run
from tests.fleet import run_command
from tests.http_judge import http_judge
from tests.planted_model import PlantedModel
from tests.test_planted_run import HELD_OUT, JUDGE_PROMPT, by_capitals
from tests.thinking_model import ThinkingModel, save_thinking_model
from tests.tiny_models import TEMPLATE, save_tiny_model
from traitlens.vectors.files import load_vectors
from workers.engine.engine import Engine, build_engine
from workers.engine.fallback import GenerateCore
from workers.engine.generation import Generation, GenerationRequest, Sampling, UnitVectors
from workers.engine.teacher_forced import teacher_forced
from workers.models.chat import UnfitPromptError, answered_ids, render_prompt, response_parts
from workers.models.model import LoadedModel, load_model
from workers.monitor.monitor import OpenPrompt, ProjectedToken, monitor
from workers.monitor.trajectory import Trajectory

END = "{% if add_generation_prompt %}<assistant>"
THINK, CLOSED = "<think>\n", "<think>\n\n</think>\n\n"


def with_end(end: str, *, system: str = "") -> str:
    """The tiny models' template, with this behind the assistant's mark."""
    return TEMPLATE.replace("<bos>", f"<bos>{system}", 1).replace(END, END + end)


def either(condition: str, yes: str, no: str) -> str:
    return f"{{% if {condition} %}}{yes}{{% else %}}{no}{{% endif %}}"


def told(variable: str, value: str = "false") -> str:
    return f"{variable} is defined and {variable} == {value}"


IN_TEXT = "messages[0]['role'] == 'system' and '{}' in messages[0]['content']"
KINDS: dict[str, tuple[str, Case]] = {
    "no thoughts": (TEMPLATE, Case.NONE),
    "enable_thinking, closing": (with_end(either(told("enable_thinking"), CLOSED, "")), Case.OFF),
    "enable_thinking, opening": (
        with_end(either(told("enable_thinking"), CLOSED, THINK)),
        Case.OFF,
    ),
    "thinking": (
        with_end(either(told("thinking"), "<|open|>response<|sep|>", "<|open|>think<|sep|>")),
        Case.OFF,
    ),
    "closed unless asked": (with_end(either("thinking", THINK, "</think>")), Case.OFF),
    "thinking_budget": (
        with_end(either(told("thinking_budget", "0"), "<seed:think></seed:think>", "")),
        Case.OFF,
    ),
    "thinking_budget in words": (
        with_end("{#</seed:think>#}", system=either(told("thinking_budget", "0"), "none", "")),
        Case.SOMETIMES,
    ),
    "thinking_mode": (with_end(either(told("thinking_mode", "'disabled'"), "", THINK)), Case.OFF),
    "reasoning": (
        with_end("<|START_THINKING|>" + either(told("reasoning"), "<|END_THINKING|>", "")),
        Case.OFF,
    ),
    "reasoning_effort none": (
        with_end(either(told("reasoning_effort", "'none'"), CLOSED, THINK)),
        Case.OFF,
    ),
    "reasoning_effort low": (
        with_end(either(told("reasoning_effort", "'low'"), "<|think|><|end|><assistant>", "")),
        Case.OFF,
    ),
    "reasoning_effort in words": (
        with_end(
            "{#<|channel|>analysis<|message|>#}",
            system="{% if reasoning_effort %}Reasoning: {{ reasoning_effort }}{% endif %}",
        ),
        Case.SOMETIMES,
    ),
    "refuses unknown values": (
        with_end(
            THINK,
            system="{% if reasoning_effort and reasoning_effort != 'high' %}"
            "{{ raise_exception('unknown effort') }}{% endif %}",
        ),
        Case.ALWAYS,
    ),
    "no_think in the text": (
        with_end(either(IN_TEXT.format("/no_think"), "<think></think>", THINK)),
        Case.OFF,
    ),
    "only when asked": (
        with_end("", system="{% if thinking %}Think within <think></think>.{% endif %}"),
        Case.OFF,
    ),
    "always": (with_end(THINK), Case.ALWAYS),
    "always, and marked for training": (
        with_end(THINK, system="{% generation %}Hm.{% endgeneration %}"),
        Case.ALWAYS,
    ),
    "always, in words": (with_end("Here are my reasoning steps:\n"), Case.ALWAYS),
    "itself": (with_end("{# content.split('</think>') #}"), Case.SOMETIMES),
}
# what a switch asks for in words counts
CANNOT_BE_STOPPED = {
    *("always", "always, and marked for training", "always, in words", "itself"),
    *("refuses unknown values", "reasoning_effort in words"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_template_does_with_thoughts_is_read_from_what_it_prints(
    kind: str, tmp_path: Path
) -> None:
    template, case = KINDS[kind]
    model = load_model(save_tiny_model(tmp_path, "llama", template=template), device="cpu")

    prompt = render_prompt(model, system="Be <think> kind.", user="What is <think>?")

    assert model.thinking.case == case
    assert model.thinking.cannot_be_stopped == (kind in CANNOT_BE_STOPPED)
    assert (prompt.opened is not None) == (case == Case.ALWAYS)
    # plan and doctor see the same without loading it
    assert thinking_of_template(template) == model.thinking


FAULTS = {
    "division": "{{ 1 / 0 }}",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "range": "{% for i in range(200000) %}{% endfor %}",
    "type": "{{ 'a' + 1 }}",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_template_that_fails_refuses_the_prompt_and_knows_no_thoughts(
    fault: str, tmp_path: Path
) -> None:
    template = FAULTS[fault]
    model = load_model(save_tiny_model(tmp_path, "llama", template=template), device="cpu")

    with pytest.raises(UnfitPromptError):
        render_prompt(model, system="Be kind.", user="Hello")
    assert thinking_of_template(template) == model.thinking == NO_THINKING


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("chat_template.jinja", "caf\xe9 {{ messages }}".encode("latin-1")),
        ("chat_template.jinja", b"{% if %}"),
        ("tokenizer_config.json", b'{"chat_template": [{"name": "default"}]}'),
        ("tokenizer_config.json", b'{"chat_template": ["default"]}'),
    ],
)
def test_a_template_that_cannot_be_read_is_not_known(
    name: str, body: bytes, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(body)

    assert thinking_here(str(tmp_path)) is None


def test_every_switch_and_every_mark_has_a_template_here() -> None:
    read = [thinking_of_template(template) for template, _ in KINDS.values()]
    found = {str(one.switch) for one in read if one}

    untried = {"enable_thinking=False", "thinking=False", "reasoning=False", "thinking_budget=0"}
    untried |= {"thinking_mode=disabled", "reasoning_effort=none", "/no_think"}
    assert untried <= found and untried <= {str(one) for one in SWITCHES}


def by_words(tokens: Mapping[int, str]) -> Any:
    return lambda ids: "".join(tokens[i] for i in ids)


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks.opens)
@pytest.mark.parametrize("cut", [1, 2, 100])
@pytest.mark.parametrize("in_prompt", [True, False])
def test_a_response_is_split_at_the_token_that_closes_its_thought(
    marks: Marks, cut: int, in_prompt: bool
) -> None:
    lead = marks.leads[0] if marks.leads else ""
    pieces = ["" if in_prompt else marks.opens, " a > b] ", marks.closes, "\n\n", lead, "Yes", "."]
    texts = [text[k : k + cut] for text in pieces for k in range(0, len(text), cut)]
    tokens = dict(enumerate(texts))
    parts = ResponseParts(by_words(tokens), marks if in_prompt else None)

    for n in range(1, len(texts) + 1):
        parts.take(range(n))

    start = parts.answer_start
    assert "".join(texts[start:]) == "Yes."
    assert parts.has_answer


@pytest.mark.parametrize("text", ["Hello.", "<b>", "< think>", "", " ", "[a] </think>"])
def test_what_does_not_begin_with_a_thought_is_all_answer(text: str) -> None:
    tokens = dict(enumerate(text))
    parts = ResponseParts(by_words(tokens), None)

    for n in range(1, len(text) + 1):
        parts.take(range(n))

    assert parts.answer_start == 0 and not parts.is_open


def test_marks_in_the_question_open_nothing() -> None:
    question = "What does <think> mean?"

    assert open_thought(f"<user>{question}<assistant>", user=question) is None
    assert open_thought(f"<user>{question}<assistant><think>\n", user=question) == MARKS[0]


def opened_in_prompt(folder: Path, *, thought_length: int = 15) -> ThinkingModel:
    return save_thinking_model(
        folder, opens="<think>", closes="</think>", in_prompt=True, thought_length=thought_length
    )


def opened_itself(folder: Path, *, thought_length: int = 15) -> ThinkingModel:
    return save_thinking_model(
        folder,
        opens="<|START_THINKING|>",
        closes="<|END_THINKING|>",
        lead="<|START_RESPONSE|>",
        in_prompt=False,
        thought_length=thought_length,
    )


THINKERS = {"in prompt": opened_in_prompt, "itself": opened_itself}


def asked(model: LoadedModel, sampling: Sampling, *, n: int = 12) -> list[GenerationRequest]:
    prompt = render_prompt(model, system="Write with ^ please.", user="How are you?")
    return [
        GenerationRequest(prompt.token_ids, seed, sampling, opened=prompt.opened)
        for seed in range(n)
    ]


def engines(model: LoadedModel) -> dict[str, Engine]:
    return {"fast": build_engine(model), "slow": GenerateCore(model)}


@pytest.mark.parametrize("thinker", THINKERS)
def test_thoughts_and_answers_are_split_and_measured_apart_on_both_cores(
    thinker: str, tmp_path: Path
) -> None:
    made = THINKERS[thinker](tmp_path / "model")
    model = load_model(made.folder, device="cpu")
    limits = Sampling(max_new_tokens=20, max_thought_tokens=15)
    found: dict[str, list[Generation]] = {}

    for core, engine in engines(model).items():
        assert engine.path == ("engine" if core == "fast" else "fallback")
        found[core] = run(engine, asked(model, limits))

    finishes = {one.finish for one in found["fast"]}
    assert {"stop", "thought"} <= finishes
    for fast, slow in zip(found["fast"], found["slow"], strict=True):
        assert fast.response_ids == slow.response_ids
        assert (fast.answer_start, fast.finish) == (slow.answer_start, slow.finish)
        assert_split(model, made, fast, limits)
        for one in (fast, slow):
            assert_measured(model, one)


def assert_split(
    model: LoadedModel, made: ThinkingModel, one: Generation, limits: Sampling
) -> None:
    ids, start = one.response_ids, one.answer_start
    if one.finish == "thought":
        assert start == len(ids) == limits.max_thought_tokens and made.closes not in ids
        return
    closes = ids.index(made.closes)
    assert start == closes + 1 + (made.lead >= 0)
    assert closes < limits.max_thought_tokens
    # what leads to the answer counts as of it
    behind = len(ids) - closes - 1
    assert behind == limits.max_new_tokens if one.finish == "length" else behind <= 20
    parts = response_parts(model, ids, start)
    assert parts["response"].isalpha() or not parts["response"]
    assert model.tokenizer.convert_ids_to_tokens(made.closes) in parts["thought"]


def assert_measured(model: LoadedModel, one: Generation) -> None:
    prompt, ids, start = one.request.prompt_ids, one.response_ids, one.answer_start
    answer = teacher_forced(model, [prompt + ids[:start]], [ids[start:]])[0][0]
    thought = teacher_forced(model, [prompt], [ids[:start]])[0][0]

    assert one.thought_avg is not None
    np.testing.assert_allclose(one.response_avg, answer, atol=1e-5)
    np.testing.assert_allclose(one.thought_avg, thought, atol=1e-5)


def test_a_response_without_a_thought_budget_is_one_piece(tmp_path: Path) -> None:
    made = opened_itself(tmp_path / "model", thought_length=4)
    model = load_model(made.folder, device="cpu")

    found = run(build_engine(model), asked(model, Sampling(max_new_tokens=20)))

    assert {one.answer_start for one in found} == {0}
    assert any(made.closes in one.response_ids for one in found)


def test_an_answer_that_others_wrote_is_read_behind_a_closed_thought(tmp_path: Path) -> None:
    model = load_model(opened_in_prompt(tmp_path / "model").folder, device="cpu")
    prompt = render_prompt(model, system=None, user="Why?")

    plain = answered_ids(model, prompt, "So.")
    thoughtful = answered_ids(model, prompt, "Hm.</think>\n\nSo.")

    assert model.text_of(plain[0]).endswith("<think>\n\n</think>\n\n")
    assert model.text_of(thoughtful[0]).endswith("<think>\nHm.</think>\n\n")
    assert {model.text_of(answer) for _, answer in (plain, thoughtful)} == {"So."}


def thinking_run(
    folder: Path, made: ThinkingModel, *options: str
) -> tuple[Path, dict[str, Any], list[str]]:
    """A run's trait folder, its metrics, and what the judge was asked."""
    planted = PlantedModel(made.folder, made.thought, made.layer)
    trait = {
        "instruction": [{"pos": pos, "neg": neg} for pos, neg in planted.instructions],
        "questions": list(planted.questions),
        "eval_questions": HELD_OUT,
        "eval_prompt": JUDGE_PROMPT,
    }
    (folder / "capitals.json").write_text(json.dumps(trait))
    prompts: list[str] = []

    def judge_of(body: dict[str, Any], call: int) -> Response:
        prompts.append(body["messages"][0]["content"])
        return by_capitals(body, call)

    with http_judge(judge_of) as judge:
        ended = run_command(
            *("extract", "--traits", str(folder / "capitals.json"), "--model", made.folder),
            *("--judge-url", judge.url, "--judge-model", "t", "--runs-dir", str(folder)),
            *("--run", "thoughts", "--max-new-tokens", "40", "--max-thought-tokens", "40"),
            *options,
        )
    assert ended.returncode in (0, 3), ended.stdout + ended.stderr
    trait_folder = folder / "thoughts" / "traits" / "capitals"
    metrics: dict[str, Any] = json.loads((trait_folder / "metrics.json").read_text())
    return trait_folder, metrics, prompts


def cosine(a: torch.Tensor, b: Any) -> float:
    return float(torch.cosine_similarity(a, torch.from_numpy(b), dim=0))


def answers_of(prompts: Sequence[str]) -> set[str]:
    found = (re.search(r"\[ANSWER START\]\n(.*)\n\[ANSWER END\]", p, re.DOTALL) for p in prompts)
    return {one.group(1) for one in found if one}


@pytest.mark.slow
def test_the_judge_reads_answers_and_the_vector_is_of_them(tmp_path: Path) -> None:
    made = opened_in_prompt(tmp_path / "model")

    folder, metrics, prompts = thinking_run(
        tmp_path, made, "--rollouts", "3", "--contexts", "0", "--measure", "answer"
    )

    rows = pq.read_table(folder / "responses.parquet").to_pylist()
    fallen = [row for row in rows if row["fall"] == "thought_open"]
    answered = [row for row in rows if row["finish"] != "thought"]
    assert fallen and len(fallen) + len(answered) == len(rows)
    assert {row["limit"] for row in fallen} == {40.0}
    assert all(row["status"] == "dropped" and not row["response"] for row in fallen)
    # nobody is asked about a response without an answer, and no thought is shown
    asked_about = answers_of(prompts)
    assert {row["response"] for row in answered} <= asked_about
    assert not any("think" in text for text in asked_about)
    assert all(row["thought_token_ids"][-1] == made.closes for row in answered)
    assert metrics["n_scored"] == len(answered) and not metrics["n_unscored"]
    assert metrics["generation"]["thinking"] == "always"
    vector = load_vectors(folder).tensor[made.layer]
    assert cosine(vector, made.answer) > 0.95 > cosine(vector, made.thought)


@pytest.mark.slow
@pytest.mark.parametrize("thinker", THINKERS)
@pytest.mark.parametrize("measure", ["thought", "answer", "both"])
def test_thought_and_answer_have_the_vectors_that_were_planted(
    thinker: str, measure: str, tmp_path: Path
) -> None:
    made = THINKERS[thinker](tmp_path / "model")

    folder, metrics, _ = thinking_run(
        tmp_path,
        made,
        *("--rollouts", "8", "--evaluation", "1", "--causal", "6", "--measure", measure),
    )

    vector = load_vectors(folder).tensor[made.layer]
    of_thought, of_answer = cosine(vector, made.thought), cosine(vector, made.answer)
    if measure == "thought":
        assert of_thought > 0.95 > of_answer
    elif measure == "answer":
        assert of_answer > 0.95 > of_thought
    else:
        assert min(of_thought, of_answer) > 0.72
    assert metrics["uses"]["steers"]["state"] in ("yes", "doubt", "no")
    assert metrics["quality"]["likelihood"]["layer"] >= 2


def test_plan_and_doctor_say_which_case_a_model_is(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", "llama", template=KINDS["always"][0])
    where = ("--model", folder)
    offline = {"HF_HUB_OFFLINE": "1"}

    planned = run_command(
        *("plan", "--traits", "evil", "--judge-model", "t", "--json"),
        *("--judge-url", "http://127.0.0.1:9/v1", *where),
        environment=offline,
    )
    checked = run_command("doctor", "--json", *where, environment=offline, cwd=tmp_path)

    assert json.loads(planned.stdout)["thoughts"] == "always", planned.stderr
    (found,) = (f for f in json.loads(checked.stdout)["findings"] if f["check"] == "thoughts")
    assert found["state"] == "warn" and "--measure" in found["advice"]


def test_monitoring_streams_and_scores_the_answer_alone(tmp_path: Path) -> None:
    made = opened_itself(tmp_path / "model", thought_length=4)
    engine = build_engine(load_model(made.folder, device="cpu"))
    prompt = render_prompt(engine.model, system="Write with ^ please.", user="How are you?")
    directions = UnitVectors((made.layer,), made.answer[None])
    sampling = Sampling(max_new_tokens=20, max_thought_tokens=60)

    events = list(
        monitor(
            engine,
            [OpenPrompt("", prompt, seed) for seed in range(4)],
            directions,
            sampling=sampling,
            alternatives=2,
        )
    )

    done = [one for one in events if isinstance(one, Trajectory)]
    for one in done:
        streamed = [e.text for e in events if isinstance(e, ProjectedToken) and e.id == one.id]
        assert one.answer_start and one.token_ids == one.all_ids[one.answer_start :]
        assert tuple(streamed) == one.tokens and "".join(streamed) == one.response
        assert len(one.projections) == len(one.tokens) == len(one.alternatives or ())
        assert len(one.prompt_projections) == len(prompt.token_ids)
        assert "THINKING" in one.facts["thought"]
    assert any(one.tokens for one in done)
