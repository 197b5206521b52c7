"""Command line options, made from the declarations of `lockring.config`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
import msgspec

from lockring.config import CONFIG_VARIABLE, VARIABLE_PREFIX, ConfigFile, Setting, load, settings_of
from lockring.native import to_native, variables

_S = TypeVar("_S", bound=msgspec.Struct)
_F = TypeVar("_F", bound=Callable[..., Any])


def setting_options(*structs: type[msgspec.Struct]) -> Callable[[_F], _F]:
    """Give a command a flag for every setting of the structs, and `--config`.

    The flags take any text: it is `lockring.config` that checks it, whatever the source.
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
    """A list may be given with commas, or part by part by giving the flag several times."""
    return ",".join(given) if given else None


def _metavar(each: Setting) -> str:
    if each.kind == "choice":
        return "|".join(each.choices)
    if each.kind == "list":
        return f"{each.declared.metavar},…"
    if each.declared.metavar:
        return each.declared.metavar
    return {"seconds": "SECONDS"}.get(each.declared.unit, "N" if each.kind == "whole number" else "TEXT")


def read_settings(struct: type[_S], section: str, given: Mapping[str, Any]) -> _S:
    """The settings of a command that was called with the options `given`.

    Raises:
        ConfigError: see `lockring.config.load`.
    """
    environ = variables(VARIABLE_PREFIX)
    path = given.get("config_path") or environ.get(CONFIG_VARIABLE)
    return load(struct, section, flags=given, environ=environ, file=read_file(path) if path else None)


def read_file(path: str) -> ConfigFile:
    """Read a settings file, which may have a table for each command.

    Raises:
        ConfigError: see `lockring.config.ConfigFile`.
    """
    from pathlib import Path

    return ConfigFile(
        Path(to_native(path)), {name: settings_of(struct) for name, struct in sections().items()}
    )


def sections() -> dict[str, type[msgspec.Struct]]:
    """The tables that a settings file may have, and what each declares."""
    from lockring.cli.clean.settings import CleanSettings
    from lockring.cli.connect import ClientSettings
    from lockring.cli.lock.settings import LockSettings
    from lockring.server.settings import CoordinatorSettings, NodeSettings, ServeSettings, UpSettings

    return {
        "client": ClientSettings,
        "lock": LockSettings,
        "clean-folders": CleanSettings,
        "coordinator": CoordinatorSettings,
        "node": NodeSettings,
        "serve": ServeSettings,
        "up": UpSettings,
    }
