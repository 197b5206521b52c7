"""The gRPC API of a standing cluster: every call through every node, wrong input, and calls that end early."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import lockring
from lockring.addresses import split_address
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.testing import LocalCluster
from tests.cluster.conftest import CALM
from tests.cluster.grpc_calls import PATIENCE_S, TTL_MS, Caller, refusal
from tests.processes import eventually, see_renewed

pytestmark = pytest.mark.cluster

NODES = ["N1", "N2", "N3"]
SERVICE = "lockring.v1.LockService"
FLOODED_TTL_S = 10.0
"""Of a lock that is renewed under a flood: soon, and not too late if the machine stands still for a while."""


@pytest.fixture(scope="module")
def served() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=3, grpc=True, **CALM) as cluster:
        yield cluster


@pytest.fixture(params=NODES)
def caller(served: LocalCluster, request: pytest.FixtureRequest) -> Iterator[Caller]:
    """A client of each node in turn: of a lock's primary, and of two that pass its calls on."""
    with Caller(served.grpc_address_of(request.param)) as caller:
        yield caller


@pytest.fixture
def first(served: LocalCluster) -> Iterator[Caller]:
    with Caller(served.grpc_address_of("N1")) as caller:
        yield caller


@pytest.fixture
def second(served: LocalCluster) -> Iterator[Caller]:
    with Caller(served.grpc_address_of("N2")) as caller:
        yield caller


@pytest.fixture(autouse=True)
def every_node_lives_on(served: LocalCluster) -> Iterator[None]:
    before = {name: served.pid_of(name) for name in NODES}
    version = served.state().version
    yield
    for name, pid in before.items():
        assert served.pid_of(name) == pid
        assert "bug" not in served.log_of(name)
        assert "Traceback" not in served.log_of(name)
    assert served.state().version == version, "nothing here is a reason for any node to be replaced"


def new_name() -> str:
    return f"grpc/{uuid.uuid4()}"


# --------------------------------------------------------------------------- what works


def test_a_lock_is_acquired_found_renewed_and_released(served: LocalCluster, caller: Caller) -> None:
    name = new_name()
    assert not caller.find(name).held
    grant = caller.lock(name, "a", wait_ms=0, owner="me", payload=b"here")
    assert grant.generation > 0
    assert 0 < grant.lease_ms <= TTL_MS + 100
    assert grant.primary == served.primary_of(name)
    found = caller.find(name)
    assert (found.held, found.owner, found.generation) == (True, "me", grant.generation)
    assert (found.lock.holders[0].session, found.lock.holders[0].idempotency_key) == (caller.session, "a")
    assert found.lock.holders[0].payload == b"here"
    (kept,) = caller.keep(caller.held(name, "a", generation=grant.generation))
    assert (kept.verdict, kept.generation) == (pb.VERDICT_HELD, grant.generation)
    assert 0 < kept.lease_ms <= TTL_MS
    caller.unlock(name, "a")
    assert not caller.find(name).held
    assert caller.lock(name, "b", wait_ms=0).generation > grant.generation


def test_a_lock_is_the_same_for_grpc_and_for_python(served: LocalCluster, caller: Caller) -> None:
    name = new_name()
    with lockring.Client(served.servers) as client, client.lock(name) as grant:
        with pytest.raises(grpc.RpcError) as error:
            caller.lock(name, "a", wait_ms=0)
        assert refusal(error.value).reason == "timeout"
        assert caller.find(name).generation == grant.fencing_token
        waiting = caller.begin_lock(name, "b")
        caller.see_waiters(name, "b")
    assert waiting.result().generation > grant.fencing_token


def test_a_repeated_call_makes_no_second_holder(served: LocalCluster, caller: Caller) -> None:
    name = new_name()
    grants = {caller.lock(name, "a").generation}
    for node in NODES:
        with Caller(served.grpc_address_of(node), session=caller.session) as other:
            grants.add(other.lock(name, "a").generation)
    assert len(grants) == 1
    assert caller.find(name).lock.holder_count == 1


