"""Groups: a program above the clients that joins one, owns keys and leaves it, and the properties that must hold then.

The checkers know what each member takes for its own (by its own clock, at true time) and what its program has not yet
let go of; they share no rule with the code under test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lockring.core.client import Query, Ticket, TicketState
from lockring.errors import LockringError
from lockring.names import GROUP_PREFIX
from lockring.protocol import WAIT_FOREVER, MemberRecord, Mode, payload_of
from lockring.slots import SLOTS, slot_of
from tests.sim.framework.world import MS, S, Violation, World

if TYPE_CHECKING:
    from tests.sim.framework.workload import ClientShell


class GroupHabits(NamedTuple):
    """The behaviour of a group's members. Durations in ns.

    Attributes:
        lock: name of the group's lock.
        ttls_ms: the leases of their memberships.
        members: how many each client has.
        away_max: longest time between two memberships.
        stay_max: longest time for which one stays.
        heedful: probability that a member has a callback for changes, so that others wait for it.
        finish_max: longest time that its callback takes.
        namesakes: probability of an id that another member may have too.
    """

    lock: str
    ttls_ms: tuple[int, ...]
    members: int
    away_max: int
    stay_max: int
    heedful: float
    finish_max: int
    namesakes: float


def group_lock_in(slots: list[int]) -> str:
    """Return the name of a group's lock that falls into one of these slots."""
    number = 0
    while slot_of(f"{GROUP_PREFIX}{number}") not in slots:
        number += 1
    return f"{GROUP_PREFIX}{number}"


def group_lock_beside(lock: str) -> str:
    """Return the name of a group's lock in the slot of another lock."""
    return group_lock_in([slot_of(lock)])


def draw_group(world: World, slots: list[int], ttls_ms: tuple[int, ...]) -> GroupHabits | None:
    """Draw the group of a seed; one seed in six has one. A stream of its own leaves the other draws alone."""
    rng = world.rng("group")
    if rng.random() >= 1 / 6:
        return None
    return GroupHabits(
        lock=group_lock_in(slots),
        ttls_ms=ttls_ms,
        members=rng.choice((1, 1, 2, 3)),
        away_max=rng.choice((50 * MS, 500 * MS)),
        stay_max=rng.choice((300 * MS, S, 3 * S)),
        heedful=rng.choice((0.0, 0.5, 1.0)),
        finish_max=rng.choice((10 * MS, 100 * MS, 500 * MS)),
        namesakes=rng.choice((0.0, 0.0, 0.3)),
    )


class Member:
    """One thread of the program: joins, works on what it owns, leaves, again and again.

    Attributes:
        name: for the story.
        ticket: the present membership.
        request: by which it follows the group.
        finishing: keys that were taken from it, and that its program has not let go of yet.
        owned: the keys that it owned at the last look.
        version: of the newest view that it had then.
    """

    def __init__(self, program: GroupProgram, number: int) -> None:
        self.program = program
        self.name = f"{program.client.name}.{number}"
        self.step = 0
        self.reset()

    def reset(self) -> None:
        """Forget the membership."""
        self.ticket: Ticket | None = None
        self.request: Query | None = None
        self.life = 0
        self.leaving = False
        self.finishing: list[frozenset[int]] = []
        self.owned: frozenset[int] = frozenset()
        self.version = 0

    def owns(self) -> frozenset[int]:
        """Return the keys that it rightly takes for its own at this true time."""
        client = self.program.client
        if self.request is None or client.core is None or not client.alive or client.life != self.life:
            return frozenset()
        return client.core.owned(self.request, client.now_ns())

    def uses(self) -> frozenset[int]:
        """Return the keys that it owns or has not let go of, as long as its lease lasts."""
        client = self.program.client
        if self.ticket is None or client.core is None or not client.alive or client.life != self.life:
            return frozenset()
        if not self.finishing or not client.core.believes(self.ticket, client.now_ns()):
            return self.owns()
        return self.owns().union(*self.finishing)


