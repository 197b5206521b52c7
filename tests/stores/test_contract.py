"""The promises of every store, and those of every shared one."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate, Election
from lockring.errors import StoreError
from lockring.store.base import SharedStore, Store
from tests.stores.conftest import MakeStore

SHARED = ("memory", "etcd", "postgresql")
SEVERAL = ("etcd", "postgresql")
"""Kinds that several processes can open at once."""

every_kind = pytest.mark.parametrize("kind", ["memory", "sqlite", "etcd", "postgresql"])
shared_kinds = pytest.mark.parametrize("kind", SHARED)
several_kinds = pytest.mark.parametrize("kind", SEVERAL)

ONE = Candidate("term-1", "one:9500")
TWO = Candidate("term-2", "two:9500")
THREE = Candidate("term-3", "three:9500")


def state(version: int, term: str = ONE.term) -> ClusterState:
    return ClusterState(cluster="c", version=version, term=term)


def lead(store: Store, candidate: Candidate = ONE, ttl_ms: int = 60_000) -> None:
    if isinstance(store, SharedStore):
        assert store.campaign(candidate, ttl_ms).leader == candidate


# ---------------------------------------------------------------------------- the state


@every_kind
def test_a_new_store_is_empty(stores: MakeStore) -> None:
    assert stores().read() is None


@every_kind
def test_what_was_written_is_read(stores: MakeStore) -> None:
    store = stores()
    lead(store)
    full = msgspec.structs.replace(state(2**62), coordinator="host:1", backup_lease_ms=777)
    assert store.write(0, full)
    assert store.read() == full


@every_kind
def test_a_write_needs_the_version_that_is_stored(stores: MakeStore) -> None:
    store = stores()
    lead(store)
    assert not store.write(7, state(8))
    assert store.read() is None
    assert store.write(0, state(5))
    assert not store.write(0, state(6))
    assert not store.write(4, state(6))
    assert store.read() == state(5)
    assert store.write(5, state(6))
    assert store.read() == state(6)


@every_kind
def test_of_many_writers_of_one_version_one_wins(stores: MakeStore, kind: str) -> None:
    store = stores()
    lead(store)
    assert store.write(0, state(1))
    # Writers that share an object wait for one another in it, so each has its own where several can be opened.
    places = [stores() if kind in SEVERAL else store for _ in range(8)]
    version = 1
    for turn in range(1, 6):
        begin = threading.Barrier(len(places))
        won: list[int] = []

        def write(
            place: Store, version: int, successor: int, begin: threading.Barrier, won: list[int]
        ) -> None:
            begin.wait()
            if place.write(version, state(successor)):
                won.append(successor)

        threads = [
            threading.Thread(target=write, args=(place, version, 100 * turn + number, begin, won))
            for number, place in enumerate(places)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        (version,) = won
        assert all(place.read() == state(version) for place in places)


@every_kind
def test_a_closed_store_refuses_and_may_be_closed_twice(stores: MakeStore) -> None:
    store = stores()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.read()
    with pytest.raises(StoreError, match="closed"):
        store.write(0, state(1))


@several_kinds
def test_every_process_sees_the_newest_state(stores: MakeStore) -> None:
    one, two = stores(), stores()
    lead(one)
    assert one.write(0, state(3))
    assert two.read() == state(3)
    assert one.write(3, state(4))
    assert two.read() == state(4)


@pytest.mark.parametrize("kind", ["sqlite", "etcd", "postgresql"])
def test_a_state_outlives_the_process(stores: MakeStore) -> None:
    store = stores()
    lead(store)
    assert store.write(0, state(3))
    store.close()
    assert stores().read() == state(3)


# ---------------------------------------------------------------------------- the lead


def shared(stores: MakeStore) -> SharedStore:
    store = stores()
    assert isinstance(store, SharedStore)
    return store


@shared_kinds
def test_at_first_no_coordinator_leads(stores: MakeStore) -> None:
    assert shared(stores).election() == Election(None)


@shared_kinds
def test_the_first_to_campaign_leads_and_the_others_stand_by(stores: MakeStore) -> None:
    store = shared(stores)
    assert store.campaign(ONE, 60_000) == Election(ONE)
    assert store.campaign(TWO, 60_000) == Election(ONE, (TWO,))
    assert store.campaign(THREE, 60_000) == Election(ONE, (THREE, TWO))
    assert store.campaign(ONE, 60_000) == Election(ONE, (THREE, TWO))
    assert store.election() == Election(ONE, (THREE, TWO))


@shared_kinds
def test_only_the_leader_writes(stores: MakeStore) -> None:
    store = shared(stores)
    lead(store)
    store.campaign(TWO, 60_000)
    assert not store.write(0, state(1, TWO.term))
    assert store.write(0, state(1, ONE.term))
    assert not store.write(1, state(2, TWO.term))
    assert store.read() == state(1)


@shared_kinds
def test_a_lead_that_is_not_renewed_ends_and_its_leader_writes_no_more(stores: MakeStore) -> None:
    store = shared(stores)
    lead(store, ttl_ms=1_000)
    assert store.write(0, state(1))
    until_s = time.monotonic() + 60
    while store.campaign(TWO, 60_000).leader != TWO:
        assert time.monotonic() < until_s
        time.sleep(0.1)
    assert not store.write(1, state(2, ONE.term))
    assert store.write(1, state(2, TWO.term))
    assert store.campaign(ONE, 60_000) == Election(TWO, (ONE,))


@shared_kinds
def test_a_lead_that_is_renewed_does_not_end(stores: MakeStore) -> None:
    store = shared(stores)
    begun_s = time.monotonic()
    renewed_s = begun_s
    while time.monotonic() < begun_s + 6:
        election = store.campaign(ONE, 5_000)
        if time.monotonic() - renewed_s > 4:
            pytest.skip("this machine stood still for longer than a lead lasts")
        renewed_s = time.monotonic()
        assert election.leader == ONE
        assert store.campaign(TWO, 60_000).leader == ONE
        time.sleep(0.2)


@shared_kinds
def test_a_standby_that_campaigns_no_more_is_forgotten(stores: MakeStore) -> None:
    store = shared(stores)
    lead(store)
    assert store.campaign(TWO, 1_000).standbys == (TWO,)
    until_s = time.monotonic() + 60
    while store.election().standbys:
        assert time.monotonic() < until_s
        time.sleep(0.1)
    assert store.election() == Election(ONE)


@shared_kinds
def test_after_a_resignation_the_next_leads_at_once(stores: MakeStore) -> None:
    store = shared(stores)
    lead(store)
    store.campaign(TWO, 60_000)
    store.resign(TWO.term)
    assert store.election() == Election(ONE)
    store.resign(ONE.term)
    assert store.election() == Election(None)
    assert store.campaign(TWO, 60_000) == Election(TWO)
    assert not store.write(0, state(1, ONE.term))


@shared_kinds
def test_to_resign_a_lead_that_is_another_ones_changes_nothing(stores: MakeStore) -> None:
    store = shared(stores)
    lead(store)
    store.resign(THREE.term)
    assert store.election() == Election(ONE)


@several_kinds
def test_of_many_candidates_at_once_one_leads(stores: MakeStore) -> None:
    candidates = [Candidate(f"term-{number}", f"host-{number}:1") for number in range(6)]
    places = [shared(stores) for _ in candidates]
    begin = threading.Barrier(len(candidates))
    seen: list[Election] = []

    def campaign(store: SharedStore, candidate: Candidate) -> None:
        begin.wait()
        seen.extend(store.campaign(candidate, 60_000) for _ in range(5))

    threads = [threading.Thread(target=campaign, args=pair) for pair in zip(places, candidates, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 30
    assert len({election.leader for election in seen}) == 1
    assert seen[0].leader is not None


@shared_kinds
def test_a_closed_store_names_no_leader(stores: MakeStore) -> None:
    store = shared(stores)
    store.close()
    for call in (lambda: store.campaign(ONE, 1_000), store.election, lambda: store.resign(ONE.term)):
        with pytest.raises(StoreError, match="closed"):
            call()
