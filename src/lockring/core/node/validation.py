"""Checks of clients' acquires and sessions, before anything is looked up."""

from __future__ import annotations

from typing import Final

from lockring.errors import InvalidRequest
from lockring.names import TTL_MS_MIN, check_owner
from lockring.protocol import PAYLOAD_BYTES_MAX, WAIT_FOREVER, Acquire, Keepalive, Mode
from lockring.units import DURATION_MS_MAX

SESSION_BYTES_MAX: Final = 128

_MODES: Final = frozenset(int(mode) for mode in Mode)


def check_acquire(message: Acquire) -> None:
    """Check an acquire, except for its name and its session.

    Raises:
        InvalidRequest: its mode, acquisition number or wait is out of range, or its payload is too long.
    """
    if message.mode not in _MODES or message.permits < 1:
        raise InvalidRequest(f"no such mode: {message.mode} with {message.permits} permits")
    if message.acquisition < 1:
        raise InvalidRequest("acquisition ids start at 1")
    if len(message.payload) > PAYLOAD_BYTES_MAX:
        raise InvalidRequest(
            f"a payload has at most {PAYLOAD_BYTES_MAX} bytes; that of {message.name[:40]!r} has {len(message.payload)}"
        )
    if not WAIT_FOREVER <= message.wait_ms <= DURATION_MS_MAX:
        raise InvalidRequest(f"a wait is {WAIT_FOREVER} or 0 to {DURATION_MS_MAX} ms")
    if not 0 <= message.waited_ms <= DURATION_MS_MAX:
        raise InvalidRequest(f"a wait so far is 0 to {DURATION_MS_MAX} ms")


def check_session(message: Acquire | Keepalive, ttl_ms_max: int) -> None:
    """Check the session that a request names.

    Raises:
        InvalidRequest: its id is empty or longer than 128 bytes, its owner is not a valid label, or its TTL is not
            between 100 ms and `ttl_ms_max`, the coordinator's lease.
    """
    if not message.session or len(message.session.encode()) > SESSION_BYTES_MAX:
        raise InvalidRequest(f"a session id has 1 to {SESSION_BYTES_MAX} bytes")
    check_owner(message.owner)
    if not TTL_MS_MIN <= message.ttl_ms <= ttl_ms_max:
        other = "shorter" if message.ttl_ms > ttl_ms_max else "longer"
        raise InvalidRequest(
            f"a TTL of {message.ttl_ms / 1000:g} s is not between {TTL_MS_MIN / 1000:g} s and"
            f" {ttl_ms_max / 1000:g} s, this cluster's coordinator lease: choose a {other} one with ttl=… or --ttl"
        )
