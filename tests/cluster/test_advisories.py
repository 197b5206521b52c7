"""The holes that etcd's advisories report, each shown not to be here.

They are at https://github.com/etcd-io/etcd/security/advisories.
Each heading names one, and each test what must not happen.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from lockring.addresses import split_address
from lockring.client.tls import ClientFiles
from lockring.core.access import GRPC_REQUIREMENTS, REQUIREMENTS, Condition
from lockring.errors import Denied
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.ids import SessionId
from lockring.net.oneshot import ask_state
from lockring.protocol import (
    Describe,
    DescribeGroup,
    FollowGroup,
    GetRoutes,
    Keepalive,
    KeepaliveReply,
    List,
    ListReply,
    Refusal,
    ToCoordinator,
    ToNode,
    Watch,
    WatchNotice,
    Welcome,
)
from lockring.security.certs import CertMaker
from lockring.security.handshakes import HANDSHAKE_S_MAX
from tests.cluster.grpc_calls import refusal
from tests.cluster.guarded import LOCK, PORTS, Guarded, dial_by, guarded
from tests.cluster.running import Running
from tests.cluster.test_ways_in import enter, has_a_role
from tests.processes import PATIENCE_S, eventually

SECRETS = ("jobs", "jobs!", "jobs/secret/1", "jobs/secret/2", "jobs0", "secret", "zzz")
"""Locks that an admin holds and web-3 may not read: beside, behind and within what it may."""

SHOWN = ("jobs/1", "jobs/secre", "jobs/secret", "jobs/z")
"""Locks that it may read."""

LABEL = "the-label-of-the-admin"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Two nodes at which an admin holds locks."""
    with guarded(tmp_path_factory.mktemp("advisories"), nodes=2, client_auth="optional") as found:
        found.give("web-3", *(f"{verb} jobs/*" for verb in ("read", "watch")), *DENIED)
        with found.client("test", owner=LABEL, ttl=20) as admin:
            names = (*SECRETS, *SHOWN, "group:secret")
            grants = [admin.lock(name).acquire(timeout=PATIENCE_S) for name in names]
            eventually(lambda: enter(found, LOCK, found.bare, found.tokens["web-3"]) == ("", ""))
            yield found
            assert len(grants) == len(names)  # they are given up without a reference


DENIED = ("deny read jobs/secret/*", "deny watch jobs/secret/*")


def only_at_one(target: Guarded, names: list[str], node: str) -> str:
    """The first of the names whose primary is a node."""
    return next(each for each in names if target.cluster.primary_of(each) == node)


