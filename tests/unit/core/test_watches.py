"""Watching a lock: no event is missing unless a gap is reported, and events lead from one update to the next."""

from __future__ import annotations

import random

import msgspec
import pytest

from lockring.core.client import Backlog, Query, QueryKind, Update
from lockring.core.client.queries import query_about_lock
from lockring.core.client.watches import apply_notice, difference
from lockring.core.node import lock_events
from lockring.ids import SessionId
from lockring.protocol import (
    Acquire,
    Break,
    HolderRecord,
    LockEvent,
    LockEventKind,
    LockRecord,
    Mode,
    WaiterRecord,
    Watch,
    WatchNotice,
)
from lockring.slots import slot_of
from tests.unit.core.node.world import MS, Client, Nodes, S, of

Picture = tuple[set[tuple[str, int, int]], set[tuple[str, int]]]


def picture(lock: LockRecord) -> Picture:
    """Return a lock's holders and waiters."""
    return (
        {(each.session, each.acquisition, each.generation) for each in lock.holders},
        {(each.session, each.acquisition) for each in lock.waiters},
    )


def after(before: Picture, events: list[LockEvent]) -> Picture:
    """Apply events to a picture; fail if they do not fit."""
    holders, waiters = set(before[0]), set(before[1])
    for event in events:
        who = (event.session, event.acquisition)
        match LockEventKind(event.kind):
            case LockEventKind.WAITING:
                assert who not in waiters
                waiters.add(who)
            case LockEventKind.GRANTED:
                waiters.discard(who)
                holders.add((*who, event.generation))
            case LockEventKind.LEFT:
                waiters.remove(who)
            case LockEventKind.GONE if not event.generation:
                waiters.remove(who)
            case _:
                holders.remove((*who, event.generation))
    return holders, waiters


class Watcher:
    """A client that watches a lock at a node and applies the events that it receives."""

    def __init__(self, client: Client, name: str = "x") -> None:
        self.client = client
        self.client.ask(Watch(700, name))
        self.told = 0
        self.changes: list[WatchNotice] = []
        self.look()

    def look(self) -> list[tuple[str, SessionId, str]]:
        """Return kind, client and reason of each event since the last call, and check that they fit the picture."""
        new = [
            change
            for change in of(WatchNotice, self.client.inbox)[len(self.changes) :]
            if change.request == 700
        ]
        found = []
        for change in new:
            if self.changes and not change.gap:
                assert after(picture(self.changes[-1].lock), change.events) == picture(change.lock)
            self.changes.append(change)
            found += [(LockEventKind(each.kind).name, each.session, each.reason) for each in change.events]
        return found


@pytest.fixture
def pair() -> Nodes:
    """A serves every slot, B is its backup."""
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes


# --------------------------------------------------------------------------- at the node


def test_each_event_is_reported_with_its_reason(pair: Nodes) -> None:
    watcher = Watcher(pair.client("A", "watcher"))
    assert [(change.events, change.gap) for change in watcher.changes] == [([], False)]
    one, two, three = (pair.client("A", name) for name in ("one", "two", "three"))
    one.acquire("x", 1)
    two.acquire("x", 1, mode=Mode.SHARED)
    three.acquire("x", 1, wait_ms=300)
    assert watcher.look() == [("GRANTED", "one", ""), ("WAITING", "two", ""), ("WAITING", "three", "")]
    pair.advance(400 * MS)
    assert watcher.look() == [("LEFT", "three", "timeout")]
    one.release("x", 1)
    assert watcher.look() == [("RELEASED", "one", ""), ("GRANTED", "two", "")]
    assert watcher.changes[-1].events[-1].mode == Mode.SHARED
    three.acquire("x", 2)
    three.release("x", 2)
    three.acquire("x", 3)
    pair.cores["A"].disconnected(three.connection, now_ns=pair.now)
    pair.settle()
    assert watcher.look() == [
        ("WAITING", "three", ""),
        ("LEFT", "three", "cancelled"),
        ("WAITING", "three", ""),
        ("LEFT", "three", "disconnected"),
    ]
    pair.advance(11 * S)
    assert watcher.look() == [("LOST", "two", "expired")]
    assert not any(change.gap for change in watcher.changes)


