"""The effects that a node or a coordinator asks its shell to carry out; `core.machine` is the contract."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from lockring.cluster_state import ClusterState, Replica
from lockring.core.access import Act, Grantee, MissingRight, Outcome, Verb
from lockring.core.election import Candidate
from lockring.ids import ConnectionId, Generation, OperationNumber, TermId, Version
from lockring.protocol import Message, Refusal, Welcome
from lockring.protocol.identities import Identity, identity_of_key


class Coordinator(NamedTuple):
    """The coordinator that a node is connected to, as an endpoint of the node."""


COORDINATOR: Final = Coordinator()

Endpoint = ConnectionId | Replica | Coordinator


class Admit(NamedTuple):
    """Admit a connection whose first message was accepted; until then it has little room and little time.

    Attributes:
        to: the connection.
        is_member: whether it belongs to the cluster: such a connection may send more, and does not count as a client.
        welcome: the answer, None if it follows later.
        peer: the life of a peer that it comes from, if that is known.
    """

    to: ConnectionId
    is_member: bool
    welcome: Welcome | None
    peer: Replica | None = None


class Broadcast(NamedTuple):
    """Send one message to many connections; the shell encodes it once."""

    to: tuple[ConnectionId, ...]
    message: Message


class Send(NamedTuple):
    """Send a message. To a `Replica`, on the node's own outgoing connection to that life of the peer."""

    to: Endpoint
    message: Message


class Close(NamedTuple):
    """Close a connection once everything sent on it before is out."""

    to: Endpoint
    reason: str


class Refuse(NamedTuple):
    """Send the reason on an accepted connection, and close the connection once that is out."""

    to: ConnectionId
    refusal: Refusal


class DepartureEnd(enum.Enum):
    """Why a node that leaves may stop."""

    DRAINED = enum.auto()
    """Nothing is left on it."""
    ONLY_SPARE_COPIES = enum.auto()
    """It serves nothing, and no other node can take its copies: the last one goes on alone."""
    KEPT = enum.auto()
    """Every other node leaves too; what is on it is in its journal, and waits there for its next life."""
    NOTHING_HERE = enum.auto()
    """Nothing is on it, and the coordinator is away."""
    NEW_LIFE = enum.auto()
    """It has begun another life, which has not learned of its cluster yet and so has nothing to hand over."""
    TIMED_OUT = enum.auto()
    """The time is up that it was given."""
    COORDINATOR_AWAY = enum.auto()
    """Nothing moves, since the coordinator has been away for too long."""


class Depart(NamedTuple):
    """Stop this node.

    Attributes:
        end: why it may.
        locks_ended: held locks that end with it, since no other node could take them.
        away_ns: for how long the coordinator has been away, where that is why.
    """

    end: DepartureEnd
    locks_ended: int = 0
    away_ns: int = 0


class Reply(NamedTuple):
    """Answer a replica on the connection that *it* opened (acknowledgements of its replication stream)."""

    to: Replica
    message: Message


class Publish(NamedTuple):
    """Let a new cluster state be known outside the machine: it is in force."""

    state: ClusterState


class StoreRead(NamedTuple):
    """Read the stored state; answer with `store_result(operation, ok=True, state=…)`, or ok=False on failure."""

    operation: OperationNumber


class StoreWrite(NamedTuple):
    """Compare-and-set: store `state` if the stored version is `expected_version`.

    Answer with `store_result(operation, ok=written, state=…)`: the state that is stored now, None if that is unknown.
    """

    operation: OperationNumber
    expected_version: Version
    state: ClusterState


class StoreCampaign(NamedTuple):
    """Take or renew the lead among the coordinators of a shared store, or stand by.

    Answer with `election_result(operation, election, …)`: the coordinators as they are now, None if that is unknown.
    """

    operation: OperationNumber
    candidate: Candidate
    ttl_ms: int


class StoreResign(NamedTuple):
    """Give up the lead or the candidacy of a term. No answer: if it fails, the lead ends with its time."""

    term: TermId


class Fail(NamedTuple):
    """End the process: it can do nothing here, and waiting mends nothing.

    Attributes:
        reason: a sentence for people.
    """

    reason: str


class Note(NamedTuple):
    """A line for the log, on an event that an operator needs to know.

    Attributes:
        event: the event's name, as in `lockring.log_events`.
        text: a sentence.
        asked_by: the connection whose request caused it; None if none did.
        is_warning: whether the operator must act on it.
    """

    event: str
    text: str
    asked_by: ConnectionId | None = None
    is_warning: bool = False


class AuditEntry(NamedTuple):
    """An act for the audit log, or a right that is missing and only tried out. See `security.audit` for the fields.

    Attributes:
        act: the act.
        outcome: how it went.
        connection: where it was asked for, None if it was not.
        identity: for which identity, None at a server that checks none.
        is_forwarded: whether another node has asked on the identity's behalf.
        name: the lock or node in question.
        fencing_token: of the grant, 0 if there is none.
        right: the right that was needed, as its verb.
        rule: the rule that decided, "" if none matched.
        reason: a sentence, for what was refused or lost.
    """

    act: Act
    outcome: Outcome
    connection: ConnectionId | None = None
    identity: Identity | None = None
    is_forwarded: bool = False
    name: str = ""
    fencing_token: int = 0
    right: str = ""
    rule: str = ""
    reason: str = ""


def denied_entry(
    access: Grantee, missing: MissingRight, connection: ConnectionId | None, *, is_forwarded: bool = False
) -> AuditEntry:
    """Return the entry about a request that lacks a right: refused, or only counted if rights are tried out.

    Args:
        access: the identity.
        missing: the right.
        connection: where the request came, None if the shell knows.
        is_forwarded: whether another node has asked on the identity's behalf.
    """
    return AuditEntry(
        "denied",
        "refused" if access.is_enforced else "would-refuse",
        connection=connection,
        identity=access.identity,
        is_forwarded=is_forwarded,
        name=missing.name,
        right=missing.right,
        rule=missing.rule,
        reason=missing.text,
    )


def lock_entry(
    act: Act,
    name: str,
    generation: Generation,
    *,
    connection: ConnectionId | None = None,
    access: Grantee | None = None,
    is_forwarded: bool = False,
    owner: str = "",
    verb: Verb | None = None,
    reason: str = "",
) -> AuditEntry:
    """Return the entry about an act on a lock that was carried out.

    Args:
        act: the act.
        name: the lock.
        generation: of the grant.
        connection: where it was asked for, None if it was not.
        access: the identity that has asked, and its rights; None if none has, or the server checks none.
        is_forwarded: whether another node has asked on that identity's behalf.
        owner: the key of the identity to which the grant belongs, for an act for which none has asked.
        verb: the right that the act needed, None if it needed none. The entry names the rule that gives it.
        reason: a sentence or word, for what was lost.
    """
    rule = None if access is None or verb is None else access.permissions.rule_for(verb, name)
    return AuditEntry(
        act,
        "ok",
        connection=connection,
        identity=identity_of_key(owner) if access is None else access.identity,
        is_forwarded=is_forwarded,
        name=name,
        fencing_token=generation,
        right="" if verb is None else verb.word,
        rule="" if rule is None else rule.text,
        reason=reason,
    )


Effect = (
    Admit
    | Refuse
    | Depart
    | Broadcast
    | Send
    | Close
    | Reply
    | Publish
    | StoreRead
    | StoreWrite
    | StoreCampaign
    | StoreResign
    | Fail
    | Note
    | AuditEntry
)
