"""The right that each way in needs: every message of a client or a server, every gRPC method, and every page over HTTP.

Anything that is not in a table is refused. A test compares the tables with the protocol, the gRPC services and the
pages.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from lockring.core.access.verbs import Verb
from lockring.protocol import (
    Acquire,
    Break,
    ClientHello,
    CloseSession,
    Describe,
    DescribeGroup,
    Drain,
    FindSimilar,
    FollowGroup,
    GetEvents,
    GetRoutes,
    GetState,
    GetStatus,
    HandOver,
    Heartbeat,
    Join,
    Keepalive,
    Leave,
    List,
    Message,
    OnBehalfOf,
    PeerHello,
    Probe,
    Release,
    Replicate,
    SlotRequests,
    State,
    StateDifference,
    Undrain,
    Unwatch,
    ViewAck,
    Watch,
)


class Condition(enum.Enum):
    """The condition that a way in sets, besides a verb."""

    FREE = "nothing: it is answered to any process that reaches the port"
    IDENTITY = "an identity with at least one role"
    NAME = "the right for the name that it names"
    EACH_NAME = "the right for each name that it shows; others are left out"
    EVERYTHING = "the right for every name, or a certificate of the servers' own CA"
    NODE = "the right for the node that it names"
    OWNER = "the session's own identity"
    OWNER_AND_NAME = "the session's own identity, and the right for the name that it names"
    SERVER = "a certificate of the servers' own CA"


class Requirement(NamedTuple):
    """The condition of one way in.

    Attributes:
        condition: see `Condition`.
        verb: the right, None where none is needed.
    """

    condition: Condition
    verb: Verb | None = None


_SERVER: Final = Requirement(Condition.SERVER)
_OWNER: Final = Requirement(Condition.OWNER)
_READ_ALL: Final = Requirement(Condition.EVERYTHING, Verb.READ)

REQUIREMENTS: Final[dict[type[Message], Requirement]] = {
    ClientHello: Requirement(Condition.FREE),
    Acquire: Requirement(Condition.OWNER_AND_NAME, Verb.ACQUIRE),
    Release: _OWNER,
    Keepalive: _OWNER,
    CloseSession: _OWNER,
    FollowGroup: Requirement(Condition.OWNER_AND_NAME, Verb.ACQUIRE),
    ViewAck: _OWNER,
    Describe: Requirement(Condition.NAME, Verb.READ),
    DescribeGroup: Requirement(Condition.NAME, Verb.READ),
    List: Requirement(Condition.EACH_NAME, Verb.READ),
    FindSimilar: Requirement(Condition.EACH_NAME, Verb.READ),
    Watch: Requirement(Condition.NAME, Verb.WATCH),
    Unwatch: Requirement(Condition.IDENTITY),
    Break: Requirement(Condition.NAME, Verb.BREAK),
    GetRoutes: Requirement(Condition.IDENTITY),
    GetState: _READ_ALL,
    GetStatus: _READ_ALL,
    GetEvents: Requirement(Condition.EACH_NAME, Verb.READ),
    Probe: Requirement(Condition.IDENTITY),
    Drain: Requirement(Condition.NODE, Verb.DRAIN),
    Undrain: Requirement(Condition.NODE, Verb.DRAIN),
    OnBehalfOf: _SERVER,
    PeerHello: _SERVER,
    Replicate: _SERVER,
    HandOver: _SERVER,
    State: _SERVER,
    StateDifference: _SERVER,
    Join: _SERVER,
    Heartbeat: _SERVER,
    SlotRequests: _SERVER,
    Leave: _SERVER,
}
"""Of each message that a node or a coordinator accepts."""

GRPC_REQUIREMENTS: Final[dict[str, Requirement]] = {
    "lockring.v1.LockService/Lock": Requirement(Condition.OWNER_AND_NAME, Verb.ACQUIRE),
    "lockring.v1.LockService/Unlock": _OWNER,
    "lockring.v1.LockService/KeepAlive": _OWNER,
    "lockring.v1.LockService/FindLockOwner": Requirement(Condition.NAME, Verb.READ),
    "lockring.v1.LockService/Watch": Requirement(Condition.NAME, Verb.WATCH),
    "lockring.v1.LockService/ListLocks": Requirement(Condition.EACH_NAME, Verb.READ),
    "lockring.v1.LockService/GetClusterState": _READ_ALL,
    "lockring.v1.LockService/BreakLock": Requirement(Condition.NAME, Verb.BREAK),
    "lockring.v1.LockService/DrainNode": Requirement(Condition.NODE, Verb.DRAIN),
    "lockring.v1.LockService/UndrainNode": Requirement(Condition.NODE, Verb.DRAIN),
    "grpc.health.v1.Health/Check": Requirement(Condition.FREE),
    "grpc.health.v1.Health/Watch": Requirement(Condition.FREE),
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _READ_ALL,
}
"""Of each method that a node serves over gRPC."""

HTTP_REQUIREMENTS: Final[dict[str, Requirement]] = {
    "GET /livez": Requirement(Condition.FREE),
    "GET /healthz": Requirement(Condition.FREE),
    "GET /readyz": Requirement(Condition.FREE),
    "GET /leader": Requirement(Condition.FREE),
    "GET /": _READ_ALL,
    "GET /members": _READ_ALL,
    "GET /locks": Requirement(Condition.EACH_NAME, Verb.READ),
    "GET /lock": Requirement(Condition.NAME, Verb.READ),
    "GET /groups": Requirement(Condition.EACH_NAME, Verb.READ),
    "GET /group": Requirement(Condition.NAME, Verb.READ),
    "GET /events": Requirement(Condition.EACH_NAME, Verb.READ),
    "GET /break": Requirement(Condition.NAME, Verb.BREAK),
    "POST /break": Requirement(Condition.NAME, Verb.BREAK),
    "GET /drain": Requirement(Condition.NODE, Verb.DRAIN),
    "POST /drain": Requirement(Condition.NODE, Verb.DRAIN),
    "GET /undrain": Requirement(Condition.NODE, Verb.DRAIN),
    "POST /undrain": Requirement(Condition.NODE, Verb.DRAIN),
    "GET /sign-in": Requirement(Condition.FREE),
    "POST /sign-in": Requirement(Condition.FREE),
    "POST /sign-out": Requirement(Condition.FREE),
    "GET /dashboard.css": Requirement(Condition.FREE),
    "GET /dashboard.js": Requirement(Condition.FREE),
    "GET /icon.svg": Requirement(Condition.FREE),
    "GET /metrics": Requirement(Condition.IDENTITY),
    "GET /debug/tasks": Requirement(Condition.EVERYTHING, Verb.ADMIN),
}
"""Of each page that a server answers over HTTP, by method and path."""
