"""The messages that each kind of receiver accepts: a node, a coordinator, a client."""

from lockring.protocol.cluster import (
    Drain,
    DrainReply,
    GetRoutes,
    GetState,
    GetStatus,
    Heartbeat,
    HeartbeatAck,
    Join,
    Leave,
    Probe,
    ProbeReply,
    Routes,
    RoutesDifference,
    SlotRequests,
    State,
    StateDifference,
    StateReply,
    StatusReply,
    TroubleNotice,
    Undrain,
    UndrainReply,
)
from lockring.protocol.greetings import ClientHello, OnBehalfOf, PeerHello, Refusal, Welcome
from lockring.protocol.groups import DescribeGroup, FollowGroup, SettlementNotice, View, ViewAck
from lockring.protocol.locks import (
    Acquire,
    CloseSession,
    GrantReply,
    Keepalive,
    KeepaliveReply,
    LossNotice,
    QueueNotice,
    Release,
    ReleaseReply,
)
from lockring.protocol.queries import (
    Break,
    BreakReply,
    Describe,
    DescribeReply,
    EventsReply,
    FindSimilar,
    GetEvents,
    List,
    ListReply,
    SimilarReply,
    Unwatch,
    Watch,
    WatchNotice,
)
from lockring.protocol.replication import HandOver, Replicate, ReplicateAck

ToNode = (
    ClientHello
    | OnBehalfOf
    | PeerHello
    | Acquire
    | Release
    | Keepalive
    | CloseSession
    | Describe
    | List
    | FindSimilar
    | Watch
    | Unwatch
    | Break
    | DescribeGroup
    | FollowGroup
    | ViewAck
    | GetState
    | GetStatus
    | GetRoutes
    | GetEvents
    | Drain
    | Undrain
    | Replicate
    | HandOver
    | State
    | StateDifference
)
"""Messages that a node accepts on its listening port."""


ToCoordinator = (
    ClientHello
    | GetState
    | GetStatus
    | GetRoutes
    | GetEvents
    | Probe
    | Drain
    | Undrain
    | Join
    | Heartbeat
    | SlotRequests
    | Leave
)
"""Messages that a coordinator accepts on its listening port."""


ToClient = (
    Welcome
    | Refusal
    | GrantReply
    | ReleaseReply
    | KeepaliveReply
    | DescribeReply
    | ListReply
    | WatchNotice
    | BreakReply
    | LossNotice
    | View
    | SettlementNotice
    | StateReply
    | StatusReply
    | ProbeReply
    | Routes
    | RoutesDifference
    | DrainReply
    | UndrainReply
    | QueueNotice
    | TroubleNotice
    | EventsReply
    | SimilarReply
)
"""Messages that a client accepts on a connection that it opened."""


FromCoordinator = Welcome | Refusal | HeartbeatAck | State | StateDifference | DrainReply | UndrainReply
"""Messages that a node accepts on its connection to a coordinator."""


FromPeer = Welcome | Refusal | ReplicateAck | State | StateDifference
"""Messages that a node accepts on its connection to a peer."""
