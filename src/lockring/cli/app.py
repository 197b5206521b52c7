"""The root command: finds the other commands, and turns every error into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from lockring import exits
from lockring._version import __version__
from lockring.cli import streams
from lockring.cli.inherited import settle
from lockring.cli.signal_end import SignalEnd, leave
from lockring.errors import InternalError, InvalidRequest, LockringError, OutputFailed, SystemRefused
from lockring.native import from_native
from lockring.system_errors import reason_of

if TYPE_CHECKING:
    from lockring.store.url_parts import Secrets

_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "lock": ("lock.command", "lock"),
    "status": ("status", "status"),
    "doctor": ("doctor", "doctor"),
    "ls": ("ls", "ls"),
    "describe": ("locks", "describe"),
    "why": ("why", "why"),
    "watch": ("locks", "watch"),
    "events": ("events", "events"),
    "top": ("top.command", "top"),
    "break": ("locks", "break_"),
    "groups": ("groups", "groups"),
    "group": ("groups", "group"),
    "ring": ("cluster", "ring"),
    "drain": ("cluster", "drain"),
    "undrain": ("cluster", "undrain"),
    "clean-folders": ("clean.command", "clean_folders"),
    "coordinator": ("servers", "coordinator"),
    "node": ("servers", "node"),
    "serve": ("servers", "serve"),
    "up": ("servers", "up"),
    "demo": ("demo.command", "demo"),
    "certs": ("certs", "certs"),
    "token": ("token", "token"),
    "acl": ("acl", "acl"),
    "version": ("version", "version"),
}
"""Modules of the commands. Each is imported when it is called, which keeps the others quick to start."""

_ALIASES: Final = {"run": "lock"}

_CREDENTIAL: Final = re.compile(r"lr_[\w.-]+_[\w-]{8,}|eyJ[\w-]+\.[\w-]+\.[\w-]+")
"""A token or a JWT, whole or cut off."""


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
            raise click.exceptions.Exit(SignalEnd(signal.SIGINT)) from None
        except OSError as error:
            if isinstance(error, LockringError):
                raise
            # Click would mistake an EPIPE for one of the output, which is `OutputFailed`.
            raise SystemRefused(f"the system refuses: {reason_of(error)}") from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            import difflib  # only needed after a mistake

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
        arguments: the words after the command's name; by default those of this process.

    Returns:
        The exit code. Errors of the user, the network and the cluster are one line on standard error
        (a JSON object, if `--json` is among the arguments), never a traceback. With the arguments of this process, it
        does not return if a signal ended the command: this process dies of that signal.
    """
    if arguments is not None:
        return _run(list(arguments))
    settle()
    streams.set_up()
    # Here, and wherever variables are read, text from the system is converted to UTF-8.
    code = _run([from_native(each) for each in sys.argv[1:]])
    with suppress(
        OutputFailed
    ):  # the earlier error counts; raised at Python's exit, this one would change the exit code
        sys.stdout.flush()
    return leave(code)


def _run(given: list[str]) -> int:
    before_child = given[: given.index("--")] if "--" in given else given
    as_json = "--json" in before_child
    try:
        code = root.main(given, prog_name="lockring", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else exits.OK
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return exits.USAGE
    except click.ClickException as error:
        _report(InvalidRequest(_secrets_of(given).scrubbed(_sentence(error))), as_json)
        return exits.USAGE
    except OutputFailed as error:
        if streams.is_closed_pipe(error):
            # The reader of our output (head, less) has had enough.
            return exits.SIGNALLED + signal.SIGPIPE
        _report(error, as_json)
        return exits.OUTPUT
    except LockringError as error:
        _report(error, as_json)
        return exits.exit_code_of(error)
    except (KeyboardInterrupt, click.Abort):
        return SignalEnd(signal.SIGINT)
    except Exception as error:  # noqa: BLE001 - the last resort: report a bug as such, with its traceback
        import traceback  # only needed after a mistake of ours

        hidden = _secrets_of(given)
        sys.stderr.write(hidden.scrubbed(traceback.format_exc()))
        text = f"this is a bug in lockring, please report it: {error!r}"
        _report(InternalError(hidden.scrubbed(text)), as_json)
        return exits.INTERNAL


def _report(error: LockringError, as_json: bool) -> None:
    """Report an error; see `lockring.cli.output.report`."""
    from lockring.cli import output  # only needed after an error, and by commands that print more than lines

    output.report(error, as_json)


def _secrets_of(given: Sequence[str]) -> Secrets:
    """Return what is secret among the words of a command, where it may have been given in the wrong place: URLs with a
    password, tokens and JWTs.
    """
    from lockring.store.url_parts import Secrets  # only needed after an error

    values = [each.partition("=")[2] if each.startswith("-") and "=" in each else each for each in given]
    words = [
        each for each in (*values, os.environ.get("LOCKRING_STORE", "")) if "://" in each and "@" in each
    ]
    tokens = [found for each in given for found in _CREDENTIAL.findall(each)]
    return Secrets([*words, *(repr(each)[1:-1] for each in words), *tokens])


def _sentence(error: click.ClickException) -> str:
    text = error.format_message().strip().rstrip(".")
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None and context.parent is not None:
        text += f" (see {context.command_path} --help)"
    return text[:1].lower() + text[1:]
