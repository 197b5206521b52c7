"""Messages at a place where no coordinator takes them, and how they are refused, whether it leads or stands by."""

from __future__ import annotations

from lockring.errors import LockringError, ProtocolError, WrongRole
from lockring.protocol import Heartbeat, Leave, Message, PeerHello, SlotRequests


def why_not_first(message: Message, address: str) -> LockringError:
    """Return why no connection begins with this message.

    Args:
        message: neither a `ClientHello` nor a `Join`.
        address: HOST:PORT of the coordinator.
    """
    if isinstance(message, PeerHello):
        return WrongRole(f"{address} is a coordinator, not node {message.to_node}")
    if isinstance(message, Heartbeat | SlotRequests | Leave):
        return ProtocolError("a node joins before it sends anything else")
    return ProtocolError(f"a connection begins with a hello, not with {type(message).__name__}")


def why_not_taken(message: Message, address: str, sender: str) -> LockringError:
    """Return why a coordinator does not take this message from this kind of sender.

    Args:
        message: anything.
        address: HOST:PORT of the coordinator.
        sender: "a client" or "a node".
    """
    return WrongRole(f"{address} is a coordinator; it does not take {type(message).__name__} from {sender}")
