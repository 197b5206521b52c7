"""A coordinator of a shared store, for people: which one leads, which store it is, and whether it works."""

from __future__ import annotations

from lockring.core.coordinator import CandidateCore, CoordinatorCore
from lockring.core.effects import Send, StoreCampaign, StoreRead, StoreWrite
from lockring.core.election import Candidate, Election
from lockring.ids import NO_CLUSTER, ClientId, ClusterId, ConnectionId, GreetingNumber, RequestNumber, TermId
from lockring.protocol import PROTOCOL, ClientHello, GetStatus, ServerStatus, StatusReply
from lockring.units import NS_PER_S

PLACE = "etcd (etcd://h:2379/p)"
OTHER = Candidate(TermId("other"), "other:9500")
REFUSED = f"{PLACE} cannot be asked for the leader: connection refused"


class Played:
    """The core with its store played by hand: `answer` is the outcome of campaigns, `problem` that of all else."""

    def __init__(self) -> None:
        self.now_ns = NS_PER_S
        self.answer: Election | None = None
        self.problem = ""
        self.replies: list[ServerStatus] = []
        self.leads_of = self.asked = 0
        self.core = CandidateCore(
            address="own:9500",
            store=PLACE,
            is_shared=True,
            new_term=lambda: TermId("own"),
            make_core=self._make_core,
            now_ns=self.now_ns,
            wall_ns=self.now_ns,
        )
        self.core.start(now_ns=self.now_ns)
        self.settle()

    def _make_core(self, term: TermId, *, now_ns: int, wall_ns: int) -> CoordinatorCore:
        return CoordinatorCore(
            address="own:9500",
            term=term,
            cluster_if_new=ClusterId("c"),
            new_cluster=True,
            store=PLACE,
            now_ns=now_ns,
            wall_ns=wall_ns,
        )

    @property
    def own(self) -> Candidate:
        return self.core.candidate

    def settle(self) -> None:
        while effects := self.core.take_effects(now_ns=self.now_ns):
            for effect in effects:
                match effect:
                    case StoreCampaign(operation=operation):
                        problem = "" if self.answer is not None else REFUSED
                        self.core.election_result(operation, self.answer, problem=problem, now_ns=self.now_ns)
                    case StoreRead(operation=operation):
                        self.core.store_result(
                            operation,
                            ok=not self.problem,
                            state=None,
                            problem=self.problem,
                            now_ns=self.now_ns,
                        )
                    case StoreWrite(operation=operation, state=state):
                        is_ok = not self.problem
                        self.core.store_result(
                            operation,
                            ok=is_ok,
                            state=state if is_ok else None,
                            problem=self.problem,
                            now_ns=self.now_ns,
                        )
                    case Send(message=StatusReply(status=status)):
                        self.replies.append(status)

    def pass_s(self, seconds: int) -> None:
        for _ in range(10 * seconds):
            self.now_ns += NS_PER_S // 10
            self.core.on_timer(now_ns=self.now_ns)
            self.settle()

    def status(self) -> ServerStatus:
        """Return the answer to a client that connects now."""
        self.asked += 1
        connection = ConnectionId(self.asked)
        self.core.connected(connection, now_ns=self.now_ns)
        hello = ClientHello(PROTOCOL, NO_CLUSTER, ClientId("x"), GreetingNumber(1), "x")
        self.core.receive(connection, hello, now_ns=self.now_ns)
        self.core.receive(connection, GetStatus(RequestNumber(1)), now_ns=self.now_ns)
        self.settle()
        self.core.disconnected(connection, now_ns=self.now_ns)
        return self.replies[-1]

    def news(self) -> list[str]:
        return [each.text for each in self.core.take_store_news()]


def test_a_standby_names_the_leader_the_others_and_the_store() -> None:
    played = Played()
    played.answer = Election(OTHER, (played.own,))
    played.pass_s(2)
    status = played.status()
    assert (status.leader, status.standbys) == ("other:9500", ["own:9500"])
    assert (status.store, status.store_failing_ms, status.store_problem) == (PLACE, -1, "")


def test_a_standby_says_since_when_the_store_fails_and_why_and_logs_that_once() -> None:
    played = Played()
    played.answer = Election(OTHER, (played.own,))
    played.pass_s(2)
    played.news()
    played.answer = None
    played.pass_s(8)
    status = played.status()
    assert 7_000 <= status.store_failing_ms <= 8_000
    assert status.store_problem == REFUSED
    assert played.news() == [REFUSED]
    played.answer = Election(OTHER, (played.own,))
    played.pass_s(2)
    assert played.status().store_failing_ms == -1
    (line,) = played.news()
    assert line.startswith("the store can be read again")


def test_a_leader_says_that_its_store_cannot_be_written() -> None:
    played = Played()
    played.problem = "out of space"
    played.answer = Election(played.own)
    played.pass_s(3)
    status = played.status()
    assert status.leader == "own:9500"
    assert (status.store, status.store_problem) == (PLACE, "out of space")
    assert 2_000 <= status.store_failing_ms <= 3_000
    played.problem = ""
    played.pass_s(3)
    assert played.status().store_failing_ms == -1


def test_a_leader_without_nodes_notices_by_its_campaigns_that_the_store_is_away() -> None:
    played = Played()
    played.answer = Election(played.own)
    played.pass_s(3)
    assert played.status().store_failing_ms == -1
    played.answer = None
    played.pass_s(5)
    status = played.status()
    assert (status.leader, status.store_problem) == ("own:9500", REFUSED)
    assert 4_000 <= status.store_failing_ms <= 5_000