def test_a_hundred_waiting_calls_on_one_channel_are_served_in_their_order(caller: Caller) -> None:
    name = new_name()
    caller.lock(name, "holder")
    calls: list[Any] = []
    for number in range(100):
        calls.append(caller.begin_lock(name, f"w{number}"))
        if number % 10 == 9:  # within ten their order on the wire is their own
            eventually(lambda: len(caller.waiters(name)) == len(calls))
    order = caller.waiters(name)
    assert len(set(order)) == 100
    caller.unlock(name, "holder")
    tokens = []
    for key in order:
        tokens.append(calls[int(key[1:])].result().generation)
        caller.unlock(name, key)
    assert tokens == sorted(set(tokens))


def test_a_wait_of_many_leases_is_kept_alive_by_the_node(caller: Caller, first: Caller) -> None:
    name = new_name()
    first.lock(name, "holder")
    began_s = time.monotonic()
    waiting = caller.begin_lock(name, "w", ttl_ms=300)
    caller.see_waiters(name, "w")
    # A busy machine may renew a lease of 0.3 s too late: then the wait ends, and goes on with what it has waited.
    eventually(lambda: any(each.waited_ms > 1_500 for each in first.find(name).lock.waiters))
    first.unlock(name, "holder")
    grant = waiting.result()
    # Of the lease nothing is gone but what the wait may have taken longer, or shorter, by another clock.
    waited_ms = (time.monotonic() - began_s) * 1000
    assert grant.lease_ms >= 1_500 / 1.05
    assert grant.lease_ms <= waited_ms + 300


def test_readers_share_and_a_semaphore_has_its_permits(caller: Caller) -> None:
    name = new_name()
    caller.lock(name, "r1", mode=pb.MODE_SHARED, wait_ms=0)
    caller.lock(name, "r2", mode=pb.MODE_SHARED, wait_ms=0)
    with pytest.raises(grpc.RpcError):
        caller.lock(name, "w", wait_ms=0)
    assert caller.find(name).lock.mode == pb.MODE_SHARED
    name = new_name()
    for key in "ab":
        caller.lock(name, key, mode=pb.MODE_SEMAPHORE, permits=2, wait_ms=0)
    with pytest.raises(grpc.RpcError):
        caller.lock(name, "c", mode=pb.MODE_SEMAPHORE, permits=2, wait_ms=0)


def test_a_keepalive_of_some_locks_gives_up_none_of_the_others(caller: Caller) -> None:
    names = [new_name() for _ in range(20)]
    for name in names:
        caller.lock(name, "k", wait_ms=0)
    kept = caller.keep(*(caller.held(name, "k") for name in names[:10]))
    assert [each.verdict for each in kept] == [pb.VERDICT_HELD] * 10
    assert all(caller.find(name).held for name in names)


def test_what_is_not_held_is_lost_in_a_keepalive(caller: Caller) -> None:
    held, never = new_name(), new_name()
    token = caller.lock(held, "k", wait_ms=0).generation
    kept = {
        each.name: each
        for each in caller.keep(caller.held(held, "k", generation=token), caller.held(never, "k"))
    }
    assert kept[held].verdict == pb.VERDICT_HELD
    assert (kept[never].verdict, kept[never].reason) == (pb.VERDICT_LOST, "expired")
    (other,) = caller.keep(caller.held(held, "k", generation=token - 1))
    assert (other.verdict, other.reason) == (pb.VERDICT_LOST, "regranted")


def test_an_unrenewed_lock_is_free_after_its_lease(caller: Caller, first: Caller) -> None:
    name = new_name()
    token = first.lock(name, "a", ttl_ms=200).generation
    assert caller.lock(name, "b").generation > token
    (kept,) = first.keep(first.held(name, "a", ttl_ms=200))
    assert kept.verdict == pb.VERDICT_LOST


