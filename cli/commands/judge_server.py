"""`orchestrate judge-server`: a local OpenAI-compatible judge."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator

import click

from cli.options.settings import option
from domain.errors import JudgeError
from orchestrator.processes import LIFELINE, Lifeline, child_environment, orchestrate
from storage.broker.embedded_redis import die_with_parent


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
def judge_server(model: str | None, host: str, port: int, device: str) -> None:
    """Serve /v1/models and /v1/chat/completions with logprobs on this machine.

    \b
    orchestrate judge-server                                    # the demo traits' scorer
    orchestrate judge-server --model Qwen/Qwen2.5-7B-Instruct   # any chat model, read by its logits
    orchestrate extract --judge-url http://127.0.0.1:8011/v1 --judge-model Qwen/Qwen2.5-7B-Instruct
    """
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
def embedded_judge() -> Iterator[str]:
    """Run the built-in judge in a process of its own; yields its URL."""
    lifeline = Lifeline()
    # another judge on this machine may be set up by its environment
    environment = {**child_environment(os.environ), "ORCHESTRATE_JUDGE_SERVER_MODEL": ""}
    with lifeline.renewed() as stdin:
        process = subprocess.Popen(
            orchestrate("judge-server", "--host", "127.0.0.1", "--port", "0"),
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
                "the embedded judge did not start; run `orchestrate judge-server` to see why"
            )
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)
        lifeline.cut()
