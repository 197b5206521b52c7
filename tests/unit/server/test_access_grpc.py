"""The gRPC API of a server that checks identities: each call is judged, and its client's rights count everywhere."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from lockring.core.access import Newcomer
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.grpc_api.v1 import lockring_pb2_grpc
from lockring.protocol import ClientHello, Message
from lockring.security.access_control import AccessControl
from lockring.security.peer_certificates import PeerCertificate
from lockring.security.tokens import new_token
from lockring.server.access_gate import AccessGate
from lockring.server.access_settings import AccessSettings
from lockring.server.node import NodeServer
from lockring.server.settings import NodeSettings
from lockring.slots import slot_of
from tests.hostile import http2
from tests.processes import PATIENCE_S
from tests.unit.grpc_api.serving import RawClient
from tests.unit.net.serving import until
from tests.unit.server.test_access import Server, with_server


class Caller:
    """A gRPC client that shows a token."""

    def __init__(self, address: str, token: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._more: dict[str, Any] = {"timeout": PATIENCE_S}
        if token:
            self._more["metadata"] = (("authorization", f"Bearer {token}"),)
        self._stub: Any = lockring_pb2_grpc.LockServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, method: str, request: Any) -> Any:
        return getattr(self._stub, method)(request, **self._more)

    def lock(self, name: str, session: str = "session") -> Any:
        return self.call(
            "Lock", pb.LockRequest(name=name, session=session, idempotency_key="k", owner="o", ttl_ms=20_000)
        )

    def unlock(self, name: str, session: str = "session") -> Any:
        return self.call("Unlock", pb.UnlockRequest(name=name, session=session, idempotency_key="k"))

    def keep(self, name: str, session: str = "session") -> Any:
        listed = pb.HeldLock(name=name, session=session, idempotency_key="k", ttl_ms=20_000)
        answers = self.call("KeepAlive", iter([pb.KeepAliveRequest(sequence=1, locks=[listed])]))
        return next(iter(answers)).locks[0]

    def health(self) -> Any:
        return health_pb2_grpc.HealthStub(self._channel).Check(  # type: ignore[no-untyped-call]
            health_pb2.HealthCheckRequest(), timeout=PATIENCE_S
        )

    def reflect(self) -> list[Any]:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(self._channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        return list(stub.ServerReflectionInfo(iter([request]), **self._more))


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """The status of a call that is refused, and the right that it lacks."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    for each in status.details:
        each.Unpack(info)
    return caught.value.code().name, info.metadata["right"]


def over_grpc(directory: Path, test: Callable[[Server, str], None], *, auth: str = "enforcing") -> None:
    """Run a test in a thread, beside a server that checks rights, given the address of its API."""

    async def main(server: Server) -> None:
        node = server.server._node
        assert node is not None
        await asyncio.to_thread(test, server, node._place.grpc)

    with_server(directory, main, auth=auth, grpc_listen="127.0.0.1:0")


def test_a_call_shows_a_token_and_health_needs_none(tmp_path: Path) -> None:
    def test(server: Server, address: str) -> None:
        with Caller(address, server.tokens["web-1"]) as caller:
            assert caller.lock("jobs/1").generation > 0
            assert caller.keep("jobs/1").verdict == pb.VERDICT_HELD
            caller.unlock("jobs/1")
        for token in ("", "nonsense", new_token("web-1"), new_token("web-9")):
            with Caller(address, token) as stranger:
                assert stranger.health().status == health_pb2.HealthCheckResponse.SERVING
                state = functools.partial(stranger.call, "GetClusterState", pb.GetClusterStateRequest())
                acquire, keep = (functools.partial(each, "jobs/1") for each in (stranger.lock, stranger.keep))
                for call in (acquire, keep, state, stranger.reflect):
                    assert refusal(call) == ("UNAUTHENTICATED", "")

    over_grpc(tmp_path, test)
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    denied = [line for line in lines if line["act"] == "denied"]
    assert len(denied) == 16
    assert all(line["from"].startswith("127.0.0.1:") for line in denied)


REQUESTS = [
    ("Lock", pb.LockRequest(name="x", session="s", idempotency_key="k", owner="o", ttl_ms=9_000), "acquire"),
    ("FindLockOwner", pb.FindLockOwnerRequest(name="x"), "read"),
    ("ListLocks", pb.ListLocksRequest(prefix="x"), "read"),
    ("GetClusterState", pb.GetClusterStateRequest(), "read"),
    ("BreakLock", pb.BreakLockRequest(name="x", generation=1), "break"),
    ("DrainNode", pb.DrainNodeRequest(node="node-1"), "drain"),
    ("UndrainNode", pb.UndrainNodeRequest(node="node-1"), "drain"),
]


