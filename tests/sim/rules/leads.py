"""Rules about the coordinator that leads, and those that stand by."""

from __future__ import annotations

from typing import Any

import msgspec

from lockring.cluster_state import ClusterState, Relocation
from lockring.core.access import Newcomer
from lockring.core.coordinator.candidate import CandidateCore
from lockring.core.coordinator.leadership import Leadership
from lockring.core.coordinator.standby import StandbyDesk
from lockring.core.coordinator.store_past import OwnVersions
from lockring.core.coordinator.term import News, Term
from lockring.core.effects import Admit, Send
from lockring.core.election import Candidate, Election
from lockring.core.node.coordinator_tie import CoordinatorTie
from lockring.ids import ConnectionId, OperationNumber, TermId, Version
from lockring.protocol import PROTOCOL, Drain, DrainReply, Heartbeat, HeartbeatAck, Join, Message, Welcome
from lockring.store.memory import MemoryStore
from lockring.units import ms_to_ns
from tests.sim.framework.coordinator_shell import CoordinatorShell
from tests.sim.framework.world import S
from tests.sim.rules.switches import Change, drill, mutant, pair
from tests.sim.scenarios.scenario import TTL_MS, Scenario


@mutant
def standby_acknowledges() -> list[Change]:
    """A coordinator that stands by welcomes nodes, and acknowledges their heartbeats."""
    take_first, receive = StandbyDesk._take_first, StandbyDesk.receive

    def first(self: StandbyDesk, sender: ConnectionId, message: Message, newcomer: Newcomer) -> None:
        if not isinstance(message, Join):
            take_first(self, sender, message, newcomer)
            return
        state = self._history.whole()
        life = (message.node, message.incarnation, self.version)
        welcome = Welcome(
            PROTOCOL, self._history.state.cluster, "coordinator", *life, coordinator=self._address
        )
        self._effects += [
            Admit(sender, is_member=True, welcome=None),
            Send(sender, welcome),
            Send(sender, state),
        ]

    def later(self: StandbyDesk, sender: ConnectionId, message: Message, *, now_ns: int) -> None:
        if isinstance(message, Heartbeat):
            ack = HeartbeatAck(message.sequence, self.version)
            self._effects.append(Send(sender, ack))
        else:
            receive(self, sender, message, now_ns=now_ns)

    return [(StandbyDesk, "_take_first", first), (StandbyDesk, "receive", later)]


@drill
def drill_standby_acknowledges() -> None:
    """The primary and its backup reach no coordinator but one that stands by."""
    cluster = Scenario(coordinators=2, standbys=True)
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name)
    for node in (cluster.primary(), cluster.backup()):
        cluster.cut(node, cluster.leader(), 90)
        cluster.cut(node, cluster.third(), 90)
    cluster.run(60)
    assert held.outcome == "local-deadline"


@mutant
def standby_takes_orders() -> list[Change]:
    """A coordinator that stands by answers an operator's drain as if it had been done."""
    answer = StandbyDesk._answer

    def changed(self: StandbyDesk, sender: ConnectionId, message: Message, now_ns: int) -> None:
        if isinstance(message, Drain):
            self._effects.append(Send(sender, DrainReply(message.request, message.node)))
        else:
            answer(self, sender, message, now_ns)

    return [(StandbyDesk, "_answer", changed)]


@drill
def drill_standby_takes_orders() -> None:
    """An operator drains the nodes of a lock through a standby if it does so, and ends them once nothing moves."""
    cluster = Scenario(nodes=4, coordinators=2, standbys=True)
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name)
    operator, answers = cluster.simulation.operator, cluster.simulation.operator.answers
    copies = (cluster.primary(), cluster.backup())
    for number, node in enumerate(copies, 1):
        operator.drain(node.name, [cluster.standbys()[0].address])
        cluster.run(2)
        if len(answers) < number:
            operator.drain(node.name, [cluster.leader().address])
            cluster.wait(lambda number=number: len(answers) == number, 5)
    assert set(answers) == {"DrainReply"}
    cluster.quiet()
    for node in copies:
        cluster.crash(node)
    cluster.run(40)
    cluster.demand(held.outcome == "held", "LOSS", "a lock was at drained nodes alone")


@mutant
def lead_under_former_term() -> list[Change]:
    """A coordinator that leads again does so under the term of its former lead.

    That it knows which versions it has written itself would make up for that.
    """
    renounce = Leadership.renounce

    def changed(self: Leadership, now_ns: int) -> None:
        candidate = self.candidate
        renounce(self, now_ns)
        self.candidate = candidate

    return [(Leadership, "renounce", changed), (OwnVersions, "lack", lambda self, version: False)]