def test_every_change_is_seen_by_who_watches(caller: Caller, second: Caller) -> None:
    name = new_name()
    watch = caller.stub.Watch(pb.WatchRequest(name=name), timeout=PATIENCE_S)
    seen = [next(watch)]
    second.lock(name, "a")
    seen.append(next(watch))
    second.unlock(name, "a")
    seen.append(next(watch))
    watch.cancel()
    assert [[each.owner for each in state.lock.holders] for state in seen] == [[], ["a"], []]
    assert not any(state.gap for state in seen)
    assert [[each.kind for each in state.events] for state in seen] == [
        [],
        [pb.EVENT_KIND_GRANTED],
        [pb.EVENT_KIND_RELEASED],
    ]
    assert seen[1].events[0].idempotency_key == "a"


def test_a_list_has_each_lock_on_one_page(caller: Caller) -> None:
    prefix = f"list/{uuid.uuid4()}/"
    names = {f"{prefix}{number}" for number in range(25)}
    for name in names:
        caller.lock(name, "k")
    found: list[str] = []
    token, pages = "", 0
    while True:
        request = pb.ListLocksRequest(prefix=prefix, page_size=4, page_token=token)
        page = caller.stub.ListLocks(request, timeout=PATIENCE_S)
        assert len(page.locks) <= 4
        found += [lock.name for lock in page.locks]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert sorted(found) == sorted(names)
    assert pages >= 7


def test_the_state_names_every_node_and_slot(served: LocalCluster, caller: Caller) -> None:
    state = caller.stub.GetClusterState(pb.GetClusterStateRequest(with_slots=True), timeout=PATIENCE_S)
    assert [member.node for member in state.members] == NODES
    assert [member.grpc_address for member in state.members] == [
        served.grpc_address_of(node) for node in NODES
    ]
    assert len(state.primaries) == len(state.backups) == 4096
    assert sum(member.slots_primary for member in state.members) == 4096
    name = new_name()
    slot = caller.find(name).lock.slot
    assert state.members[state.primaries[slot]].node == served.primary_of(name)
    assert not caller.stub.GetClusterState(pb.GetClusterStateRequest(), timeout=PATIENCE_S).primaries


def test_a_client_that_sends_without_reading_is_answered_once_it_reads(caller: Caller) -> None:
    name = new_name()
    caller.lock(name, "k")
    lock = caller.held(name, "k")
    requests = [pb.KeepAliveRequest(sequence=number, locks=[lock] * 1_000) for number in range(1, 8)]
    stream = caller.stub.KeepAlive(iter(requests), timeout=PATIENCE_S)
    verdicts = [kept.verdict for response in stream for kept in response.locks]
    assert verdicts == [pb.VERDICT_HELD] * 7_000


def test_a_broken_lock_is_reported_unasked_and_free_when_its_holder_lets_go(
    caller: Caller, second: Caller
) -> None:
    name = new_name()
    token = caller.lock(name, "a").generation
    done = threading.Event()

    def requests() -> Iterator[pb.KeepAliveRequest]:
        yield pb.KeepAliveRequest(sequence=1, locks=[caller.held(name, "a")])
        done.wait(PATIENCE_S)

    stream = caller.stub.KeepAlive(requests(), timeout=PATIENCE_S)
    assert next(stream).locks[0].verdict == pb.VERDICT_HELD
    broken = second.stub.BreakLock(pb.BreakLockRequest(name=name, generation=token), timeout=PATIENCE_S)
    assert not broken.freed
    assert 0 < broken.within_ms <= 32_000
    told = next(stream)
    assert (told.sequence, told.locks[0].verdict, told.locks[0].reason) == (0, pb.VERDICT_LOST, "broken")
    done.set()
    assert second.find(name).held
    caller.unlock(name, "a")
    assert second.lock(name, "b", wait_ms=0).generation > token