@pytest.mark.parametrize("force", [False, True])
def test_grant_that_an_operator_ended_is_lost_however_it_ends(pair: Nodes, force: bool) -> None:
    watcher, one = Watcher(pair.client("A", "watcher")), pair.client("A", "one")
    one.acquire("x", 1)
    generation = (
        watcher.changes[-1].lock.generation or of(WatchNotice, watcher.client.inbox)[-1].lock.generation
    )
    watcher.look()
    one.ask(Break(90, "x", generation, force))
    one.release("x", 1)
    assert watcher.look() == [("LOST", "one", "broken")]


def test_all_events_of_one_turn_are_reported(pair: Nodes) -> None:
    watcher, one = Watcher(pair.client("A", "watcher")), pair.client("A", "one")
    one.acquire("x", 1)
    watcher.look()
    core = pair.cores["A"]
    two = pair.client("A", "two")
    for number in range(2, 6):
        core.receive(one.connection, _acquire(one, number), now_ns=pair.now)
    core.disconnected(one.connection, now_ns=pair.now)
    core.receive(two.connection, _acquire(two, 1), now_ns=pair.now)
    pair.settle()
    told = watcher.look()
    assert [what for what, *_ in told] == ["WAITING"] * 4 + ["LEFT"] * 4 + ["WAITING"]
    assert not watcher.changes[-1].gap


def _acquire(client: Client, acquisition: int) -> Acquire:
    return Acquire(100 + acquisition, client.session, 10_000, client.session, acquisition, "x")


def test_events_beyond_the_bound_are_reported_as_a_gap(pair: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_events, "EVENTS_MAX", 3)
    watcher, one = Watcher(pair.client("A", "watcher")), pair.client("A", "one")
    pair.cut |= {("A", "B"), ("B", "A")}
    pair.advance(2_200 * MS)
    for number in range(1, 6):
        one.acquire("x", number)
    assert watcher.look() == []
    pair.slots(lambda slot: msgspec.structs.replace(slot, backup=None))
    watcher.look()
    assert watcher.changes[-1].gap
    assert len(watcher.changes[-1].lock.waiters) == 4
    one.acquire("x", 6)
    assert watcher.look() == [("WAITING", "one", "")]
    assert not watcher.changes[-1].gap


def test_a_new_watch_gets_no_events_that_its_first_update_shows(pair: Nodes) -> None:
    first, one = Watcher(pair.client("A", "first")), pair.client("A", "one")
    core, second = pair.cores["A"], pair.client("A", "second")
    core.receive(one.connection, _acquire(one, 1), now_ns=pair.now)
    core.receive(second.connection, Watch(700, "x"), now_ns=pair.now)
    core.receive(one.connection, _acquire(one, 2), now_ns=pair.now)
    pair.settle()
    assert first.look() == [("GRANTED", "one", ""), ("WAITING", "one", "")]
    [seen] = of(WatchNotice, second.inbox)
    assert (seen.events, seen.gap, picture(seen.lock)) == ([], False, picture(first.changes[-1].lock))