class GroupProgram:
    """The members of one client."""

    def __init__(self, client: ClientShell, habits: GroupHabits, checkers: GroupCheckers) -> None:
        self.client = client
        self.habits = habits
        self.checkers = checkers
        self.rng = client.world.rng(f"{client.name} group")
        self.frozen = False
        self.scripted = not habits.members  # a scenario says who joins and leaves
        self.members = [Member(self, number) for number in range(habits.members)]
        checkers.members += self.members

    def start(self) -> None:
        """Begin, when the client's process has started."""
        for member in self.members:
            member.reset()
            self._soon(member, self._join, self.rng.randrange(1, self.habits.away_max))

    def freeze(self) -> None:
        """Let no member join or leave any more."""
        self.frozen = True
        for member in self.members:
            if not member.leaving:
                member.step += 1

    def stop(self) -> None:
        """Leave, soon."""
        self.frozen = True
        for member in self.members:
            self._soon(member, self._leave, self.rng.randrange(1, 50 * MS))

    def waiting(self) -> list[Ticket]:
        """Return the tickets of members."""
        return [
            member.ticket
            for member in self.members
            if member.ticket is not None and self.client.alive and member.life == self.client.life
        ]

    def _soon(self, member: Member, what: object, delay: int) -> None:
        member.step += 1
        self.client.later(delay, self._step, member, member.step, what)

    def _step(self, member: Member, step: int, what: object) -> None:
        if step == member.step:
            what(member)  # type: ignore[operator]

    def _join(self, member: Member) -> None:
        rng, habits = self.rng, self.habits
        if self.frozen:
            return
        name = f"same-{rng.randrange(2)}" if rng.random() < habits.namesakes else member.name
        self.join(member, name, rng.randrange(1, 4), rng.choice(habits.ttls_ms))

    def join(self, member: Member, name: str, weight: int, ttl_ms: int) -> None:
        """Begin a membership."""
        core = self.client.core
        assert core is not None
        member.reset()
        member.life = self.client.life
        member.ticket = core.acquire(
            self.habits.lock,
            ttl_ms=ttl_ms,
            now_ns=self.client.now_ns(),
            wait_ms=WAIT_FOREVER,
            mode=Mode.SHARED,
            payload=payload_of(MemberRecord(name, weight)),
        )
        self._tell(member, f"joins as {name!r}: {member.ticket!r}")

    def resolved(self, ticket: Ticket, error: LockringError | None) -> bool:
        """Handle a granted, refused or released membership; return False for any other ticket."""
        member = self._member(ticket)
        if member is None:
            return False
        core = self.client.core
        assert core is not None
        if ticket.state == TicketState.HELD and error is None:
            member.request = core.follow(ticket, now_ns=self.client.now_ns())
            assert member.request.subscription is not None
            member.request.subscription.has_callback = self.rng.random() < self.habits.heedful
            self.client.world.stats["joined"] += 1
            if self.scripted:
                pass
            elif not self.frozen:
                self._soon(member, self._leave, self.rng.randrange(1, self.habits.stay_max))
            elif self.client.stopping:
                self._soon(member, self._leave, 1)
        else:
            self._over(member)
        return True

    def lost(self, ticket: Ticket) -> bool:
        """Handle a lost membership; return False for any other ticket."""
        member = self._member(ticket)
        if member is not None:
            self._over(member)
        return member is not None

    def _over(self, member: Member) -> None:
        member.reset()
        if not self.frozen and not self.scripted:
            self._soon(member, self._join, self.rng.randrange(1, self.habits.away_max))

    def enter(self, heedful_for_ns: int = 0, weight: int = 1) -> Member:
        """Let one more member join, which leaves when a scenario says so.

        Args:
            heedful_for_ns: how long its callback takes to let go of keys, 0 if it has none.
            weight: its weight.
        """
        member = Member(self, len(self.members))
        self.members.append(member)
        self.checkers.members.append(member)
        self.habits = self.habits._replace(heedful=float(heedful_for_ns > 0), finish_max=heedful_for_ns + 1)
        self.client.post(self.join, member, member.name, weight, self.habits.ttls_ms[0])
        return member

    def exit(self, member: Member) -> None:
        """Let a member leave."""
        self.client.post(self._leave, member)

    def _leave(self, member: Member) -> None:
        core, ticket = self.client.core, member.ticket
        assert core is not None
        if ticket is None or ticket.state != TicketState.HELD:
            return
        self._tell(member, "leaves")
        member.leaving = True
        if member.request is not None:
            core.leave(member.request, now_ns=self.client.now_ns())
        self._release_if_done(member)

    def _release_if_done(self, member: Member) -> None:
        core, ticket = self.client.core, member.ticket
        assert core is not None
        if member.leaving and ticket is not None and ticket.state == TicketState.HELD:
            following = None if member.request is None else member.request.subscription
            if following is None or not following.callbacks_pending:
                try:
                    core.release(ticket, now_ns=self.client.now_ns())
                except LockringError:
                    return  # lost: that follows

    def regrouped(self, request: Query, gained: frozenset[int], lost: frozenset[int], awaited: bool) -> None:
        """Handle a change in a member's group."""
        following = request.subscription
        assert following is not None
        member = self._member(following.ticket)
        if member is None:
            return
        standing = following.ownership
        self._tell(
            member,
            f"view {standing.view.number}{' settled' if standing.settled else ''} of "
            f"{[each.id for each in standing.view.members]}: + {sorted(gained)} - {sorted(lost)}",
        )
        self.client.world.stats["views"] += 1
        if awaited:
            member.finishing.append(lost)
            least = self.habits.finish_max - 1 if self.scripted else 1
            delay = self.rng.randrange(least, self.habits.finish_max)
            self.client.later(delay, self._told, member, request)
        self.checkers.look(member)

    def _told(self, member: Member, request: Query) -> None:
        core = self.client.core
        assert core is not None
        if member.request is request:
            # Only after that may it say that it has let go: another member may own the keys at once.
            member.finishing.pop(0)
        core.told(request, now_ns=self.client.now_ns())
        if member.request is request:
            self._release_if_done(member)

    def look(self) -> None:
        """Check after an input what each member owns now."""
        for member in self.members:
            if member.request is not None:
                self.checkers.look(member)

    def _member(self, ticket: Ticket) -> Member | None:
        return next((member for member in self.members if member.ticket is ticket), None)

    def _tell(self, member: Member, text: str) -> None:
        if self.client.world.story is not None:
            self.client.world.tell(self.client.name, f"member {member.name} {text}")


