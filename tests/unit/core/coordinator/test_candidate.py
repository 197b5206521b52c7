"""One coordinator process over several leads: what belongs to one of them reaches no other."""

from __future__ import annotations

from itertools import count
from typing import TypeVar

import msgspec
import pytest

from lockring.cluster_state import ClusterState, Relocation, Replica, SlotState, decode_state
from lockring.core.access import Newcomer
from lockring.core.coordinator import CandidateCore, CoordinatorCore
from lockring.core.coordinator.leadership import LEAD_MS
from lockring.core.coordinator.status import server_status_of, standby_status
from lockring.core.coordinator.store_health import StoreReport
from lockring.core.effects import Effect, Fail, Note, Send, StoreCampaign, StoreRead, StoreResign, StoreWrite
from lockring.core.election import Candidate, Election
from lockring.ids import NO_VERSION, NodeId, OperationNumber, TermId, Version
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    Drain,
    GetEvents,
    GetState,
    GetStatus,
    Message,
    Probe,
    ProbeReply,
    Refusal,
    StateReply,
)
from lockring.slots import SLOTS
from lockring.units import NS_PER_S
from tests.unit.core.grantees import grantee

T = TypeVar("T")

OTHER = Candidate(TermId("other"), "127.0.0.1:9502")


class Process:
    """A coordinator process on a shared store, whose answers the test gives."""

    def __init__(self) -> None:
        self.now_ns = 0
        numbers = count(1)
        self.core = CandidateCore(
            address="127.0.0.1:9501",
            is_shared=True,
            new_term=lambda: TermId(f"term-{next(numbers)}"),
            make_core=self._decider,
            now_ns=0,
            wall_ns=NS_PER_S,
        )
        self.core.start(now_ns=0)

    def _decider(self, term: TermId, *, now_ns: int, wall_ns: int) -> CoordinatorCore:
        return CoordinatorCore(
            address="127.0.0.1:9501",
            term=term,
            cluster_if_new="c",
            new_cluster=True,
            now_ns=now_ns,
            wall_ns=wall_ns,
        )

    def effects(self, seconds: float = 0.0) -> list[Effect]:
        """Let time pass, and return the effects that are due then."""
        self.now_ns += int(seconds * NS_PER_S)
        self.core.on_timer(now_ns=self.now_ns)
        return self.core.take_effects(now_ns=self.now_ns)

    def campaign(self, leader: Candidate | None, *, seconds: float = 1.0) -> list[Effect]:
        """Let the next campaign have this result, None for the process itself; return the effects after it."""
        campaign = the(StoreCampaign, self.effects(seconds))
        election = Election(leader or campaign.candidate)
        self.core.election_result(campaign.operation, election, now_ns=self.now_ns)
        return self.effects()

    def stand_by(self, state: ClusterState | None) -> list[Effect]:
        """Let another coordinator lead, and the next read of one that stands by show this state."""
        effects = self.effects(1.0)
        for campaign in of(StoreCampaign, effects):
            self.core.election_result(campaign.operation, Election(OTHER), now_ns=self.now_ns)
        return self.stored(the(StoreRead, effects).operation, state)

    def stored(self, operation: OperationNumber, state: ClusterState | None) -> list[Effect]:
        """Answer an operation on the store, and return the effects after it."""
        self.core.store_result(operation, ok=True, state=state, now_ns=self.now_ns)
        return self.effects()


def the(kind: type[T], effects: list[Effect]) -> T:
    """Return the one effect of this kind."""
    (found,) = of(kind, effects)
    return found


def of(kind: type[T], effects: list[Effect]) -> list[T]:
    """Return the effects of this kind."""
    return [each for each in effects if isinstance(each, kind)]


def test_results_for_a_former_lead_do_not_reach_the_present_one() -> None:
    process = Process()
    first = the(StoreRead, process.campaign(None))
    process.campaign(OTHER)
    second = the(StoreRead, process.campaign(None, seconds=2))
    assert of(StoreWrite, process.stored(first.operation, None)) == []
    claim = the(StoreWrite, process.stored(second.operation, None))
    assert claim.state.term == process.core.candidate.term


def test_each_lead_has_a_term_of_its_own() -> None:
    process = Process()
    terms = []
    for _ in range(3):
        process.campaign(None, seconds=2)
        terms.append(process.core.candidate.term)
        process.campaign(OTHER)
        assert process.core.deciding is None
    assert len(set(terms)) == 3


