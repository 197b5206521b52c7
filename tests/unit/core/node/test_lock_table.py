"""The lock table against a deliberately simple twin, and the rules that make it first come, first served."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lockring.core.digest import mix
from lockring.core.node.lock_table import LockTable
from lockring.core.node.locks import NO_DEADLINE, LockHolder, LockWaiter, OpenRequest
from lockring.core.node.sessions import Sessions
from lockring.core.timing import up
from lockring.ids import LockName, SessionId
from lockring.protocol import SEQ_FREE, Acquire, Mode, Put, Remove
from lockring.slots import slot_of
from lockring.units import NS_PER_MS

NAMES = ("a", "b")
SESSIONS = ("s1", "s2", "s3")


def put(
    name: str,
    session: str,
    acquisition: int,
    generation: int,
    *,
    mode: int = Mode.EXCLUSIVE,
    permits: int = 1,
) -> Put:
    return Put(name, mode, permits, session, acquisition, session, 1_000, generation, 0)


def wait(
    table: LockTable,
    sessions: Sessions,
    name: str,
    session: str,
    acquisition: int,
    *,
    mode: int = 0,
    permits: int = 1,
    since_ns: int = 0,
) -> LockWaiter:
    wanted = Acquire(acquisition, session, 1_000, session, acquisition, name, mode=mode, permits=permits)
    request = OpenRequest(1, acquisition, 0, 1_000, None)
    return table.enqueue(sessions.open(session, session, 1_000), wanted, request, since_ns=since_ns)


class TwinTables(RuleBasedStateMachine):
    """A primary's table, a copy that applies its mutations, and lists that say what both should be."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions, self.copy_sessions = Sessions(), Sessions()
        self.table = LockTable(slot_of("a"), self.sessions)
        self.copy = LockTable(slot_of("a"), self.copy_sessions)
        self.table.start_serving()
        self.holders: dict[str, list[tuple[str, int, int]]] = {name: [] for name in NAMES}
        self.waiters: dict[str, list[tuple[str, int, int]]] = {name: [] for name in NAMES}
        self.count = 0
        self.generation = 0

    def grant_all(self, name: str) -> None:
        while (lock := self.table.locks.get(LockName(name))) and (waiter := self.table.next_grantable(lock)):
            first = self.waiters[name].pop(0)
            assert (waiter.session.id, waiter.acquisition, waiter.mode) == first
            assert not self.holders[name] or all(
                mode == Mode.SHARED for *_, mode in [*self.holders[name], first]
            )
            self.grant(name, waiter.session.id, waiter.acquisition, waiter.mode)
        if self.waiters[name]:
            modes = [mode for *_, mode in self.holders[name]]
            assert modes, "somebody waits for a free lock"
            assert self.waiters[name][0][2] == Mode.EXCLUSIVE or Mode.EXCLUSIVE in modes

    def grant(self, name: str, session: str, acquisition: int, mode: int) -> None:
        self.generation += 1
        mutation = put(name, session, acquisition, self.generation, mode=mode)
        self.table.put(mutation, 0)
        self.copy.apply(mutation, 0)
        self.holders[name].append((session, acquisition, mode))

    @rule(
        name=st.sampled_from(NAMES),
        session=st.sampled_from(SESSIONS),
        mode=st.sampled_from([Mode.EXCLUSIVE, Mode.SHARED]),
    )
    def acquire(self, name: str, session: str, mode: Mode) -> None:
        self.count += 1
        wait(self.table, self.sessions, name, session, self.count, mode=mode, since_ns=self.count)
        self.waiters[name].append((session, self.count, mode))
        self.grant_all(name)

    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def let_go(self, data: st.DataObject, name: str) -> None:
        everyone = self.holders[name] + self.waiters[name]
        if not everyone:
            return
        session, acquisition, _ = chosen = data.draw(st.sampled_from(everyone))
        entry = self.table.find(session, acquisition)
        if isinstance(entry, LockHolder):
            assert self.table.remove(session, acquisition) is entry
            self.copy.apply(Remove(name, session, acquisition), 0)
            self.holders[name].remove(chosen)
        else:
            assert isinstance(entry, LockWaiter)
            self.table.dequeue(entry)
            self.waiters[name].remove(chosen)
        self.grant_all(name)

    @rule(session=st.sampled_from(SESSIONS), acquisition=st.integers(1, 50), name=st.sampled_from(NAMES))
    def late_or_repeated_mutations_change_nothing(self, session: str, acquisition: int, name: str) -> None:
        if all((session, acquisition) != each[:2] for held in self.holders.values() for each in held):
            before = self.copy.snapshot(0)
            self.copy.apply(Remove(name, session, acquisition), 0)
            assert self.copy.snapshot(0) == before

    @invariant()
    def both_tables_are_sound_and_agree(self) -> None:
        self.table.check_invariants()
        self.copy.check_invariants()
        assert sorted(
            (p.name, p.generation, p.session, p.acquisition) for p in self.table.snapshot(0)
        ) == sorted((p.name, p.generation, p.session, p.acquisition) for p in self.copy.snapshot(0))
        for name in NAMES:
            lock = self.table.locks.get(LockName(name))
            held = [] if lock is None else [(h.session.id, h.acquisition) for h in lock.holders]
            assert held == [each[:2] for each in self.holders[name]]

    @invariant()
    def sessions_count_what_they_have(self) -> None:
        for session_id in SESSIONS:
            mine = [
                acquisition
                for group in (*self.holders.values(), *self.waiters.values())
                for session, acquisition, _ in group
                if session == session_id
            ]
            digest = 0
            for acquisition in mine:
                digest ^= mix(acquisition)
            session = self.sessions.by_id.get(SessionId(session_id))
            assert (
                (len(mine), digest) == (0, 0)
                if session is None
                else (session.totals.count, session.totals.digest) == (len(mine), digest)
            )


