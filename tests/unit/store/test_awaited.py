"""A store that is opened as soon as its server answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate, Election
from lockring.errors import LockringError, StoreError
from lockring.ids import TermId, Version
from lockring.store.awaited import AwaitedStore
from lockring.store.base import SharedStore, StoreUnreachable
from lockring.store.memory import MemoryStore
from tests.processes import eventually

ELECTION = Election(Candidate(TermId("t"), "127.0.0.1:1"))


class Shared(MemoryStore):
    """A store in memory that always names the same leader."""

    is_closed = False

    def campaign(self, candidate: Candidate, ttl_ms: int) -> Election:
        return ELECTION

    def election(self) -> Election:
        return ELECTION

    def resign(self, term: TermId) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class Server:
    """The server that opens the store: fails, hangs or refuses as its attributes say."""

    def __init__(self) -> None:
        self.store = Shared()
        self.error: LockringError | None = StoreUnreachable("connection refused")
        self.hangs = False
        self.answers = threading.Event()
        self.attempts = 0
        self.hopeless: list[LockringError] = []

    def opens(self) -> SharedStore:
        self.attempts += 1
        if self.hangs:
            self.answers.wait()
        if self.error is not None:
            raise self.error
        return cast(SharedStore, self.store)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.answers.set()


def awaited(server: Server) -> AwaitedStore:
    return AwaitedStore("a store", server.opens, server.hopeless.append)


def test_operations_fail_with_the_reason_until_the_store_answers_and_work_then(server: Server) -> None:
    store = awaited(server)
    with pytest.raises(StoreUnreachable) as caught:
        store.read()
    assert str(caught.value) == (
        "connection refused; this coordinator tries again until the store answers: start the store, or mend --store"
    )
    assert (store.is_open, store.created) == (False, False)
    server.error = None
    eventually(lambda: store.is_open)
    assert store.read() is None
    assert store.write(Version(0), ClusterState())
    assert store.campaign(Candidate(TermId("t"), ""), 1_000) == store.election() == ELECTION
    store.resign(TermId("t"))
    store.close()
    assert server.store.is_closed
    assert server.hopeless == []


def test_an_error_that_waiting_cannot_mend_ends_the_wait(server: Server) -> None:
    server.error = error = StoreError("wrong password")
    store = awaited(server)
    eventually(lambda: server.hopeless == [error])
    store.give_up()
    with pytest.raises(StoreError, match=r"^wrong password$"):
        store.read()
    assert server.attempts == 1
    store.close()


def test_the_end_does_not_wait_for_an_attempt_that_hangs_and_what_it_opens_is_closed(server: Server) -> None:
    server.hangs, server.error = True, None
    store = awaited(server)
    began_s = time.monotonic()
    failures: list[LockringError] = []

    def read() -> None:
        try:
            store.read()
        except StoreUnreachable as error:
            failures.append(error)

    waiting = threading.Thread(target=read)
    waiting.start()
    store.close()
    waiting.join()
    assert len(failures) == 1
    assert time.monotonic() - began_s < 2
    assert not server.store.is_closed
    server.answers.set()
    eventually(lambda: server.store.is_closed)


def test_after_the_end_nothing_is_tried_any_more(server: Server) -> None:
    store = awaited(server)
    with pytest.raises(StoreUnreachable):
        store.read()
    store.close()
    store.close()
    eventually(lambda: "lockring-store-open" not in {each.name for each in threading.enumerate()})
