"""The store in etcd, where a member or the way to it does not behave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lockring.cluster_state import ClusterState, encode_state
from lockring.core.coordinator import OPERATION_TIMEOUT_NS
from lockring.core.election import Candidate, Election
from lockring.errors import StoreError
from lockring.store.etcd.calls import LEASE_REVOKE, RANGE, TXN, Method, OutOfSpace
from lockring.store.etcd.etcd_pb2 import (
    LeaseRevokeRequest,
    Operation,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from lockring.store.etcd.store import STATE_BYTES_MAX, EtcdStore
from lockring.units import NS_PER_S
from tests.middlebox import Middlebox
from tests.stores.servers import HOST
from tests.stores.servers_etcd import PATIENCE_S, EtcdServer

ONE = Candidate("term-1", "one:9500")
TWO = Candidate("term-2", "two:9500")
GIVEN_UP_S = OPERATION_TIMEOUT_NS / NS_PER_S
"""When a coordinator gives up an operation. The store promises to be done before, with some seconds to spare."""


def state(version: int, term: str = ONE.term) -> ClusterState:
    return ClusterState(cluster="c", version=version, term=term)


def state_of(size: int) -> ClusterState:
    """A state of version 2 whose encoding has this many bytes."""
    rest = len(encode_state(msgspec.structs.replace(state(2), coordinator="x" * 100_000))) - 100_000
    found = msgspec.structs.replace(state(2), coordinator="x" * (size - rest))
    assert len(encode_state(found)) == size
    return found


def leading(url: str) -> EtcdStore:
    """A store that leads and has a state."""
    store = EtcdStore(url)
    assert store.campaign(ONE, 60_000).leader == ONE
    assert store.write(0, state(1))
    return store


def put(server: EtcdServer, key: str, value: bytes, **more: Any) -> None:
    operation = Operation(put=PutRequest(key=key.encode(), value=value))
    server.call(TXN, TxnRequest(success=[operation]), **more)


def fill(server: EtcdServer) -> None:
    """Use up a server's space."""
    until_s = time.monotonic() + PATIENCE_S
    number = 0
    while time.monotonic() < until_s:
        try:
            put(server, f"other/{number}", bytes(100_000))
        except OutOfSpace:
            return
        number += 1
    raise AssertionError("it still has space")


@pytest.fixture
def box(etcd: EtcdServer) -> Iterator[Middlebox]:
    with Middlebox(f"{HOST}:{etcd.ports[0]}") as box:
        yield box


def through(box: Middlebox, etcd: EtcdServer, name: str) -> EtcdStore:
    """A store that leads and has a state, reached through the box."""
    return leading(etcd.url(name, ports=[port_of(box)]))


def port_of(box: Middlebox) -> int:
    return int(box.address.rpartition(":")[2])


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EtcdServer]:
    """A server of the test's own, to be killed."""
    server = EtcdServer(tmp_path / "etcd")
    yield server
    server.kill()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdServer]:
    """A cluster of three members of the test's own."""
    server = EtcdServer(tmp_path / "etcd", 3)
    yield server
    server.kill()


# ---------------------------------------------------------------------------- members


@pytest.mark.slow
def test_each_member_alone_may_be_killed_while_coordinators_go_on(three: EtcdServer) -> None:
    store = leading(three.url())
    for version, member in enumerate(three.members, start=1):
        three.kill(member)
        # A call may last for longer than its deadline while the other two elect a leader on a busy machine.
        assert eventually_read(store) == state(version)
        eventually_written(store, version, state(version + 1))
        assert store.campaign(ONE, 60_000).leader == ONE
        three.start(member)
        three.wait()
    store.close()


