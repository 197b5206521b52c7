"""Each port and each way in: by certificates and tokens that are not enough, refused with the right error.

Clients need a certificate of their authority here, so that one counts at every port. `test_tls` has the same for
single questions and both clients, and for servers among themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import pytest

from lockring.client.tls import ClientFiles
from lockring.errors import LockringError, Unauthenticated
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.protocol import (
    PROTOCOL,
    Describe,
    DescribeReply,
    Drain,
    GetState,
    Join,
    Message,
    PeerHello,
    Refusal,
    StateReply,
    Watch,
    WatchNotice,
    Welcome,
)
from lockring.security.tokens import new_token
from tests.cluster.grpc_calls import refusal
from tests.cluster.guarded import GRPC, LEADER, LOCK, PORTS, Guarded, guarded
from tests.processes import PATIENCE_S, eventually


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("ways"), nodes=1, client_auth="required") as found:
        yield found


class Way(NamedTuple):
    """A way in.

    Attributes:
        files: what is shown in the handshake.
        token: what is shown in the first message, or with a call; "" for nothing.
        code: of the error: "tls" if the handshake is refused.
        says: a part of its text.
    """

    files: Callable[[Guarded], ClientFiles]
    token: Callable[[Guarded], str]
    code: str
    says: str


def no_token(_: Guarded) -> str:
    return ""


def files_of(name: str) -> Callable[[Guarded], ClientFiles]:
    return lambda target: target.files(name)


WAYS = {
    "no certificate": Way(lambda target: target.bare, no_token, "tls", "this side has shown none"),
    "a certificate of another authority": Way(Guarded.foreign, no_token, "tls", "another authority"),
    "an expired certificate": Way(Guarded.expired, no_token, "tls", "it has expired"),
    "a certificate that is not in the ACL file": Way(files_of("nobody"), no_token, "denied", "has no role"),
    "a token with another secret": Way(
        files_of("nobody"), lambda _: new_token("web-1"), "unauthenticated", "token web-1 is not known here"
    ),
    "a token of another cluster": Way(
        files_of("nobody"), lambda _: new_token("far"), "unauthenticated", "token far is not known here"
    ),
    "an expired token": Way(
        files_of("nobody"), lambda target: target.tokens["late"], "unauthenticated", "expired"
    ),
    "half of a token": Way(files_of("nobody"), lambda _: "lr_web-1_x", "unauthenticated", "token"),
    "a JWT of an unknown issuer": Way(
        files_of("nobody"), lambda _: "eyJhbGciOiJub25lIn0.e30.", "unauthenticated", "accepts no JWTs"
    ),
    "a wrong token beside a certificate with rights": Way(
        files_of("test"), lambda _: new_token("web-1"), "unauthenticated", "token web-1 is not known here"
    ),
}


def enter(target: Guarded, port: str, files: ClientFiles, token: str) -> tuple[str, str]:
    """Come in at a port, and ask for something; return the code and the text of the refusal, "" if there is none."""
    if port == GRPC:
        with target.caller(token, files=files) as caller:
            try:
                caller.find("jobs/1")
            except grpc.RpcError as error:
                found = refusal(error)
                return found.code.name, found.text
        return "", ""
    try:
        with target.wire(port, files) as wire:
            answer = wire.greet(credential=token)
            if isinstance(answer, Welcome):
                answer = wire.request(Describe(1, "jobs/1") if port == LOCK else GetState(1))
    except Unauthenticated as error:
        return "tls", str(error)
    return (answer.code, answer.text) if isinstance(answer, Refusal) else ("", "")


OVER_GRPC = {"tls": "UNAVAILABLE", "unauthenticated": "UNAUTHENTICATED", "denied": "PERMISSION_DENIED"}


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_way_in_that_is_not_enough_is_refused_with_its_reason(target: Guarded, port: str, way: str) -> None:
    files, token, code, says = WAYS[way]
    shown, text = enter(target, port, files(target), token(target))
    assert shown == (OVER_GRPC[code] if port == GRPC else code)
    if not (port == GRPC and code == "tls"):  # gRPC does not say why a handshake has failed
        assert says in text


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(("name", "token"), [("test", ""), ("nobody", "test")])
def test_the_ways_that_are_enough_are_not(target: Guarded, port: str, name: str, token: str) -> None:
    shown = target.tokens[token] if token else ""
    assert enter(target, port, target.files(name), shown) == ("", "")


# ----------------------------------------------------------------------- rights on other names


@pytest.mark.parametrize(("port", "message", "right"), [
    (LOCK, Describe(1, "other"), "read"),
    (LOCK, Watch(1, "other"), "watch"),
    (LOCK, Drain(1, "N1"), "drain"),
    (LOCK, GetState(1), "read"),
    (LEADER, Drain(1, "N1"), "drain"),
    (LEADER, GetState(1), "read"),
])  # fmt: skip
def test_rights_on_other_names_are_not_enough(
    target: Guarded, port: str, message: Message, right: str
) -> None:
    for files, token in ((target.files("nobody"), target.tokens["web-1"]), (target.files("web-1"), "")):
        with target.wire(port, files) as wire:
            assert isinstance(wire.greet(credential=token), Welcome)
            answer = wire.request(message)
        assert isinstance(answer, Refusal), answer
        assert (answer.code, answer.right) == ("denied", right)
        assert " web-1 may not " in answer.text


def test_rights_on_other_names_are_not_enough_over_grpc(target: Guarded) -> None:
    with target.caller("web-1", files=target.files("nobody")) as caller:
        calls: list[tuple[str, Callable[[], Any]]] = [
            ("acquire", functools.partial(caller.lock, "other", "k")),
            ("read", functools.partial(caller.find, "other")),
            ("drain", functools.partial(caller.drain, "N1")),
            ("read", lambda: caller.stub.GetClusterState(pb.GetClusterStateRequest(), timeout=PATIENCE_S)),
        ]
        for right, call in calls:
            with pytest.raises(grpc.RpcError) as caught:
                call()
            found = refusal(caught.value)
            assert found.code is grpc.StatusCode.PERMISSION_DENIED
            assert f"token web-1 may not {right}" in found.text


# ----------------------------------------------------------------------- clients where nodes are meant


@pytest.mark.parametrize("name", ["test", "node N7", "nobody"])
@pytest.mark.parametrize("port", [LOCK, LEADER])
def test_a_clients_certificate_makes_no_node_whatever_it_says_and_may(
    target: Guarded, port: str, name: str
) -> None:
    """With the handshake of a client; `test_tls` has that of a server."""
    hello: Message = PeerHello(PROTOCOL, "", "N7", 1, to_node="N1", to_incarnation=1)
    if port == LEADER:
        hello = Join(PROTOCOL, "", "N7", 1, "127.0.0.1:1", weight=1, version=0)
    files = target.files("urn:lockring:node:N7" if name == "node N7" else name)
    with target.wire(port, files) as wire:
        wire.send(hello)
        found = wire.refusal()
    assert found.code in ("denied", "unauthenticated"), found
    assert "certificate" in found.text
    lines = target.audited(("name", "N7"))
    assert {line["act"] for line in lines if line.get("name") == "N7"} == {"denied"}


# ----------------------------------------------------------------------- taken away while connected


@pytest.mark.parametrize("shown", ["token", "certificate"])
def test_an_identity_that_is_removed_from_the_acl_file_is_refused_at_every_port_at_once(
    target: Guarded, shown: str
) -> None:
    files, token = (
        (target.files("nobody"), target.tokens["web-1"]) if shown == "token" else (target.files("web-1"), "")
    )
    with (
        target.wire(LOCK, files) as at_node,
        target.wire(LEADER, files) as at_leader,
        target.caller(token, files=files) as caller,
    ):
        for wire in (at_node, at_leader):
            assert isinstance(wire.greet(credential=token), Welcome)
        assert isinstance(at_node.request(Watch(1, "jobs/1")), WatchNotice)
        assert isinstance(at_node.request(Describe(2, "jobs/1")), DescribeReply)
        caller.find("jobs/1")
        stream = caller.stub.Watch(pb.WatchRequest(name="jobs/1"), timeout=2 * PATIENCE_S)
        next(stream)
        removed = target.rules.pop("web-1")
        target.write()
        try:
            see_refused(lambda: at_node.request(Describe(3, "jobs/1")))
            see_refused(lambda: at_leader.request(Drain(3, "N9")))

            def is_refused() -> bool:
                try:
                    caller.find("jobs/1")
                except grpc.RpcError as error:
                    return error.code() in (  # type: ignore[attr-defined]
                        grpc.StatusCode.UNAUTHENTICATED,
                        grpc.StatusCode.PERMISSION_DENIED,
                    )
                return False

            eventually(is_refused)
            with target.caller("test", files=target.files("test")) as admin:
                admin.lock("jobs/1", "k")  # a change of the lock, which the watches must not show
                admin.unlock("jobs/1", "k")
            with pytest.raises(grpc.RpcError) as caught:
                list(stream)
            assert refusal(caught.value).code in (
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.PERMISSION_DENIED,
            )
        finally:
            target.rules["web-1"] = removed
            target.write()
            for port in PORTS:
                eventually(functools.partial(has_a_role, target, port, files, token))


def has_a_role(target: Guarded, port: str, files: ClientFiles, token: str) -> bool:
    """Whether an identity is let in at a port, whatever it may do there."""
    code, text = enter(target, port, files, token)
    return not code or "may not read" in text


def see_refused(ask: Callable[[], Message]) -> None:
    """Wait until a question is refused, or the connection is over with a refusal."""

    def is_refused() -> bool:
        try:
            answer = ask()
        except (EOFError, LockringError, OSError):
            return True
        return isinstance(answer, Refusal) and answer.code in ("denied", "unauthenticated")

    eventually(is_refused)


def test_the_state_is_answered_to_identities_that_may_read_it(target: Guarded) -> None:
    for port in (LOCK, LEADER):
        with target.wire(port, target.files("test")) as wire:
            wire.greet()
            assert isinstance(wire.request(GetState(1)), StateReply)
