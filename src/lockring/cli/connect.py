"""Connects commands to a cluster."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click
import msgspec

from lockring.cli.client_settings import ClientSettings
from lockring.cli.lock.reporter import StderrReporter
from lockring.cli.options import setting_options
from lockring.cli.sections import read_settings
from lockring.config import CONFIG_VARIABLE
from lockring.errors import LockringError, NotCoordinator, ProtocolError, Unavailable
from lockring.slots import SLOTS

if TYPE_CHECKING:
    import lockring
    from lockring import Client
    from lockring.aio import Client as AsyncClient
    from lockring.net.oneshot import Dial
    from lockring.net.server_line import Roll
    from lockring.security.tls_policy import ClientTls

_PAUSE_S: Final = 0.2
"""Between two rounds of questions, while a leader is found."""

_F = TypeVar("_F", bound=Callable[..., Any])
_A = TypeVar("_A")


def client_options(*more: type[msgspec.Struct]) -> Callable[[_F], _F]:
    """Give a command the flags of `ClientSettings`, `--config`, `--json`, and the flags of further settings."""

    def decorate(command: _F) -> _F:
        command = click.option("--json", "as_json", is_flag=True, help="Print JSON, including errors.")(
            command
        )
        return setting_options(*more, ClientSettings)(command)

    return decorate


def client_settings(given: Mapping[str, Any]) -> ClientSettings:
    """Return the cluster's settings from the command line, the environment and the settings file.

    Raises:
        ConfigError: a setting is invalid.
    """
    return read_settings(ClientSettings, "client", given)


Question = Callable[["Dial", str, float], _A]
"""Asks one server something, given how to open a connection, its address, and how long it may take in seconds."""


def ask(settings: ClientSettings, question: Question[_A]) -> _A:
    """Ask the first of the named servers that answers; a coordinator that stands by is passed over if it cannot.

    The leader that such a one names is asked too. While no server can answer that is there, as during a change of the
    leader, all are asked again until the connect timeout is over.

    Args:
        settings: have the addresses of the servers.
        question: see `Question`.

    Raises:
        ConfigError: a file of TLS cannot be used.
        Unavailable: no server answers.
        NotCoordinator: those that answered are coordinators that do not lead.
        LockringError: the first server that answered refused.
    """
    until_s = time.monotonic() + settings.connect_timeout_s
    dial = dial_of(settings)
    while True:
        failures: list[LockringError] = []
        servers = deque(settings.addresses)
        named = set(servers)
        while servers:
            try:
                return _ask_one(dial, servers.popleft(), settings.connect_timeout_s, question)
            except NotCoordinator as error:
                failures.append(error)
                if error.leader and error.leader not in named:
                    named.add(error.leader)
                    servers.append(error.leader)
            except (ProtocolError, Unavailable) as error:
                failures.append(error)
        if time.monotonic() >= until_s or not any(map(_may_pass, failures)):
            raise _summary_of(failures, settings)
        time.sleep(_PAUSE_S)


def roll_of(settings: ClientSettings) -> Roll:
    """Return the servers of the cluster, as the first of the named ones that answers names them. Raises as `ask`."""
    from lockring.net.server_line import ask_roll

    credential = settings.credential()
    return ask(
        settings,
        lambda dial, server, timeout_s: ask_roll(
            server, timeout_s=timeout_s, dial=dial, credential=credential
        ),
    )


def _ask_one(dial: Dial, server: str, timeout_s: float, question: Question[_A]) -> _A:
    from lockring.cli.waiting import of_answer, telling

    with telling(of_answer(server, timeout_s), _voice()):
        return question(dial, server, timeout_s)


def _may_pass(error: LockringError) -> bool:
    """Return whether a server has answered that it cannot at present; one that is not reached has not."""
    return error.retryable and not isinstance(error.__cause__, OSError)


def _summary_of(failures: list[LockringError], settings: ClientSettings) -> LockringError:
    for error in reversed(failures):
        if isinstance(error, NotCoordinator):
            return error
    answered = [each for each in failures if _may_pass(each)]
    if answered:
        return Unavailable("; ".join(map(str, failures))) if len(failures) > 1 else answered[0]
    if len(failures) == 1 and not (isinstance(failures[0], Unavailable) and failures[0].reason != "silent"):
        return failures[0]
    if len(failures) == 1:
        return Unavailable(f"{failures[0]}; {origin_of(settings)}")
    return Unavailable(f"no server answers: {'; '.join(map(str, failures))}; {origin_of(settings)}")


def origin_of(settings: ClientSettings) -> str:
    """Return the source of the servers' addresses and what to do if none can be reached, as the end of a sentence."""
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


def dial_of(settings: ClientSettings) -> Dial:
    """Return how to open a connection for a single question.

    Raises:
        ConfigError: a file of TLS cannot be used.
    """
    from lockring.client.tls_dial import dial_with

    return dial_with(tls_for(settings))


def tls_for(settings: ClientSettings) -> ClientTls | None:
    """Return the TLS for connections to the cluster, None for none. Raises as `dial_of`."""
    from lockring.client.arguments import ServerList
    from lockring.client.tls import ClientFiles, tls_of

    servers = ServerList(settings.addresses, scheme=settings.scheme)
    return tls_of(servers, ClientFiles(settings.ca, settings.cert, settings.key, settings.server_name))


@contextmanager
def connect(settings: ClientSettings, *, tells: bool = True, **options: Any) -> Iterator[Client]:
    """Open a client for the cluster, and close it at the end.

    Args:
        settings: name the cluster.
        tells: whether to report on standard error what its calls wait for, once they have waited for a second.
        options: for `lockring.Client`.
    """
    from lockring import Client

    with Client(**_client_arguments(settings), **options) as client:
        if not tells:
            yield client
            return
        from lockring.cli.waiting import of_client, telling

        with telling(of_client(client, settings.connect_timeout_s), _voice()):
            yield client


@asynccontextmanager
async def connect_aio(settings: ClientSettings) -> AsyncIterator[AsyncClient]:
    """Open a client for the cluster on the running event loop, and close it at the end.

    A long wait is reported as by `connect`.
    """
    import asyncio

    from lockring.aio import Client
    from lockring.cli.waiting import of_client, tell_on

    async with Client(**_client_arguments(settings)) as client:
        # Without the names of locks, nothing but `waits` is called, which both kinds of clients have.
        look = of_client(cast("lockring.Client", client), settings.connect_timeout_s)
        telling = asyncio.create_task(tell_on(look, _voice()))
        try:
            yield client
        finally:
            telling.cancel()


def _client_arguments(settings: ClientSettings) -> dict[str, Any]:
    """Return the settings as the arguments of a client of either kind."""
    from lockring.client.arguments import ServerList

    return {
        "servers": ServerList(settings.addresses, origin_of(settings), settings.scheme),
        "connect_timeout": settings.connect_timeout_s,
        "ca": settings.ca,
        "cert": settings.cert,
        "key": settings.key,
        "server_name": settings.server_name,
        "token_file": settings.token_file,
    }


def _voice() -> StderrReporter:
    """Return the reporter of the current command."""
    context = click.get_current_context(silent=True)
    return StderrReporter(context is not None and bool(context.params.get("as_json")), is_verbose=False)


def demand_whole(unserved_slots: int) -> None:
    """Raise an error if the list that was printed is incomplete.

    Raises:
        Unavailable: no node could answer for some slots.
    """
    if unserved_slots:
        raise Unavailable(
            f"the list is incomplete: no node can answer for {unserved_slots} of {SLOTS} slots at present",
            reason="no-primary",
        )