def denied(call: Any) -> str:
    """The right that a gRPC call lacks."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    found = refusal(caught.value)
    assert found.code is grpc.StatusCode.PERMISSION_DENIED, found
    return found.text


# --------- GHSA-xg4h-6gfc-h4m8: a watch "from this key on" showed all later keys


def test_a_list_shows_no_name_outside_what_may_be_read_however_its_prefix_and_pages_are_cut(
    target: Guarded,
) -> None:
    """At each node, from each place and in each size of page; a place in a page is a name that may be secret too."""
    for prefix in ("", "j", "jobs", "jobs/", "jobs/secre", "jobs/secret"):
        found: set[str] = set()
        for node in target.cluster.nodes:
            for limit in (1, 2, 1000):
                with target.wire_at(node, target.bare) as wire:
                    wire.greet(credential=target.tokens["web-3"])
                    slot, after = 0, ""
                    while slot >= 0:
                        page = wire.request(List(1, prefix, slot, after, limit))
                        assert isinstance(page, ListReply), page
                        slot, after = page.next_slot, page.next_name
                        assert after not in SECRETS
                        found |= {each.name for each in page.locks}
        assert found == {each for each in SHOWN if each.startswith(prefix)}


@pytest.mark.parametrize("prefix", ["jobs/secret/", "secret", "group:", "z"])
def test_a_list_of_secrets_alone_is_not_answered_by_an_empty_one(target: Guarded, prefix: str) -> None:
    """An empty page would say that there is nothing."""
    with target.wire(LOCK) as wire:
        wire.greet(credential=target.tokens["web-3"])
        answer = wire.request(List(1, prefix))
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.right) == ("denied", "read")


def test_lists_over_grpc_and_of_the_commands_show_the_same_and_no_more(target: Guarded) -> None:
    names: set[str] = set()
    for node in target.cluster.nodes:
        with target.caller("web-3", node=node) as caller:
            token = ""
            while True:
                request = pb.ListLocksRequest(prefix="", page_size=2, page_token=token)
                page = caller.stub.ListLocks(request, timeout=PATIENCE_S)
                names |= {each.name for each in page.locks}
                token = page.next_page_token
                if not token:
                    break
    assert names == set(SHOWN)
    servers = ("--server", target.cluster.servers, "--ca", target.bare.ca)
    token_file = ("--token-file", str(target.token_file("web-3")))
    listed = Running("ls", *servers, *token_file, "--json")
    assert listed.wait() == 0
    assert not any(f'"{name}"' in listed.text for name in SECRETS)
    assert all(f'"{name}"' in listed.text for name in SHOWN)
    assert Running("groups", *servers, *token_file).wait() == 77
    assert Running("watch", "secret", *servers, *token_file).wait() == 77


@pytest.mark.parametrize("name", ["jobs", "jobs/secret/1", "jobs0", "secret", "group:secret"])
def test_no_watch_begins_outside_what_may_be_watched(target: Guarded, name: str) -> None:
    with target.wire_at(target.cluster.primary_of(name), target.bare) as wire:
        wire.greet(credential=target.tokens["web-3"])
        answer = wire.request(Watch(1, name))
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.right) == ("denied", "watch")
    with target.caller("web-3") as caller:
        says = denied(lambda: next(caller.stub.Watch(pb.WatchRequest(name=name), timeout=PATIENCE_S)))
        assert "may not watch" in says


def test_no_update_comes_of_a_lock_that_may_not_be_watched_any_more(target: Guarded) -> None:
    target.give("web-4", "watch jobs/z")
    primary = target.cluster.primary_of("jobs/z")
    eventually(lambda: is_let_in(target, primary, "web-4"))
    with target.wire_at(primary, target.bare) as wire, target.client("test") as admin:
        wire.greet(credential=target.tokens["web-4"])
        assert isinstance(wire.request(Watch(1, "jobs/z")), WatchNotice)
        target.give("web-4", "watch jobs/y", keep_token=True)

        def is_in_force() -> bool:
            """Whether the ACL file is in force; the watch must be over then."""
            with target.wire_at(primary, target.bare) as other:
                other.greet(credential=target.tokens["web-4"], client="other")
                return isinstance(other.request(Watch(1, "jobs/z")), Refusal)

        eventually(is_in_force)
        (holder,) = admin.describe("jobs/z").holders
        admin.break_lock("jobs/z", holder.fencing_token)
        answer = wire.read()
    assert isinstance(answer, Refusal), answer
    assert (answer.request, answer.code) == (1, "denied")


def is_let_in(target: Guarded, node: str, who: str) -> bool:
    with target.wire_at(node, target.bare) as wire:
        return isinstance(wire.greet(credential=target.tokens[who]), Welcome)


# --------- GHSA-q8m4-xhhv-38mg: MemberList, Alarm and the lease API asked for no identity


def test_no_message_and_no_method_is_without_a_row_or_free_by_default() -> None:
    """`test_scan` sends each of them. Whatever has no row is refused: see the tests of the cores and of gRPC."""
    assert set(REQUIREMENTS) == {*ToNode.__args__, *ToCoordinator.__args__}
    free = {kind.__name__ for kind, row in REQUIREMENTS.items() if row.condition is Condition.FREE}
    free |= {name for name, row in GRPC_REQUIREMENTS.items() if row.condition is Condition.FREE}
    assert free == {"ClientHello", "grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"}


def test_no_state_of_the_cluster_is_shown_to_an_identity_that_may_read_some_names(target: Guarded) -> None:
    for server in (target.cluster.address_of("N1"), target.cluster.address_of("coordinator")):
        with pytest.raises(Denied) as caught:
            ask_state(
                server, dial=dial_by(target.bare), credential=target.tokens["web-3"], timeout_s=PATIENCE_S
            )
        assert caught.value.right == "read"
    with target.caller("web-3") as caller:
        request = pb.GetClusterStateRequest()
        assert "may not read" in denied(lambda: caller.stub.GetClusterState(request, timeout=PATIENCE_S))


def test_no_lease_is_renewed_ended_or_looked_at_by_another_identity(target: Guarded) -> None:
    with target.client("web-2", ttl=20) as owner:
        grant = owner.lock("jobs/mine").acquire(timeout=PATIENCE_S)
        session = SessionId(str(grant._ticket.session.id))
        with target.wire_at(target.cluster.primary_of("jobs/mine"), target.bare) as wire:
            wire.greet(credential=target.tokens["web-1"], client="other")
            asked = Keepalive(1, session, 20_000, "me", through=9, count=1, digest=0)
            answer = wire.request(asked)
            # As for a session that does not exist: nothing in it is renewed, and nothing of it is said.
            assert isinstance(answer, KeepaliveReply)
            assert (answer.agreed, answer.slots, answer.acquisitions) == (False, [], [])
        assert grant.verify()
        grant.release()


# --------- GHSA-rfx7-8w68-q57q and GHSA-x35m-3gp4-4fh5: what is nested in a request was not checked


def test_no_set_of_locks_is_acquired_if_one_of_them_may_not_be(target: Guarded) -> None:
    with target.client("web-1") as client:
        with pytest.raises(Denied, match="may not acquire 'other'") as caught:
            client.acquire_all(["jobs/a", "jobs/b", "other", "jobs/c"], timeout=PATIENCE_S)
        assert caught.value.right == "acquire"
        for name in ("jobs/a", "jobs/b", "jobs/c"):
            assert client.describe(name).holders == []


def test_no_group_is_joined_described_or_followed_by_a_right_for_other_locks(target: Guarded) -> None:
    """A group's membership is a lock named group:NAME."""
    with target.client("web-1") as client, pytest.raises(Denied) as caught:
        client.group("secret").join(timeout=PATIENCE_S)
    assert (caught.value.right, caught.value.name) == ("acquire", "group:secret")
    with target.wire_at(target.cluster.primary_of("group:secret"), target.bare) as wire:
        wire.greet(credential=target.tokens["web-1"])
        for number, message in enumerate(
            [
                DescribeGroup(1, "group:secret"),
                Describe(2, "group:secret"),
                FollowGroup(3, "group:secret", "s", 1),
            ],
            start=1,
        ):
            answer = wire.request(message)
            assert isinstance(answer, Refusal), answer
            assert (answer.request, answer.code) == (number, "denied")


