"""`lockring coordinator`, `node`, `serve` and `up`: the processes of a cluster."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
import msgspec

from lockring.cli.options import setting_options
from lockring.cli.sections import read_settings, sections
from lockring.config import misspelt_variables, settings_of, unknown_variables
from lockring.exits import OK
from lockring.server.access_settings import AccessSettings
from lockring.server.settings import CoordinatorSettings, NodeSettings, ServeSettings, UpSettings


def _warn_of_misspelt_variables(*structs: type[msgspec.Struct]) -> None:
    """Warn of variables that neither this command nor another one knows, but nearly."""
    own = [each for struct in structs for each in settings_of(struct)]
    if not unknown_variables(os.environ, own):
        return  # as nearly always: the settings of all other commands take a server long to import
    declared = [each for struct in sections().values() for each in settings_of(struct)]
    for name, meant in misspelt_variables(os.environ, declared):
        print(f"lockring: unknown variable {name}; did you mean {meant}?", file=sys.stderr)


class _Coordinator(click.Group):
    """A command of its own, with commands for the state of coordinators that do not run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["export", "import"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        from lockring.cli import state_move

        return state_move.export if cmd_name == "export" else state_move.import_


@click.command(
    cls=_Coordinator, invoke_without_command=True, subcommand_metavar="[export|import]", add_help_option=True
)
@setting_options(CoordinatorSettings, AccessSettings)
@click.pass_context
def coordinator(context: click.Context, /, **given: Any) -> int:
    """Run the coordinator, which decides which node has which slots.

    Locks survive its stop: nodes go on for the coordinator lease. SIGTERM or Ctrl-C ends it. SIGHUP has it read the
    files of TLS and the ACL file again, and ends it if it has none.
    """
    if context.invoked_subcommand is not None:
        if any(value is not None for value in given.values()):
            raise click.UsageError(f"flags come after the word {context.invoked_subcommand!r}", context)
        return OK
    _warn_of_misspelt_variables(
        CoordinatorSettings, AccessSettings
    )  # first, since it may be why the settings are refused
    settings = read_settings(CoordinatorSettings, "coordinator", given)
    access = read_settings(AccessSettings, "access", given)
    from lockring.server import run_coordinator

    return run_coordinator(settings, access)


@click.command()
@setting_options(NodeSettings, AccessSettings)
def node(**given: Any) -> int:
    """Run a node, which keeps locks and serves clients.

    SIGTERM or Ctrl-C drains it: its slots move to the other nodes before it leaves. A second one ends it at once.
    SIGHUP has it read the files of TLS and the ACL file again, and drains it if it has none.
    """
    _warn_of_misspelt_variables(
        NodeSettings, AccessSettings
    )  # first, since it may be why the settings are refused
    settings = read_settings(NodeSettings, "node", given)
    access = read_settings(AccessSettings, "access", given)
    from lockring.server import run_node

    return run_node(settings, access)


@click.command()
@setting_options(ServeSettings, AccessSettings)
def serve(**given: Any) -> int:
    """Run a coordinator and a node in one process: all that one machine needs."""
    _warn_of_misspelt_variables(
        ServeSettings, AccessSettings
    )  # first, since it may be why the settings are refused
    settings = read_settings(ServeSettings, "serve", given)
    access = read_settings(AccessSettings, "access", given)
    from lockring.server import run_serve

    return run_serve(settings, access)


@click.command()
@setting_options(UpSettings, AccessSettings)
def up(**given: Any) -> int:
    """Run a whole cluster on this machine: a coordinator and some nodes, each in its own process.

    Restarts processes that die. Ctrl-C ends all of them.
    """
    _warn_of_misspelt_variables(
        UpSettings, AccessSettings
    )  # first, since it may be why the settings are refused
    settings = read_settings(UpSettings, "up", given)
    access = read_settings(AccessSettings, "access", given)
    from lockring.server import run_up

    return run_up(settings, access)