def test_a_lock_broken_by_force_is_free_at_once(caller: Caller, second: Caller) -> None:
    name = new_name()
    token = second.lock(name, "a").generation
    request = pb.BreakLockRequest(name=name, generation=token, force=True)
    assert caller.stub.BreakLock(request, timeout=PATIENCE_S).freed
    assert caller.lock(name, "b", wait_ms=0).generation > token


# --------------------------------------------------------------------------- without stubs


def test_a_client_that_knows_nothing_finds_everything_by_reflection(served: LocalCluster) -> None:
    """As grpcurl does it: no stub of ours, only what the server says about itself."""
    with grpc.insecure_channel(served.grpc_address_of("N2")) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE in database.get_services()
        pool = descriptor_pool.DescriptorPool(database)
        service = pool.FindServiceByName(SERVICE)
        assert {method.name for method in service.methods} == {
            "Lock",
            "Unlock",
            "KeepAlive",
            "FindLockOwner",
            "Watch",
            "ListLocks",
            "GetClusterState",
            "DrainNode",
            "UndrainNode",
            "BreakLock",
        }

        def call(method: str, **fields: object) -> Any:
            described = service.methods_by_name[method]
            request = message_factory.GetMessageClass(described.input_type)
            response = message_factory.GetMessageClass(described.output_type)
            make = channel.unary_stream if described.server_streaming else channel.unary_unary
            return make(
                f"/{SERVICE}/{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )(request(**fields), timeout=PATIENCE_S)

        name = new_name()
        grant = call("Lock", name=name, session="s", idempotency_key="k", owner="reflected")
        assert grant.lease_ms > 0
        assert call("FindLockOwner", name=name).owner == "reflected"
        watch = call("Watch", name=name)
        assert next(watch).lock.holders[0].generation == grant.generation
        call("Unlock", name=name, session="s", idempotency_key="k")
        assert next(watch).lock.holder_count == 0
        watch.cancel()


def test_the_health_service_says_that_the_node_serves(served: LocalCluster) -> None:
    with grpc.insecure_channel(served.grpc_address_of("N3")) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check

        def is_serving(service: str) -> bool:
            return bool(status(service) == health_pb2.HealthCheckResponse.SERVING)

        def status(service: str) -> Any:
            return check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S).status

        for service in ("", SERVICE):
            eventually(partial(is_serving, service))
        with pytest.raises(grpc.RpcError) as error:
            status("no.such.Service")
        assert error.value.code() == grpc.StatusCode.NOT_FOUND


# --------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Lock", pb.LockRequest(session="s", idempotency_key="k")),
        ("Lock", pb.LockRequest(name="x" * 2000, session="s", idempotency_key="k")),
        ("Lock", pb.LockRequest(name="x", idempotency_key="k")),
        ("Lock", pb.LockRequest(name="x", session="s")),
        ("Lock", pb.LockRequest(name="x", session="s", idempotency_key="k", wait_ms=-1)),
        ("Lock", pb.LockRequest(name="x", session="s", idempotency_key="k", ttl_ms=10)),
        ("Lock", pb.LockRequest(name="x", session="s", idempotency_key="k", ttl_ms=40_000)),
        ("Lock", pb.LockRequest(name="x", session="s", idempotency_key="k", mode=9)),  # type: ignore[arg-type]
        ("Unlock", pb.UnlockRequest(name="x", session="s", idempotency_key="a b")),
        ("FindLockOwner", pb.FindLockOwnerRequest()),
        ("ListLocks", pb.ListLocksRequest(page_size=-1)),
        ("ListLocks", pb.ListLocksRequest(page_size=1_001)),
        ("ListLocks", pb.ListLocksRequest(page_token="garbage")),
        ("BreakLock", pb.BreakLockRequest(name="x")),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value)[:40].replace("\n", " "),
)
def test_wrong_input_is_refused_with_a_sentence(first: Caller, method: str, request_: Any) -> None:
    with pytest.raises(grpc.RpcError) as error:
        getattr(first.stub, method)(request_, timeout=PATIENCE_S)
    found = refusal(error.value)
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid")
    assert len(found.text) > 10


