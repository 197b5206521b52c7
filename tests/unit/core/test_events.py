"""The memory of events: what it keeps, for how long, and which of it an identity sees."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.cluster_state import Copy
from lockring.core import events
from lockring.core.access import Grantee
from lockring.core.event_words import sentence_of
from lockring.core.events import EventMemory, EventViewer, viewer_of
from lockring.core.merged_events import condensed, merged, newest_version
from lockring.errors import InvalidRequest
from lockring.ids import Generation, LockName, NodeId
from lockring.protocol import EventRecord, EventsReply, GetEvents
from lockring.protocol.identities import Identity
from lockring.slots import all_slots, slot_of
from tests.unit.core.grantees import grantee
from tests.unit.core.states import first_state, member, moved, numbers, replica, with_members

MS = 1_000_000
S = 1_000 * MS
SEES_ALL = EventViewer()


def ask(
    memory: EventMemory, viewer: EventViewer = SEES_ALL, *, now_ns: int = 0, **question: object
) -> EventsReply:
    return memory.answer(GetEvents(5, **question), 5, viewer, now_ns)  # type: ignore[arg-type]


def kinds(reply: EventsReply) -> list[str]:
    return [each.kind for each in reply.events]


def lose(memory: EventMemory, name: str, now_ns: int = 0, token: int = 7) -> None:
    memory.lock_ended(events.LOST, name, "me", token, reason="expired", now_ns=now_ns)


def test_a_lost_lock_is_remembered_with_its_holder_token_reason_and_age() -> None:
    memory = EventMemory("life")
    lose(memory, "x", 2 * S)
    reply = ask(memory, now_ns=5 * S)
    (event,) = reply.events
    assert (event.number, event.kind, event.name, event.owner) == (1, "lost", "x", "me")
    assert (event.generation, event.reason, event.age_ms) == (7, "expired", 3_000)
    assert (reply.more, reply.gap, reply.last, reply.origin) == (False, False, 1, "life")


def test_a_page_has_the_newest_events_that_fit_oldest_first() -> None:
    memory = EventMemory("life")
    for number in range(10):
        lose(memory, f"{'ab'[number % 2]}/{number}", number * S)
    reply = ask(memory, now_ns=9 * S, prefix="a/", limit=2)
    assert [each.name for each in reply.events] == ["a/6", "a/8"]
    assert reply.more
    older = ask(memory, now_ns=9 * S, prefix="a/", limit=5, before=reply.events[0].number)
    assert [each.name for each in older.events] == ["a/0", "a/2", "a/4"]
    assert not older.more
    assert [each.name for each in ask(memory, now_ns=9 * S, after=8).events] == ["a/8", "b/9"]
    assert [each.name for each in ask(memory, now_ns=9 * S, age_ms=1_500).events] == ["a/8", "b/9"]
    assert kinds(ask(memory, kinds=["failover", "lost"], limit=1)) == ["lost"]
    assert kinds(ask(memory, kinds=["failover"])) == []


KINDS_ASKED = ("lost", "broken", "moved", "failover", "coordinator-lost", "never-heard-of")


@given(
    st.lists(st.sampled_from([*KINDS_ASKED[:3], *KINDS_ASKED[4:5]]), max_size=30),
    st.lists(st.sampled_from(KINDS_ASKED), max_size=3),
    st.sampled_from(["", "a/", "z"]),
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(-1, 30), st.integers(1, 9)),
    st.booleans(),
)
def test_a_page_is_that_of_all_events_in_one_list(
    added: list[str], asked: list[str], prefix: str, bounds: tuple[int, int, int, int], sees_all: bool
) -> None:
    memory = EventMemory("life")
    first, second = first_state("a", "b"), moved(first_state("a", "b"), "b", 1)
    slots = list(second.slots)
    slots[1] = msgspec.structs.replace(slots[1], backup=Copy(replica("a"), 101))
    second = msgspec.structs.replace(second, slots=tuple(slots))
    names: list[str] = []
    for at, kind in enumerate(added):
        names.append("" if kind in ("moved", "coordinator-lost") else f"{'ab'[at % 2]}/{at}")
        if kind == "moved":
            memory.learned(first, second, numbers(1), at * MS)
        elif kind == "coordinator-lost":
            memory.coordinator_changed(kind, NodeId("a"), at * MS)
        else:
            memory.lock_ended(kind, LockName(names[-1]), "me", Generation(7), reason="", now_ns=at * MS)
    after, before, age_ms, limit = bounds
    access = grantee("web-1", "read *" if sees_all else "read a/*")
    reply = ask(
        memory,
        viewer_of(access),
        now_ns=len(added) * MS,
        prefix=prefix,
        kinds=asked,
        after=after,
        before=before,
        age_ms=age_ms,
        limit=limit,
    )
    fitting = [
        number
        for number, (kind, name) in enumerate(zip(added, names, strict=True), start=1)
        if number > after
        and (not before or number < before)
        and (age_ms < 0 or len(added) - number + 1 <= age_ms)
        and (not asked or kind in asked)
        and name.startswith(prefix)
        and (sees_all or name.startswith("a/"))
    ]
    assert [each.number for each in reply.events] == fitting[-limit:]
    assert [each.kind for each in reply.events] == [added[number - 1] for number in fitting[-limit:]]
    assert [each.age_ms for each in reply.events] == [len(added) - number + 1 for number in fitting[-limit:]]
    assert reply.more == (len(fitting) > limit)


@pytest.mark.interpreted
def test_a_page_is_read_no_further_than_it_reaches_and_only_where_its_events_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = EventMemory("life")
    for number in range(3_000):
        lose(memory, f"job/{number}", number)
        if number % 4 == 0:
            memory.coordinator_changed("coordinator-lost", NodeId("a"), number)
    looks: list[str] = []

    class Counting(EventViewer):
        def sees(self, event: EventRecord) -> bool:
            looks.append(event.kind)
            return super().sees(event)

    assert len(ask(memory, Counting(), now_ns=S, limit=20).events) == 20
    assert len(looks) <= 20 + 3
    looks.clear()
    assert ask(memory, Counting(), now_ns=S, prefix="zzz").events == []
    assert ask(memory, Counting(), now_ns=S, kinds=["moved"]).events == []
    assert looks == []
    assert len(ask(memory, Counting(), now_ns=S, kinds=["coordinator-lost"], limit=1_000).events) == 750
    assert set(looks) == {"coordinator-lost"}


@pytest.mark.parametrize(
    "question", [{"limit": 0}, {"limit": 1_001}, {"kinds": ["x"] * 65}, {"name": "x" * 2_000}]
)
def test_a_question_for_too_much_is_refused(question: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        ask(EventMemory("life"), **question)


def test_a_flood_of_lost_locks_pushes_out_no_failover_and_is_bounded() -> None:
    memory = EventMemory("life")
    first = first_state("a", "b")
    memory.learned(first, moved(first, "b", 1, 2, 3), numbers(1, 2, 3), S)
    for number in range(events.LOCK_EVENTS_MAX + 500):
        lose(memory, f"job/{number}", 2 * S)
    reply = ask(memory, now_ns=2 * S, kinds=["failover"])
    assert kinds(reply) == ["failover"]
    assert ask(memory, now_ns=2 * S, after=1).gap
    assert not ask(memory, now_ns=2 * S, after=reply.last - 5).gap
    assert memory.of_lock("job/0") == []
    held = ask(memory, limit=events.PAGE_MAX, kinds=["lost"], now_ns=2 * S)
    assert len(held.events) == events.PAGE_MAX
    assert held.more


def test_the_last_events_of_a_lock_are_found_by_its_name_though_others_had_more() -> None:
    memory = EventMemory("life")
    for token in range(20):
        lose(memory, "x", S, token)
    for number in range(events.NAMES_MAX - 1):
        for _ in range(3):
            lose(memory, f"other/{number}", S)
    found = ask(memory, now_ns=S, name="x", limit=100).events
    assert [each.generation for each in found] == list(range(12, 20))
    lose(memory, "one too many", S)
    assert ask(memory, now_ns=S, name="x").events == []


def test_the_last_change_of_the_primary_belongs_to_the_history_of_each_lock_of_the_slot() -> None:
    memory = EventMemory("life")
    slot = slot_of("x")
    first = first_state("a", "b")
    second = moved(first, "b", slot, slot + 1)
    memory.learned(first, second, numbers(slot, slot + 1), S)
    lose(memory, "x", 2 * S)
    memory.learned(second, moved(second, "a", slot + 1), numbers(slot + 1), 3 * S)
    assert kinds(ask(memory, now_ns=3 * S, name="x")) == ["failover", "lost"]


def test_the_difference_of_two_states_becomes_one_event_for_each_pair_of_nodes() -> None:
    memory = EventMemory("life")
    first = first_state("a", "b", "c")
    slots = list(first.slots)
    slots[0] = msgspec.structs.replace(slots[0], primary=replica("b"))
    slots[1] = msgspec.structs.replace(slots[1], primary=replica("b"), backup=Copy(replica("a"), 101))
    slots[2] = msgspec.structs.replace(slots[2], primary=None)
    slots[3] = msgspec.structs.replace(slots[3], primary=replica("a", 2))
    slots[4] = msgspec.structs.replace(slots[4], primary=replica("b"))
    second = msgspec.structs.replace(first, version=first.version + 1, slots=tuple(slots))
    memory.learned(first, second, all_slots(), S)
    found = {(each.kind, each.source, each.node): each for each in ask(memory, now_ns=S).events}
    assert {key: each.slots for key, each in found.items()} == {
        ("failover", "a", "b"): 2,
        ("moved", "a", "b"): 1,
        ("vacant", "a", ""): 1,
        ("resumed", "a", "a"): 1,
    }
    assert all(each.version == second.version for each in found.values())
    memory.learned(second, msgspec.structs.replace(first, version=second.version + 1), numbers(2), S)
    assert kinds(ask(memory, now_ns=S))[-1] == "assigned"


def test_members_that_come_go_drain_and_are_started_again_are_remembered() -> None:
    memory = EventMemory("life")
    states = [first_state("a", "b")]
    draining = msgspec.structs.replace(member("b"), condition="draining")
    for members in (
        (member("a"), member("b"), member("c")),
        (member("a"), draining, member("c")),
        (member("a"), member("b"), member("c")),
        (member("a"), draining, member("c", 2)),
        (member("a"), member("c", 2)),
        (member("a"),),
    ):
        states.append(with_members(states[-1], *members))
        memory.learned(states[-2], states[-1], (), S)
    found = [(each.kind, each.node) for each in ask(memory, now_ns=S).events]
    assert found == [
        ("joined", "c"),
        ("draining", "b"),
        ("undrained", "b"),
        ("draining", "b"),
        ("restarted", "c"),
        ("left", "b"),
        ("failed", "c"),
    ]


def test_a_memory_begins_with_its_first_state_and_notes_each_new_leader() -> None:
    memory = EventMemory("life")
    first = first_state("a")
    memory.learned(msgspec.structs.replace(first, version=0), first, all_slots(), S)
    assert ask(memory).events == []
    assert ask(memory).since == first.version
    second = msgspec.structs.replace(first, version=first.version + 1, term="next", coordinator="there:2")
    memory.learned(first, second, (), S)
    assert [(each.kind, each.source) for each in ask(memory, now_ns=S).events] == [("leading", "there:2")]


# --------------------------------------------------------------------------- rights


def test_rights_decide_which_events_an_identity_sees() -> None:
    memory = EventMemory("life")
    first = first_state("a", "b")
    memory.learned(first, moved(first, "b", 1), numbers(1), S)
    for name in ("jobs/1", "secret/1"):
        lose(memory, name, S)

    def seen(access: Grantee | None) -> list[str]:
        return [each.name for each in ask(memory, viewer_of(access), now_ns=S).events]

    assert seen(None) == ["", "jobs/1", "secret/1"]
    assert seen(grantee("web-1", "read *")) == ["", "jobs/1", "secret/1"]
    assert seen(grantee("web-1", "read jobs/*")) == ["jobs/1"]
    assert seen(grantee("web-1", "read *", "deny read secret/*")) == ["jobs/1"]
    assert seen(grantee("web-1", "acquire *")) == []
    assert seen(grantee("web-1", is_enforced=False)) == ["", "jobs/1", "secret/1"]
    server = grantee("n1")
    server.identity = Identity("node", "n1")
    assert seen(server) == [""]


# --------------------------------------------------------------------------- several servers, and words


def reply(*found: EventRecord, since: int = 0) -> EventsReply:
    return EventsReply(5, list(found), False, False, len(found), "life", since)


def event(kind: str, age_ms: int, version: int = 0, **more: object) -> EventRecord:
    return EventRecord(age_ms, kind, age_ms, version=version, **more)  # type: ignore[arg-type]


def test_a_change_that_several_servers_report_is_in_the_merged_list_once() -> None:
    old, new, lost = event("joined", 90, 5), event("failover", 50, 20), event("lost", 70, name="x")
    found = merged(
        {
            "coordinator": reply(new, since=10),
            "b": reply(event("joined", 91, 5), lost, event("failover", 51, 20), since=2),
            "a": reply(old, event("failover", 52, 20), event("coordinator-lost", 10), since=4),
        }
    )
    assert [(each.server, each.event.kind) for each in found] == [
        ("b", "joined"),
        ("b", "lost"),
        ("coordinator", "failover"),
        ("a", "coordinator-lost"),
    ]
    assert newest_version(found) == 20
    assert [each.event.kind for each in merged({"a": reply(new, lost)}, above=20)] == ["lost"]


def test_the_many_steps_of_one_move_are_shown_as_one() -> None:
    def step(age_ms: int, to: str, slots: int) -> EventRecord:
        return event("moved", age_ms, 9_999 - age_ms, source="a", node=to, slots=slots)

    found = merged(
        {
            "c": reply(
                step(9_000, "b", 1),
                step(8_000, "b", 2),
                step(7_900, "c", 7),
                step(7_000, "b", 4),
                step(90, "b", 8),
            )
        }
    )
    assert [(each.event.node, each.event.slots) for each in condensed(found)] == [
        ("c", 7),
        ("b", 7),
        ("b", 8),
    ]


@pytest.mark.parametrize("kind", events.KINDS)
def test_each_kind_of_event_has_a_sentence_that_names_its_subject(kind: str) -> None:
    record = EventRecord(
        1, kind, 0, name="x", node="n2", source="n1", slots=2, owner="me", generation=7, reason="expired"
    )
    text = sentence_of(record)
    assert text != kind
    assert any(word in text for word in ("n1", "n2", "'x'"))


def test_a_kind_of_a_newer_server_is_shown_as_it_is() -> None:
    assert sentence_of(EventRecord(1, "melted", 0)) == "melted"