def test_each_method_needs_its_right(tmp_path: Path) -> None:
    def test(server: Server, address: str) -> None:
        with (
            Caller(address, server.tokens["web-1"]) as caller,
            Caller(address, server.tokens["root"]) as root,
        ):
            for method, request, right in REQUESTS:
                call = functools.partial(caller.call, method, request)
                assert refusal(call) == ("PERMISSION_DENIED", right)
            assert refusal(caller.reflect) == ("PERMISSION_DENIED", "read")
            watch = caller.call("Watch", pb.WatchRequest(name="x"))
            assert refusal(lambda: next(watch)) == ("PERMISSION_DENIED", "watch")
            assert root.reflect()
            assert root.call("GetClusterState", pb.GetClusterStateRequest()).members
            assert root.lock("x").generation > 0
            # Refused by the coordinator for what it is about, and not for a right.
            assert refusal(lambda: root.call("DrainNode", pb.DrainNodeRequest(node="node-1")))[0] != (
                "PERMISSION_DENIED"
            )

    over_grpc(tmp_path, test)


def test_a_session_is_its_clients_and_not_the_nodes(tmp_path: Path) -> None:
    def test(server: Server, address: str) -> None:
        server.give("web-2", "acquire jobs/*", "read jobs/*")
        server.reload()
        with Caller(address, server.tokens["web-1"]) as one, Caller(address, server.tokens["web-2"]) as two:
            one.lock("jobs/1")
            # As of a session that does not exist, so that none can be found by trying.
            assert refusal(lambda: two.unlock("jobs/1")) == ("FAILED_PRECONDITION", "")
            assert two.keep("jobs/1").verdict == pb.VERDICT_LOST
            request = pb.FindLockOwnerRequest(name="jobs/1")
            (mine,) = one.call("FindLockOwner", request).lock.holders
            (theirs,) = two.call("FindLockOwner", request).lock.holders
            assert (mine.session, mine.idempotency_key) == ("session", "k")
            assert theirs.session != "session"
            assert theirs.idempotency_key == ""
            one.unlock("jobs/1")

    over_grpc(tmp_path, test)


def test_a_stream_ends_once_its_token_is_revoked(tmp_path: Path) -> None:
    def test(server: Server, address: str) -> None:
        server.give("web-2", "watch jobs/*")
        server.reload()
        with Caller(address, server.tokens["web-1"]) as one, Caller(address, server.tokens["web-2"]) as two:
            states: Iterator[Any] = two.call("Watch", pb.WatchRequest(name="jobs/1"))
            assert not next(states).lock.holders
            one.lock("jobs/1")
            assert next(states).lock.holders
            del server.rules["web-2"]
            server.write()
            server.reload()
            one.unlock("jobs/1")
            assert refusal(lambda: [*states])[0] in ("PERMISSION_DENIED", "UNAUTHENTICATED")

    over_grpc(tmp_path, test)


def test_where_rights_are_tried_out_every_call_passes(tmp_path: Path) -> None:
    def test(server: Server, address: str) -> None:
        with Caller(address, "") as stranger, Caller(address, server.tokens["web-1"]) as caller:
            assert stranger.lock("a").generation > 0
            assert caller.lock("b", "other").generation > 0
            assert caller.call("GetClusterState", pb.GetClusterStateRequest()).members

    over_grpc(tmp_path, test, auth="permissive")
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert {line["outcome"] for line in lines if line["act"] == "denied"} == {"would-refuse"}


MALFORMED = [
    [b"Bearer caf\xc3\xa9"],
    [b"Bearer \xff"],
    [b"Basic eDp4"],
    [b"Bearer"],
    [b""],
    [b"Bearer " + b"x" * 9_000],
    [b"Bearer a", b"Bearer b"],
    [b"Bearer a\x01b"],
]


def show(address: str, headers: list[bytes]) -> str:
    """The status of a call with these credentials."""

    async def call() -> str:
        async with await RawClient.open(address) as client:
            body = http2.message(b"")
            path = b"/lockring.v1.LockService/GetClusterState"
            client.call(path, body, [(b"authorization", each) for each in headers])
            return (await client.trailers())["grpc-status"]

    return asyncio.run(call())


@pytest.mark.parametrize("headers", MALFORMED)
def test_a_malformed_credential_is_refused_and_never_taken_for_none(
    tmp_path: Path, headers: list[bytes]
) -> None:
    def test(server: Server, address: str) -> None:
        assert show(address, headers) == "16"

    over_grpc(tmp_path, test)
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [line["outcome"] for line in lines if line["act"] == "denied"] == ["refused"]