TwinTables.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTwinTables = TwinTables.TestCase


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def table(sessions: Sessions) -> LockTable:
    table = LockTable(slot_of("a"), sessions)
    table.start_serving()
    return table


def test_readers_share_and_a_writer_behind_them_is_not_passed(table: LockTable, sessions: Sessions) -> None:
    table.put(put("a", "s1", 1, 1, mode=Mode.SHARED), 0)
    writer = wait(table, sessions, "a", "s2", 1, mode=Mode.EXCLUSIVE, since_ns=1)
    wait(table, sessions, "a", "s3", 1, mode=Mode.SHARED, since_ns=2)
    lock = table.locks[LockName("a")]
    assert table.next_grantable(lock) is None
    table.remove("s1", 1)
    assert table.next_grantable(lock) is writer


def test_semaphore_admits_as_many_as_it_has_permits(table: LockTable) -> None:
    lock = table.put(put("a", "s1", 1, 1, mode=Mode.SEMAPHORE, permits=2), 0).lock
    assert lock.admits(Mode.SEMAPHORE, 2)
    table.put(put("a", "s2", 1, 2, mode=Mode.SEMAPHORE, permits=2), 0)
    assert not lock.admits(Mode.SEMAPHORE, 2)
    assert not lock.admits(Mode.SHARED, 1)


def test_semaphore_keeps_to_the_fewest_permits_that_any_of_its_holders_asked_for(table: LockTable) -> None:
    lock = table.put(put("a", "s1", 1, 1, mode=Mode.SEMAPHORE, permits=2), 0).lock
    table.put(put("a", "s2", 1, 2, mode=Mode.SEMAPHORE, permits=3), 0)
    assert not lock.admits(Mode.SEMAPHORE, 3)
    table.remove("s1", 1)
    assert lock.admits(Mode.SEMAPHORE, 3)
    table.remove("s2", 1)
    lock = table.put(put("a", "s3", 1, 3, mode=Mode.SEMAPHORE, permits=3), 0).lock
    table.put(put("a", "s4", 1, 4, mode=Mode.SEMAPHORE, permits=3), 0)
    assert lock.admits(Mode.SEMAPHORE, 3), "once it was free, the number is asked for anew"


def test_waiter_that_has_waited_longer_elsewhere_stands_before_younger_ones(
    table: LockTable, sessions: Sessions
) -> None:
    table.put(put("a", "s1", 1, 1), 0)
    for session, since_ns in (("s1", 50), ("s2", 70), ("s3", 60)):
        wait(table, sessions, "a", session, 9, since_ns=since_ns)
    assert [waiter.session.id for waiter in table.locks[LockName("a")].waiters or ()] == ["s1", "s3", "s2"]


def test_generation_and_seq_of_a_lock_only_rise(table: LockTable, sessions: Sessions) -> None:
    seen = []
    wait(table, sessions, "a", "s3", 1)
    for generation, session in ((1, "s1"), (2, "s2")):
        table.put(put("a", session, 1, generation), 0)
        seen.append((table.locks[LockName("a")].generation, table.locks[LockName("a")].seq))
        table.remove(session, 1)
        seen.append((table.locks[LockName("a")].generation, table.locks[LockName("a")].seq))
    assert seen == sorted(set(seen))


def order(table: LockTable, name: str = "a") -> tuple[int, int]:
    lock = table.describe(name, "N", 0, expired=True)
    return lock.generation, lock.seq


def test_descriptions_of_a_lock_never_go_back_even_if_it_is_free(
    table: LockTable, sessions: Sessions
) -> None:
    seen = [order(table)]
    for generation in (1, 5):
        table.put(put("a", "s1", generation, generation), 0)
        seen.append(order(table))
        table.remove("s1", generation)
        seen.append(order(table))
        table.put(put("b", "s2", generation, generation + 1), 0)
        seen.append(order(table))
    wait(table, sessions, "a", "s3", 1)
    seen.append(order(table))
    assert seen == sorted(seen)
    assert seen[2] == (1, SEQ_FREE), "the last token, not 0"


