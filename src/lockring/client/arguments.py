"""The arguments of public calls, checked before any I/O: servers, names, leases and waits."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from lockring.addresses import names_of, split_address
from lockring.cluster_state import GENERATION_MAX
from lockring.core.client import no_credential
from lockring.errors import ConfigError, InvalidRequest
from lockring.ids import Generation, LockName
from lockring.names import OWNER_BYTES_MAX, TTL_MS_MIN, check_lock_name, check_owner
from lockring.native import from_native
from lockring.protocol import WAIT_FOREVER
from lockring.security.credential_source import CredentialSource
from lockring.units import NS_PER_MS, seconds_to_ms

Seconds = float | timedelta
"""A duration in a public call: a number of seconds, or a `timedelta`."""

SERVER_VARIABLE: Final = "LOCKRING_SERVER"
SERVER_DEFAULT: Final = "127.0.0.1:9501"
TTL_S_DEFAULT: Final = 10.0
CONNECT_TIMEOUT_S_DEFAULT: Final = 10.0
ANSWER_TIMEOUT_S_DEFAULT: Final = 10.0
"""How long queries (describe, list, …) are repeated before the cluster counts as unreachable."""


class ServerList(list[str]):
    """Addresses of servers.

    Attributes:
        origin: where they come from, and what to do if none can be reached. It completes the sentence of an error.
        scheme: says whether they speak TLS; "" if that is not said.
        credential: returns what to show to them.
    """

    def __init__(
        self,
        addresses: Iterable[str],
        origin: str = "",
        scheme: str = "",
        *,
        credential: Callable[[], str] = no_credential,
    ) -> None:
        super().__init__(addresses)
        self.origin = origin
        self.scheme = scheme
        self.credential = credential


def origin_of(addresses: Sequence[str]) -> str:
    """Return where addresses come from, "" if that is not known."""
    return addresses.origin if isinstance(addresses, ServerList) else ""


def credential_of(addresses: Sequence[str]) -> Callable[[], str]:
    """Return the function that returns what to show to the servers at these addresses."""
    return addresses.credential if isinstance(addresses, ServerList) else no_credential


NAMED: Final = "check the address, and whether that server runs"
UNNAMED: Final = f"{SERVER_DEFAULT} is the default, since no server is named: start one there with `lockring serve`, or name yours"


def server_addresses(
    servers: str | Iterable[str] | None, token_file: str | os.PathLike[str] | None = None
) -> ServerList:
    """Return the addresses in `servers`.

    Args:
        servers: "h1:p1,h2:p2", an iterable of such strings, or None for `LOCKRING_SERVER` and the default. Each may
            begin with lockrings:// or lockring://, see `addresses.names_of`.
        token_file: the file with the credential to show there, None for the one of the variables, if there is one.

    Raises:
        InvalidRequest: an address is not HOST:PORT, or the list is empty.
        ConfigError: the same, of `LOCKRING_SERVER`; or the credential cannot be read.
    """
    named = servers
    if named is None:
        variable = from_native(os.environ.get(SERVER_VARIABLE, ""))
        named = variable or SERVER_DEFAULT
        from_variable = f"the address is that of {SERVER_VARIABLE}: {NAMED}"
        origin = from_variable if variable else f"{UNNAMED} with {SERVER_VARIABLE}"
    else:
        origin = (
            servers.origin if isinstance(servers, ServerList) else f"the program names that address: {NAMED}"
        )
    parts: list[Any]
    try:
        parts = [named] if isinstance(named, str) else list(named)
    except TypeError:
        parts = [named]
    if not all(isinstance(part, str) for part in parts):
        raise InvalidRequest(
            f"servers are given as HOST:PORT,HOST:PORT or as a list of such, not {servers!r}"
        )
    pieces = [piece.strip() for part in parts for piece in part.split(",") if piece.strip()]
    try:
        if not pieces:
            raise InvalidRequest("no server is given")
        addresses, scheme = names_of(pieces)
        for address in addresses:
            if split_address(address)[1] == 0:
                raise InvalidRequest(f"a server's port is 1 to 65535; not {address!r}")
    except InvalidRequest as error:
        if servers is None:
            raise ConfigError(f"{SERVER_VARIABLE}: {error}") from error
        raise
    if isinstance(servers, ServerList):
        scheme = scheme or servers.scheme
    return ServerList(addresses, origin, scheme, credential=CredentialSource(token_file))


def default_owner() -> str:
    """Return the label of this process: "user@host:pid"."""
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())  # the user has no name, as in many containers
    owner = f"{from_native(user)}@{from_native(socket.gethostname())}:{os.getpid()}"
    return owner.encode(errors="replace")[-OWNER_BYTES_MAX:].decode(errors="ignore")


def owner_label(owner: str | None) -> Callable[[], str]:
    """Return a function that gives a client's label.

    The default label names the process that calls the function, which may be the child of a fork.

    Raises:
        InvalidRequest: `owner` is not a valid label.
    """
    if owner is None:
        return default_owner
    label = check_owner(owner)
    return lambda: label


def ttl_to_ms(ttl: Seconds) -> int:
    """Return a lease in milliseconds. The cluster, not the client, limits how long it may be.

    Raises:
        InvalidRequest: not a number of seconds, or shorter than 0.1 s.
    """
    ttl_ms = seconds_to_ms(ttl, "ttl")
    if ttl_ms < TTL_MS_MIN:
        raise InvalidRequest(f"ttl must be {TTL_MS_MIN / 1000:g} s or more, not {ttl!r}")
    return ttl_ms


def wait_to_ms(timeout: Seconds | None, what: str = "timeout") -> int:
    """Return a wait in milliseconds; None waits forever. `what` is the argument's name, for the error.

    Raises:
        InvalidRequest: not a number of seconds, or negative.
    """
    return WAIT_FOREVER if timeout is None else seconds_to_ms(timeout, what)


def answer_to_ns(timeout: Seconds) -> int:
    """Return how long to wait for an answer, in nanoseconds.

    Raises:
        InvalidRequest: not a number of seconds, or negative.
    """
    return seconds_to_ms(timeout, "timeout") * NS_PER_MS


def lock_names(names: Iterable[str]) -> list[LockName]:
    """Return a list of lock names.

    Raises:
        InvalidRequest: a name is invalid or occurs twice, or the list is empty.
    """
    if isinstance(names, str):
        raise InvalidRequest("several names are given as a list, not as one text")
    checked = [check_lock_name(name) for name in names]
    if not checked:
        raise InvalidRequest("no lock is named")
    if len(set(checked)) < len(checked):
        twice = next(name for name in checked if checked.count(name) > 1)
        raise InvalidRequest(f"the lock {twice!r} is named twice", name=twice)
    return checked


def check_prefix(prefix: object) -> str:
    """Return a prefix of lock names, "" for all locks.

    Raises:
        InvalidRequest: no lock name can start with it.
    """
    return "" if prefix == "" else check_lock_name(prefix)


def check_token(token: object) -> Generation:
    """Return a fencing token.

    Raises:
        InvalidRequest: it is not a positive whole number.
    """
    if isinstance(token, bool) or not isinstance(token, int) or not 0 < token <= GENERATION_MAX:
        raise InvalidRequest(f"a fencing token is a positive whole number, not {token!r}")
    return Generation(token)
