"""A scan of all ports of a cluster with TLS and rights: no answer says more than the table of required rights allows.

Each message of the protocol and each gRPC method is sent without an identity, and by an identity without rights.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from msgspec import inspect

from lockring.addresses import split_address
from lockring.core.access import GRPC_REQUIREMENTS, REQUIREMENTS, Condition
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.net.oneshot import ask_state
from lockring.protocol import (
    ClientHello,
    CloseSession,
    GetRoutes,
    Keepalive,
    KeepaliveReply,
    Message,
    Probe,
    ProbeReply,
    Refusal,
    Release,
    ReleaseReply,
    Routes,
    ToCoordinator,
    ToNode,
    Unwatch,
    Welcome,
)
from lockring.random_ids import new_id
from lockring.testing import COORDINATOR
from tests.cluster.grpc_calls import refusal
from tests.cluster.guarded import GRPC, LEADER, LOCK, Guarded, dial_by, guarded
from tests.hostile.samples import Facts, Sampler, frame, packed
from tests.processes import PATIENCE_S

KINDS = sorted(REQUIREMENTS, key=lambda kind: kind.__name__)
ACCEPTED = {LOCK: set(ToNode.__args__), LEADER: set(ToCoordinator.__args__)}
SAMPLES = 3
"""Messages of each kind, drawn from its definition."""

LAST = 4_000_000
"""The number of the request that is sent last: its answer says that nothing else will come."""

SECRET = "secret/held"
"""A lock that an admin holds."""

OWNER = "the-label-of-the-admin"
"""The label of its holder, which no answer may have."""

FREE = {GetRoutes: Routes, Unwatch: ReleaseReply, Probe: ProbeReply}
"""The answers to an identity without rights, apart from refusals."""

OWN = {Release: ReleaseReply, CloseSession: ReleaseReply, Keepalive: KeepaliveReply}
"""The answers to requests in a session that does not exist, which those in another identity's session get too."""


def test_the_free_answers_are_those_that_the_table_has() -> None:
    identity = {kind for kind, row in REQUIREMENTS.items() if row.condition is Condition.IDENTITY}
    assert set(FREE) == identity


class Target(NamedTuple):
    """A cluster in which an admin holds a lock, with all that a stranger could know but a credential.

    Attributes:
        guarded: the cluster.
        session: the session of the admin.
        facts: of the node that is the lock's primary.
    """

    guarded: Guarded
    session: str
    facts: Facts


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Two nodes. Certificates of clients are optional, so that each message gets as far as it can."""
    directory = tmp_path_factory.mktemp("scan")
    with (
        guarded(directory, nodes=2, client_auth="optional") as cluster,
        cluster.client("test", owner=OWNER, ttl=20) as admin,
    ):
        grant = admin.lock(SECRET).acquire(timeout=PATIENCE_S)
        cluster.front = cluster.cluster.primary_of(SECRET)
        view = ask_state(cluster.address(LOCK), dial=dial_by(cluster.files("test")), timeout_s=PATIENCE_S)
        yield Target(cluster, str(grant._ticket.session.id), Facts(view.state, view.replica, (SECRET,)))
        grant.release()


def samples(kind: type[Message], target: Target, *, in_none: bool = False) -> Iterator[list[Any]]:
    """Draw messages of a kind, in the admin's session, or the same ones each in a session that does not exist."""
    sampler = Sampler(random.Random(kind.__name__), target.facts)
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    known = {"request": 7, "name": SECRET, "session": target.session, "watch": 0}
    fixed = {name: value for name, value in known.items() if name in kind.__struct_fields__}
    for _ in range(SAMPLES):
        if in_none and "session" in fixed:
            fixed["session"] = new_id()
        yield sampler.message(info, **fixed)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("port", [LOCK, LEADER])
def test_no_message_is_answered_without_an_identity(target: Target, port: str, kind: type[Message]) -> None:
    for sample in samples(kind, target):
        with target.guarded.wire(port) as wire:
            wire.write(frame(packed(sample)))
            # Behind a refused message nothing counts, be it a hello.
            wire.write(frame(msgspec.msgpack.encode(ClientHello(1, "", "c", 1))))
            answers = wire.read_to_end()
        assert len(answers) == 1, answers
        assert isinstance(answers[0], Refusal), answers
        if kind is ClientHello and answers[0].code != "invalid":
            assert answers[0].code in ("unauthenticated", "protocol", "wrong-cluster")