def test_no_lock_of_another_identity_is_renewed_in_a_list_of_ones_own(target: Guarded) -> None:
    with target.caller("web-1") as one, target.caller("web-2") as two:
        one.lock("jobs/one", "k")
        two.lock("jobs/two", "k")
        foreign = pb.HeldLock(name="jobs/two", session=two.session, idempotency_key="k", ttl_ms=20_000)
        verdicts = {each.name: each.verdict for each in one.keep(one.held("jobs/one", "k"), foreign)}
        assert verdicts == {
            "jobs/one": pb.VERDICT_HELD,
            "jobs/two": pb.VERDICT_LOST,
        }  # as of one that never was
        (own,) = two.keep(two.held("jobs/two", "k"))
        assert own.verdict == pb.VERDICT_HELD
        one.unlock("jobs/one", "k")
        two.unlock("jobs/two", "k")


# --------- etcd#22065: a proxy asked for itself, and gave its cache to anyone


def test_no_node_that_forwards_lends_its_own_rights_or_the_answer_for_another_identity(
    target: Guarded,
) -> None:
    """Each call goes to the node that is not the lock's primary, so that this one forwards all of them."""
    primary = target.cluster.primary_of("secret")
    front = next(each for each in target.cluster.nodes if each != primary)
    with target.caller("test", node=front) as admin, target.caller("web-1", node=front) as web:
        for _ in range(3):
            (holder,) = admin.find("secret").lock.holders
            assert holder.owner == LABEL
            assert "token web-1 may not read 'secret'" in denied(lambda: web.find("secret"))
            assert "may not acquire 'secret'" in denied(lambda: web.lock("secret", "k"))
        name = only_at_one(target, [f"free/{number}" for number in range(100)], primary)
        admin.lock(name, "k")
        admin.unlock(name, "k")
    lines = target.audited(("name", name), ("act", "release"))
    (acquired,) = (each for each in lines if each.get("name") == name and each["act"] == "acquire")
    assert (acquired["server"], acquired["who"], acquired["via"]) == (primary, "test", front)


# --------- GHSA-3wh4-j44w-pg92: one listener took certificates that the others refused


