"""The store's thread: operations keep their order, failures become outcomes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from lockring.cluster_state import ClusterState
from lockring.core.coordinator.store_operations import OPERATION_TIMEOUT_NS
from lockring.core.election import Candidate, Election
from lockring.errors import StoreError
from lockring.ids import TermId, Version
from lockring.server import store_worker
from lockring.server.store_worker import CLOSE_S_MAX, StoreOutcome, StoreWorker
from lockring.store.memory import MemoryStore


def work(
    test: Callable[[StoreWorker, list[StoreOutcome]], Awaitable[None]], store: MemoryStore
) -> list[StoreOutcome]:
    """Run some operations, wait for all of them, and return the outcomes in the order in which they came."""
    outcomes: list[StoreOutcome] = []

    async def main() -> None:
        worker = StoreWorker(store)
        await test(worker, outcomes)
        await worker.close()
        await asyncio.sleep(0)

    asyncio.run(main())
    return outcomes


def state_of(version: int) -> ClusterState:
    return ClusterState(cluster="c", version=version, term="t")


def test_operations_are_done_in_the_order_in_which_they_were_asked_for() -> None:
    async def test(worker: StoreWorker, outcomes: list[StoreOutcome]) -> None:
        worker.read(outcomes.append)
        worker.write(0, state_of(1), outcomes.append)
        worker.write(1, state_of(2), outcomes.append)
        worker.read(outcomes.append)

    outcomes = work(test, MemoryStore())
    assert [outcome.ok for outcome in outcomes] == [True, True, True, True]
    assert [outcome.state and outcome.state.version for outcome in outcomes] == [None, 1, 2, 2]


class HeldUp(MemoryStore):
    """A store whose first read lasts until the test lets it go on; notes what is done after it."""

    def __init__(self) -> None:
        super().__init__(state_of(1))
        self.goes_on = threading.Event()
        self.done: list[str] = []

    def read(self) -> ClusterState | None:
        if not self.done:
            self.goes_on.wait(60)
        self.done.append("read")
        return super().read()

    def write(self, expected_version: Version, state: ClusterState) -> bool:
        self.done.append("write")
        return super().write(expected_version, state)

    def campaign(self, candidate: Candidate, ttl_ms: int) -> Election:
        self.done.append("campaign")
        return super().campaign(candidate, ttl_ms)

    def resign(self, term: TermId) -> None:
        self.done.append("resign")
        super().resign(term)


ONE = Candidate(TermId("t"), "one:1")


def test_a_campaign_overtakes_reads_alone() -> None:
    store = HeldUp()

    async def test(worker: StoreWorker, outcomes: list[StoreOutcome]) -> None:
        worker.read(outcomes.append)
        worker.write(1, state_of(2), outcomes.append)
        worker.read(outcomes.append)
        worker.read(outcomes.append)
        worker.campaign(ONE, 3_000, lambda election, problem: None)
        worker.resign(ONE.term)
        worker.campaign(ONE, 3_000, lambda election, problem: None)
        store.goes_on.set()

    work(test, store)
    assert store.done == ["read", "write", "campaign", "read", "read", "resign", "campaign"]


def test_reads_and_campaigns_that_were_given_up_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    store, problems, now_ns = HeldUp(), [], [0]
    monkeypatch.setattr(store_worker, "monotonic_ns", lambda: now_ns[0])

    async def test(worker: StoreWorker, outcomes: list[StoreOutcome]) -> None:
        worker.read(outcomes.append)
        worker.read(outcomes.append)
        worker.campaign(ONE, 3_000, lambda election, problem: problems.append(problem))
        worker.write(1, state_of(2), outcomes.append)
        worker.resign(ONE.term)
        now_ns[0] = OPERATION_TIMEOUT_NS
        worker.read(outcomes.append)
        store.goes_on.set()

    outcomes = work(test, store)
    assert store.done[-3:] == ["write", "resign", "read"]
    assert "campaign" not in store.done
    assert problems == ["the store has not answered for 10 s"]
    assert [each.ok for each in outcomes[1:]] == [False, True, True]


def test_a_store_that_has_shown_a_state_is_never_taken_for_a_new_one_again() -> None:
    shown: list[bool] = []

    async def test(worker: StoreWorker, outcomes: list[StoreOutcome]) -> None:
        worker.read(lambda _: shown.append(worker.has_shown_a_state))
        worker.write(7, state_of(8), lambda _: shown.append(worker.has_shown_a_state))
        worker.write(0, state_of(1), lambda _: shown.append(worker.has_shown_a_state))
        worker.write(7, state_of(8), lambda _: shown.append(worker.has_shown_a_state))

    work(test, MemoryStore())
    assert shown == [False, False, True, True]


def test_a_refused_write_comes_with_what_is_stored() -> None:
    async def test(worker: StoreWorker, outcomes: list[StoreOutcome]) -> None:
        worker.write(7, state_of(8), outcomes.append)

    assert work(test, MemoryStore(state_of(3))) == [StoreOutcome(False, state_of(3))]


def test_a_store_that_fails_gives_an_unknown_outcome_with_the_reason() -> None:
    store = MemoryStore(state_of(3))
    store.close()
    with pytest.raises(StoreError):
        store.read()

    async def test(worker: StoreWorker, outcomes: list[StoreOutcome]) -> None:
        worker.read(outcomes.append)
        worker.write(3, state_of(4), outcomes.append)

    assert work(test, store) == [StoreOutcome(False, None, "the store is closed")] * 2


def test_a_store_that_does_not_answer_does_not_hold_up_the_end() -> None:
    class Frozen(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.thaws = threading.Event()

        def read(self) -> ClusterState | None:
            self.thaws.wait()
            return super().read()

    store = Frozen()

    async def main() -> None:
        worker = StoreWorker(store)
        worker.read(lambda _: None)
        worker.write(0, state_of(1), lambda _: None)
        began_s = time.monotonic()
        assert not await worker.close()
        assert time.monotonic() - began_s < CLOSE_S_MAX + 1

    asyncio.run(main())
    store.thaws.set()
    (thread,) = (each for each in threading.enumerate() if each.name == "lockring-store")
    assert thread.daemon, "the process does not wait for it"
    thread.join(10)
