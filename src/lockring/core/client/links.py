"""What a client knows of the nodes, and of its connections to servers."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from lockring.cluster_state import Replica
from lockring.core.client.tickets import ClientSession, NodeShare
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.protocol import TroubleNotice

CONNECTING: Final = 0
GREETING: Final = 1
READY: Final = 2


class Node(msgspec.Struct, eq=False):
    """One life of one node, as the client knows it.

    Attributes:
        replica: its id and incarnation.
        address: HOST:PORT.
        link: the link that is ready for requests, or None.
        shares: what the sessions have here.
        wanted: whether something waits for a link to it.
    """

    replica: Replica
    address: str
    link: NodeLink | None = None
    shares: dict[ClientSession, NodeShare] = msgspec.field(default_factory=dict)
    wanted: bool = False


class NodeLink(msgspec.Struct, eq=False):
    """One connection that the core asked for.

    Attributes:
        id: its number, never reused.
        address: where it leads.
        since_ns: when its present state began.
        number: of the greeting sent on it; a node drops the lower ones of a client.
        state: CONNECTING, GREETING or READY.
        node: which node answered, None before the greeting and for a coordinator.
        coordinator: whether a coordinator answered.
        acquires: open acquires by request number; they may stay open for long.
        requests: all other open requests (keepalives, releases, questions): these are answered promptly.
        asked_at_ns: since when such a request has been open with nothing heard, 0 if none is.
        heard_at_ns: when something came last.
        doubt_at_ns: when a rival is to be opened, `DISTANT_FUTURE_NS` while the link is trusted, 0 once it was opened.
        rival: the link that is to take its place.
        rival_of: the link whose place it is to take.
        check_at_ns: when to make sure that the node of open acquires still answers, `DISTANT_FUTURE_NS` for none.
        trouble: what keeps its node from serving, as it has told, and when it has.
    """

    id: int
    address: str
    since_ns: int
    number: int = 0
    state: int = CONNECTING
    node: Node | None = None
    coordinator: bool = False
    acquires: dict[int, Any] = msgspec.field(default_factory=dict)
    requests: dict[int, Any] = msgspec.field(default_factory=dict)
    asked_at_ns: int = 0
    heard_at_ns: int = 0
    doubt_at_ns: int = DISTANT_FUTURE_NS
    rival: NodeLink | None = None
    rival_of: NodeLink | None = None
    check_at_ns: int = DISTANT_FUTURE_NS
    trouble: TroubleNotice | None = None
    trouble_at_ns: int = 0
