"""What every request of a client must satisfy, whatever it asks for."""

from __future__ import annotations

from typing import Final

from lockring.errors import InvalidRequest
from lockring.messages import Acquire, Keepalive
from lockring.names import TTL_MS_MIN, check_owner

SESSION_BYTES_MAX: Final = 64


def check_session(message: Acquire | Keepalive, ttl_ms_max: int) -> None:
    """Check the session that a request names.

    Raises:
        InvalidRequest: its id is empty or longer than 64 bytes, its owner no owner, or its TTL not within 100 ms and
            `ttl_ms_max`, the coordinator's lease.
    """
    if not message.session or len(message.session.encode()) > SESSION_BYTES_MAX:
        raise InvalidRequest(f"a session id has 1 to {SESSION_BYTES_MAX} bytes")
    check_owner(message.owner)
    if not TTL_MS_MIN <= message.ttl_ms <= ttl_ms_max:
        raise InvalidRequest(
            f"a TTL is between {TTL_MS_MIN / 1000} s and {ttl_ms_max / 1000} s (the coordinator lease), "
            f"not {message.ttl_ms / 1000} s"
        )