@pytest.mark.parametrize("shown", ["a token", "a certificate"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("port", [LOCK, LEADER])
def test_an_identity_without_rights_is_answered_what_the_table_says_and_no_more(
    target: Target, port: str, kind: type[Message], shown: str
) -> None:
    row = REQUIREMENTS[kind]
    files, token = (
        (target.guarded.bare, target.guarded.tokens["idle"])
        if shown == "a token"
        else (target.guarded.files("idle"), "")
    )

    def answers_to(sample: list[Any]) -> list[Message]:
        with target.guarded.wire(port, files) as wire:
            assert isinstance(wire.greet(credential=token, client=f"idle-{kind.__name__}"), Welcome)
            wire.write(frame(packed(sample)))
            wire.send(Unwatch(LAST, 0) if port == LOCK else Probe(LAST))
            return until_last(wire)

    for sample, of_none in zip(samples(kind, target), samples(kind, target, in_none=True), strict=True):
        answers = answers_to(sample)
        rest = [each for each in answers if getattr(each, "request", 0) != LAST]
        refusals = [each for each in rest if isinstance(each, Refusal)]
        free = FREE.get(kind, OWN.get(kind, Refusal))
        assert all(type(each) in (Refusal, free) for each in rest), rest
        assert not any(OWNER in repr(each) or each.hint for each in refusals), refusals
        if kind not in ACCEPTED[port] or row.condition in (Condition.FREE, Condition.SERVER):
            # Not for this port, a second hello, or a server's word: the connection is over.
            assert len(answers) == len(refusals) == 1, answers
        elif row.verb is not None:
            (refused,) = refusals
            # A foreign session is refused before the right for a name is looked at.
            expected = [("denied", row.verb.word), ("invalid", "")]
            expected += [("denied", "")] * (row.condition is Condition.OWNER_AND_NAME)
            assert (refused.code, refused.right) in expected, refused
        elif row.condition is Condition.OWNER:
            assert timeless(answers) == timeless(answers_to(of_none))


def timeless(answers: list[Message]) -> list[Message]:
    """Leave out the time that is left of leases."""
    return [
        msgspec.structs.replace(each, promise_ms=0) if isinstance(each, KeepaliveReply) else each
        for each in answers
    ]


def until_last(wire: Any) -> list[Message]:
    """All that comes up to the answer to the last request, or to the end of the connection."""
    answers: list[Message] = []
    try:
        while not answers or getattr(answers[-1], "request", 0) != LAST:
            answers.append(wire.read())
    except EOFError:
        pass
    return answers


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if REQUIREMENTS[kind].condition is Condition.SERVER],
    ids=lambda kind: kind.__name__,
)
@pytest.mark.parametrize("port", [LOCK, LEADER])
def test_the_rights_of_an_admin_make_no_server(target: Target, port: str, kind: type[Message]) -> None:
    for sample in samples(kind, target):
        for is_greeted in (False, True):
            with target.guarded.wire(port, target.guarded.files("test")) as wire:
                if is_greeted:
                    assert isinstance(wire.greet(), Welcome)
                wire.write(frame(packed(sample)))
                answers = wire.read_to_end()
            (refused,) = answers
            assert isinstance(refused, Refusal), answers


def test_the_scan_has_changed_nothing(target: Target) -> None:
    """Runs after the tests above, in the order of the file."""
    now = ask_state(
        target.guarded.address(LEADER), dial=dial_by(target.guarded.files("test")), timeout_s=PATIENCE_S
    ).state
    assert {node: each.condition for node, each in now.members.items()} == {"N1": "active", "N2": "active"}
    assert now.members == target.facts.state.members
    with target.guarded.client("test") as admin:
        (holder,) = admin.describe(SECRET).holders
        assert holder.owner == OWNER
        assert [each.name for each in admin.locks()] == [SECRET]


# ----------------------------------------------------------------------- gRPC

SERVICE = "lockring.v1.LockService"
HELD = pb.HeldLock(name=SECRET, session="s", idempotency_key="k", ttl_ms=9_000)
CALLS: dict[str, Any] = {
    f"{SERVICE}/Lock": pb.LockRequest(name=SECRET, session="s", idempotency_key="k", owner="o", ttl_ms=9_000),
    f"{SERVICE}/Unlock": pb.UnlockRequest(name=SECRET, session="s", idempotency_key="k"),
    f"{SERVICE}/KeepAlive": pb.KeepAliveRequest(sequence=1, locks=[HELD]),
    f"{SERVICE}/FindLockOwner": pb.FindLockOwnerRequest(name=SECRET),
    f"{SERVICE}/Watch": pb.WatchRequest(name=SECRET),
    f"{SERVICE}/ListLocks": pb.ListLocksRequest(prefix=""),
    f"{SERVICE}/GetClusterState": pb.GetClusterStateRequest(),
    f"{SERVICE}/BreakLock": pb.BreakLockRequest(name=SECRET, generation=1),
    f"{SERVICE}/DrainNode": pb.DrainNodeRequest(node="N1"),
    f"{SERVICE}/UndrainNode": pb.UndrainNodeRequest(node="N1"),
    "grpc.health.v1.Health/Check": health_pb2.HealthCheckRequest(),
    "grpc.health.v1.Health/Watch": health_pb2.HealthCheckRequest(),
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(
        list_services=""
    ),
}
"""A request of each method."""