def test_a_wrong_lock_in_a_stream_ends_the_stream(first: Caller) -> None:
    with pytest.raises(grpc.RpcError) as error:
        first.keep(pb.HeldLock(name="x", session="s"))
    assert refusal(error.value).reason == "invalid"
    with pytest.raises(grpc.RpcError) as error:
        next(first.stub.Watch(pb.WatchRequest(), timeout=PATIENCE_S))
    assert refusal(error.value).reason == "invalid"


def test_another_ttl_for_the_same_acquisition_is_refused(caller: Caller) -> None:
    name = new_name()
    caller.lock(name, "k")
    with pytest.raises(grpc.RpcError) as error:
        caller.lock(name, "k", ttl_ms=TTL_MS - 1_000)
    assert refusal(error.value).reason == "invalid"
    other = new_name()
    caller.lock(other, "k")
    wrong, right = caller.held(name, "k", ttl_ms=TTL_MS - 1_000), caller.held(other, "k")
    kept = {each.name: each for each in caller.keep(wrong, right)}
    assert kept[name].verdict == pb.VERDICT_REFUSED
    assert f"{TTL_MS} ms, not {TTL_MS - 1_000} ms" in kept[name].reason
    assert kept[other].verdict == pb.VERDICT_HELD, "one that is listed wrongly is no harm to the others"


def test_what_is_not_held_cannot_be_released_or_broken(caller: Caller) -> None:
    name = new_name()
    token = caller.lock(name, "k").generation
    for attempt in (
        lambda: caller.unlock(name, "other"),
        lambda: caller.stub.BreakLock(
            pb.BreakLockRequest(name=name, generation=token + 1), timeout=PATIENCE_S
        ),
    ):
        with pytest.raises(grpc.RpcError) as error:
            attempt()
        found = refusal(error.value)
        assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "not-held")
    assert caller.find(name).generation == token


def test_a_message_that_is_too_long_is_refused(first: Caller) -> None:
    with pytest.raises(grpc.RpcError) as error:
        first.lock("x" * 3_000_000, "k")
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 5_000, b"\x00" * 70_000],
)
def test_garbage_at_its_port_ends_its_own_connection_only(
    served: LocalCluster, first: Caller, data: bytes
) -> None:
    name = new_name()
    first.lock(name, "k")
    with (
        socket.create_connection(split_address(served.grpc_address_of("N1")), timeout=PATIENCE_S) as sock,
        contextlib.suppress(ConnectionError),
    ):
        sock.sendall(data)
        while sock.recv(65_536):
            pass
    first.unlock(name, "k")


# --------------------------------------------------------------------------- what ends early


def is_free(caller: Caller, name: str) -> bool:
    return not caller.find(name).held


def nothing_is_left(caller: Caller, name: str) -> bool:
    lock = caller.find(name).lock
    return lock.waiter_count == 0 and [each.owner for each in lock.holders] == ["holder"]


def test_a_wait_that_is_over_says_who_holds_the_lock(caller: Caller, first: Caller) -> None:
    name = new_name()
    first.lock(name, "holder")
    for wait_ms in (0, 150):
        with pytest.raises(grpc.RpcError) as error:
            caller.lock(name, "w", wait_ms=wait_ms)
        found = refusal(error.value)
        assert (found.code, found.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "timeout")
        assert "'holder'" in found.text
    assert nothing_is_left(caller, name)


def test_a_cancelled_wait_leaves_nothing(caller: Caller, first: Caller) -> None:
    name = new_name()
    first.lock(name, "holder")
    waiting = caller.begin_lock(name, "w")
    caller.see_waiters(name, "w")
    waiting.cancel()
    eventually(lambda: nothing_is_left(first, name))