@drill
def drill_lead_under_former_term() -> None:
    """A store goes back to what its former leader has written, from its successor's failover; and it leads again.

    It has not read what was lost, since it did not reach the store meanwhile.
    """
    cluster = Scenario(nodes=2, clients=1, coordinators=2, standbys=True)
    first, (second,), store = cluster.leader(), cluster.standbys(), cluster.simulation.store
    former, successor, client = cluster.primary(), cluster.backup(), cluster.simulation.clients[0]
    moments = store.length
    first.pause(6 * S)
    cluster.wait(lambda: cluster.decides(second), 6)
    cluster.step(lambda: first.alive and not cluster.decides(first), 10)
    store.cut(first, 120 * S)
    for process in (successor, first, second, client):
        cluster.cut(former, process, 120)
    cluster.wait(lambda: cluster.primary() is successor, 10)
    cluster.hold(client, cluster.name, ttl_ms=30_000)
    cluster.crash(second)
    first.new_cluster = False
    store.set_back(store.length - moments)
    store.heal()
    cluster.wait(lambda: cluster.decides(first) and _is_named(cluster, first), 10)
    cluster.wait(lambda: cluster.is_joined(successor), 10)
    cluster.simulation.network.heal()
    cluster.run(40)


def _is_named(cluster: Scenario, coordinator: CoordinatorShell) -> bool:
    leader = cluster.simulation.store.leader
    return leader is not None and leader.address == coordinator.address


@mutant
def frozen_coordinator_kept() -> list[Change]:
    """A node does not look for another coordinator as long as its connection stands."""
    heartbeat = CoordinatorTie.heartbeat

    def changed(self: CoordinatorTie, **arguments: Any) -> None:
        self._unanswered = 0
        heartbeat(self, **arguments)

    return [(CoordinatorTie, "heartbeat", changed)]


@drill
def drill_frozen_coordinator_kept() -> None:
    """The leader is frozen for longer than the nodes' leases."""
    cluster = Scenario(coordinators=3, standbys=True)
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name)
    cluster.leader().pause(60 * S)
    cluster.run(70)
    cluster.demand(held.outcome == "held", "LOSS", "a lock was lost with a coordinator that another follows")


@mutant
def shared_store_unsaid() -> list[Change]:
    """A coordinator does not say that its store is shared, and a node looks only for those that it can name."""
    return [(Term, "is_shared", property(lambda self: False))]


@drill
def drill_shared_store_unsaid() -> None:
    """The leader is frozen for longer than the leases of nodes that know all coordinators by one name."""
    drill_frozen_coordinator_kept()


def _campaign(leads_on: Any) -> list[Change]:
    """Replace the rule by which a store lets a leader keep its lead from another candidate."""

    def campaign(self: MemoryStore, candidate: Candidate, ttl_ms: int) -> Election:
        now_ns = self._clock_ns()
        self._until_ns[candidate] = now_ns + ms_to_ns(ttl_ms)
        if self._leader is None or not leads_on(self, now_ns):
            self._leader = candidate
        return self._election(now_ns)

    return [(MemoryStore, "campaign", campaign)]


@mutant
def lead_of_the_living_taken() -> list[Change]:
    """The store gives the lead to each coordinator that campaigns."""
    return _campaign(lambda store, now_ns: False)


def _is_calm(cluster: Scenario, seconds: float) -> None:
    """Demand that nothing changes for a while in a cluster to which nothing happens."""
    leads, version = cluster.world.stats["leads"], cluster.version()
    cluster.run(seconds)
    changed = cluster.world.stats["leads"] - leads
    cluster.demand(changed == 0, "WORK", f"the lead has changed {changed} times in {seconds} s")
    cluster.demand(cluster.version() == version, "WORK", "states are written although nothing happens")


@drill
def drill_lead_of_the_living_taken() -> None:
    """Two more coordinators are started beside the leader, and nothing else happens."""
    cluster = Scenario(coordinators=3, standbys=True, rivals=False)
    for coordinator in cluster.simulation.coordinators[1:]:
        coordinator.start()
    _is_calm(cluster, 20)


@mutant
def lead_for_good() -> list[Change]:
    """A lead does not end with its time."""
    return _campaign(lambda store, now_ns: True)