class GroupCheckers:
    """The properties that hold at every instant among the members of one group.

    - G1: no two of them own one key, nor does one own what the program of another has not let go of.
    - G2: each member's view numbers grow, and a new owner of a key has a greater one than every owner before.

    Attributes:
        members: of all clients.
        sync: whether views wait for their copies.
    """

    def __init__(self, world: World, *, sync: bool) -> None:
        self.world = world
        self.sync = sync
        self.members: list[Member] = []
        self._fences: dict[int, tuple[int, Member]] = {}

    def look(self, member: Member) -> None:
        """Check what a member owns now."""
        assert member.request is not None
        assert member.request.subscription is not None
        owned = member.owns()
        version = member.request.subscription.ownership.view.number
        if version < member.version:
            raise Violation("G2", f"{member.name} goes from view {member.version} back to {version}")
        gained = owned - member.owned
        if gained and self.sync:
            self._alone(member, gained)
        for slot in owned if version > member.version else gained:
            before, who = self._fences.get(slot, (0, member))
            if (who is not member and version <= before) or version < before:
                raise Violation(
                    "G2", f"{member.name} owns slot {slot} with {version} after {who.name} with {before}"
                )
            self._fences[slot] = version, member
        member.owned, member.version = owned, version

    def _alone(self, member: Member, gained: frozenset[int]) -> None:
        self.world.stats["keys_gained"] += len(gained)
        for other in self.members:
            if other is not member:
                both = gained & other.uses()
                if both:
                    raise Violation("G1", f"{member.name} gets slots {sorted(both)} that {other.name} has")

    def unsettled(self) -> str | None:
        """Return why the members do not share one settled view in which each key has its owner; None if they do."""
        present = [
            member
            for member in self.members
            if member.program.client.alive and member.life == member.program.client.life and member.ticket
        ]
        everybody = {member.ticket.generation for member in present if member.ticket is not None}
        owned: set[int] = set()
        for member in present:
            following = None if member.request is None else member.request.subscription
            if following is None or following.ended:
                return f"{member.name} does not follow the group"
            view, settled, _ = following.ownership
            if not settled:
                return f"{member.name} has view {view.number}, not settled"
            if {each.fencing_token for each in view.members} != everybody:
                return f"{member.name} has others in view {view.number} than there are"
            owned |= member.owns()
        if present and owned != set(range(SLOTS)):
            return f"no member owns {sorted(set(range(SLOTS)) - owned)}"
        return None