def test_a_wait_whose_call_runs_into_its_deadline_leaves_nothing(caller: Caller, first: Caller) -> None:
    name = new_name()
    first.lock(name, "holder")
    with pytest.raises(grpc.RpcError) as error:
        caller.stub.Lock(caller.request(name, "w"), timeout=0.3)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: nothing_is_left(first, name))


def test_a_wait_whose_connection_breaks_leaves_nothing(served: LocalCluster, first: Caller) -> None:
    name = new_name()
    first.lock(name, "holder")
    for node in NODES:
        with Caller(served.grpc_address_of(node)) as caller:
            waiting = caller.begin_lock(name, f"w-{node}")
            first.see_waiters(name, f"w-{node}")
        assert waiting.code() is grpc.StatusCode.CANCELLED
        eventually(lambda: nothing_is_left(first, name))


def test_a_grant_that_races_with_the_end_of_its_call_is_given_back_by_its_key(
    caller: Caller, first: Caller
) -> None:
    """Whichever of the two was first: who has cancelled a call and releases its key has nothing."""
    for _ in range(30):
        name = new_name()
        first.lock(name, "holder")
        waiting = caller.begin_lock(name, "w")
        first.see_waiters(name, "w")
        released = first.stub.Unlock.future(
            pb.UnlockRequest(name=name, session=first.session, idempotency_key="holder"), timeout=PATIENCE_S
        )
        waiting.cancel()
        released.result()
        with contextlib.suppress(grpc.RpcError):
            caller.unlock(name, "w")
        eventually(partial(is_free, first, name))
        assert first.find(name).lock.waiter_count == 0


def test_the_first_of_two_equal_calls_may_end_without_the_other(first: Caller, second: Caller) -> None:
    """A client that has lost one node repeats its call at another; the first notices late that no process listens."""
    name = new_name()
    first.lock(name, "holder")
    here = first.begin_lock(name, "w")
    first.see_waiters(name, "w")
    second.session = first.session
    there = second.begin_lock(name, "w")
    # Until the repetition has arrived, whatever it does cannot be seen; a third call behind it shows that it has.
    behind = second.begin_lock(name, "behind")
    first.see_waiters(name, "w", "behind")
    here.cancel()
    first.unlock(name, "holder")
    assert there.result().generation > 0
    assert first.find(name).owner == "w"
    second.unlock(name, "w")
    assert behind.result().generation > 0


def test_a_watch_that_is_cancelled_is_watched_no_more(caller: Caller) -> None:
    name = new_name()
    for _ in range(50):
        watch = caller.stub.Watch(pb.WatchRequest(name=name), timeout=PATIENCE_S)
        assert next(watch).lock.name == name
        watch.cancel()
    caller.lock(name, "k")
    caller.unlock(name, "k")


# --------------------------------------------------------------------------- too much


def test_a_flood_of_calls_leaves_the_lock_port_in_peace(served: LocalCluster) -> None:
    """Holders at the lock ports keep their locks, and no node is taken for dead, while two channels ask all they
    can."""
    name = new_name()
    stop = threading.Event()
    counts = []

    def flood(node: str) -> None:
        with Caller(served.grpc_address_of(node)) as caller:
            count = 0
            while not stop.is_set():
                calls = [
                    caller.stub.FindLockOwner.future(pb.FindLockOwnerRequest(name=f"{name}/{number}"))
                    for number in range(200)
                ]
                for call in calls:
                    call.result(timeout=PATIENCE_S)
                count += len(calls)
            counts.append(count)

    threads = [threading.Thread(target=flood, args=(node,)) for node in ("N1", "N2")]
    with lockring.Client(served.servers) as client, client.lock(name, ttl=FLOODED_TTL_S) as held:
        for thread in threads:
            thread.start()
        try:
            tokens = []
            for number in range(100):
                with client.lock(f"{name}/{number % 7}") as grant:
                    tokens.append(grant.fencing_token)
            see_renewed(held)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert len(tokens) == 100
    assert min(counts) >= 200
