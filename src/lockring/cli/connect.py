"""How the commands that talk to a cluster reach it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import click
import msgspec

from lockring.addresses import split_address
from lockring.cli.lock.reporter import StderrReporter
from lockring.cli.options import read_settings, setting_options
from lockring.config import CONFIG_VARIABLE, setting
from lockring.errors import LockringError, ProtocolError, Unavailable
from lockring.slots import SLOTS

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
    connect_timeout_s: Annotated[
        float,
        setting(
            "How long to try to reach the cluster and get an answer before giving up.",
            unit="seconds",
            minimum=0.1,
            maximum=3600,
        ),
    ] = 10.0


def client_options(*more: type[msgspec.Struct]) -> Callable[[_F], _F]:
    """Give a command `--server`, `--connect-timeout`, `--config` and `--json`, and the flags of any further settings."""

    def decorate(command: _F) -> _F:
        command = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")(command)
        return setting_options(*more, ClientSettings)(command)

    return decorate


def client_settings(given: Mapping[str, Any]) -> ClientSettings:
    """What the command line, the environment and the settings file say of the cluster.

    Raises:
        ConfigError: a setting that must not be.
    """
    return read_settings(ClientSettings, "client", given)


def ask(settings: ClientSettings, question: Callable[[str, float], _A]) -> _A:
    """Ask the first of the named servers that answers.

    Args:
        settings: name the servers.
        question: asks one server, given its address and how long it may take in seconds.

    Raises:
        Unavailable: none of them answers.
        LockringError: the first that answered refused.
    """
    from lockring.cli.waiting import of_answer, telling

    failures: list[LockringError] = []
    for server in settings.servers:
        try:
            with telling(of_answer(server, settings.connect_timeout_s), _voice()):
                return question(server, settings.connect_timeout_s)
        except ProtocolError as error:
            failures.append(ProtocolError(f"{server} is no lockring server: {error}"))
        except Unavailable as error:
            failures.append(error)
    if len(failures) == 1 and not isinstance(failures[0], Unavailable):
        raise failures[0]
    if len(failures) == 1:
        raise Unavailable(f"{failures[0]}; {origin_of(settings)}") from failures[0]
    raise Unavailable(f"no server answers: {'; '.join(map(str, failures))}; {origin_of(settings)}")


def origin_of(settings: ClientSettings) -> str:
    """Where the servers' addresses come from, and what to do if none can be reached, as the end of a sentence."""
    from lockring.client.arguments import NAMED, SERVER_VARIABLE, UNNAMED

    context = click.get_current_context(silent=True)
    if context is not None and context.params.get("servers"):
        return f"--server names {'it' if len(settings.servers) == 1 else 'them'}: {NAMED}"
    if os.environ.get(SERVER_VARIABLE):
        return f"the address is that of {SERVER_VARIABLE}: {NAMED}"
    if settings.servers == ClientSettings().servers:
        return f"{UNNAMED} with --server"
    path = (context.params.get("config_path") if context is not None else "") or os.environ.get(
        CONFIG_VARIABLE
    )
    return f"the address is that of the settings file{f' {path}' if path else ''}: {NAMED}"


@contextmanager
def connect(settings: ClientSettings, *, tells: bool = True, **options: Any) -> Iterator[Client]:
    """A client for the cluster, closed at the end.

    Args:
        settings: name it.
        tells: whether to say on standard error what its calls wait for, once they do so for a second.
        options: for `lockring.Client`.
    """
    from lockring import Client
    from lockring.client.arguments import ServerList

    servers = ServerList(settings.servers, origin_of(settings))
    with Client(servers, connect_timeout=settings.connect_timeout_s, **options) as client:
        if not tells:
            yield client
            return
        from lockring.cli.waiting import of_client, telling

        with telling(of_client(client, settings.connect_timeout_s), _voice()):
            yield client


def _voice() -> StderrReporter:
    """How the command under way speaks on standard error."""
    context = click.get_current_context(silent=True)
    return StderrReporter(context is not None and bool(context.params.get("as_json")), is_verbose=False)


def demand_whole(unserved_slots: int) -> None:
    """End with an error after a list was printed that is only a part.

    Raises:
        Unavailable: no node could tell of some slots.
    """
    if unserved_slots:
        raise Unavailable(
            f"the list is incomplete: no node could tell of {unserved_slots} of {SLOTS} slots at present",
            reason="no-primary",
        )
