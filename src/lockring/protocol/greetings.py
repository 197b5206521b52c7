"""Greetings: the first message on each connection and its answer; and the refusal of any request."""

from lockring.ids import ClientId, ClusterId, GreetingNumber, Incarnation, NodeId, RequestNumber, Version
from lockring.protocol.base import Message
from lockring.protocol.identities import Identity
from lockring.protocol.infos import HolderRecord


class ClientHello(Message, tag=1):
    """First message of a client.

    `client` is a random id of the client object. `connection` counts its connections to this server: a higher number
    ends those with lower ones. `cluster` is "" if not yet known. `differences`: it understands `RoutesDifference`.
    `credential` is a token or a JWT, "" for none. It is secret, and so it is shown nowhere. `host` and `pid` are where
    its process is, for the clients that wait for what it holds; "" and 0 if it does not say.
    """

    protocol: int
    cluster: ClusterId
    client: ClientId
    connection: GreetingNumber
    software: str = ""
    differences: bool = False
    credential: str = ""
    host: str = ""
    pid: int = 0

    def __repr__(self) -> str:
        shown = "…" if self.credential else ""
        return (
            f"ClientHello({self.protocol}, {self.cluster!r}, {self.client!r}, {self.connection}, {self.software!r},"
            f" differences={self.differences}, credential={shown!r}, host={self.host!r}, pid={self.pid})"
        )


class OnBehalfOf(Message, tag=5):
    """From a server that forwards requests of clients, on a connection that it opened as a client: the identity whose
    requests follow, until the next such message. The receiver gives it the rights that it has there. Not answered.
    Sent to servers alone that have said that they understand it.
    """

    identity: Identity


class PeerHello(Message, tag=2):
    """First message of a node to a peer: the sender, and the life of the peer that it wants to reach."""

    protocol: int
    cluster: ClusterId
    node: NodeId
    incarnation: Incarnation
    to_node: NodeId
    to_incarnation: Incarnation


class Welcome(Message, tag=3):
    """The hello or join is accepted. `role` is "node" or "coordinator"; `coordinator` is its HOST:PORT.

    `has_others`: other coordinators may take over from this one, since it shares its store. `identities`: the server
    understands `OnBehalfOf`, as nodes do. `probes`: it answers `Probe`.
    """

    protocol: int
    cluster: ClusterId
    role: str
    node: NodeId
    incarnation: Incarnation
    version: Version
    coordinator: str = ""
    has_others: bool = False
    identities: bool = False
    probes: bool = False


class Refusal(Message, tag=4):
    """The request was not carried out. `request` is 0 for a hello, a join or an unreadable frame.

    `code` is one of `lockring.errors`. `hint` is a number that helps to recover (for "stale" joins: the lowest
    incarnation that will be accepted; for "moved": the version whose routes lead to the primary).
    `leader` is HOST:PORT of the coordinator that leads, for "not-coordinator", "" if it is unknown.
    `right` is the right that is missing, for "denied", as its verb. `retry_after_ms` is when to come again, for
    "overloaded"; 0 if that is unknown. For "timeout", `holders` are the lock's first holders, and `position` is the
    acquire's place in the queue, from 1, or the one that it would have had; 0 if the sender does not say.
    """

    request: RequestNumber
    code: str
    text: str
    name: str = ""
    hint: int = 0
    leader: str = ""
    right: str = ""
    retry_after_ms: int = 0
    holders: list[HolderRecord] = []
    position: int = 0
