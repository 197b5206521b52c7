"""Clients: the real client core in a simulated shell, and a program above it that acquires and releases locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from lockring.core.client import (
    CallResult,
    ClientCore,
    Connect,
    Disconnect,
    GrantLost,
    GroupChange,
    LongWait,
    LossOnBehalf,
    OnBehalf,
    QueryKind,
    Resolve,
    SendTo,
    Ticket,
    TicketState,
    Update,
)
from lockring.errors import LockringError
from lockring.ids import SessionId
from lockring.protocol import (
    WAIT_FOREVER,
    LockEventKind,
    Mode,
    Routes,
    RoutesDifference,
    ToClient,
)
from tests.sim.framework.checkers import Belief, Checkers
from tests.sim.framework.groups import GroupHabits, GroupProgram
from tests.sim.framework.network import End, Network
from tests.sim.framework.shells import Shell, brief
from tests.sim.framework.watches import Seen
from tests.sim.framework.world import MS, S, Slowness, World

if TYPE_CHECKING:
    from lockring.core.effects import Effect

_to_client = msgspec.msgpack.Decoder(ToClient)


class Habits(NamedTuple):
    """The behaviour of the programs above the clients, drawn per seed. Durations in ns.

    Attributes:
        names: the locks they use.
        ttls_ms: the leases they ask for.
        tasks: how many each client runs.
        think_max: longest pause between two acquisitions.
        hold_max: longest time for which a lock is held.
        try_once: probability of an acquire that does not wait.
        impatient: probability of one that waits for a bounded time.
        cancel: probability that a waiting call is cancelled.
        shared: probability of an acquire that shares the lock with others.
        watched: how many of the locks the first client watches.
    """

    names: tuple[str, ...]
    ttls_ms: tuple[int, ...]
    tasks: int
    think_max: int
    hold_max: int
    try_once: float
    impatient: float
    cancel: float
    shared: float = 0.0
    watched: int = 0


class Task:
    """One thread of the program: acquires, holds, releases, again and again; or a single scripted acquisition.

    Attributes:
        scripted: whether a scenario says when to release.
        outcome: of a scripted one: "waiting", "held", "released", the reason of its loss, or the code of an error.
        got_at: true time at which it was held.
        ended_at: true time at which it was over.
        generation: its fencing token.
        ticket: the present acquisition.
        last: the acquisition before, which is over.
    """

    def __init__(self, number: int, *, scripted: bool = False) -> None:
        self.number = number
        self.scripted = scripted
        self.outcome = "waiting"
        self.got_at = 0
        self.ended_at = 0
        self.generation = 0
        self.ticket: Ticket | None = None
        self.last: Ticket | None = None
        self.belief: Belief | None = None
        self.step = 0  # a plan of an earlier step is dropped
        self.since = 0


class ClientShell(Shell):
    """A client process.

    Attributes:
        core: the real one; None while the process is down.
        tasks: the threads of its program.
        stopping: whether the program has stopped acquiring.
        watches: the watches of its program, by lock.
        answers: what was answered on behalf of programs behind it.
    """

    is_client = True
    core: ClientCore | None

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        *,
        seeds: list[str],
        habits: Habits,
        checkers: Checkers,
        slowness: Slowness,
        drift: bool,
        group: GroupHabits | None = None,
    ) -> None:
        super().__init__(world, network, name, slowness=slowness, drift=drift)
        self.seeds = seeds
        self.habits = habits
        self.group = None if group is None else GroupProgram(self, group, checkers.groups)
        self.checkers = checkers
        self.stopping = False
        self.tasks: list[Task] = []
        self.watches: dict[str, Seen] = {}
        self.answers: list[CallResult] = []
        self.core = None

    # ------------------------------------------------------------------ life

    def on_start(self) -> None:
        self._links: dict[int, End] = {}
        self._gone: set[int] = set()
        self._by_ticket: dict[int, Task] = {}
        self._ids = 0
        self.core = ClientCore(self.seeds, owner=f"{self.name}-{self.life}", new_id=self._new_id)
        self.tasks = [Task(number) for number in range(self.habits.tasks)]
        for task in self.tasks:
            self._soon(task, self._begin, self.rng.randrange(1, self.habits.think_max))
        if self.group is not None:
            self.group.start()
        self.watches = {}
        if self.name == "k1":
            for name in self.habits.names[: self.habits.watched]:
                self._watch(name)

    def watch(self, name: str) -> None:
        """Watch a lock from now on; its updates are checked, and are in `watches`."""
        self.post(self._watch, name)

    def _watch(self, name: str) -> None:
        assert self.core is not None
        request = self.core.watch(name, now_ns=self.now_ns())
        request.exchange.call = self.watches[name] = Seen(self.checkers.watches, self.name, name)

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self.name}.{self.life}.{self._ids}"

    def on_timer(self) -> None:
        assert self.core is not None
        self.core.on_timer(now_ns=self.turn_now)
        self._look()

    # ------------------------------------------------------------------ the program

    def _soon(self, task: Task, what: object, delay: int) -> None:
        task.step += 1
        self.later(delay, self._step, task, task.step, what)

    def _step(self, task: Task, step: int, what: object) -> None:
        if step == task.step:
            what(task)  # type: ignore[operator]

    def _begin(self, task: Task) -> None:
        assert self.core is not None
        if self.stopping:
            return
        habits, rng = self.habits, self.rng
        name = rng.choice(habits.names)
        wait_ms, chance = WAIT_FOREVER, rng.random()
        if chance < habits.try_once:
            wait_ms = 0
        elif chance < habits.try_once + habits.impatient:
            wait_ms = rng.randrange(1, 3000)
        now_ns = self.now_ns()
        ttl_ms, mode = rng.choice(habits.ttls_ms), Mode.EXCLUSIVE
        if habits.shared and rng.random() < habits.shared:
            mode = Mode.SHARED
        task.ticket = self.core.acquire(name, ttl_ms=ttl_ms, now_ns=now_ns, wait_ms=wait_ms, mode=mode)
        task.since = self.world.now
        self._by_ticket[id(task.ticket)] = task
        if self.world.story is not None:
            self.world.tell(self.name, f"acquires {task.ticket!r} wait {wait_ms}")
        if rng.random() < habits.cancel:
            self._soon(task, self._cancel, rng.randrange(1, 2 * habits.hold_max))
        else:
            task.step += 1

    def _cancel(self, task: Task) -> None:
        assert self.core is not None
        if task.ticket is not None and task.ticket.state == TicketState.PENDING:
            if self.world.story is not None:
                self.world.tell(self.name, f"cancels {task.ticket!r}")
            self.world.stats["cancelled"] += 1
            self.core.cancel(task.ticket, now_ns=self.now_ns())
            self._end(task)

    def _release(self, task: Task) -> None:
        assert self.core is not None
        if task.ticket is None or task.ticket.state != TicketState.HELD:
            return
        if self.world.story is not None:
            self.world.tell(self.name, f"releases {task.ticket!r}")
        try:
            self.core.release(task.ticket, now_ns=self.now_ns())
        except LockringError:
            self.world.stats["release_of_lost"] += 1
            return  # GrantLost follows
        self.world.stats["releases"] += 1

    def _end(self, task: Task) -> None:
        if task.ticket is not None:
            self._by_ticket.pop(id(task.ticket), None)
        task.last = task.ticket
        task.ticket = task.belief = None
        task.ended_at = self.world.now
        if not self.stopping and not task.scripted:
            self._soon(task, self._begin, self.rng.randrange(1, self.habits.think_max))

    def stop(self) -> None:
        """Stop acquiring, and release soon what is held."""
        self.stopping = True
        if self.group is not None:
            self.group.stop()
        for task in self.tasks:
            if task.ticket is not None and task.ticket.state == TicketState.HELD:
                self._soon(task, self._release, self.rng.randrange(1, 50 * MS))

    def waiting(self) -> list[Ticket]:
        """Return the tickets of calls that are not over."""
        members = [] if self.group is None else self.group.waiting()
        return [task.ticket for task in self.tasks if task.ticket is not None and self.alive] + members

    # ------------------------------------------------------------------ scenarios

    def take(self, name: str, *, ttl_ms: int, wait_ms: int = WAIT_FOREVER, shared: bool = False) -> Task:
        """Acquire a lock and hold it until `give_back`; the task has the outcome."""
        task = Task(len(self.tasks), scripted=True)
        self.tasks.append(task)
        self.post(self._take, task, name, ttl_ms, wait_ms, Mode.SHARED if shared else Mode.EXCLUSIVE)
        return task

    def _take(
        self,
        task: Task,
        name: str,
        ttl_ms: int,
        wait_ms: int,
        mode: int,
        on_behalf: OnBehalf | None = None,
    ) -> None:
        assert self.core is not None
        now_ns = self.now_ns()
        task.ticket = self.core.acquire(
            name, ttl_ms=ttl_ms, now_ns=now_ns, wait_ms=wait_ms, mode=mode, on_behalf=on_behalf
        )
        task.since = self.world.now
        self._by_ticket[id(task.ticket)] = task

    def act_for_others(self) -> None:
        """Acquire on behalf of programs from now on, as a node's gRPC API does; nothing was asked of it before."""
        self.post(self._act_for_others)

    def _act_for_others(self) -> None:
        self.core = ClientCore(self.seeds, owner="", new_id=self._new_id, session_per_acquisition=True)

    def take_for(self, session: SessionId, name: str, *, ttl_ms: int) -> Task:
        """Acquire a lock for a program, whose session it names; the task has the outcome."""
        task = Task(len(self.tasks), scripted=True)
        self.tasks.append(task)
        self.post(self._take, task, name, ttl_ms, WAIT_FOREVER, Mode.EXCLUSIVE, OnBehalf(session))
        return task

    def renew_for(self, session: SessionId, name: str, *, ttl_ms: int) -> None:
        """Renew a program's lock, acquired here or elsewhere; `answers` gets the answer."""
        self.post(self._renew_for, session, name, ttl_ms)

    def _renew_for(self, session: SessionId, name: str, ttl_ms: int) -> None:
        assert self.core is not None
        now_ns = self.now_ns()
        self.core.renew_for(session, name, ttl_ms=ttl_ms, give_up_at_ns=now_ns + 2 * S, now_ns=now_ns)

    def release_for(self, session: SessionId, name: str) -> None:
        """Release a program's lock, acquired here or elsewhere; `answers` gets the answer."""
        self.post(self._release_for, session, name)

    def _release_for(self, session: SessionId, name: str) -> None:
        assert self.core is not None
        now_ns = self.now_ns()
        self.core.release_for(session, name, give_up_at_ns=now_ns + 5 * S, now_ns=now_ns)

    def hang_up(self, task: Task) -> None:
        """End the call that waits for a lock."""
        self.post(self._cancel, task)

    def list_all(self) -> None:
        """List everything to every node, as a client does that does not agree with one."""
        self.post(self._list_all)

    def _list_all(self) -> None:
        assert self.core is not None
        ready = {link.node.replica: link for link in self.core.links() if link.node is not None}
        for session in self.core.sessions():
            for share in session.shares.values():
                if share.replica in ready and share.tickets:
                    slots = sorted({ticket.slot for ticket in share.tickets.values()})
                    self.core._requests.send_lists(share, ready[share.replica], slots, self.now_ns())

    def give_back(self, task: Task) -> None:
        """Release a lock that `take` acquired."""
        self.post(self._release, task)

    # ------------------------------------------------------------------ beliefs

    def believes(self, ticket: Ticket, life: int) -> bool:
        """Return whether this client rightly takes the ticket for held at this true time."""
        return (
            self.alive
            and self.life == life
            and self.core is not None
            and self.core.believes(ticket, self.now_ns())
        )

    def _look(self) -> None:
        """Begin new beliefs after an input, and check that no belief that lapsed comes back."""
        core = self.core
        assert core is not None
        now_ns = self.turn_now
        for task in self.tasks:
            ticket, belief = task.ticket, task.belief
            if ticket is None or ticket.state != TicketState.HELD:
                continue
            if belief is None:
                if core.believes(ticket, self.now_ns()):
                    self._believe(task, ticket)
            elif core.believes(ticket, now_ns):
                if belief.lapsed:
                    self.checkers.resumed(belief)
                if core.believes(ticket, self.now_ns()):
                    self.checkers.goes_on(belief)
            else:
                belief.lapsed = True
        if self.group is not None:
            self.group.look()

    def _believe(self, task: Task, ticket: Ticket) -> None:
        life, stats = self.life, self.world.stats
        stats["wait_ms_max"] = max(stats["wait_ms_max"], (self.world.now - task.since) // MS)
        task.belief = Belief(
            self.name,
            ticket.name,
            ticket.session.id,
            ticket.acquisition,
            ticket.generation,
            lambda: self.believes(ticket, life),
            self.world.now,
            asked=task.since,
            primary="" if ticket.share is None or ticket.share.replica is None else str(ticket.share.replica),
            shared=ticket.exchange.terms.mode == Mode.SHARED,
        )
        if self.world.story is not None:
            self.world.tell(self.name, f"HOLDS {ticket!r}")
        task.outcome, task.got_at, task.generation = "held", self.world.now, ticket.generation
        self.checkers.began(task.belief)

    def _resolved(self, ticket: Ticket, error: LockringError | None) -> None:
        if self.group is not None and self.group.resolved(ticket, error):
            return
        task = self._by_ticket.get(id(ticket))
        if task is None:
            return
        if ticket.state == TicketState.HELD and error is None:
            if task.scripted:
                return
            hold = self.rng.randrange(1, 50 * MS if self.stopping else self.habits.hold_max)
            self._soon(task, self._release, hold)
            return
        if error is not None:
            self.world.stats[f"not_acquired_{error.code}"] += 1
            if self.world.story is not None:
                self.world.tell(self.name, f"does not get {ticket!r}: {error.code}: {error}")
        elif ticket.state == TicketState.HELD or ticket.state == TicketState.PENDING:
            raise AssertionError(f"resolved, but {ticket!r}")
        elif self.world.story is not None:
            self.world.tell(self.name, f"released {ticket!r}")
        task.outcome = "released" if error is None else error.code
        self._end(task)

    def _lost(self, ticket: Ticket, reason: str) -> None:
        task = self._by_ticket.get(id(ticket))
        self.world.stats[f"lost_{reason}"] += 1
        if self.world.story is not None:
            self.world.tell(self.name, f"LOST {ticket!r}: {reason}")
        if self.group is not None and self.group.lost(ticket):
            return
        if task is not None:
            task.outcome = reason
            self._end(task)

    # ------------------------------------------------------------------ effects

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Connect(link, address):
                self.network.dial(self, address, lambda end: self._dialed(link, end))
            case Disconnect(link):
                end = self._links.pop(link, None)
                if end is None:
                    self._gone.add(link)
                else:
                    end.close()
            case SendTo(link, message):
                self.transmit(self._links.get(link), message)
            case Resolve(ticket, error):
                self._resolved(ticket, error)
            case GrantLost(ticket, reason):
                self._lost(ticket, reason)
            case Update():
                self._seen(effect)
            case CallResult() if effect.request.kind is QueryKind.WATCH:
                # No server was ever reached: begin again, as its caller would.
                self.world.stats["not_watched"] += 1
                self._watch(effect.request.name)
            case CallResult():
                self.answers.append(effect)
            case LossOnBehalf():
                pass
            case LongWait(_, notice):
                assert notice.holders, "a long wait names a holder"
                assert all(each.generation for each in notice.holders)
                self.world.stats["long_waits"] += 1
            case GroupChange(request, gained, lost, awaited):
                assert self.group is not None
                self.group.regrouped(request, gained, lost, awaited)
            case _:
                raise AssertionError(f"a client asks for {effect}")

    def _seen(self, update: Update) -> None:
        stats = self.world.stats
        stats["watch_gaps" if update.gap else "watch_updates"] += 1
        stats["watch_events"] += len(update.events)
        if self.world.story is not None:
            told = [(LockEventKind(each.kind).name, each.session, each.acquisition) for each in update.events]
            self.world.tell(self.name, f"sees {update.lock.name!r}: {told}{' GAP' if update.gap else ''}")
        exchange = update.request.exchange
        assert self.core is not None
        link = self.core._links.by_id.get(exchange.link)
        exchange.call.update(update, "" if link is None or link.node is None else str(link.node.replica))

    def _dialed(self, link: int, end: End | None) -> None:
        assert self.core is not None
        if link in self._gone:
            self._gone.discard(link)
            if end is not None:
                end.close()
        elif end is None:
            self.core.disconnected(link, now_ns=self.turn_now)
        else:
            end.label = link
            end.on_message, end.on_closed = self._message, self._closed
            self._links[link] = end
            self.core.connected(link, now_ns=self.turn_now)

    def _message(self, end: End, payload: bytes) -> None:
        assert self.core is not None
        assert isinstance(end.label, int)
        if self._links.get(end.label) is end:
            message = _to_client.decode(payload)
            believed = self._believed()
            self.core.receive(end.label, message, now_ns=self.turn_now)
            for ticket, belief in believed:
                if ticket.state not in (TicketState.HELD, TicketState.RELEASING):
                    self.checkers.told_lost(
                        belief, f"{ticket.reason} by {end.other.process.name}: {brief(message)}"
                    )
            if isinstance(message, (Routes, RoutesDifference)):
                self._check_routes()
            self._look()

    def _check_routes(self) -> None:
        """Compare the routes that this client has now with the state of their version."""
        assert self.core is not None
        routes = self.core._routes
        if routes.version:
            primaries = [None if node is None else node.replica for node in routes.table]
            self.checkers.states.by_client(self.name, routes.version, primaries, routes._addresses.items())

    def _believed(self) -> list[tuple[Ticket, Belief]]:
        """Return the beliefs that hold before a message is taken in."""
        core = self.core
        assert core is not None
        self._look()
        return [
            (task.ticket, task.belief)
            for task in self.tasks
            if task.belief is not None
            and task.ticket is not None
            and core.believes(task.ticket, self.turn_now)
        ]

    def _closed(self, end: End) -> None:
        assert self.core is not None
        assert isinstance(end.label, int)
        if self._links.pop(end.label, None) is not None:
            self.core.disconnected(end.label, now_ns=self.turn_now)
