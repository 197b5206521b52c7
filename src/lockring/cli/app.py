"""The root command: finds the others, and turns every error into one line and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import click

from lockring._version import __version__
from lockring.cli import exits
from lockring.cli.output import report
from lockring.errors import InternalError, InvalidRequest, LockringError

_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "lock": ("lock", "lock"),
    "status": ("status", "status"),
    "ls": ("locks", "ls"),
    "describe": ("locks", "describe"),
    "watch": ("locks", "watch"),
    "break": ("locks", "break_"),
    "groups": ("groups", "groups"),
    "group": ("groups", "group"),
    "ring": ("cluster", "ring"),
    "drain": ("cluster", "drain"),
    "undrain": ("cluster", "undrain"),
    "clean-folders": ("clean_folders", "clean_folders"),
    "coordinator": ("servers", "coordinator"),
    "node": ("servers", "node"),
    "serve": ("servers", "serve"),
    "up": ("servers", "up"),
    "version": ("version", "version"),
}
"""Where each command is; its module is imported when it is called, which keeps the others quick to start."""

_ALIASES: Final = {"run": "lock"}


class _Root(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = _COMMANDS.get(_ALIASES.get(cmd_name, cmd_name))
        if found is None:
            return None
        module = importlib.import_module(f"lockring.cli.{found[0]}")
        command = getattr(module, found[1])
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # left to click, it would print an empty line
            raise click.exceptions.Exit(exits.INTERRUPTED) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            import difflib  # only needed for what is wrong anyway

            close = difflib.get_close_matches(args[0], [*_COMMANDS, *_ALIASES], n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see lockring --help"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="lockring %(version)s")
def root() -> None:
    """Distributed locks: leases with fencing tokens, kept in memory, replicated, spread over a hash ring."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the command's name; by default those of this process.

    Returns:
        The exit code. Errors of the user, of the network and of the cluster are one line on standard error
        (a JSON object, if `--json` is among the arguments), never a traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    before_child = given[: given.index("--")] if "--" in given else given
    as_json = "--json" in before_child
    _have_outputs()
    try:
        code = root.main(given, prog_name="lockring", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else exits.OK
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return exits.USAGE
    except click.ClickException as error:
        report(InvalidRequest(_sentence(error)), as_json)
        return exits.USAGE
    except LockringError as error:
        report(error, as_json)
        return exits.exit_code_of(error)
    except (KeyboardInterrupt, click.Abort):
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (head, less) has had enough. Closing here keeps Python from complaining at exit.
        sys.stderr.close()
        return exits.SIGNALLED + 13
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is left of the output can go nowhere else
        report(LockringError(f"the output cannot be written: {error.strerror or error}"), as_json)
        return exits.OUTPUT
    except Exception as error:  # noqa: BLE001 - the last resort: a bug, reported as one, with its traceback
        traceback.print_exc()
        report(InternalError(f"this is a bug in lockring, please report it: {error!r}"), as_json)
        return exits.INTERNAL


def _have_outputs() -> None:
    """A daemon may run us with closed outputs, and a lock's name may have what the terminal's encoding has not."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the same
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _sentence(error: click.ClickException) -> str:
    text = error.format_message().strip().rstrip(".")
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None and context.parent is not None:
        text += f" (see {context.command_path} --help)"
    return text[:1].lower() + text[1:]