def test_a_campaign_without_an_answer_ends_no_lead() -> None:
    process = Process()
    process.campaign(None)
    leader = process.core.deciding
    campaign = the(StoreCampaign, process.effects(1))
    process.core.election_result(campaign.operation, None, problem="the store is away", now_ns=process.now_ns)
    assert process.core.deciding is leader is not None


def test_a_term_that_another_coordinator_has_ended_is_given_up_and_not_campaigned_for_again() -> None:
    process = Process()
    read = the(StoreRead, process.campaign(None))
    claim = the(StoreWrite, process.stored(read.operation, None))
    theirs = ClusterState(cluster="c", version=claim.state.version + 1, term=OTHER.term)
    process.core.store_result(claim.operation, ok=False, state=theirs, now_ns=process.now_ns)
    resign = the(StoreResign, process.effects())
    assert resign.term == claim.state.term
    campaign = the(StoreCampaign, process.effects(1))
    assert campaign.candidate.term != claim.state.term


@pytest.mark.parametrize("lead_ms", [LEAD_MS, 600])
def test_a_coordinator_campaigns_three_times_within_a_lead(lead_ms: int) -> None:
    process = Process()
    process.core._leadership.lead_ms = lead_ms
    begun_ns = []
    for _ in range(4):
        found: list[StoreCampaign] = []
        while not found:
            found = of(StoreCampaign, process.effects(0.01))
        (campaign,) = found
        assert campaign.ttl_ms == lead_ms
        begun_ns.append(process.now_ns)
        process.core.election_result(campaign.operation, Election(OTHER), now_ns=process.now_ns)
    assert (begun_ns[3] - begun_ns[0]) // 1_000_000 == pytest.approx(lead_ms, abs=60)


def test_an_address_stands_by_once_and_not_beside_its_own_lead() -> None:
    earlier, twice = OTHER._replace(term=TermId("earlier")), Candidate(TermId("t1"), "three:1")
    election = Election(OTHER, (earlier, twice, twice._replace(term=TermId("t2"))))
    report = StoreReport("a store", election, None)
    assert server_status_of(standby_status("", NO_VERSION), report, now_ns=0).standbys == ["three:1"]


def test_a_standby_says_once_who_leads() -> None:
    process = Process()
    notes = [each.text for each in of(Note, process.campaign(OTHER))]
    assert notes == [f"the coordinator at {OTHER.address} leads; this one stands by"]
    assert of(Note, process.campaign(OTHER)) == []


def test_a_change_of_the_lead_is_one_line_that_names_the_next_leader() -> None:
    process = Process()
    read = the(StoreRead, process.campaign(None))
    claim = the(StoreWrite, process.stored(read.operation, None))
    theirs = ClusterState(cluster="c", version=claim.state.version + 1, term=OTHER.term)
    process.core.store_result(claim.operation, ok=False, state=theirs, now_ns=process.now_ns)
    notes = [*of(Note, process.effects()), *of(Note, process.campaign(OTHER, seconds=2))]
    assert notes == [
        Note(
            "leads-no-more",
            f"this coordinator leads no more: the one at {OTHER.address} does",
            is_warning=True,
        )
    ]


def test_a_claim_that_comes_after_the_end_of_the_lead_names_no_other_coordinator() -> None:
    """The state that it finds may be of a former lead of this very process."""
    process = Process()
    found = held(5, coordinator="127.0.0.1:9501")
    claim = the(StoreWrite, process.stored(the(StoreRead, process.campaign(None)).operation, found))
    decider = process.core.deciding
    assert decider is not None
    process.core.store_result(claim.operation, ok=False, state=found, now_ns=process.now_ns)
    assert process.core.deciding is None
    assert decider.note == "the lead of this coordinator has ended, before its term was in the store"


def test_a_write_that_comes_after_the_end_of_the_lead_says_so() -> None:
    process = Process()
    claim = the(StoreWrite, process.stored(the(StoreRead, process.campaign(None)).operation, held(5)))
    process.core.store_result(claim.operation, ok=True, state=claim.state, now_ns=process.now_ns)
    process.effects()
    decider = process.core.deciding
    assert decider is not None
    after = msgspec.structs.replace(claim.state, version=Version(claim.state.version + 1))
    decider._term.write(after, frozenset(), now_ns=process.now_ns)
    write = the(StoreWrite, process.effects())
    process.core.store_result(write.operation, ok=False, state=claim.state, now_ns=process.now_ns)
    assert decider.note == "the lead of this coordinator has ended"


def held(version: int, **fields: object) -> ClusterState:
    """Return a state of the store in which a node has all slots."""
    slot = SlotState(epoch=1, since=1, base=1, primary=Replica("a", 1), generation_below=10)
    return ClusterState(cluster="c", version=version, term="earlier", slots=(slot,) * SLOTS, **fields)


