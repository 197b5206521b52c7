"""The departure of a node: its steps, and its waits."""

from __future__ import annotations

import msgspec
import pytest

from lockring.cluster_state import Replica, SlotState
from lockring.core.effects import COORDINATOR, Depart, DepartureEnd, Effect, Note, Send
from lockring.core.node import NodeCore
from lockring.core.node.departure import COORDINATOR_AWAY_NS_MAX, COORDINATOR_SILENT_NS_MAX
from lockring.ids import NodeId
from lockring.protocol import Drain, DrainReply, Leave, Refusal, UndrainReply
from tests.unit.core.node.world import MS, Nodes, S


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes


def leave(nodes: Nodes, *, timeout_ns: int = 3600 * S) -> list[Effect]:
    """Tell node A to leave, and return what it does about it."""
    core = nodes.cores["A"]
    core.leave(timeout_ns=timeout_ns, now_ns=nodes.now)
    return core.take_effects(now_ns=nodes.now)


def answer(nodes: Nodes, message: DrainReply | UndrainReply | Refusal) -> list[Effect]:
    core = nodes.cores["A"]
    core.receive(COORDINATOR, message, now_ns=nodes.now)
    return core.take_effects(now_ns=nodes.now)


def step(nodes: Nodes, duration_ns: int) -> list[Effect]:
    """Let time pass for node A alone, in ticks, and return all that it does."""
    core, effects = nodes.cores["A"], []
    end_ns = nodes.now + duration_ns
    while nodes.now < end_ns:
        nodes.now += 100 * MS
        core.on_timer(now_ns=nodes.now)
        effects += core.take_effects(now_ns=nodes.now)
    return effects


def wishes(effects: list[Effect]) -> int:
    return len(numbers(effects))


def numbers(effects: list[Effect]) -> list[int]:
    """Return the numbers under which the node has asked to leave."""
    return [
        each.message.request for each in effects if isinstance(each, Send) and isinstance(each.message, Leave)
    ]


def ends(effects: list[Effect]) -> list[DepartureEnd]:
    return [each.end for each in effects if isinstance(each, Depart)]


def give_to_b(nodes: Nodes, core: NodeCore) -> list[Effect]:
    """Let the coordinator give all of A's slots to B, with A draining."""
    version = nodes.state.version + 1
    members = dict(nodes.state.members)
    members[NodeId("A")] = msgspec.structs.replace(members[NodeId("A")], condition="draining")
    b = nodes.replicas["B"]
    slots = tuple(
        msgspec.structs.replace(slot, epoch=version, since=version, primary=b, backup=None)
        if slot.primary is not None
        else slot
        for slot in nodes.state.slots
    )
    nodes.state = msgspec.structs.replace(nodes.state, version=version, members=members, slots=slots)
    core.adopt(nodes.state, now_ns=nodes.now)
    return core.take_effects(now_ns=nodes.now)


def test_a_node_that_leaves_says_so_to_the_coordinator_and_stops_once_nothing_is_left_on_it(
    nodes: Nodes,
) -> None:
    assert wishes(leave(nodes)) == 1
    assert ends(answer(nodes, DrainReply(1, "A"))) == []
    assert ends(give_to_b(nodes, nodes.cores["A"])) == [DepartureEnd.DRAINED]
    assert ends(step(nodes, S)) == [], "it says so once"


def test_a_node_does_not_stop_before_the_coordinator_has_begun_the_drain(nodes: Nodes) -> None:
    leave(nodes)
    assert ends(give_to_b(nodes, nodes.cores["A"])) == []
    assert ends(answer(nodes, DrainReply(1, "A"))) == [DepartureEnd.DRAINED]


def test_a_request_to_leave_that_is_refused_is_repeated(nodes: Nodes) -> None:
    leave(nodes)
    assert wishes(step(nodes, S)) == 0, "no answer has come"
    answer(nodes, Refusal(1, "not-coordinator", "not yet"))
    assert wishes(step(nodes, S)) == 1


def test_a_refusal_that_answers_no_request_is_not_an_answer_to_the_wish_to_leave(nodes: Nodes) -> None:
    leave(nodes)
    (note,) = answer(nodes, Refusal(0, "protocol", "it speaks another language"))
    assert isinstance(note, Note)
    assert note.text == "the coordinator refuses: it speaks another language"
    assert wishes(step(nodes, S)) == 0, "the coordinator has not answered the wish"


def test_the_wish_to_leave_and_operators_requests_have_numbers_of_one_sequence(nodes: Nodes) -> None:
    operator = nodes.client("A", "operator")
    operator.ask(Drain(70, "B"))
    assert numbers(leave(nodes)) == [2]
    operator.ask(Drain(71, "B"))
    nodes.deliver("A", COORDINATOR, Refusal(3, "last-node", "no other node", "B"))
    assert wishes(step(nodes, S)) == 0, "the refusal was the operator's"
    answer(nodes, Refusal(2, "not-coordinator", "not yet"))
    assert numbers(step(nodes, S)) == [4]
    assert ends(answer(nodes, UndrainReply(4, "A"))) == [], "this is not an answer to it"
    nodes.deliver("A", COORDINATOR, DrainReply(1, "B"))
    assert operator.inbox[-1] == DrainReply(70, "B")


