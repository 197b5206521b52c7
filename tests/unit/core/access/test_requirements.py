"""No message and no method is without a row in the tables of required rights."""

from __future__ import annotations

from typing import get_args

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from lockring.core.access import (
    GRPC_REQUIREMENTS,
    HTTP_REQUIREMENTS,
    NOTHING,
    REQUIREMENTS,
    Condition,
    Grantee,
    Quota,
    Verb,
    missing_right,
)
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.protocol import (
    Acquire,
    Break,
    CloseSession,
    Describe,
    Drain,
    GetState,
    GetStatus,
    Keepalive,
    PeerHello,
    Release,
    ToCoordinator,
    ToNode,
    Watch,
)
from lockring.protocol.identities import Identity


def test_every_message_that_a_server_accepts_has_a_row_and_no_other() -> None:
    assert set(REQUIREMENTS) == set(get_args(ToNode)) | set(get_args(ToCoordinator))


def test_every_method_that_a_node_serves_over_grpc_has_a_row_and_no_other() -> None:
    methods = {
        f"{service.full_name}/{method.name}"
        for file in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert set(GRPC_REQUIREMENTS) == methods


def test_a_verb_is_named_where_a_right_is_needed_and_only_there() -> None:
    with_verb = {
        Condition.NAME,
        Condition.EACH_NAME,
        Condition.EVERYTHING,
        Condition.NODE,
        Condition.OWNER_AND_NAME,
    }
    for row in (*REQUIREMENTS.values(), *GRPC_REQUIREMENTS.values(), *HTTP_REQUIREMENTS.values()):
        assert (row.verb is not None) == (row.condition in with_verb)


def test_a_message_and_its_method_ask_for_the_same() -> None:
    pairs = {
        Acquire.__name__: "Lock",
        Release.__name__: "Unlock",
        Keepalive.__name__: "KeepAlive",
        Describe.__name__: "FindLockOwner",
        Watch.__name__: "Watch",
        Break.__name__: "BreakLock",
    }
    by_name = {kind.__name__: row for kind, row in REQUIREMENTS.items()}
    for message, method in pairs.items():
        assert by_name[message] == GRPC_REQUIREMENTS[f"lockring.v1.LockService/{method}"]


def test_only_the_first_word_and_the_health_service_are_free() -> None:
    free = {kind.__name__ for kind, row in REQUIREMENTS.items() if row.condition is Condition.FREE}
    free |= {method for method, row in GRPC_REQUIREMENTS.items() if row.condition is Condition.FREE}
    assert free == {"ClientHello", *(f"grpc.health.v1.Health/{each}" for each in ("Check", "Watch"))}


def test_of_the_pages_over_http_those_about_health_and_signing_in_alone_are_free() -> None:
    free = {page for page, row in HTTP_REQUIREMENTS.items() if row.condition is Condition.FREE}
    health, looks = ("livez", "healthz", "readyz", "leader"), ("dashboard.css", "dashboard.js", "icon.svg")
    signing_in = {"GET /sign-in", "POST /sign-in", "POST /sign-out"}
    assert free == {f"GET /{each}" for each in (*health, *looks)} | signing_in


def test_a_session_is_its_owners_and_a_servers_message_a_servers() -> None:
    assert REQUIREMENTS[CloseSession].condition is Condition.OWNER
    assert REQUIREMENTS[PeerHello].condition is Condition.SERVER
    assert REQUIREMENTS[Break].verb is Verb.BREAK


def test_a_server_may_read_everything_and_give_no_orders() -> None:
    server = Grantee(Identity("node", "n1"), NOTHING, Quota("node n1"))
    client = Grantee(Identity("token", "n1"), NOTHING, Quota("token n1"))
    for question in (GetState, GetStatus):
        assert missing_right(server, REQUIREMENTS[question]) is None
        assert missing_right(client, REQUIREMENTS[question]) is not None
    assert missing_right(server, REQUIREMENTS[Drain], "n2") is not None
    assert missing_right(server, REQUIREMENTS[Describe], "x") is not None
    assert missing_right(server, REQUIREMENTS[Acquire], "x") is not None
