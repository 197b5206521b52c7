"""Which messages each kind of connection accepts."""

from __future__ import annotations

from lockring.protocol.cluster import (
    Ask,
    Drain,
    Draining,
    GetState,
    GetStatus,
    Heartbeat,
    HeartbeatAck,
    Join,
    Leave,
    Routes,
    State,
    StateIs,
    StatusIs,
    Trouble,
    Undrain,
    Undrained,
)
from lockring.protocol.greetings import ClientHello, PeerHello, Refused, Welcome
from lockring.protocol.groups import Follow, Look, Seen, Settled, View
from lockring.protocol.locks import (
    Acquire,
    CloseSession,
    Granted,
    Keepalive,
    Kept,
    Lost,
    Queued,
    Release,
    Released,
)
from lockring.protocol.queries import (
    Break,
    Broken,
    Changed,
    Describe,
    Described,
    List,
    Listed,
    Unwatch,
    Watch,
)
from lockring.protocol.replication import HandOver, Replicate, ReplicateAck

ToNode = (
    ClientHello
    | PeerHello
    | Acquire
    | Release
    | Keepalive
    | CloseSession
    | Describe
    | List
    | Watch
    | Unwatch
    | Break
    | Look
    | Follow
    | Seen
    | GetState
    | GetStatus
    | Drain
    | Undrain
    | Replicate
    | HandOver
    | State
)
"""What a node accepts on its listening port."""


ToCoordinator = ClientHello | GetState | GetStatus | Drain | Undrain | Join | Heartbeat | Ask | Leave
"""What a coordinator accepts on its listening port."""


ToClient = (
    Welcome
    | Refused
    | Granted
    | Released
    | Kept
    | Described
    | Listed
    | Changed
    | Broken
    | Lost
    | View
    | Settled
    | StateIs
    | StatusIs
    | Routes
    | Draining
    | Undrained
    | Queued
    | Trouble
)
"""What a client accepts on a connection that it opened."""


FromCoordinator = Welcome | Refused | HeartbeatAck | State | Draining | Undrained
"""What a node accepts on the connection that it opened to a coordinator."""


FromPeer = Welcome | Refused | ReplicateAck | State
"""What a node accepts on the connection that it opened to a peer."""
