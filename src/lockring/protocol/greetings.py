"""Greetings: the first message on each connection, its answer, and the refusal of a request."""

from __future__ import annotations

from lockring.protocol.base import Message


class ClientHello(Message, tag=1):
    """First message of a client. `client` is a random id of the client object; `connection` counts its
    connections to this server: a higher one ends the lower ones. `cluster` is "" if not known yet."""

    protocol: int
    cluster: str
    client: str
    connection: int
    software: str = ""


class PeerHello(Message, tag=2):
    """First message of a node to a peer: who it is, and which life of the peer it wants to reach."""

    protocol: int
    cluster: str
    node: str
    incarnation: int
    to_node: str
    to_incarnation: int


class Welcome(Message, tag=3):
    """The hello or join is accepted. `role` is "node" or "coordinator"; `coordinator` is its HOST:PORT."""

    protocol: int
    cluster: str
    role: str
    node: str
    incarnation: int
    version: int
    coordinator: str = ""


class Refusal(Message, tag=4):
    """The request was not carried out. `request` is 0 for a hello, a join or a frame that could not be read.

    `code` is one of `lockring.errors`, `hint` a number that helps with it (for "stale" joins: the lowest
    incarnation that will be accepted; for "moved": the version that says where to).
    """

    request: int
    code: str
    text: str
    name: str = ""
    hint: int = 0
