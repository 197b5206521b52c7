"""Tells the names of locks from the command to run: `--` separates them, and is easily forgotten.

`flock FILE COMMAND` has no separator, so its users type `lockring lock nightly ./backup.sh --full`. Taken
literally, that names locks, and would hold them until a signal. Without a `--`, nothing is acquired if

1. a word after the first is a program (in PATH, or a path to one) or an existing file, or begins with `./`, `../`
   or `~/`;
2. an unknown option follows.

Several words that look like names are held, and a line says so. With `--`, or with `--hold` for a lock that has the
name of a program, nothing is ambiguous.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

import click

from lockring.cli.lock.programs import is_file, is_program
from lockring.cli.output import quoted
from lockring.errors import ConfigError, InvalidRequest
from lockring.terminals import shell_word

COMMAND: Final = "lockring.command"
"""Key in a context of the words after `--`."""

_GIVEN: Final = "lockring.given"
"""Key in a context of the words as given, if there is no `--`."""

_OF_FLOCK: Final = {
    "-x": "a lock is exclusive unless -s is given",
    "-e": "a lock is exclusive unless -s is given",
    "--exclusive": "a lock is exclusive unless -s is given",
    "-u": "a lock is released when the command ends",
    "--unlock": "a lock is released when the command ends",
    "-o": "a lock is not a file that the command could hold open",
    "--close": "a lock is not a file that the command could hold open",
    "-F": "the command is always a child of lockring",
    "--no-fork": "the command is always a child of lockring",
    "--wait": "-w or --timeout says how long to wait",
    "--nb": "-n or --nonblock does not wait",
}
"""Options that users of flock(1) know, and what lockring does instead."""

_SHOWN_WORDS: Final = 12


class LockCommand(click.Command):
    """Takes the words after `--` as the command to run, before options are parsed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Command`."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[COMMAND] = args[at + 1 :]
            if not ctx.meta[COMMAND]:
                raise click.UsageError(
                    "no command after --; leave out the -- to hold the lock until a signal", ctx
                )
            return super().parse_args(ctx, args[:at])
        ctx.meta[_GIVEN] = given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(_about_option(self, given, error), ctx) from None


def check_names(ctx: click.Context, names: Sequence[str]) -> None:
    """Refuse words among the names, without a `--`, that look like a command.

    Raises:
        InvalidRequest: a word does; the error says how to run it, and how to hold a lock of that name.
    """
    for word in names[1:]:
        what = _like_a_command(word)
        if what:
            given = ctx.meta[_GIVEN]
            places = [place for place in _words(ctx.command, given) if given[place] == word]
            at = next((place for place in places if place > 0), len(given))
            raise InvalidRequest(
                f"{quoted(word)} {what}: to run it under the lock, put -- before it: {_typed(given, at)}; "
                f"to hold a lock of that name until a signal, add --hold"
            )


def hint(names: Sequence[str]) -> str:
    """Return the remark on names that are held without a command, "" for none."""
    if len(names) > 1:
        return (
            f"{len(names)} locks are requested: {', '.join(map(quoted, names[:_SHOWN_WORDS]))}"
            f"{' …' if len(names) > _SHOWN_WORDS else ''}; to run a command, put -- before it"
        )
    if "/" in names[0] and is_program(names[0]):
        return f"{quoted(names[0])} is the lock's name, and no command runs: lockring lock NAME -- COMMAND runs one"
    return ""


def about_setting(ctx: click.Context, names: Sequence[str], error: ConfigError) -> ConfigError:
    """Return the error about a setting, with what to type if the option may belong to a command."""
    if COMMAND in ctx.meta or len(names) < 2:
        return error
    given = ctx.meta[_GIVEN]
    line = _typed(given, _words(ctx.command, given)[1])
    return ConfigError(f"{error}; if one belongs to a command, put -- before that: {line}")


def _like_a_command(word: str) -> str:
    if word.startswith(("./", "../", "~/")):
        return "is a path"
    if is_program(word):
        return "is a program"
    if is_file(word):
        return "is a file"
    return ""


def _about_option(command: click.Command, given: Sequence[str], error: click.NoSuchOption) -> str:
    """Return the error about an option that `lockring lock` does not have."""
    option = error.option_name
    at = next((place for place, each in enumerate(given) if _has_option(each, option)), len(given))
    typed = given[at] if at < len(given) else option
    text = f"no such option {option!r}"
    if typed != option and not option.startswith("--"):
        text += f" (in {quoted(typed)})"  # `-name` is read as -n, -a, -m, -e
    meant = "".join(difflib.get_close_matches(option, error.possibilities or (), n=1))
    words = _words(command, given[:at])
    if len(words) > 1:
        # A second word begins a command, so the option is the command's, whatever it means to lockring or flock.
        text += f"; if it belongs to a command, put -- before that: {_typed(given, words[1])}"
        return text + (f"; otherwise, did you mean {meant}?" if meant else "")
    if option in ("-c", "--command"):
        script = given[at + 1] if at + 1 < len(given) else "COMMAND"
        before = [each for each in given[:at] if each != option] or ["NAME"]
        line = _typed([*before, "sh", "-c", script], len(before))
        return f"{text}; no shell is started unless you ask for one: {line}"
    if option in _OF_FLOCK:
        return f"{text}; {_OF_FLOCK[option]}"
    return text + (f"; did you mean {meant}?" if meant else "")


def _has_option(word: str, option: str) -> bool:
    """Return whether a word contains the option: `--full=1`, or `-x` within `-nx`."""
    if option.startswith("--"):
        return word.split("=")[0] == option
    return word.startswith("-") and not word.startswith("--") and option[1:] in word


def _words(command: click.Command, given: Sequence[str]) -> list[int]:
    """Return the positions of the names, which are neither options nor values of options."""
    takes_value = {
        name
        for each in command.params
        if isinstance(each, click.Option) and not each.is_flag
        for name in each.opts
    }
    places, is_value = [], False
    for place, each in enumerate(given):
        if is_value:
            is_value = False
        elif each.startswith("-") and len(each) > 1:
            is_value = each in takes_value
        else:
            places.append(place)
    return places


def _typed(given: Sequence[str], at: int) -> str:
    """Return the command line with -- before the word at that position; cut if it is very long."""
    words = [*given[:at], "--", *given[at:]]
    text = " ".join(each if each == "--" else shell_word(each) for each in words[:_SHOWN_WORDS])
    return f"lockring lock {text}" + (" …" if len(words) > _SHOWN_WORDS else "")