@pytest.mark.parametrize("change", ["the authority", "the ACL file"])
def test_no_port_goes_on_accepting_a_certificate_that_was_taken_back(tmp_path: Path, change: str) -> None:
    with guarded(tmp_path, nodes=1, client_auth="required") as target:
        trusted = tmp_path / "servers-ca.pem"
        trusted.write_bytes((target.certs / "ca.pem").read_bytes())
        old, other = (target.files(name)._replace(ca=str(trusted)) for name in ("test", "web-1"))
        assert [enter(target, port, old, "") for port in PORTS] == [("", "")] * len(PORTS)
        if change == "the authority":
            other = of_new_authority(target, "late")._replace(ca=str(trusted))
        else:
            del target.rules["test"]
            target.write()
        for port in PORTS:
            eventually(functools.partial(is_refused, target, port, old))
            assert has_a_role(target, port, other, ""), "the servers live, and let others in"


def is_refused(target: Guarded, port: str, files: ClientFiles) -> bool:
    return enter(target, port, files, "")[0] in ("tls", "denied", "UNAVAILABLE", "PERMISSION_DENIED")


def of_new_authority(target: Guarded, name: str) -> ClientFiles:
    """Put another authority in the place of the one for clients, and return a certificate of it."""
    fresh = CertMaker(target.directory / "fresh", replace=True)
    fresh.authorities()
    made = fresh.client(name)
    (target.certs / "ca.pem").write_bytes((target.directory / "fresh" / "ca.pem").read_bytes())
    return ClientFiles(str(target.certs / "ca.pem"), str(made.cert), str(made.key))


# --------- GHSA-6vch-q96h-7gc3: a handshake had no time-out


def test_no_handshake_stays_open_that_is_not_finished(target: Guarded) -> None:
    """A client that says nothing, and one that says half of its hello, lose their connections. Others are served."""
    begun = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

    def closed_after_s(port: str, sent: bytes) -> float:
        with socket.create_connection(split_address(target.address(port)), timeout=PATIENCE_S) as sock:
            sock.sendall(sent)
            began_s = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(4096):
                    continue
            return time.monotonic() - began_s

    cases = [(port, sent) for port in PORTS for sent in (b"", begun)]
    with ThreadPoolExecutor(len(cases)) as pool:
        waits = [pool.submit(closed_after_s, *case) for case in cases]
        assert [enter(target, port, target.files("test"), target.tokens["test"]) for port in PORTS] == [
            ("", "")
        ] * len(PORTS)
        assert all(each.result() < PATIENCE_S for each in waits)
    assert HANDSHAKE_S_MAX < PATIENCE_S


# --------- etcd#15872: LeaseTimeToLive showed the keys of a lease


def test_no_holder_waiter_or_label_is_shown_without_the_right_to_read_that_name(target: Guarded) -> None:
    """Not by a description, not by a wait, and not by a refusal."""
    target.give("web-5", "acquire secret", "read jobs/*", "acquire jobs/*")
    primary = target.cluster.primary_of("secret")
    eventually(lambda: is_let_in(target, primary, "web-5"))
    with target.client("web-5") as client:
        with pytest.raises(Denied) as caught:
            client.describe("secret")
        assert caught.value.right == "read"
        assert LABEL not in str(caught.value)
        assert client.lock("secret").try_acquire() is None
    with target.wire_at(primary, target.bare) as wire:
        wire.greet(credential=target.tokens["web-5"])
        for message in (Describe(1, "secret"), Watch(2, "secret"), List(3, "secret")):
            answer = wire.request(message)
            assert isinstance(answer, Refusal), answer
            assert LABEL not in repr(answer)


def test_no_id_by_which_a_lock_could_be_released_is_shown_to_others(target: Guarded) -> None:
    with target.client("web-2", ttl=20) as owner, target.client("web-1") as other:
        grant = owner.lock("jobs/ids").acquire(timeout=PATIENCE_S)
        session = str(grant._ticket.session.id)
        node = target.cluster.primary_of("jobs/ids")
        for who, is_shown in (("web-1", False), ("web-2", True), ("test", True)):
            with target.wire_at(node, target.bare) as wire:
                wire.greet(credential=target.tokens[who], client=who)
                shown = [repr(wire.request(each)) for each in (Describe(1, "jobs/ids"), List(2, "jobs/ids"))]
            assert [session in each for each in shown] == [is_shown] * 2
        assert session not in repr(other.describe("jobs/ids"))
        grant.release()


def test_no_routes_say_more_than_where_the_nodes_are(target: Guarded) -> None:
    """They go to each identity: the addresses and lives of nodes, and which node has which slots."""
    with target.wire(LOCK) as wire:
        wire.greet(credential=target.tokens["idle"])
        wire.send(GetRoutes(1))
        routes = wire.read_routes()
    assert set(routes.__struct_fields__) == {"version", "members", "primaries", "coordinator"}
