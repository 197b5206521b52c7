"""Gives an operator's order to a cluster, and says of one that failed why, and whether it may still take effect.

An order takes effect once it is in the store of the coordinators. So a store that fails keeps an order from being
answered, and the order may have reached it all the same, or may yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import Question, ask, dial_of
from lockring.cli.health import about_store
from lockring.errors import LockringError, NotCoordinator, Unavailable
from lockring.net.oneshot import Dial, ask_report, ask_state

_STATUS_S_MAX: Final = 2.0
"""How long each server may take to say how the store is."""

_DOUBT: Final = (
    "the order may still take effect: see the node's condition in lockring status before you repeat it or rely on its"
    " failure"
)


def give_order(settings: ClientSettings, order: Question[None]) -> None:
    """Give an order to the first of the named servers that carries it out, as `connect.ask` finds it.

    Args:
        settings: have the addresses of the servers.
        order: gives it to one server.

    Raises:
        Unavailable: no server carried it out in time. The text says what keeps the coordinators from it, as far as that
            is known, and whether it may still take effect.
        LockringError: the first server that answered refused.
    """
    is_in_doubt = False

    def give(dial: Dial, server: str, timeout_s: float) -> None:
        nonlocal is_in_doubt
        try:
            order(dial, server, timeout_s)
        except LockringError as error:
            is_in_doubt = is_in_doubt or _may_take_effect(error)
            raise

    try:
        ask(settings, give)
    except (NotCoordinator, Unavailable) as error:
        parts = [str(error), _trouble(settings), _DOUBT if is_in_doubt else ""]
        text = "; ".join(filter(None, parts))
        raise Unavailable(text, reason=getattr(error, "reason", "")) from error


def _may_take_effect(error: LockringError) -> bool:
    """Return whether a server may have taken an order that it did not confirm."""
    if isinstance(error, NotCoordinator):
        return not error.leader  # a coordinator that stands by names the leader, or has none to name
    return isinstance(error, Unavailable) and error.reason != "unreachable"


def _trouble(settings: ClientSettings) -> str:
    """Return why the store of the coordinators does not work, "" if it does or no coordinator can be asked."""
    timeout_s = min(_STATUS_S_MAX, settings.connect_timeout_s)
    dial, credential = dial_of(settings), settings.credential()
    for server in _coordinators(settings, timeout_s, dial=dial, credential=credential):
        with suppress(LockringError):
            status = ask_report(server, timeout_s=timeout_s, dial=dial, credential=credential).status
            trouble = about_store(status) if status.role == "coordinator" else ""
            if trouble:
                return trouble
    return ""


def _coordinators(
    settings: ClientSettings, timeout_s: float, *, dial: Dial, credential: str
) -> Iterator[str]:
    """Yield the named servers, and then the coordinator of the state that one of them has."""
    yield from settings.addresses
    for server in settings.addresses:
        with suppress(LockringError):
            state = ask_state(server, timeout_s=timeout_s, dial=dial, credential=credential).state
            coordinator = state.coordinator
            if coordinator and coordinator not in settings.addresses:
                yield coordinator
                return