def test_a_late_answer_to_a_former_wish_to_leave_is_dropped(nodes: Nodes) -> None:
    leave(nodes)
    core = nodes.cores["A"]
    core.disconnected(COORDINATOR, now_ns=nodes.now)
    core.connected(COORDINATOR, now_ns=nodes.now)
    assert ends(give_to_b(nodes, core)) == []
    assert ends(answer(nodes, DrainReply(1, "A"))) == []
    assert ends(answer(nodes, DrainReply(2, "A"))) == [DepartureEnd.DRAINED]


def test_a_request_to_leave_is_repeated_on_a_new_connection(nodes: Nodes) -> None:
    leave(nodes)
    core = nodes.cores["A"]
    answer(nodes, DrainReply(1, "A"))
    core.disconnected(COORDINATOR, now_ns=nodes.now)
    core.connected(COORDINATOR, now_ns=nodes.now)
    assert wishes(core.take_effects(now_ns=nodes.now)) == 1


def test_without_a_coordinator_a_node_stops_after_a_few_seconds(nodes: Nodes) -> None:
    nodes.cores["A"].disconnected(COORDINATOR, now_ns=nodes.now)
    leave(nodes)
    assert ends(step(nodes, COORDINATOR_AWAY_NS_MAX - S)) == []
    assert ends(step(nodes, 2 * S)) == [DepartureEnd.COORDINATOR_AWAY]


def test_a_node_that_has_nothing_need_not_wait_for_a_coordinator_that_is_away(nodes: Nodes) -> None:
    nodes.slots(lambda slot: SlotState(epoch=slot.epoch))
    nodes.cores["A"].disconnected(COORDINATOR, now_ns=nodes.now)
    assert ends(leave(nodes)) == [DepartureEnd.NOTHING_HERE]


@pytest.mark.parametrize("timeout_ns", [0, 3600 * S])
def test_a_life_that_has_not_joined_yet_has_nothing_to_hand_over(timeout_ns: int) -> None:
    core = NodeCore(Replica("A", 2), now_ns=S)
    core.leave(timeout_ns=timeout_ns, now_ns=S)
    assert ends(core.take_effects(now_ns=S)) == [DepartureEnd.NEW_LIFE]


def test_a_life_that_is_just_joining_waits_for_its_first_state() -> None:
    core = NodeCore(Replica("A", 2), now_ns=S)
    core.connected(COORDINATOR, now_ns=S)
    core.leave(timeout_ns=3600 * S, now_ns=S)
    assert ends(core.take_effects(now_ns=S)) == []


def test_a_coordinator_that_acknowledges_nothing_is_given_up(nodes: Nodes) -> None:
    leave(nodes)
    assert ends(step(nodes, COORDINATOR_SILENT_NS_MAX - S)) == []
    assert ends(step(nodes, 3 * S)) == [DepartureEnd.COORDINATOR_AWAY]


def test_a_node_stops_when_its_time_is_up_whatever_is_left_on_it(nodes: Nodes) -> None:
    leave(nodes, timeout_ns=2 * S)
    answer(nodes, DrainReply(1, "A"))
    assert ends(step(nodes, S)) == []
    assert ends(step(nodes, 2 * S)) == [DepartureEnd.TIMED_OUT]


# ---------------------------------------------------------------------- with a journal


def leave_with_a_journal(others: dict[str, str]) -> tuple[Nodes, list[Effect]]:
    """Let node A leave with a journal and a lock, until the state says that it drains, and what others do."""
    nodes = Nodes("A", *others, journals=True)
    nodes.assign("A")
    nodes.client("A", "s").acquire("x", 1)
    effects = leave(nodes)
    assert [each.message.keeps for each in effects if isinstance(each, Send)] == [True]
    effects = answer(nodes, DrainReply(numbers(effects)[0], NodeId("A")))
    assert ends(effects) == []
    members = {
        name: msgspec.structs.replace(member, condition="draining" if name == "A" else others[name])
        for name, member in nodes.state.members.items()
    }
    nodes.state = msgspec.structs.replace(nodes.state, version=nodes.state.version + 1, members=members)
    nodes.cores["A"].adopt(nodes.state, now_ns=nodes.now)
    return nodes, effects


@pytest.mark.parametrize("others", [{}, {"B": "draining"}])
def test_node_with_a_journal_stops_once_no_other_goes_on(others: dict[str, str]) -> None:
    nodes, _ = leave_with_a_journal(others)
    core = nodes.cores["A"]
    assert ends(core.take_effects(now_ns=nodes.now)) == []
    batch = core.take_journal(now_ns=nodes.now)
    assert batch is not None
    core.journaled(batch.number, now_ns=nodes.now)
    assert ends(core.take_effects(now_ns=nodes.now)) == [DepartureEnd.KEPT]


def test_node_with_a_journal_moves_its_slots_while_another_goes_on() -> None:
    nodes, _ = leave_with_a_journal({"B": "active"})
    core = nodes.cores["A"]
    batch = core.take_journal(now_ns=nodes.now)
    assert batch is not None
    core.journaled(batch.number, now_ns=nodes.now)
    assert ends(step(nodes, 2 * S)) == []


def test_node_that_cannot_write_its_journal_stops_with_what_is_there() -> None:
    nodes, _ = leave_with_a_journal({})
    core = nodes.cores["A"]
    core.journal_lost("disk full", now_ns=nodes.now)
    assert ends(step(nodes, 100 * MS)) == [DepartureEnd.KEPT]


def test_node_without_a_journal_keeps_nothing(nodes: Nodes) -> None:
    effects = leave(nodes)
    assert [each.message.keeps for each in effects if isinstance(each, Send)] == [False]
