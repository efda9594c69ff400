"""`orchestrate flower`: the fleet's workers, queues and tasks in a browser."""

from __future__ import annotations

import os
import secrets

import click

from cli.options.settings import broker_option, option, required_broker
from domain.errors import UsageError
from domain.redaction import without_password
from storage.broker.connection import connect

# kwargs is the job's key and the run's name, result what came of it
TASK_COLUMNS = "name,kwargs,state,result,received,runtime,worker"


@click.command()
@broker_option
@option("--port", of="flower", default=5555, type=click.IntRange(1, 65535))
@option("--address", of="flower", default="127.0.0.1", help="Address to listen on.")
@option("--persist", metavar="FILE", help="Keep Flower's history in this file over restarts.")
def flower(broker_url: str | None, port: int, address: str, persist: str | None) -> None:
    """Watch workers, queues and tasks in a browser.

    The login is ORCHESTRATE_FLOWER_AUTH (user:password); without it one is made up and printed.

    \b
    orchestrate flower
    ssh -L 5555:127.0.0.1:5555 broker-host      # from your laptop
    """
    from tasks.fleet import flower_app

    url = required_broker(broker_url)
    connect(url).close()
    given = os.environ.get("ORCHESTRATE_FLOWER_AUTH")
    if given and "CHANGE-ME" in given:
        raise UsageError(
            "ORCHESTRATE_FLOWER_AUTH is still the example's CHANGE-ME, which everybody knows: set "
            "user:password of your own, or leave it out for a login that is made up and printed"
        )
    auth = given or f"orchestrate:{secrets.token_urlsafe(9)}"
    if not given:
        click.echo(f"Login {auth.replace(':', ' / ')}")
    click.echo(f"Flower on http://{address}:{port} for the broker at {without_password(url)}")
    # Flower reads options from the environment, where other users cannot see them; celery reads
    # the broker's address there before its own settings
    os.environ |= {"FLOWER_BASIC_AUTH": auth, "CELERY_BROKER_URL": url}
    os.environ["FLOWER_UNAUTHENTICATED_API"] = "false"
    arguments = [f"--address={address}", f"--port={port}", "--inspect_timeout=2000"]
    arguments.append(f"--tasks_columns={TASK_COLUMNS}")
    if persist:
        arguments += ["--persistent=True", f"--db={persist}"]
    flower_app.run_flower(url, arguments)