STREAMS_IN = {"KeepAlive", "ServerReflectionInfo"}
STREAMS_OUT = {"KeepAlive", "ServerReflectionInfo", "Watch"}
NO_SERVICES = [
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.channelz.v1.Channelz/GetServers",
    "grpc.health.v1.Health/List",
    f"{SERVICE}/Nothing",
    "lockring.v1.AdminService/Lock",
    "/",
]
"""Methods of other servers, which this one must not have by accident."""


def first_answer(caller: Any, method: str, request: bytes) -> bytes:
    """Call a method with bytes, and return the first bytes that it answers; raises `grpc.RpcError` if it is refused."""
    name = method.rpartition("/")[2]
    kind = f"{'stream' if name in STREAMS_IN else 'unary'}_{'stream' if name in STREAMS_OUT else 'unary'}"
    call = getattr(caller.channel, kind)(f"/{method}")
    answers = call(iter([request]) if name in STREAMS_IN else request, timeout=PATIENCE_S)
    if name not in STREAMS_OUT:
        return bytes(answers)
    first = bytes(next(answers))
    answers.cancel()
    return first


def test_every_method_is_scanned() -> None:
    assert set(CALLS) == set(GRPC_REQUIREMENTS)


@pytest.mark.parametrize("node", ["N1", "N2"])
@pytest.mark.parametrize("method", CALLS)
def test_no_method_but_the_health_service_is_answered_without_an_identity(
    target: Target, method: str, node: str
) -> None:
    row = GRPC_REQUIREMENTS[method]
    with target.guarded.caller(node=node) as caller:
        if row.condition is Condition.FREE:
            answer = health_pb2.HealthCheckResponse.FromString(
                first_answer(caller, method, CALLS[method].SerializeToString())
            )
            assert {field.name: value for field, value in answer.ListFields()} == {"status": answer.SERVING}
            return
        with pytest.raises(grpc.RpcError) as caught:
            first_answer(caller, method, CALLS[method].SerializeToString())
    found = refusal(caught.value)
    assert (found.code, found.moved_to) == (grpc.StatusCode.UNAUTHENTICATED, None)
    assert SECRET not in found.text


@pytest.mark.parametrize("method", [each for each in CALLS if "health" not in each])
def test_an_identity_without_rights_gets_nothing_of_any_method(target: Target, method: str) -> None:
    row = GRPC_REQUIREMENTS[method]
    with target.guarded.caller("idle") as caller:
        if row.condition is Condition.OWNER:
            # It has no session, so none of its own: there is nothing that it could release or renew.
            if method.endswith("/KeepAlive"):
                response = first_answer(caller, method, CALLS[method].SerializeToString())
                (kept,) = pb.KeepAliveResponse.FromString(response).locks
                assert (kept.verdict, kept.lease_ms, kept.generation) == (pb.VERDICT_LOST, 0, 0)
            else:
                with pytest.raises(grpc.RpcError) as caught:
                    first_answer(caller, method, CALLS[method].SerializeToString())
                assert refusal(caught.value).code is grpc.StatusCode.FAILED_PRECONDITION
            return
        with pytest.raises(grpc.RpcError) as caught:
            first_answer(caller, method, CALLS[method].SerializeToString())
    found = refusal(caught.value)
    assert (found.code, found.moved_to) == (grpc.StatusCode.PERMISSION_DENIED, None)
    assert row.verb is not None
    assert f"may not {row.verb.word}" in found.text


@pytest.mark.parametrize("method", NO_SERVICES)
@pytest.mark.parametrize("who", ["", "idle", "test"])
def test_there_are_no_other_methods(target: Target, method: str, who: str) -> None:
    with target.guarded.caller(who) as caller:
        with pytest.raises(grpc.RpcError) as caught:
            first_answer(caller, method, b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# ----------------------------------------------------------------------- ports


def listening(pid: int) -> set[int]:
    """The TCP ports on which a process listens."""
    own = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(link))
        except FileNotFoundError:
            continue  # closed since
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in own:
                found.add(int(words[1].rpartition(":")[2], 16))
    return found


def test_no_server_has_a_port_that_was_not_scanned(target: Target) -> None:
    cluster = target.guarded.cluster
    for node in cluster.nodes:
        ports = {split_address(target.guarded.address(each, node))[1] for each in (LOCK, GRPC)}
        assert listening(cluster.pid_of(node)) == ports
    assert listening(cluster.pid_of(COORDINATOR)) == {split_address(target.guarded.address(LEADER))[1]}