def eventually_written(store: EtcdStore, expected: int, new: ClusterState) -> None:
    """Write as a coordinator does: after an error, read, and write unless it is there."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            assert store.write(expected, new)
        except StoreError:
            assert time.monotonic() < until_s
            if eventually_read(store) != new:
                continue
        return


def eventually_read(store: EtcdStore) -> ClusterState | None:
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return store.read()
        except StoreError:
            assert time.monotonic() < until_s


@pytest.mark.slow
def test_without_a_majority_nothing_is_read_and_with_it_everything_is_there_again(three: EtcdServer) -> None:
    store = leading(three.url())
    three.kill(0, 1)
    begun_s = time.monotonic()
    with pytest.raises(StoreError, match="cannot be read"):
        store.read()
    with pytest.raises(StoreError, match="cannot be written"):
        store.write(1, state(2))
    with pytest.raises(StoreError, match="cannot be asked for the leader"):
        store.campaign(ONE, 60_000)
    assert time.monotonic() - begun_s < 3 * GIVEN_UP_S
    three.start(0)
    three.wait()
    assert eventually_read(store) == state(1)
    assert store.campaign(ONE, 60_000).leader == ONE
    assert store.write(1, state(2))
    store.close()


def test_state_and_lead_outlive_a_restart_of_the_whole_cluster(three: EtcdServer) -> None:
    store = leading(three.url())
    three.kill()
    with pytest.raises(StoreError, match="cannot be read"):
        store.read()
    for member in three.members:
        three.start(member)
    three.wait()
    assert eventually_read(store) == state(1)
    assert store.campaign(TWO, 60_000) == Election(ONE, (TWO,))
    assert store.write(1, state(2))
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_member_that_stands_still_is_passed_over(three: EtcdServer, member: int) -> None:
    store = leading(three.url())
    three.freeze(member)
    try:
        assert eventually_read(store) == state(1)
        eventually_written(store, 1, state(2))
        begun_s = time.monotonic()
        assert store.campaign(ONE, 60_000).leader == ONE
        assert store.read() == state(2)
        assert time.monotonic() - begun_s < 2 * GIVEN_UP_S
    finally:
        three.thaw(member)
    store.close()


def test_a_member_that_is_not_there_is_passed_over_from_the_start(etcd: EtcdServer, name: str) -> None:
    store = leading(etcd.url(name, ports=[1, *etcd.ports]))
    assert store.read() == state(1)
    store.close()


def test_a_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreError, match=rf"etcd \(etcd://{HOST}:1/p\) cannot be opened: .*refused"):
        EtcdStore(f"etcd://{HOST}:1/p")


def test_a_store_goes_on_after_its_only_member_was_killed_and_started_again(own: EtcdServer) -> None:
    store = leading(own.url())
    own.kill()
    with pytest.raises(StoreError, match="refused"):
        store.read()
    own.start(0)
    own.wait()
    assert eventually_read(store) == state(1)
    assert store.write(1, state(2))
    assert store.campaign(ONE, 60_000).leader == ONE
    store.close()


@pytest.mark.slow
def test_a_cluster_that_stands_still_fails_a_call_in_time(own: EtcdServer) -> None:
    store = leading(own.url())
    own.freeze()
    try:
        begun_s = time.monotonic()
        with pytest.raises(StoreError, match="does not answer in time"):
            store.read()
        with pytest.raises(StoreError, match="cannot be written"):
            store.write(1, state(2))
        assert time.monotonic() - begun_s < 2 * GIVEN_UP_S
    finally:
        own.thaw()
    assert eventually_read(store) == state(1)
    store.close()


# ---------------------------------------------------------------------------- answers that are lost


def once(monkeypatch: pytest.MonkeyPatch, store: EtcdStore, before_write: Any) -> None:
    """Do something between the read of the next write and its transaction."""
    real, calls = store._calls.once, store._calls
    is_done: list[bool] = []

    def do(method: Method[Any, Any], request: Any, until_s: float) -> Any:
        if method is TXN and not is_done:
            is_done.append(True)
            before_write()
        return real(method, request, until_s)

    monkeypatch.setattr(calls, "once", do)


def test_a_connection_that_was_cut_while_idle_is_opened_again_without_an_error(
    box: Middlebox, etcd: EtcdServer, name: str
) -> None:
    store = through(box, etcd, name)
    box.reset()
    assert store.read() == state(1)
    box.reset()
    assert store.campaign(ONE, 60_000).leader == ONE
    box.reset()
    assert store.write(1, state(2))
    store.close()


def test_a_write_whose_answer_is_lost_has_taken_place(
    box: Middlebox, etcd: EtcdServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = through(box, etcd, name)
    once(monkeypatch, store, lambda: box.forget(there=False))
    assert store.write(1, state(2))
    assert store.read() == state(2)
    store.close()


def test_a_write_that_never_arrives_is_of_unknown_outcome(
    box: Middlebox, etcd: EtcdServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = through(box, etcd, name)
    once(monkeypatch, store, lambda: box.forget(back=False))
    with pytest.raises(StoreError, match="it is unknown whether etcd"):
        store.write(1, state(2))
    assert store.read() == state(1)
    assert store.write(1, state(3))
    store.close()


def test_a_write_into_a_connection_that_is_cut_is_of_unknown_outcome_or_stored(
    box: Middlebox, etcd: EtcdServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = through(box, etcd, name)
    once(monkeypatch, store, box.reset)
    outcomes: list[object] = []
    try:
        outcomes.append(store.write(1, state(2)))
    except StoreError as error:
        outcomes.append(str(error))
    if outcomes == [True]:
        assert store.read() == state(2)
    else:
        assert "it is unknown whether" in str(outcomes)
        assert store.read() == state(1)
    store.close()


@pytest.mark.slow
def test_a_write_that_never_arrives_while_another_coordinator_writes_has_not_taken_place(
    box: Middlebox, etcd: EtcdServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = through(box, etcd, name)
    other = EtcdStore(etcd.url(name))

    def lose_it() -> None:
        assert other.write(1, state(5))
        box.forget(back=False)

    once(monkeypatch, store, lose_it)
    assert not store.write(1, state(2))
    assert store.read() == state(5)
    store.close()
    other.close()


def test_a_write_that_arrives_after_another_one_is_refused(
    etcd: EtcdServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = leading(etcd.url(name)), EtcdStore(etcd.url(name))
    once(monkeypatch, store, lambda: other.write(1, state(5)))
    assert not store.write(1, state(2))
    assert store.read() == state(5)
    store.close()
    other.close()


def test_a_first_write_that_arrives_after_another_one_is_refused(
    etcd: EtcdServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = EtcdStore(etcd.url(name)), EtcdStore(etcd.url(name))
    assert store.campaign(ONE, 60_000).leader == ONE
    once(monkeypatch, store, lambda: other.write(0, state(5)))
    assert not store.write(0, state(2))
    assert store.read() == state(5)
    store.close()
    other.close()


def test_a_write_that_cannot_be_read_back_is_of_unknown_outcome(
    own: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = leading(own.url())
    once(monkeypatch, store, own.kill)
    with pytest.raises(StoreError, match="it is unknown whether etcd"):
        store.write(1, state(2))
    own.start(0)
    own.wait()
    assert eventually_read(store) == state(1)
    store.close()


def test_a_write_is_sent_to_a_single_member(three: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    store = leading(three.url())
    sent: list[str] = []
    real = store._calls._call

    def count(method: Method[Any, Any], request: Any, until_s: float) -> Any:
        if method is TXN:
            sent.append(store._calls._endpoint)
            three.kill(three.ports.index(int(sent[0].rpartition(":")[2])))
        return real(method, request, until_s)

    monkeypatch.setattr(store._calls, "_call", count)
    with pytest.raises(StoreError, match="unknown whether"):
        store.write(1, state(2))
    assert len(sent) == 1
    store.close()


# ---------------------------------------------------------------------------- the lead


def test_a_former_leader_writes_nothing_however_late_its_request_arrives(
    etcd: EtcdServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = leading(etcd.url(name)), EtcdStore(etcd.url(name))

    def change_the_leader() -> None:
        other.resign(ONE.term)
        assert other.campaign(TWO, 60_000).leader == TWO

    once(monkeypatch, store, change_the_leader)
    assert not store.write(1, state(2))
    assert store.read() == state(1)
    store.close()
    other.close()


def test_a_leader_whose_lease_is_gone_campaigns_again(etcd: EtcdServer, name: str) -> None:
    store = leading(etcd.url(name))
    found = etcd.call(RANGE, RangeRequest(key=f"{name}/election/leader".encode())).kvs
    etcd.call(LEASE_REVOKE, LeaseRevokeRequest(id=found[0].lease))
    assert store.election() == Election(None)
    assert not store.write(1, state(2))
    assert store.campaign(ONE, 60_000) == Election(ONE)
    assert store.write(1, state(2))
    store.close()


def test_a_lead_lasts_as_long_as_the_last_campaign_says(etcd: EtcdServer, name: str) -> None:
    store = leading(etcd.url(name))
    assert store.campaign(ONE, 1_000) == Election(ONE)
    until_s = time.monotonic() + PATIENCE_S
    while store.campaign(TWO, 60_000).leader != TWO:
        assert time.monotonic() < until_s
        time.sleep(0.1)
    store.close()


def test_renewals_leave_no_history_behind(etcd: EtcdServer, name: str) -> None:
    store = leading(etcd.url(name))
    store.campaign(TWO, 60_000)

    def revisions() -> list[int]:
        everything = RangeRequest(key=f"{name}/".encode(), range_end=f"{name}0".encode())
        return [each.mod_revision for each in etcd.call(RANGE, everything).kvs]

    before = revisions()
    for _ in range(5):
        assert store.campaign(ONE, 60_000) == store.campaign(TWO, 60_000) == Election(ONE, (TWO,))
    assert revisions() == before
    store.close()


def test_a_leader_without_its_coordinator_is_an_error_until_it_campaigns(etcd: EtcdServer, name: str) -> None:
    store = EtcdStore(etcd.url(name))
    put(etcd, f"{name}/election/leader", ONE.term.encode())
    with pytest.raises(StoreError, match="delete that key"):
        store.election()
    assert store.campaign(ONE, 60_000) == Election(ONE)
    store.close()


# ---------------------------------------------------------------------------- the place


def test_a_store_is_new_until_its_first_state_is_written(etcd: EtcdServer, name: str) -> None:
    first, second = EtcdStore(etcd.url(name)), EtcdStore(etcd.url(name))
    assert first.created
    assert second.created
    assert first.campaign(ONE, 60_000).leader == ONE
    assert first.write(0, state(1))
    third = EtcdStore(etcd.url(name))
    assert not third.created
    for store in (first, second, third):
        store.close()


def test_two_clusters_share_an_etcd(etcd: EtcdServer, name: str) -> None:
    store, other = leading(etcd.url(f"{name}/a")), EtcdStore(etcd.url(f"{name}/b"))
    assert other.created
    assert other.read() is None
    assert other.election() == Election(None)
    store.close()
    other.close()


def test_a_prefix_that_another_program_uses_is_refused(etcd: EtcdServer, name: str) -> None:
    put(etcd, f"{name}/theirs", b"theirs")
    with pytest.raises(StoreError, match=r"in use for something else: .*/theirs.*another prefix"):
        EtcdStore(etcd.url(name))


def test_a_store_of_another_layout_is_refused(etcd: EtcdServer, name: str) -> None:
    put(etcd, f"{name}/lockring", b"7")
    with pytest.raises(StoreError, match="of another release"):
        EtcdStore(etcd.url(name))


def test_a_damaged_state_is_refused_rather_than_taken_for_none(etcd: EtcdServer, name: str) -> None:
    store = leading(etcd.url(name))
    put(etcd, f"{name}/state", b"\x00garbage")
    with pytest.raises(StoreError, match=r"state' is damaged"):
        store.read()
    with pytest.raises(StoreError, match=r"state' is damaged"):
        store.write(1, state(2))
    with pytest.raises(StoreError, match=r"state' is damaged"):
        EtcdStore(etcd.url(name))
    store.close()


def test_a_state_that_was_put_back_is_seen(etcd: EtcdServer, name: str) -> None:
    store = leading(etcd.url(name))
    assert store.write(1, state(2))
    put(etcd, f"{name}/state", encode_state(state(1)))
    assert store.read() == state(1)
    assert not store.write(2, state(3))
    store.close()


def test_a_state_is_fetched_once_for_each_change_of_it_or_of_the_lead(
    etcd: EtcdServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = leading(etcd.url(name)), EtcdStore(etcd.url(name))
    fetched: list[bytes] = []
    real = other._calls.repeat

    def count(method: Method[Any, Any], request: Any, *, until_s: float) -> Any:
        if isinstance(request, RangeRequest) and not request.keys_only:
            fetched.append(request.key)
        return real(method, request, until_s=until_s)

    monkeypatch.setattr(other._calls, "repeat", count)

    def reads(expected: ClusterState) -> int:
        fetched.clear()
        assert [other.read() for _ in range(3)] == [expected] * 3
        assert set(fetched) <= {f"{name}/state".encode()}
        return len(fetched)

    # Opening it has fetched the state.
    assert reads(state(1)) == 0
    assert store.write(1, state(2))
    assert reads(state(2)) == 1
    store.resign(ONE.term)
    assert reads(state(2)) == 1
    assert other.campaign(TWO, 60_000).leader == TWO
    assert reads(state(2)) == 1
    assert other.write(2, state(3, TWO.term))
    assert reads(state(3, TWO.term)) == 0, "it has written that itself"
    assert store.read() == state(3, TWO.term)
    store.close()
    other.close()


def test_a_state_that_is_too_large_is_refused_before_it_is_sent(etcd: EtcdServer, name: str) -> None:
    store = leading(etcd.url(name))
    large = state_of(STATE_BYTES_MAX + 1)
    with pytest.raises(StoreError, match=rf"too large .* of at most {STATE_BYTES_MAX}"):
        store.write(1, large)
    assert store.read() == state(1)
    store.close()


def test_a_state_of_the_largest_size_is_stored(etcd: EtcdServer, name: str) -> None:
    store = leading(etcd.url(name))
    large = state_of(STATE_BYTES_MAX)
    assert store.write(1, large)
    assert store.read() == large
    store.close()


def test_a_cluster_without_space_says_so_and_goes_on_when_there_is_some(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path / "etcd", flags=["--quota-backend-bytes", str(2**20)])
    try:
        store = leading(server.url())
        fill(server)
        with pytest.raises(StoreError, match=r"cannot be written: .*no space left.*etcdctl alarm disarm"):
            store.write(1, state(2))
        assert store.read() == state(1)
        assert store.election() == Election(ONE)
        assert store.campaign(ONE, 60_000) == Election(ONE)
        store.close()
    finally:
        server.kill()


def test_the_write_that_uses_up_the_space_has_taken_place(
    etcd: EtcdServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = leading(etcd.url(name))
    real = store._calls.once

    def refuse(method: Method[Any, Any], request: Any, until_s: float) -> Any:
        answer = real(method, request, until_s)
        if method is TXN:
            raise OutOfSpace("no space left")
        return answer

    monkeypatch.setattr(store._calls, "once", refuse)
    assert store.write(1, state(2))
    store.close()
