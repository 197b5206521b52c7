"""Starts one lockring process from another: the command line for given settings, and the environment."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Mapping
from typing import Final

import msgspec

from lockring.config import VARIABLE_PREFIX, settings_of
from lockring.server.lifecycle import PARENT_VARIABLE
from lockring.store.passwords import PASSWORD_FILE_VARIABLE, PASSWORD_VARIABLE
from lockring.system_errors import listen_failure

PORTS: Final = range(20_000, 32_000)
"""Below the ports that systems give to outgoing connections, so that none of these can collide."""

_ATTEMPTS_MAX: Final = 1_000
_OF_PASSWORDS: Final = (PASSWORD_VARIABLE, PASSWORD_FILE_VARIABLE)


def command_of(role: str, *structs: msgspec.Struct) -> list[str]:
    """Return the command line that runs a server with these settings, given as flags but for `variables_of`.

    Args:
        role: "coordinator", "node" or another command of `lockring`.
        structs: the settings of that command.
    """
    command = [sys.executable, "-m", "lockring", role]
    for settings, setting in [(each, setting) for each in structs for setting in settings_of(type(each))]:
        value = getattr(settings, setting.field)
        if value == setting.default or setting.declared.secret:
            continue
        match setting.kind:
            case "switch":
                command.append(setting.flag if value else f"--no-{setting.flag.removeprefix('--')}")
            case "list":
                command += [setting.flag, ",".join(value)]
            case _:
                command += [setting.flag, str(value)]
    return command


def variables_of(settings: msgspec.Struct) -> dict[str, str]:
    """Return the settings that a child gets by variables, since all users of a machine see command lines: secret ones.

    With a store come the variables that have its password.
    """
    found: dict[str, str] = {}
    for setting in settings_of(type(settings)):
        value = getattr(settings, setting.field)
        if setting.declared.secret and value != setting.default:
            assert setting.variable is not None
            found[setting.variable] = str(value)
            found |= {name: os.environ[name] for name in _OF_PASSWORDS if name in os.environ}
    return found


def child_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child that must not outlive this process.

    Args:
        variables: those that set its settings, None for none; no others do.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLE_PREFIX)}
    environ.update(variables or {})
    environ[PARENT_VARIABLE] = str(os.getpid())
    environ["PYTHONUNBUFFERED"] = "1"
    return environ


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen on this port at this moment."""
    return not why_not_free(host, port)


def why_not_free(host: str, port: int) -> str:
    """Return as a clause why no server could listen on this port at this moment, "" if one could.

    Args:
        host: a name or an address, of this machine or not.
        port: 0 for any: then only the host is looked at.
    """
    with _socket_of(host) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(1)
        except OSError as error:
            return listen_failure(error)
        except UnicodeError as error:  # no name of a host has this form
            return str(error)
    return ""


def free_ports(host: str, count: int) -> list[int]:
    """Return ports of this machine that are neither in use nor reserved, in no order.

    Raises:
        OSError: there are not enough.
    """
    found: dict[int, None] = {}
    for _ in range(_ATTEMPTS_MAX):
        if len(found) == count:
            return list(found)
        port = random.choice(PORTS)
        if port not in found and _is_unused(host, port):
            found[port] = None
    raise OSError(f"no {count} free ports at {host}")


def _socket_of(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def _is_unused(host: str, port: int) -> bool:
    """Return whether the port is free, including of processes that hold it without listening."""
    with _socket_of(host) as sock:
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True