def test_the_events_lead_from_one_update_to_the_next(pair: Nodes) -> None:
    rng = random.Random(7)
    watcher = Watcher(pair.client("A", "watcher"))
    clients = [pair.client("A", f"s{number}") for number in range(4)]
    numbers = [0] * 4
    for _ in range(600):
        place = rng.randrange(4)
        client = clients[place]
        match rng.randrange(6):
            case 0 | 1:
                numbers[place] += 1
                wait_ms = rng.choice([0, 100, -1])
                client.acquire(
                    "x",
                    numbers[place],
                    mode=rng.choice([Mode.EXCLUSIVE, Mode.SHARED]),
                    wait_ms=wait_ms,
                    ttl_ms=2_000,
                )
            case 2 | 3 if numbers[place]:
                client.release("x", rng.randint(max(1, numbers[place] - 3), numbers[place]))
            case 4:
                client.keep(ttl_ms=2_000)
            case _:
                pair.advance(rng.choice([10, 50, 200, 1_500]) * MS)
        watcher.look()
    kinds = {event.kind for change in watcher.changes for event in change.events}
    assert kinds == {
        LockEventKind.WAITING,
        LockEventKind.GRANTED,
        LockEventKind.RELEASED,
        LockEventKind.LOST,
        LockEventKind.LEFT,
    }
    assert not any(change.gap for change in watcher.changes)
    assert picture(watcher.changes[-1].lock) == picture(
        pair.cores["A"].slots[slot_of("x")].table.describe("x", "A", pair.now, expired=True)
    )


# --------------------------------------------------------------------------- at the client


def lock(holders: list[tuple[str, int]], waiters: list[str] = []) -> LockRecord:  # noqa: B006 - never changed
    return LockRecord(
        "x",
        slot_of("x"),
        "A",
        Mode.SHARED,
        1,
        9,
        0,
        [HolderRecord(session, session, 1, token, 1, 1_000, 900) for session, token in holders],
        [WaiterRecord(session, session, 1, 1) for session in waiters],
    )


def watch() -> Query:
    return query_about_lock(QueryKind.WATCH, "x", 0)


def test_the_first_update_has_no_events() -> None:
    update = apply_notice(watch(), WatchNotice(1, lock([("a", 1)]), [], True))
    assert (update.events, update.gap) == ([], False)


def test_a_node_that_reports_no_events_leaves_a_gap() -> None:
    request = watch()
    apply_notice(request, WatchNotice(1, lock([("a", 1)])))
    request.restarted = False
    update = apply_notice(request, WatchNotice(1, lock([("b", 2)])))
    assert update.gap
    assert [(LockEventKind(each.kind).name, each.session) for each in update.events] == [
        ("GONE", "a"),
        ("GRANTED", "b"),
    ]


def test_a_restarted_watch_has_one_gap() -> None:
    request = watch()
    request.restarted = True
    assert not apply_notice(request, WatchNotice(1, lock([]), [], False)).gap
    request.restarted = True
    again = apply_notice(request, WatchNotice(2, lock([]), [], False))
    assert (again.gap, again.events) == (True, [])
    assert not apply_notice(request, WatchNotice(2, lock([]), [], False)).gap


@pytest.mark.parametrize(
    ("before", "later"),
    [
        (lock([]), lock([("a", 1), ("b", 2)], ["c"])),
        (lock([("a", 1)], ["b", "c"]), lock([("b", 2)], ["c", "d"])),
        (lock([("a", 1)]), lock([("a", 7)])),
        (lock([("a", 1), ("b", 2)], ["c"]), lock([])),
    ],
)
def test_the_difference_of_two_updates_leads_from_one_to_the_other(
    before: LockRecord, later: LockRecord
) -> None:
    assert after(picture(before), difference(before, later)) == picture(later)
    assert difference(later, later) == []


def test_a_slow_reader_gets_one_update_with_a_gap() -> None:
    backlog, request = Backlog(3), watch()
    backlog.add(Update(request, lock([("a", 1)]), [], False))
    [first] = backlog.take()
    for token in range(2, 7):
        backlog.add(Update(request, lock([("a", token)]), [], False))
    updates = backlog.take()
    assert updates[0].gap
    seen = picture(first.lock)
    for update in updates[:1]:
        assert after(seen, update.events) == picture(update.lock)
    assert picture(updates[-1].lock) == picture(lock([("a", 6)]))


def test_the_first_update_stays_as_it_is_however_late_its_reader_begins() -> None:
    backlog = Backlog(2)
    for token in range(1, 6):
        backlog.add(Update(watch(), lock([("a", token)]), [], False))
    first = backlog.take()[0]
    assert (first.gap, first.events) == (False, [])
