"""A primary's streams: what is kept for them, and how they start, tear and go on."""

from __future__ import annotations

import pytest

from lockring.cluster_state import Copy, Replica
from lockring.core.node.lock_table import LockTable
from lockring.core.node.next_batch import JournalStream, NextBatch
from lockring.core.node.peer_link import LINK_COST_MAX, PeerLink
from lockring.core.node.peer_news import PeersWithNews
from lockring.core.node.reign import SNAPSHOT_PART_HOLDERS, CopyStream, Reign
from lockring.core.node.sessions import Sessions
from lockring.ids import MutationIndex
from lockring.protocol import Put, Resume, Snapshot, Tail

B, C = Replica("B", 1), Replica("C", 1)


@pytest.fixture
def reign() -> Reign:
    return Reign(LockTable(7, Sessions()), since=5, base=1, started_ns=0, inherits=(3, 40))


def stream_to(reign: Reign, peer: Replica, *, joined: int = 6, link: PeerLink | None = None) -> CopyStream:
    link = link or PeerLink(peer, PeersWithNews(lambda at_ns: None), 0)
    link.connected()
    stream = CopyStream(
        reign,
        Copy(peer, joined),
        link.news,
        link.lease,
        resumable=joined == reign.since,
        required=False,
    )
    reign.streams[peer] = stream
    link.open(7, stream)
    return stream


def grant(reign: Reign, number: int) -> None:
    put = Put(f"lock/{number}", 0, 1, "s", number, "me", 1_000, number, 0)
    reign.table.put(put, 0)
    reign.record(put, 0, urgent=True)


def test_mutations_after_a_snapshot_are_kept_until_the_copy_has_acknowledged_it(reign: Reign) -> None:
    other = stream_to(reign, B)
    for number in range(1, 5):
        grant(reign, number)
    late = stream_to(reign, C)
    snapshot = reign.take_start(late, 0)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.index == 4
    grant(reign, 5)
    grant(reign, 6)
    tail = reign.take_tail(late)
    assert tail is not None
    assert (tail.after, len(tail.mutations)) == (4, 2)
    other.sent = MutationIndex(6)
    other.acknowledged(6)
    reign.trim()
    late.acknowledged(4)
    reign.check_invariants()
    late.lost()
    again = reign.take_tail(late)
    assert again is not None
    assert (again.after, len(again.mutations)) == (4, 2)


def test_stream_of_a_former_primary_begins_with_resume_and_falls_back_to_a_snapshot(reign: Reign) -> None:
    stream = stream_to(reign, B, joined=5)
    assert reign.take_start(stream, 0) == Resume(7, 5, 5, 3, 40)
    grant(reign, 1)
    tail = reign.take_tail(stream)
    assert isinstance(tail, Tail)
    assert tail.after == 0
    stream.refused()
    assert stream.must_start()
    assert isinstance(reign.take_start(stream, 0), Snapshot)
    reign.check_invariants()


def test_stream_on_a_new_connection_starts_from_the_acknowledged_index(reign: Reign) -> None:
    link = PeerLink(B, PeersWithNews(lambda at_ns: None), 0)
    stream = stream_to(reign, B, link=link)
    reign.take_start(stream, 0)
    stream.acknowledged(0)
    for number in range(1, 4):
        grant(reign, number)
    reign.take_tail(stream)
    link.disconnected(10)
    link.connected()
    assert not stream.must_start()
    tail = reign.take_tail(stream)
    assert tail is not None
    assert len(tail.mutations) == 3


def test_acknowledgement_that_comes_after_its_connection_broke_is_not_sent_again(reign: Reign) -> None:
    link = PeerLink(B, PeersWithNews(lambda at_ns: None), 0)
    stream = stream_to(reign, B, link=link)
    reign.take_start(stream, 0)
    stream.acknowledged(0)
    grant(reign, 1)
    reign.take_tail(stream)
    link.disconnected(10)
    link.connected()
    stream.acknowledged(1)
    reign.trim()
    reign.check_invariants()
    assert reign.take_tail(stream) is None


@pytest.mark.parametrize("is_started_again", [False, True])
def test_acknowledgement_of_a_snapshot_that_is_sent_once_more_does_not_count(
    reign: Reign, *, is_started_again: bool
) -> None:
    link = PeerLink(B, PeersWithNews(lambda at_ns: None), 0)
    stream = stream_to(reign, B, link=link)
    grant(reign, 1)
    reign.take_start(stream, 0)
    link.disconnected(10)
    grant(reign, 2)
    reign.trim()
    link.connected()
    if is_started_again:
        reign.take_start(stream, 20)
    stream.acknowledged(1)
    reign.check_invariants()
    if not is_started_again:
        reign.take_start(stream, 20)
    stream.acknowledged(2)
    grant(reign, 3)
    tail = reign.take_tail(stream)
    assert tail is not None
    assert (tail.after, len(tail.mutations)) == (2, 1)


def test_large_snapshot_goes_in_parts_and_the_link_has_a_bound(reign: Reign) -> None:
    for number in range(1, 3 * SNAPSHOT_PART_HOLDERS + 2):
        grant(reign, number)
    link = PeerLink(B, PeersWithNews(lambda at_ns: None), 0)
    stream = stream_to(reign, B, link=link)
    parts = [reign.take_start(stream, 0)]
    while stream.parts:
        assert stream.must_start()
        parts.append(reign.take_start(stream, 0))
    assert [part.last for part in parts if isinstance(part, Snapshot)] == [False, False, False, True]
    assert sum(len(part.holders) for part in parts if isinstance(part, Snapshot)) == len(reign.table.locks)
    assert link.budget.has_room(0)
    link.budget.spend(1, LINK_COST_MAX)
    assert not link.budget.has_room(0)
    link.budget.acknowledged(1)
    assert link.budget.has_room(0)


def test_reign_without_copies_keeps_no_log(reign: Reign) -> None:
    for number in range(1, 100):
        grant(reign, number)
    reign.check_invariants()
    assert reign.acknowledged_index() == 99
    assert reign.end_for(B) is None


def test_no_grant_is_answered_while_a_required_copy_has_nothing(reign: Reign) -> None:
    stream = stream_to(reign, B)
    stream.required = True
    grant(reign, 1)
    reign.take_start(stream, 0)
    assert reign.acknowledged_index() == -1
    stream.acknowledged(1)
    assert reign.acknowledged_index() == 1


def test_a_reign_that_has_dropped_mutations_resumes_for_no_one(reign: Reign) -> None:
    reign.journal = JournalStream(NextBatch())
    assert reign.has_all_mutations
    grant(reign, 1)  # the journal will have it as a part of a snapshot, so that it is not kept
    assert not reign.has_all_mutations
    reign.check_invariants()