def test_a_free_lock_is_not_below_the_tokens_of_an_earlier_reign_whose_table_was_lost() -> None:
    table = LockTable(3, Sessions())
    table.start_serving(generation_from=1_000)
    assert order(table) == (999, SEQ_FREE)
    table.put(put("a", "s1", 1, 1_000), 0)
    assert order(table) == (1_000, 0)


def test_a_copy_that_never_saw_a_reader_come_and_go_shows_no_lower_token_than_its_primary(
    table: LockTable,
) -> None:
    table.put(put("a", "s1", 1, 1, mode=Mode.SHARED), 0)
    table.put(put("a", "s2", 1, 2, mode=Mode.SHARED), 0)
    table.remove("s2", 1)
    seen = order(table)
    copy = LockTable(table.slot, Sessions())
    for mutation in table.snapshot(0):
        copy.apply(mutation, 0)
    copy.touch(table.highest)
    copy.start_serving()
    assert order(copy) >= seen


def test_the_rest_of_a_ttl_is_shown_without_the_nodes_margin(table: LockTable) -> None:
    holder = table.put(put("a", "s1", 1, 1), 0)
    ttl_ms = holder.session.ttl_ms
    for age_ms in (0, 1, ttl_ms // 2, ttl_ms - 1, ttl_ms, ttl_ms + 10):
        holder.session.deadline_ns = up(ttl_ms * NS_PER_MS)
        (shown,) = table.describe("a", "N", age_ms * NS_PER_MS, expired=True).holders
        assert shown.left_ms == max(0, ttl_ms - age_ms)


@pytest.mark.parametrize("payload", [b"", b"mine"])
@pytest.mark.parametrize("waits", [False, True])
def test_a_primarys_grant_has_the_effect_of_its_mutation_on_a_copy(payload: bytes, waits: bool) -> None:
    tables = []
    for way in ("grant", "put"):
        sessions = Sessions()
        table = LockTable(3, sessions)
        table.start_serving()
        session = sessions.open("s1", "s1", 1_000)
        wanted: Acquire | LockWaiter = Acquire(1, "s1", 1_000, "s1", 7, "a", Mode.SHARED, payload=payload)
        if waits:
            wanted = wait(table, sessions, "a", "s1", 7, mode=Mode.SHARED)
            wanted.payload = payload
        if way == "grant":
            table.grant("a", session, wanted, 12, 0)
        else:
            table.put(Put("a", Mode.SHARED, 1, "s1", 7, "s1", 1_000, 12, 0, payload=payload), 0)
        table.check_invariants()
        tables.append(
            (
                table.snapshot(0),
                table.highest,
                session.totals.count,
                session.totals.digest,
                table.locks[LockName("a")].waiters,
            )
        )
    assert tables[0] == tables[1]


def test_payload_goes_with_its_grant(table: LockTable) -> None:
    table.put(Put("a", Mode.EXCLUSIVE, 1, "s1", 1, "s1", 1_000, 1, 0, payload=b"mine"), 0)
    assert [holder.payload for holder in table.describe("a", "N", 0, expired=True).holders] == [b"mine"]
    table.remove("s1", 1)
    table.check_invariants()
    again = table.put(put("a", "s1", 1, 2), 0)
    assert table.payload_of(again) == b""


def test_free_lock_and_idle_session_cost_nothing(table: LockTable, sessions: Sessions) -> None:
    table.put(put("a", "s1", 1, 1), 0)
    table.remove("s1", 1)
    assert (table.locks, table.shares, sessions.by_id) == ({}, {}, {})


def test_slot_that_is_not_served_any_more_leaves_the_sessions_totals(
    table: LockTable, sessions: Sessions
) -> None:
    holder = table.put(put("a", "s1", 1, 1), 0)
    waiter = wait(table, sessions, "a", "s1", 2)
    assert holder.session.totals.count == 2
    assert table.stop_serving() == [waiter]
    assert (holder.session.totals.count, holder.session.totals.digest) == (0, 0)
    table.clear()
    assert sessions.by_id == {}


def test_session_ends_at_its_last_deadline_and_not_before(sessions: Sessions) -> None:
    session = sessions.open("s1", "me", 1_000)
    sessions.extend(session, 100)
    sessions.extend(session, 200)
    sessions.extend(session, 150)
    assert sessions.pop_expired(199) is None
    assert sessions.pop_expired(200) is session
    sessions.stop(session)
    assert session.deadline_ns == NO_DEADLINE
    assert sessions.pop_expired(1_000) is None


def test_queue_is_in_order_of_the_waits_and_then_of_arrival_whichever_waiters_leave_it(
    table: LockTable, sessions: Sessions
) -> None:
    waiters = [wait(table, sessions, "x", "one", number, since_ns=number * 7 % 5) for number in range(1, 31)]
    lock = waiters[0].lock
    for gone in waiters[::3]:
        table.dequeue(gone)
    left = [waiter for waiter in waiters if waiter not in waiters[::3]]
    assert lock.waiters == sorted(left, key=lambda waiter: waiter.since_ns)
    table.check_invariants()
