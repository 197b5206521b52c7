"""Scenarios: a calm cluster with the default durations, and something that goes wrong at a chosen moment.

All checkers watch here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from lockring.cluster_state import ClusterState, Replica, SlotState, encode_state
from lockring.core.client.link_checks import CHECK_NS, CHECK_NS_MIN
from lockring.core.client.tickets import deadline_ns_of
from lockring.core.coordinator import transitions
from lockring.core.effects import COORDINATOR
from lockring.core.node import acquires, generations, leases, lock_events
from lockring.core.timing import Timing
from lockring.errors import WrongCluster
from lockring.ids import Version
from lockring.protocol import PROTOCOL, Break, Join, Leave, Release, State
from lockring.slots import slot_of
from tests.sim.framework.coordinator_shell import CoordinatorShell
from tests.sim.framework.journal_shell import Durability
from tests.sim.framework.network import End
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.store import SimStore
from tests.sim.framework.workload import ClientShell, Habits, Task
from tests.sim.framework.world import Process, S, Slowness, Violation
from tests.sim.rules.switches import replaced
from tests.sim.seeds.plan import Plan, names_in, timing_of
from tests.sim.seeds.run import Simulation

TTL_MS = 10_000


class Scenario:
    """A cluster that has come to rest.

    With `standbys` its coordinators share a store, and one of them leads. Without `rivals` only the first one runs.

    Attributes:
        simulation: the cluster.
        name: a lock name to play with.
    """

    def __init__(
        self,
        *,
        nodes: int = 3,
        clients: int = 2,
        late_nodes: int = 0,
        coordinators: int = 1,
        standbys: bool = False,
        rivals: bool = True,
        seed: int = 1,
        replication: str = "sync",
        member_lease_s: float = 5,
        lease_s: float = 30,
        slot: int = 0,
        durability: Durability = "none",
    ) -> None:
        habits = Habits(names_in([slot], 1), (TTL_MS,), 0, S, S, 0.0, 0.0, 0.0)
        timing = Timing(member_lease_ns=int(member_lease_s * S))
        if lease_s != 30:
            timing = timing_of(int(lease_s * S), int(lease_s * S / 2))
        plan = Plan(nodes, clients, coordinators, timing, replication, habits, [], S, S, late_nodes, False)
        plan = plan._replace(durability=durability, standbys=standbys)
        self.simulation = Simulation(seed, story=True, plan=plan)
        self.world = self.simulation.world
        self.name = habits.names[0]
        self.simulation.begin(rivals=standbys and rivals)
        self.quiet()

    # ------------------------------------------------------------------ time

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now + int(seconds * S))

    def quiet(self, seconds: float = 60) -> float:
        """Wait until every slot is served and nothing has moved for two seconds; return how long it took, in
        seconds."""
        begun, version, since = self.world.now, -1, self.world.now
        while self.world.now - begun < seconds * S:
            self.run(0.1)
            state = self.simulation.store.state
            if state is None or state.version != version or self.simulation.unserved():
                version, since = (0 if state is None else state.version), self.world.now
            elif self.world.now - since >= 2 * S:
                return (since - begun) / S
        raise AssertionError(f"not quiet after {seconds} s")

    def wait(self, what: object, seconds: float) -> float:
        """Wait until `what()` is true. Returns how long it took, in seconds."""
        assert callable(what)
        begun = self.world.now
        while not what():
            assert self.world.now - begun < seconds * S, f"not within {seconds} s"
            self.run(0.005)
        return (self.world.now - begun) / S

    def step(self, what: object, seconds: float) -> None:
        """Wait until `what()` is true and stop right then, before anything that takes a message is done about it."""
        assert callable(what)
        begun = self.world.now
        while not what():
            assert self.world.now - begun < seconds * S, f"not within {seconds} s"
            self.run(0.000_01)

    # ------------------------------------------------------------------ what clients do

    def hold(self, client: ClientShell, *names: str, ttl_ms: int = TTL_MS) -> list[Task]:
        """Let a client acquire locks, and wait until it holds them all."""
        tasks = [client.take(name, ttl_ms=ttl_ms) for name in names]
        self.wait(lambda: all(task.outcome == "held" for task in tasks), 10)
        return tasks

    def let_go(self, client: ClientShell, *tasks: Task) -> None:
        """Let a client release what it holds, and wait until that is confirmed."""
        for task in tasks:
            client.give_back(task)
        self.wait(lambda: all(task.outcome == "released" for task in tasks), 10)

    def release_again(self, client: ClientShell, task: Task) -> None:
        """Let the release of an acquisition reach the lock's primary once more."""
        node = self.primary()
        assert node.core is not None
        assert task.last is not None
        ticket = task.last
        connection = next(
            number for number, end in node._clients.items() if end.other.process is client and end.open
        )
        late = Release(1 << 40, ticket.session.id, ticket.acquisition, ticket.name)
        node.core.receive(connection, late, now_ns=node.now_ns())
        node.wake(1_000)

    # ------------------------------------------------------------------ who is what

    def slot(self) -> SlotState:
        """The slot of the lock, as stored."""
        state = self.simulation.store.state
        assert state is not None
        return state.slots[slot_of(self.name)]

    def node(self, name: str) -> NodeShell:
        """A node by its name."""
        return next(each for each in self.simulation.nodes if each.name == name)

    def primary(self) -> NodeShell:
        """The lock's primary."""
        primary = self.slot().primary
        assert primary is not None
        return self.node(primary.node)

    def backup(self) -> NodeShell:
        """The lock's backup."""
        backup = self.slot().backup
        assert backup is not None
        return self.node(backup.replica.node)

    def third(self) -> NodeShell:
        """A node that is neither the lock's primary nor its backup."""
        return next(n for n in self.simulation.nodes if n not in (self.primary(), self.backup()))

    @property
    def coordinator(self) -> CoordinatorShell:
        """The first coordinator."""
        return self.simulation.coordinators[0]

    def leader(self) -> CoordinatorShell:
        """The coordinator that decides, by its own account and the store's; there has to be one."""
        leader = self.simulation.store.leader
        assert leader is not None
        found = next(each for each in self.simulation.coordinators if each.address == leader.address)
        assert self.decides(found)
        return found

    def standbys(self) -> list[CoordinatorShell]:
        """The coordinators that run, and do not lead."""
        return [each for each in self.simulation.coordinators if each.alive and each is not self.leader()]

    @staticmethod
    def decides(coordinator: CoordinatorShell) -> bool:
        """Whether a coordinator takes itself for the one that decides, rightly or not."""
        return coordinator.deciding is not None and coordinator.deciding.is_active

    def version(self) -> int:
        """The version of the stored state."""
        return 0 if self.simulation.store.state is None else self.simulation.store.state.version

    def ring_updates(self) -> int:
        """How often the coordinator has made a new ring of its members."""
        core = self.coordinator.deciding
        assert core is not None
        return core.status().ring_updates

    def lease_wait_left_s(self) -> float:
        """For how long slots wait for leases to end, as the coordinator sees it; 0 if none does."""
        core = self.coordinator.deciding
        assert core is not None
        return core._runs.waits(now_ns=self.coordinator.now_ns())[1] / 1000

    def names(self, count: int) -> tuple[str, ...]:
        """Names of locks in the same slot as the lock."""
        return names_in([slot_of(self.name)], count)

    def many_names(self, count: int) -> list[str]:
        """Names of locks in all slots."""
        return [f"many-{number}" for number in range(count)]

    def slots_among(self, names: list[str]) -> dict[str, int]:
        """The slot of each lock."""
        return {name: slot_of(name) for name in names}

    def primaries(self) -> dict[int, str]:
        """Return the name of the primary of each slot."""
        state = self.simulation.store.state
        assert state is not None
        return {n: s.primary.node for n, s in enumerate(state.slots) if s.primary is not None}

    def name_at(self, node: NodeShell) -> str:
        """The name of a lock whose primary a node is."""
        return names_in([slot for slot, name in self.primaries().items() if name == node.name], 1)[0]

    @staticmethod
    def is_asking(client: ClientShell, node: NodeShell) -> bool:
        """Whether a client has asked a node something that is not answered yet."""
        assert client.core is not None
        return any(link.requests for link in client.core.links() if link.address == node.address)

    @staticmethod
    def is_welcome(client: ClientShell) -> bool:
        """Whether a coordinator has welcomed a client."""
        assert client.core is not None
        return any(link.is_to_coordinator for link in client.core.links())

    @staticmethod
    def was_just_answered(client: ClientShell) -> bool:
        """Whether a server has just answered a client that asked whether it is there, so that it is not asked soon."""
        assert client.core is not None
        now_ns, soon_ns = client.now_ns(), CHECK_NS_MIN - S // 20
        return any(
            soon_ns < link.health.check_at_ns - now_ns <= CHECK_NS and not link.health.asked_at_ns
            for link in client.core.links()
        )

    @staticmethod
    def has_met(client: ClientShell, stranger: CoordinatorShell) -> bool:
        """Whether a coordinator of another cluster has refused a client, and nothing else has come from it since."""
        assert client.core is not None
        failure = client.core._moves._dialing.failures.get(stranger.address)
        return failure is not None and isinstance(failure.error, WrongCluster)

    def reigns(self, node: NodeShell) -> bool:
        """Whether a node takes itself for the lock's active primary, rightly or not."""
        data = None if node.core is None else node.core.slots.get(slot_of(self.name))
        return data is not None and data.reign is not None

    def serves(self, node: NodeShell) -> bool:
        """Whether a node may serve the lock now."""
        return slot_of(self.name) in node.serving()

    def is_sent(self, node: NodeShell) -> bool:
        """Whether the start of the lock's slot is under way to all its copies."""
        data = None if node.core is None else node.core.slots.get(slot_of(self.name))
        streams = {} if data is None or data.reign is None else data.reign.streams
        return bool(streams) and all(stream.started for stream in streams.values())

    def is_copied(self, node: NodeShell) -> bool:
        """Whether all copies of the lock's slot have acknowledged something of its present reign."""
        data = None if node.core is None else node.core.slots.get(slot_of(self.name))
        return (
            data is not None
            and data.reign is not None
            and all(stream.acked is not None for stream in data.reign.streams.values())
        )

    @staticmethod
    def is_joined(node: NodeShell) -> bool:
        """Whether a coordinator has welcomed a node on its present connection."""
        return node.alive and node._welcomed

    def knows(self, node: NodeShell) -> bool:
        """Whether a node has the newest state."""
        state = self.simulation.store.state
        return node.core is not None and state is not None and node.core.state.version == state.version

    # ------------------------------------------------------------------ what goes wrong

    def crash(self, process: Process, *, power: bool = False) -> None:
        """Kill a process; with `power` its machine too, so that no connection ends."""
        self.simulation.network.process_crashed(process, power=power)
        process.crash()

    def ask_to_leave(self, node: NodeShell) -> None:
        """Let a node tell the coordinator that it is to stop; it goes on until it is ended."""
        assert node._coordinator is not None
        assert node.core is not None
        node.wished_to_leave.add(node.core.replica)
        node.transmit(node._coordinator, Leave(1))

    def add_stranger(self) -> CoordinatorShell:
        """Start a coordinator of another cluster, with a store of its own."""
        simulation, plan = self.simulation, self.simulation.plan
        stranger = CoordinatorShell(
            self.world,
            simulation.network,
            "x1",
            store=SimStore(self.world),
            timing=plan.timing,
            replication=plan.replication,
            slowness=simulation.slowness,
            drift=False,
        )
        stranger.start()
        return stranger

    def make_anew(self, *, new_cluster: bool, power: bool = False) -> None:
        """End all servers and start them again at their addresses, with a store that knows nothing.

        Args:
            new_cluster: whether a person says that there was no cluster before.
            power: whether they end by a loss of power, so that no connection ends.
        """
        servers = [*self.simulation.nodes, *self.simulation.coordinators]
        for process in servers:
            self.crash(process, power=power)
        self.simulation.store.wipe()
        for coordinator in self.simulation.coordinators:
            coordinator.new_cluster = new_cluster
        for process in servers:
            process.start()

    def cut(self, one: Process, other: Process, seconds: float) -> None:
        """Cut two processes off from each other."""
        self.simulation.network.cut(one, other, int(seconds * S))
        self.simulation.network.cut(other, one, int(seconds * S))

    def silence(self, source: Process, target: Process, seconds: float) -> None:
        """Let nothing through from one process to another; the way back stays open."""
        self.simulation.network.cut(source, target, int(seconds * S))

    def unsilence(self, source: Process, target: Process) -> None:
        """Let through again what goes from one process to another, first of all what has stalled."""
        network, pair = self.simulation.network, (source.name, target.name)
        if pair in network._cut_until:
            network._cut_until[pair] = self.world.now
            network._cleared(pair)

    def mend(self, one: Process, other: Process) -> None:
        """End what cuts two processes off from each other, in both directions."""
        self.unsilence(one, other)
        self.unsilence(other, one)

    def be_patient(self) -> None:
        """From now on a connection that is cut stalls for as long as the cut lasts, rather than being given up."""
        self.simulation.weather.give_up_max = 1_000_000 * S

    def break_connections(self, one: Process, other: Process) -> None:
        """Break the connections that one process opened to another; both notice soon, and what is under way is lost."""
        self.simulation.weather.notice_max = 5_000_000
        for end in list(one.ends.values()):
            if end.dialed and end.other.process is other:
                self.simulation.network.reset(end)

    def notice_the_end(self, one: Process, other: Process) -> None:
        """Let one process alone notice that the connections which it opened to another have ended.

        To the other they stay open, and what is under way to it arrives.
        """
        for end in list(one.ends.values()):
            if end.dialed and end.other.process is other:
                one.post(self.simulation.network._noticed, end)

    def delay(self, source: Process, target: Process, seconds: float) -> None:
        """Let what is sent next on the present connections from one process to another arrive only so much later."""
        for end in source.ends.values():
            if end.other.process is target:
                end._last_arrival = max(end._last_arrival, self.world.now + int(seconds * S))

    @staticmethod
    def left_s(client: ClientShell, task: Task) -> float:
        """For how long a client believes in its grant without a further promise."""
        return 0 if task.ticket is None else (deadline_ns_of(task.ticket) - client.now_ns()) / S

    @staticmethod
    def pause_left_s(client: ClientShell, task: Task) -> float:
        """For how long a refused acquire is not sent again."""
        backoff = task.ticket.exchange.backoff if task.ticket is not None else None
        return 0 if backoff is None else (backoff.retry_at_ns - client.now_ns()) / S

    def set_back_the_clock(self, process: Process, seconds: float = 3600) -> None:
        """Set a process's wall clock back."""
        process.wall_offset -= int(seconds * S)

    def set_clock_rate(self, process: Process, rate: int) -> None:
        """Let a process's clock go faster by so many millionths from now on."""
        clock, shown = process.clock, process.now_ns()
        clock.rate = rate
        clock.offset += shown - clock.read(self.world.now)

    def configure_lease(self, seconds: float) -> None:
        """Let the coordinator have another coordinator lease in its configuration from its next start on."""
        lease_ns = int(seconds * S)
        self.coordinator.timing = msgspec.structs.replace(
            self.coordinator.timing, coordinator_lease_ns=lease_ns
        )

    def break_lease(self, task: Task) -> None:
        """An operator ends a lease at the lock's primary."""
        node = self.primary()
        assert node.core is not None
        assert task.ticket is not None
        self.simulation.checkers.broken.add((task.ticket.session.id, task.ticket.acquisition))
        order = Break(1 << 40, task.ticket.name, task.generation)
        operator = next(iter(node.core.service.clients.by_connection))
        node.core.receive(operator, order, now_ns=node.now_ns())
        node.wake(1_000)

    @contextmanager
    def short_reservations(self) -> Iterator[None]:
        """Let generations be reserved four at a time, so that the end of a range comes soon."""
        few = [(transitions, "GENERATIONS_PER_REIGN", 4), (generations, "GENERATIONS_MARGIN", 1)]
        with replaced(few):
            yield

    @contextmanager
    def no_room_for_waiters(self) -> Iterator[None]:
        """Let nodes refuse clients that would have to wait."""
        with replaced([(acquires, "WAITERS_MAX", 0)]):
            yield

    @contextmanager
    def few_events_kept(self) -> Iterator[None]:
        """Let nodes keep two events of a watched lock."""
        with replaced([(lock_events, "EVENTS_MAX", 2)]):
            yield

    @contextmanager
    def few_messages_known(self) -> Iterator[None]:
        """Let senders forget when all but the last message were sent."""
        with replaced([(leases, "_SENT_KEPT_MAX", 1)]):
            yield

    @contextmanager
    def ends_no_process(self) -> Iterator[None]:
        """Find a violation if a core contradicts itself, which ends its process."""
        try:
            yield
        except AssertionError as error:
            raise Violation("P7", f"a process ends by itself: {error!r}") from error

    @staticmethod
    def demand(holds: bool, what: str, text: str) -> None:
        """Find a violation unless something holds that no checker looks at in general."""
        if not holds:
            raise Violation(what, text)

    def stop_in_a_turn(self, node: NodeShell, seconds: float) -> None:
        """Stop a node in the middle of what it does, for at least so long; it goes on from there."""
        calm, node.slowness = node.slowness, Slowness()
        node.slowness.pause, node.slowness.pause_max = 1.0, int(2 * seconds * S)
        self.wait(lambda: node.paused_until > self.world.now + seconds * S, 600)
        node.slowness = calm

    def trust_nothing_inside(self) -> None:
        """Ask no core for its invariants any more: only what can be seen from outside counts."""
        for process in (*self.simulation.nodes, *self.simulation.coordinators):
            if process.core is not None:
                process.core.check_invariants = lambda: None  # type: ignore[method-assign]

    # ------------------------------------------------------------------ what comes late, or twice

    def tape(self, source: Process, target: Process, *, answers: bool = False) -> list[bytes]:
        """Note what one process sends to another from now on, on connections that it opened (or answers on the
        other's)."""
        noted: list[bytes] = []

        def listen(end: End) -> None:
            def noting(payload: bytes) -> None:
                noted.append(payload)
                End.send(end, payload)

            end.send = noting  # type: ignore[method-assign]

        for end in source.ends.values():
            if end.other.process is target and end.dialed != answers:
                listen(end)
        return noted

    def play(self, noted: list[bytes], source: Process, target: Process, *, answers: bool = False) -> None:
        """Let everything noted by `tape` arrive again, in order."""
        for end in list(source.ends.values()):
            if end.other.process is target and end.dialed != answers:
                for payload in list(noted):
                    End.send(end, payload)

    def states(self) -> list[ClusterState]:
        """The present state, and from now on each that is stored."""
        store, noted = self.simulation.store, []
        if store.state is not None:
            noted.append(store.state)
        before = store.on_change

        def note(old: ClusterState | None, new: ClusterState | None) -> None:
            if new is not None:
                noted.append(new)
            before(old, new)

        store.on_change = note
        return noted

    def decide(self, change: Callable[[SlotState, Version], SlotState], *lives: Replica) -> ClusterState:
        """Store a state in which the lock's slot has changed, as a coordinator would, and let no process hear of it.

        Args:
            change: makes the slot from the present one, given the new version.
            lives: those that are members from then on, in the place of their nodes' former ones.
        """
        before = self.simulation.store.state
        assert before is not None
        version, number = Version(before.version + 1), slot_of(self.name)
        slots, members = list(before.slots), dict(before.members)
        slots[number] = msgspec.structs.replace(change(slots[number], version), epoch=version)
        for life in lives:
            members[life.node] = msgspec.structs.replace(members[life.node], replica=life)
        after = msgspec.structs.replace(before, version=version, members=members, slots=tuple(slots))
        self.simulation.store.state = after
        self.simulation.checkers.state_stored(before, after)
        return after

    def tell_again(self, node: NodeShell, state: ClusterState) -> None:
        """Let a node hear of a state from its coordinator, however old it is."""
        assert node.core is not None
        node.core.receive(COORDINATOR, State(encode_state(state)), now_ns=node.now_ns())
        node.wake(1_000)

    def forget_steps(self) -> None:
        """Let the coordinator forget what has led to its state, so that a node that comes back gets that as a whole."""
        core = self.coordinator.deciding
        assert core is not None
        core._broadcast._history._differences.clear()

    def join_again(self, life: Replica) -> None:
        """Let the join of a node's former life reach the coordinator late, on a connection that stays silent."""
        coordinator, connection = self.coordinator, 1 << 40
        assert coordinator.core is not None
        node = self.node(life.node)
        now_ns = coordinator.now_ns()
        join = Join(PROTOCOL, "", life.node, life.incarnation, node.address, node.weight, 0)
        coordinator.core.connected(connection, now_ns=now_ns)
        coordinator.core.receive(connection, join, now_ns=now_ns)
        coordinator.wake(1_000)

    def table(self, node: NodeShell) -> set[tuple[str, str, int, int]]:
        """Return the holders in the lock's slot at a node: name, session, acquisition and generation of every
        holder."""
        data = None if node.core is None else node.core.slots.get(slot_of(self.name))
        holders = () if data is None else data.table.holders()
        return {(each.lock.name, each.session.id, each.acquisition, each.generation) for each in holders}

    def slots_of(self, node: NodeShell) -> int:
        """How many slots a node is primary of."""
        state = self.simulation.store.state
        assert state is not None
        return sum(slot.primary is not None and slot.primary.node == node.name for slot in state.slots)
