"""The `orchestrate` command: one file per noun, loaded when it is asked for.

`--help` answers at once because nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import atexit
import contextlib
import difflib
import errno
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from cli.options.config import (
    check_config_above_tables,
    check_config_tables,
    command_config,
    command_defaults,
    config_file,
    is_from_config,
    load_env_file,
    read_config,
)
from cli.options.variables import warn_of_unread_variables
from cli.screens.terminal import guarded_output
from domain.errors import BrokerError, OrchestrateError

# what it is for -> command -> its file in cli/commands, and its line in --help
GROUPS = {
    "Make vectors": {
        "extract": ("extract", "Extract trait vectors; the same command again continues."),
        "plan": ("plan", "Show counts, tokens and money of a run; spend nothing."),
        "traits": ("traits", "List, write, draft, check and try trait definitions."),
        "doctor": ("doctor", "Say what is missing on this machine, and how to mend it."),
    },
    "Follow and control runs": {
        "status": ("status", "Show all runs, or where one stands, from any shell."),
        "logs": ("logs", "Show what workers on all machines said about a run's jobs."),
        "pause": ("pause_cancel", "Let a run's jobs wait; resume goes on."),
        "cancel": ("pause_cancel", "Stop a run on the fleet; what is done is kept."),
        "resume": ("extract", "Continue a run with the settings it recorded."),
        "retry": ("extract", "Try again what was given up, and continue the run."),
        "rm": ("rm", "Remove runs; says what goes, and asks."),
    },
    "Read and judge the evidence": {
        "report": ("report", "Write a run's report.html, one file for any browser."),
        "compare": ("report", "Set two runs side by side."),
        "refilter": ("refilter", "Assemble vectors again from what is stored."),
        "rejudge": ("rejudge", "Score again without generating; every judgement is kept."),
        "agreement": ("agreement", "Compare two judgements, or a judgement with labels."),
    },
    "Use vectors": {
        "monitor": ("monitor", "Generate, and see every token's trait scores as they come."),
        "screen": ("screen", "Score responses that exist: a data set, a fine-tune's answers."),
        "steer": ("steer", "Answer prompts unsteered and steered, side by side."),
        "dynamics": ("dynamics", "Say when traits commit, and how long they last."),
        "view": ("view", "Look at trait scores token by token, in a browser."),
        "export": ("export", "Write vectors for other tools or a hub, or read theirs."),
        "publish": ("publish", "Write a run as a folder for any static host, and one for a hub."),
    },
    "Run a fleet": {
        "worker": ("worker", "Start gpu, judge or reduce workers on this machine."),
        "judge-server": ("judge_server", "Serve a local OpenAI-compatible judge."),
        "metrics": ("metrics", "Serve the fleet's numbers to Prometheus."),
        "flower": ("flower", "Watch workers and queues in a browser."),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
# what they say of a run is true of the run that extract would start
GO_BY_EXTRACT = ("plan", "doctor")
INTERRUPTED = 130
# Whatever is stored says so in words of its own; this is standard output, or a file beside a run.
CANNOT_PRINT = (errno.ENOSPC, errno.EDQUOT, errno.EPIPE, errno.EIO)


class Commands(click.Group):
    """A group whose commands are imported when they are used; their one-line help stands above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module and return the command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, with the settings of .env and orchestrate.toml as its defaults."""
        if ctx.resilient_parsing:  # a shell that completes waits for the answer
            return super().resolve_command(ctx, args)
        load_env_file()
        config = read_config()
        check_config_tables(config, list(COMMANDS))
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and near:
            ctx.fail(f"no such command {args[0]!r}: did you mean {near[0]}?")
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None:
            check_config_above_tables(config, self._all(ctx, command))
            if os.environ.get("ORCHESTRATE_CONFIG") != "":
                # not in the processes that a command starts, or each would say it again
                warn_of_unread_variables(os.environ, self._all(ctx, command))
            beside = self._beside(ctx, name, config)
            ctx.default_map = {name: command_defaults(command, name, config, beside=beside)}
        return name, command, rest

    def _all(self, ctx: click.Context, first: click.Command) -> Iterator[click.Command]:
        """Every command, this one first; each is imported when its turn comes."""
        yield first
        yield from filter(None, (self.get_command(ctx, other) for other in COMMANDS))

    def _beside(self, ctx: click.Context, name: str, config: dict[str, Any]) -> dict[str, Any]:
        if name not in GO_BY_EXTRACT or not isinstance(config.get("extract"), dict):
            return {}
        extract = self.get_command(ctx, "extract")
        assert extract is not None
        return command_config(extract, "extract", config["extract"])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for, without importing them."""
        for purpose, commands in GROUPS.items():
            with formatter.section(purpose):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trait-vector-orchestrator")
def orchestrate() -> None:
    """Extract, check and use trait vectors of language models, on one machine or many.

    \b
    orchestrate extract --traits all     # the demo: no key, no GPU, no server needed
    orchestrate plan --traits refusal --model google/gemma-2-2b-it --judge-model gpt-6-luna

    Settings: flags > ORCHESTRATE_* environment > .env > orchestrate.toml > defaults.
    """


def main() -> None:
    """Run the command; every expected error is one sentence and an exit code."""
    if "ORCHESTRATE_LIFELINE" in os.environ:
        from orchestrator.processes import end_with_parent

        end_with_parent()
    ended = [1]
    # what is registered first is called last
    atexit.register(_end, ended)
    with guarded_output():
        ended[0] = _run()
    sys.exit(ended[0])


def _end(code: list[int]) -> None:
    """End the process when all of Python's is done, without the destructors of native libraries:
    one of them has aborted a command that had done its work."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code[0])


def _run() -> int:
    code: object
    try:
        code = orchestrate.main(prog_name="orchestrate", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except SystemExit as stop:
        code = stop.code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        if is_from_config(error):
            click.echo(f"The value stands in {config_file()}.", err=True)
        code = error.exit_code
    except OrchestrateError as error:
        click.echo(f"Error: {error}", err=True)
        code = error.exit_code
    # the one broad catch of the command's edge: a fault of ours still ends in a sentence
    except Exception as error:
        if os.environ.get("ORCHESTRATE_DEBUG"):
            raise
        code = _tell(error)
    return code if isinstance(code, int) else 0


def _tell(error: Exception) -> int:
    """Say in a sentence what no command foresaw; returns the exit code."""
    from storage.broker.connection import BROKER_AWAY

    if isinstance(error, BROKER_AWAY):
        click.echo(
            f"Error: the broker went away ({error}): start it again or mend the way to it, then "
            "run the same command again; what is stored is kept",
            err=True,
        )
        return BrokerError.exit_code
    if isinstance(error, OSError) and error.errno in CANNOT_PRINT:
        click.echo(
            f"Error: a text could not be written ({error.strerror}): make room where the output "
            "goes, then run the same command again; what is stored is kept",
            err=True,
        )
        return 1
    click.echo(
        f"Error: unexpected {type(error).__name__}: {error}. This is a fault of the program, "
        "what is stored is kept; ORCHESTRATE_DEBUG=1 shows where it happened.",
        err=True,
    )
    return 1
