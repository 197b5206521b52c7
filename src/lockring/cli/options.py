"""Command-line options, made from the declarations of `lockring.config`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from lockring.config import CONFIG_VARIABLE, Setting, settings_of

_F = TypeVar("_F", bound=Callable[..., Any])


def setting_options(*structs: type[msgspec.Struct]) -> Callable[[_F], _F]:
    """Give a command a flag for every setting of the structs, and `--config`.

    The flags take any text: `lockring.config` checks the values, whatever their source.
    """

    def decorate(command: _F) -> _F:
        command = click.option(
            "--config",
            "config_path",
            metavar="FILE",
            help=f"Read settings from a TOML file.  [env: {CONFIG_VARIABLE}]",
        )(command)
        for struct in reversed(structs):
            for each in reversed(settings_of(struct)):
                command = _option(each)(command)
        return command

    return decorate


def _option(each: Setting) -> Callable[[_F], _F]:
    notes = []
    if each.is_required:
        notes.append("required")
    elif each.kind == "list":
        notes.append("default: " + ",".join(each.default))
    elif each.kind == "switch":
        pass
    elif each.default not in ("", None):
        shown = f"{each.default:g}" if isinstance(each.default, float) else str(each.default)
        notes.append(f"default: {shown}")
    if each.variable:
        notes.append(f"env: {each.variable}")
    text = each.declared.help + ("  [" + "; ".join(notes) + "]" if notes else "")
    names = [each.flag, each.field]
    if each.declared.short:
        names.insert(0, each.declared.short)
    if each.kind == "switch":
        if not each.declared.variable and not each.declared.file:
            return click.option(*names, is_flag=True, default=None, help=text)
        names[names.index(each.flag)] = f"{each.flag}/--no-{each.flag.removeprefix('--')}"
        return click.option(*names, default=None, help=text)
    if each.kind == "list":
        return click.option(
            *names, default=None, multiple=True, callback=_joined, metavar=_metavar(each), help=text
        )
    return click.option(*names, default=None, metavar=_metavar(each), help=text)


def _joined(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> str | None:
    """Join the parts of a list, which may be given with commas or by repeating the flag."""
    return ",".join(given) if given else None


def _metavar(each: Setting) -> str:
    if each.kind == "choice":
        return "|".join(each.choices)
    if each.kind == "list":
        return f"{each.declared.metavar},…"
    if each.declared.metavar:
        return each.declared.metavar
    return {"seconds": "SECONDS"}.get(each.declared.unit, "N" if each.kind == "whole number" else "TEXT")