def demand_loss(process: Process, found: ClusterState, known: int) -> ClusterState:
    """Fail unless a lead that finds this state relies on nothing in it, for it knows of another; return its claim."""
    read = the(StoreRead, process.campaign(None, seconds=2))
    claim = the(StoreWrite, process.stored(read.operation, found)).state
    assert claim.version > known
    assert claim.skipped == ()
    assert {slot.primary for slot in claim.slots} == {None}
    process.core.store_result(the_open(process), ok=True, state=claim, now_ns=process.now_ns)
    (warning,) = (each.text for each in of(Note, process.effects()) if each.is_warning)
    assert f"this coordinator has read or written version {known}" in warning
    return claim


def the_open(process: Process) -> OperationNumber:
    """Return the number of the newest operation on the store."""
    return process.core._operations._count


def test_a_coordinator_relies_on_no_store_that_lacks_what_it_has_read_while_it_stood_by() -> None:
    process = Process()
    process.stand_by(held(50))
    demand_loss(process, held(40), 50)


def test_a_coordinator_relies_on_no_store_that_lacks_what_it_has_written_in_a_former_lead() -> None:
    process = Process()
    read = the(StoreRead, process.campaign(None))
    claim = the(StoreWrite, process.stored(read.operation, held(40)))
    assert {slot.primary for slot in claim.state.slots} == {Replica("a", 1)}
    process.core.store_result(claim.operation, ok=True, state=claim.state, now_ns=process.now_ns)
    process.effects()
    process.campaign(OTHER)  # its own row has gone back with the state
    demand_loss(process, held(40), claim.state.version)


def test_a_coordinator_relies_on_no_store_that_went_on_without_what_it_has_read() -> None:
    process = Process()
    process.stand_by(held(50))
    process.stand_by(held(70, skipped=((40, 60),)))
    demand_loss(process, held(80, skipped=((40, 60),)), 50)


def test_a_coordinator_relies_on_a_store_whose_loss_has_been_made_up_for() -> None:
    process = Process()
    process.stand_by(held(50))
    process.stand_by(held(70, skipped=((40, 60),)))
    read = the(StoreRead, process.campaign(None, seconds=2))
    claim = the(StoreWrite, process.stored(read.operation, held(90)))
    assert {slot.primary for slot in claim.state.slots} == {Replica("a", 1)}


def test_what_a_node_has_shown_of_a_loss_outlasts_the_lead() -> None:
    process = Process()
    read = the(StoreRead, process.campaign(None))
    claim = the(StoreWrite, process.stored(read.operation, held(40)))
    process.core.store_result(claim.operation, ok=True, state=claim.state, now_ns=process.now_ns)
    process.effects()
    seen = Version(claim.state.version + 1000)
    assert process.core.deciding is not None
    process.core.deciding._term.begin_above(seen, now_ns=process.now_ns)
    process.campaign(OTHER)
    demand_loss(process, claim.state, seen)


def shown(process: Process) -> StateReply:
    """Return what a coordinator answers a client that asks for the state."""
    process.core.connected(7, now_ns=process.now_ns)
    process.core.receive(7, ClientHello(PROTOCOL, "", "client", 1), now_ns=process.now_ns)
    process.core.receive(7, GetState(1), now_ns=process.now_ns)
    (reply,) = (each.message for each in of(Send, process.effects()) if isinstance(each.message, StateReply))
    process.core.disconnected(7, now_ns=process.now_ns)
    return reply


def cut_off(process: Process, seconds: int) -> None:
    """Let a store answer nothing for a while."""
    problem = "the store is cut off"
    for _ in range(seconds):
        for each in process.effects(1.0):
            if isinstance(each, StoreCampaign):
                process.core.election_result(each.operation, None, problem=problem, now_ns=process.now_ns)
            elif isinstance(each, StoreRead):
                process.core.store_result(
                    each.operation, ok=False, state=None, problem=problem, now_ns=process.now_ns
                )


def test_a_standby_says_how_old_its_state_is() -> None:
    process = Process()
    process.stand_by(held(5))
    assert shown(process).age_ms == 0
    assert "old" not in shown(process).note
    cut_off(process, 3600)
    reply = shown(process)
    assert decode_state(reply.state).version == 5
    assert reply.age_ms == 3_600_000
    assert reply.note == "the store is cut off; what this coordinator knows of the cluster is 3600 s old"
    process.stand_by(held(6))
    assert shown(process).age_ms == 0


