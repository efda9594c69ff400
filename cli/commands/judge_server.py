"""`orchestrate judge-server`: a local OpenAI-compatible judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.table import Table

from cli.options.judge_url import JudgeUrl
from cli.options.settings import json_option, option
from cli.screens.tables import number_column, number_text, table_of, text_column
from cli.screens.terminal import Screen, say
from cli.screens.working import working
from domain.errors import JudgeError, UsageError
from orchestrator.processes import LIFELINE, Lifeline, child_environment, orchestrate
from storage.broker.embedded_redis import die_with_parent

if TYPE_CHECKING:
    from workers.judge.check import JudgeCheck

IN_FLIGHT = 8

# A local model on a CPU reads a long prompt in tens of seconds, others waiting.
ASK_TIMEOUT_S = 300.0


@click.command("judge-server")
@option(
    "--model",
    "model",
    # what is set for extract is the model that is judged
    of="judge-server",
    metavar="ID",
    help="A chat model (hub id or folder) to judge with; "
    "without it the small built-in scorer of the demo traits serves.",
)
@option(
    "--host",
    of="judge-server",
    default="127.0.0.1",
    help="Address to listen on; anything but loopback needs a key.",
)
@option("--port", of="judge-server", default=8011, type=click.IntRange(0, 65535))
@option("--device", default="auto", help="Where the chat model runs: auto, cuda:0, cpu, mps.")
@click.option(
    "--check",
    is_flag=True,
    help="Serve nothing: score 76 labelled answers and refuse a judge that cannot tell them apart.",
)
@click.option(
    "--url",
    metavar="URL",
    type=JudgeUrl(),
    help="With --check: the endpoint to ask, for --model.",
)
@json_option
def judge_server(
    model: str | None,
    host: str,
    port: int,
    device: str,
    check: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Serve /v1/models and /v1/chat/completions with logprobs on this machine.

    With --check a judge is tried before a run believes it, this one or any endpoint's: the exit
    code is 1 for one that cannot tell plain answers of a trait from plain answers without it.

    \b
    orchestrate judge-server                                    # the demo traits' scorer
    orchestrate judge-server --model Qwen/Qwen2.5-7B-Instruct   # any chat model, read by its logits
    orchestrate extract --judge-url http://127.0.0.1:8011/v1 --judge-model Qwen/Qwen2.5-7B-Instruct
    orchestrate judge-server --check --model Qwen/Qwen2.5-7B-Instruct
    orchestrate judge-server --check --url https://api.openai.com/v1 --model gpt-6-luna
    """
    if check:
        _check(model, url, device=device, as_json=as_json)
        return
    if url or as_json:
        raise UsageError("--url and --json go with --check")
    _serve(model, host, port, device=device)


def _check(model: str | None, url: str | None, *, device: str, as_json: bool) -> None:
    """Raises JudgeError for a judge that cannot tell its ends apart."""
    from tasks.stages.judge_pool import open_judge
    from workers.judge.check import check_judge
    from workers.judge.server import MODEL_NAME

    if url and not model:
        raise UsageError("--url without --model", advice="name the model that is asked there")
    with contextlib.ExitStack() as stack:
        stack.enter_context(working(f"Asking {model or MODEL_NAME}"))
        if url is None:
            named = ["--model", model, "--device", device] if model else []
            url = stack.enter_context(served_judge(*named))
        client = open_judge(url, max_in_flight=IN_FLIGHT, timeout_s=ASK_TIMEOUT_S)
        found = check_judge(client, model or MODEL_NAME, max_in_flight=IN_FLIGHT)
    if as_json:
        body = {**asdict(found), "objections": found.objections}
        click.echo(json.dumps(body, indent=2))
    else:
        console = Screen()
        console.print(_check_table(found))
        say(console, f"{found.model} {found.mode}")
    if found.objections:
        raise JudgeError(
            f"{found.model} cannot judge a run: {'; '.join(found.objections)}",
            advice="choose a larger model or another, or have the trait measured (docs/traits.md)",
        )


def _check_table(found: JudgeCheck) -> Table:
    headings = ("AUROC", "95 %", "low", "middle", "high", "unscored")
    table = table_of(text_column("metric"), *map(number_column, headings))
    rows = [*found.by_metric, found.traits]
    for one in rows:
        low, high = one.interval or (None, None)
        table.add_row(
            "all traits" if one is found.traits else one.metric,
            number_text(one.auroc, ".2f"),
            f"{number_text(low, '.2f')} to {number_text(high, '.2f')}",
            *(number_text(one.means[label], ".0f") for label in ("low", "middle", "high")),
            f"{one.n_unscored}/{one.n}",
        )
    return table


def _serve(model: str | None, host: str, port: int, *, device: str) -> None:
    import uvicorn

    from workers.judge.server import Backend, Writer, make_server

    key = os.environ.get("ORCHESTRATE_JUDGE_SERVER_KEY")
    if host not in ("127.0.0.1", "localhost", "::1") and not key:
        raise JudgeError(
            "the judge server listens beyond loopback only with a key: "
            "set ORCHESTRATE_JUDGE_SERVER_KEY"
        )
    backend: Backend
    writer: Writer | None = None
    if model is None:
        from workers.judge.server import MODEL_NAME, embedded_backend

        backend, name = embedded_backend, MODEL_NAME
    else:
        from workers.judge.local_model import LocalJudge
        from workers.models.model import load_model

        local = LocalJudge(load_model(model, device=device))
        backend, writer, name = local.reply, local.write, model
    app = make_server(backend, model_name=name, api_key=key, writer=writer)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise JudgeError(f"cannot listen ({error.strerror}): choose another --port") from error
    click.echo(f"http://{host}:{listener.getsockname()[1]}/v1 judges as {name}", err=False)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


@contextlib.contextmanager
def served_judge(*arguments: str) -> Iterator[str]:
    """Run the judge server in a process of its own, the built-in judge without arguments; yields
    its URL."""
    lifeline = Lifeline()
    # another judge on this machine may be set up by its environment
    environment = {**child_environment(os.environ), "ORCHESTRATE_JUDGE_SERVER_MODEL": ""}
    with lifeline.renewed() as stdin:
        process = subprocess.Popen(
            orchestrate("judge-server", "--host", "127.0.0.1", "--port", "0", *arguments),
            env={**environment, **LIFELINE},
            stdout=subprocess.PIPE,
            stdin=stdin,
            preexec_fn=die_with_parent,
            text=True,
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().partition(" ")[0]
        if not url.startswith("http"):
            raise JudgeError(
                "the local judge did not start; run `orchestrate judge-server` to see why"
            )
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)
        lifeline.cut()