@pytest.mark.parametrize("headers", MALFORMED)
def test_where_rights_are_tried_out_a_malformed_credential_passes_and_is_reported(
    tmp_path: Path, headers: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    def test(server: Server, address: str) -> None:
        assert show(address, headers) == "0"
        node = server.server._node
        assert node is not None
        assert node._gate.would_refuse == 1

    over_grpc(tmp_path, test, auth="permissive")
    assert "would be refused: a client at 127.0.0.1:" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    denied = [line for line in lines if line["act"] == "denied"]
    assert [line["outcome"] for line in denied] == ["would-refuse"]
    assert "authorization: Bearer TOKEN" in denied[0]["reason"]


def test_a_credential_is_verified_once_a_connection_and_again_after_a_change_of_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit = AccessControl.admit
    verified: list[str] = []

    def count(self: AccessControl, certificate: Any, credential: str, **more: Any) -> Any:
        verified.append(credential)
        return admit(self, certificate, credential, **more)

    monkeypatch.setattr(AccessControl, "admit", count)

    def test(server: Server, address: str) -> None:
        token = server.tokens["web-1"]
        with Caller(address, token) as one, Caller(address, new_token("web-9")) as stranger:
            verified.clear()
            for _ in range(3):
                one.lock("jobs/1")
                assert one.keep("jobs/1").verdict == pb.VERDICT_HELD
            assert verified == [token]
            for _ in range(2):
                assert refusal(lambda: stranger.lock("jobs/2"))[0] == "UNAUTHENTICATED"
            assert len(verified) == 3, "a refusal is not remembered"
            server.give("web-2", "read *")
            server.reload()
            one.lock("jobs/1")
            assert verified.count(token) == 2
            del server.rules["web-1"]
            server.write()
            server.reload()
            assert refusal(lambda: one.lock("jobs/1"))[0] in ("UNAUTHENTICATED", "PERMISSION_DENIED")

    over_grpc(tmp_path, test)


def test_a_node_that_forwards_passes_on_for_whom_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other node judges by its own ACL file, and by that of the client who has called, not of the node."""
    admit = AccessGate.newcomer

    def newcomer(self: AccessGate, hello: Message, certificate: object, *, origin: str) -> Newcomer:
        if isinstance(hello, ClientHello) and hello.software.startswith("lockring-grpc"):
            certificate = PeerCertificate(
                ("urn:lockring:node:node-1",), (), "node-1", "0B", 4e9, is_server=True
            )
        return admit(self, hello, certificate, origin=origin)

    monkeypatch.setattr(AccessGate, "newcomer", newcomer)
    theirs = tmp_path / "theirs.toml"

    async def main(server: Server) -> None:
        server.give("web-2", "acquire *")
        server.reload()
        # At the other node, web-1 has no right to names that begin with jobs/9, and web-2 none at all.
        text = server.acl.read_text().replace(
            '"acquire jobs/*", "read', '"acquire jobs/*", "deny acquire jobs/9*", "read'
        )
        theirs.write_text(text.replace('["acquire *"]', "[]"))
        other = NodeServer(
            NodeSettings(id="n2", listen="127.0.0.1:0", coordinators=(server.coordinator,), grpc=False),
            access=AccessSettings(auth="enforcing", acl_file=str(theirs), audit_log=str(tmp_path / "n2.log")),
        )
        await other.start()
        node = server.server._node
        assert node is not None
        try:
            await until(lambda: other._lives.present.core.status().serving_slots > 1_000)

            def names(prefix: str) -> list[str]:
                """Locks that the other node serves."""
                state = other._lives.present.core.state
                served = (f"{prefix}{number}" for number in range(200))
                return [
                    name
                    for name in served
                    if (primary := state.slots[slot_of(name)].primary) is not None and primary.node == "n2"
                ]

            def work() -> None:
                there = next(each for each in names("jobs/") if not each.startswith("jobs/9"))
                denied = names("jobs/9")[0]
                with (
                    Caller(address, server.tokens["web-1"]) as one,
                    Caller(address, server.tokens["web-2"]) as two,
                ):
                    assert one.lock(there).primary == "n2"
                    assert one.keep(there).verdict == pb.VERDICT_HELD
                    assert refusal(lambda: two.unlock(there)) == ("PERMISSION_DENIED", "")
                    assert refusal(lambda: one.lock(denied)) == ("PERMISSION_DENIED", "acquire")
                    assert refusal(lambda: two.lock(names("other/")[0])) == ("PERMISSION_DENIED", "acquire")
                    one.unlock(there)

            address = node._place.grpc
            await asyncio.to_thread(work)
        finally:
            await other.stop()

    with_server(tmp_path, main, grpc_listen="127.0.0.1:0")
    lines = [json.loads(line) for line in (tmp_path / "n2.log").read_text().splitlines()]
    assert ("node", "node-1") in {
        (line.get("how"), line.get("who")) for line in lines if line["act"] == "connect"
    }
    denied = [(line["who"], line["via"]) for line in lines if line["act"] == "denied"]
    assert set(denied) == {("web-1", "node-1"), ("web-2", "node-1")}