def test_a_leader_that_does_not_reach_its_store_says_how_old_its_state_is() -> None:
    process = Process()
    read = the(StoreRead, process.campaign(None))
    claim = the(StoreWrite, process.stored(read.operation, held(40)))
    process.core.store_result(claim.operation, ok=True, state=claim.state, now_ns=process.now_ns)
    assert shown(process).age_ms == 0
    cut_off(process, 60)
    assert process.core.deciding is not None, "no other one is known to lead"
    reply = shown(process)
    assert reply.age_ms == 59_000
    assert reply.note.endswith("what this coordinator knows of the cluster is 59 s old")


def test_a_leader_that_stands_by_again_shows_the_state_of_its_lead() -> None:
    process = Process()
    process.stand_by(held(5))
    read = the(StoreRead, process.campaign(None, seconds=2))
    claim = the(StoreWrite, process.stored(read.operation, held(5)))
    process.core.store_result(claim.operation, ok=True, state=claim.state, now_ns=process.now_ns)
    process.campaign(OTHER)
    reply = shown(process)
    assert decode_state(reply.state).version == claim.state.version
    assert reply.age_ms == 0


LEFT = ClusterState(
    cluster="c",
    version=10**19 // 2,
    term="export",
    relocation=Relocation(10**19 // 2 - 1, 0, "on Friday its state was moved into a file"),
)


def demand_end(process: Process, effects: list[Effect]) -> None:
    """Fail unless a process has failed for good, since its cluster has left the store."""
    assert "on Friday its state was moved into a file" in the(Fail, effects).reason
    assert of(StoreResign, effects), "another one need not wait for its time"
    assert process.core.deciding is None
    assert "the cluster has left this store" in process.core.status(now_ns=process.now_ns).note
    assert process.effects(60) == [], "it neither campaigns nor reads"
    assert process.core.next_deadline_ns() is None


def test_a_coordinator_begins_no_term_on_a_store_that_the_cluster_has_left() -> None:
    process = Process()
    effects = process.campaign(None)
    demand_end(process, process.stored(the(StoreRead, effects).operation, LEFT))


def test_a_leader_ends_once_the_cluster_has_left_its_store() -> None:
    process = Process()
    written = the(StoreWrite, process.stored(the(StoreRead, process.campaign(None)).operation, None))
    process.core.store_result(written.operation, ok=True, state=written.state, now_ns=process.now_ns)
    process.effects()
    decider = process.core.deciding
    assert decider is not None
    decider._term.confirm(now_ns=process.now_ns)
    demand_end(process, process.stored(the(StoreRead, process.effects()).operation, LEFT))


def test_a_standby_ends_once_the_cluster_has_left_its_store() -> None:
    process = Process()
    effects = process.effects(1.0)
    process.core.election_result(
        the(StoreCampaign, effects).operation, Election(OTHER), now_ns=process.now_ns
    )
    demand_end(process, process.stored(the(StoreRead, effects).operation, LEFT))


def test_a_standby_answers_a_ping() -> None:
    process = Process()
    process.stand_by(held(5))
    newcomer = Newcomer(grantee("web-1", "acquire *"))
    process.core.connected(7, newcomer=newcomer, now_ns=process.now_ns)
    process.core.receive(7, ClientHello(PROTOCOL, "", "client", 1), now_ns=process.now_ns)
    process.effects()
    process.core.receive(7, Probe(5), now_ns=process.now_ns)
    (sent,) = of(Send, process.effects())
    assert sent.message == ProbeReply(5)


@pytest.mark.parametrize(
    "message",
    [GetState(5), GetStatus(5), GetEvents(5), Drain(5, NodeId("a"))],
    ids=lambda each: type(each).__name__,
)
def test_a_standby_asks_for_the_same_rights_as_a_leader(message: Message) -> None:
    process = Process()
    process.stand_by(held(5))
    for connection, rules, code in ((7, "acquire *", "denied"), (8, "admin", "not-coordinator")):
        newcomer = Newcomer(grantee("web-1", rules))
        process.core.connected(connection, newcomer=newcomer, now_ns=process.now_ns)
        process.core.receive(
            connection, ClientHello(PROTOCOL, "", f"client-{connection}", 1), now_ns=process.now_ns
        )
        process.effects()
        process.core.receive(connection, message, now_ns=process.now_ns)
        (sent,) = of(Send, process.effects())
        is_refused = isinstance(sent.message, Refusal) and sent.message.code == code
        assert is_refused == (code == "denied" or isinstance(message, (Drain, GetEvents)))