@drill
def drill_lead_for_good() -> None:
    """The leader dies, and does not come back."""
    cluster = Scenario(coordinators=2, standbys=True)
    (held,) = cluster.hold(cluster.simulation.clients[0], cluster.name)
    cluster.crash(cluster.leader())
    cluster.run(60)
    cluster.demand(
        held.outcome == "held", "LOSS", "a lock was lost with a coordinator that another could follow"
    )


@mutant
def lead_ended_by_silence() -> list[Change]:
    """A coordinator whose campaign is not answered leads no more."""
    take, result = Leadership.take_result, CandidateCore.election_result
    nobody = Election(None)

    def taken(
        self: Leadership, operation: OperationNumber, election: Election | None, problem: str, now_ns: int
    ) -> bool:
        return take(self, operation, election or nobody, problem, now_ns)

    def changed(
        self: CandidateCore, operation: OperationNumber, election: Election | None, **rest: Any
    ) -> None:
        result(self, operation, election or nobody, **rest)

    return [(Leadership, "take_result", taken), (CandidateCore, "election_result", changed)]


@drill
def drill_lead_ended_by_silence() -> None:
    """For a while no campaign is answered, although all of them take effect."""
    cluster = Scenario(coordinators=3, standbys=True)
    cluster.simulation.store.campaigns_unanswered = True
    _is_calm(cluster, 20)


@mutant
def left_store_taken() -> list[Change]:
    """A coordinator goes on in a store that bears the mark of a move."""
    end = Term._end

    def changed(self: Term, stored: ClusterState) -> News:
        return end(self, msgspec.structs.replace(stored, relocation=None))

    def read(self: Term, ok: bool, stored: ClusterState | None, now_ns: int, wall_ns: int) -> News:
        if ok:
            self._claim(stored or ClusterState(), now_ns, wall_ns)
        return News.NONE

    return [
        (Term, "_end", changed),
        (Term, "_read", read),
        (CandidateCore, "_fail", lambda self, relocation: None),
    ]


@drill
def drill_left_store_taken() -> None:
    """A leader is frozen while the cluster moves to another store, and its standby has never heard of the move."""
    cluster = Scenario(coordinators=2, standbys=True)
    cluster.hold(cluster.simulation.clients[0], cluster.name, ttl_ms=TTL_MS)
    store, leader = cluster.simulation.store, cluster.leader()
    leader.pause(3 * S)
    state = store.state
    assert state is not None
    mark = Relocation(state.version, 0, "it was moved")
    store.state = msgspec.structs.replace(
        state, version=Version(state.version + 1), term=TermId("export"), relocation=mark
    )
    cluster.run(10)
    for coordinator in cluster.simulation.coordinators:
        cluster.demand(
            not cluster.decides(coordinator), "P1", f"{coordinator.name} decides in a store that was left"
        )


def _whatever_the_lead() -> list[Change]:
    """A coordinator decides on, although another one leads by the store's account."""
    result = CandidateCore.election_result

    def changed(
        self: CandidateCore, operation: OperationNumber, election: Election | None, **rest: Any
    ) -> None:
        result(self, operation, None if self._decider is not None else election, **rest)

    return [(CandidateCore, "election_result", changed)]


def _whatever_the_term() -> list[Change]:
    """A coordinator acknowledges heartbeats whatever the confirming read says."""
    return [(Term, "_confirmed", lambda self, ok, stored, now_ns: News.CONFIRMED)]


@pair(_whatever_the_lead, _whatever_the_term)
def former_lead_goes_on() -> None:
    """A coordinator that another one follows goes on as before.

    Here either the store's account of the lead ends it, or the term in the state; only the term is sure to do so in
    time, see `no_confirm`.
    """


@drill
def drill_former_lead_goes_on() -> None:
    """A leader cannot reach the store for a while, and gets its nodes back afterwards, which reach no other one."""
    cluster = Scenario(nodes=2, clients=1, late_nodes=1, coordinators=2, standbys=True)
    cluster.simulation.store.in_line = (
        False  # else the store's account of the lead comes behind what was asked before
    )
    held = cluster.simulation.clients[0].take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    former, (other,) = cluster.leader(), cluster.standbys()
    for node in cluster.simulation.nodes:
        cluster.cut(node, other, 120)
    cluster.simulation.store.cut(former, 5 * S)
    cluster.wait(lambda: _is_named(cluster, other), 6)
    cluster.simulation.add_node()
    late = cluster.simulation.nodes[-1]
    cluster.cut(late, former, 120)
    for node in cluster.simulation.nodes[:-1]:
        cluster.cut(late, node, 120)
    cluster.run(60)
    assert held.outcome == "local-deadline"
