"""The tables of a settings file, and the settings of a command that was called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from lockring.config import CONFIG_VARIABLE, VARIABLE_PREFIX, ConfigFile, load, settings_of
from lockring.native import to_native, variables

_S = TypeVar("_S", bound=msgspec.Struct)


def sections() -> dict[str, type[msgspec.Struct]]:
    """Return the tables that a settings file may have, with the struct that declares each."""
    # Imported here: most commands read no file, and start quickly without these.
    from lockring.cli.clean.settings import CleanSettings
    from lockring.cli.client_settings import ClientSettings
    from lockring.cli.lock.settings import LockSettings
    from lockring.server.access_settings import AccessSettings
    from lockring.server.settings import CoordinatorSettings, NodeSettings, ServeSettings, UpSettings

    return {
        "client": ClientSettings,
        "lock": LockSettings,
        "clean-folders": CleanSettings,
        "coordinator": CoordinatorSettings,
        "node": NodeSettings,
        "serve": ServeSettings,
        "up": UpSettings,
        "access": AccessSettings,
    }


def read_settings(struct: type[_S], section: str, given: Mapping[str, Any]) -> _S:
    """Return the settings of a command that was called with the options `given`.

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
    from pathlib import Path  # most commands read no file

    return ConfigFile(
        Path(to_native(path)), {name: settings_of(struct) for name, struct in sections().items()}
    )
