"""How the commands that talk to a cluster reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import click
import msgspec

from lockring.cli.options import read_settings, setting_options
from lockring.config import setting
from lockring.errors import ProtocolError, Unavailable
from lockring.names import split_address

if TYPE_CHECKING:
    from lockring import Client

_F = TypeVar("_F", bound=Callable[..., Any])
_A = TypeVar("_A")


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of every command that talks to a cluster."""

    servers: Annotated[
        tuple[str, ...],
        setting(
            "The cluster: any of its nodes or its coordinator, or several, separated by commas.",
            metavar="HOST:PORT",
            check=split_address,
            key="server",
        ),
    ] = ("127.0.0.1:9501",)


def client_options(*more: type[msgspec.Struct]) -> Callable[[_F], _F]:
    """Give a command `--server`, `--config` and `--json`, and the flags of any further settings."""

    def decorate(command: _F) -> _F:
        command = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")(command)
        return setting_options(*more, ClientSettings)(command)

    return decorate


def ask(given: Mapping[str, Any], question: Callable[[str], _A]) -> _A:
    """Ask the first of the named servers that answers.

    Args:
        given: the options that the command was called with.
        question: asks one server, by its address.

    Raises:
        ConfigError: a setting that must not be.
        Unavailable: none of them answers.
        LockringError: the first that answered refused.
    """
    servers = read_settings(ClientSettings, "client", given).servers
    failures = []
    for server in servers:
        try:
            return question(server)
        except (Unavailable, ProtocolError) as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise Unavailable("no server answers: " + "; ".join(map(str, failures)))


def connect(given: Mapping[str, Any], **options: Any) -> Client:
    """A client for the cluster that the command line, the environment or the settings file names.

    Args:
        given: the options that the command was called with.
        options: for `lockring.Client`.

    Raises:
        ConfigError: a setting that must not be.
    """
    settings = read_settings(ClientSettings, "client", given)
    from lockring import Client

    return Client(",".join(settings.servers), **options)
