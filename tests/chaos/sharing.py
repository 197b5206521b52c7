"""The members of groups in a client process: they look which keys are theirs, write for these, and now and then leave
and join again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

import lockring
import lockring.aio
from lockring.client.grant_state import GrantState
from lockring.client.group_state import KeySet, MembershipState
from lockring.clock import monotonic_ns
from lockring.errors import AcquireTimeout, LockLost, NotHeld, Unavailable
from lockring.names import lock_of_group
from lockring.units import NS_PER_S
from tests.chaos.history import Owned, Pen, Regrouped, Viewed, name_of_key
from tests.chaos.register import Register
from tests.chaos.visits import ACQUIRE_S_MAX, Task, Visit, failed, left_ns_of

STAY_S: Final = (8.0, 40.0)
"""How long a member stays before it leaves, to join again: longer than a new view takes."""

AWAY_S: Final = (0.0, 4.0)
ROUND_S: Final = (0.2, 0.6)
WRITE_DELAY_S: Final = 0.15
"""The longest time from the look at a key to the write, if nothing stops the process meanwhile."""

LET_GO_S: Final = 0.3
"""The longest time that a member takes to let go of what it loses."""

FAILED_S: Final = 0.2

Writing = tuple[str, int, str, int, str]
"""The arguments of `Register.write`."""

M = TypeVar("M", bound=MembershipState)


class Membership(Generic[M]):
    """One membership, from join to leave, as it is written down. The grant is that of the group's lock."""

    def __init__(self, task: Task, pen: Pen, membership: M, grant: GrantState, asked_at_ns: int) -> None:
        self._task = task
        self._pen = pen
        self.visit = Visit(task, pen, grant, asked_at_ns)
        self.membership = membership

    def look(self, key: str) -> int | None:
        """Whether the member owns a key, written down if it does; its fence, or None."""
        member = self.membership
        from_ns = monotonic_ns()
        if not member.owns(key):
            return None
        try:
            fence = member.fence(key)
        except (LockLost, NotHeld):
            return None  # lost between the two
        at_ns = monotonic_ns()
        left_ns = left_ns_of(self.visit.grant)
        self._pen.write(
            Owned(
                client=self._task.name,
                group=member.name,
                token=self.visit.grant.fencing_token,
                key=key,
                fence=fence,
                from_ns=from_ns,
                at_ns=at_ns,
                left_ns=left_ns,
            )
        )
        return fence

    def owned(self) -> list[tuple[str, int]]:
        """Look at the view and at all keys; those that are the member's own, with their fences."""
        self._view()
        looks = [(key, self.look(key)) for key in self._task.keys]
        return [(key, fence) for key, fence in looks if fence is not None]

    def _view(self) -> None:
        """Write the newest view down."""
        member = self.membership
        at_ns = monotonic_ns()
        version, members, settled = member.version, member.members, member.settled
        if version and member.version == version:  # else what was read may be of two
            self._pen.write(
                Viewed(
                    client=self._task.name,
                    group=member.name,
                    token=self.visit.grant.fencing_token,
                    version=version,
                    settled=settled,
                    members=tuple(each.id for each in members),
                    at_ns=at_ns,
                )
            )

    def changed(self, gained: KeySet, lost: KeySet, at_ns: int) -> None:
        """At the end of the `on_change` callback that was called at a time with these."""
        keys = self._task.keys
        event = Regrouped(
            client=self._task.name,
            group=self.membership.name,
            token=self.visit.grant.fencing_token,
            gained=tuple(key for key in keys if key in gained),
            lost=tuple(key for key in keys if key in lost),
            at_ns=at_ns,
            let_go_at_ns=monotonic_ns(),
        )
        if event.gained or event.lost:
            self._pen.write(event)

    def arguments(self, key: str, fence: int) -> Writing:
        """For `Register.write`."""
        return name_of_key(self.membership.name, key), fence, self._task.name, os.getpid(), "work"


class Round(NamedTuple):
    """A member's actions after a look: which of its keys it writes for (as a share of them), when, and the pause
    afterwards."""

    choice: float
    delay_s: float
    pause_s: float


class Choices:
    """The next actions of a member, drawn from a seed."""

    def __init__(self, task: Task, group: str) -> None:
        self._rng = random.Random(f"{task.seed}/{group}")

    def weight(self) -> int:
        """Of the next membership."""
        return self._rng.choice((1, 1, 2, 3))

    def stay_ns(self) -> int:
        """How long the next membership lasts, in nanoseconds."""
        return int(self._rng.uniform(*STAY_S) * NS_PER_S)

    def away_s(self) -> float:
        """The pause until the one after it, in seconds."""
        return self._rng.uniform(*AWAY_S)

    def round(self) -> Round:
        """The next round."""
        rng = self._rng
        delay_s = rng.uniform(0.0, WRITE_DELAY_S) if rng.random() < 0.5 else 0.0
        return Round(rng.random(), delay_s, rng.uniform(*ROUND_S))


class ThreadMember:
    """A member that is a thread, with the blocking client.

    Args:
        task: of the process.
        pen: for its events.
        stop: set at the end of the run.
        calm: set when it is not to leave any more.
        group: which it joins.
    """

    def __init__(
        self, task: Task, pen: Pen, stop: threading.Event, calm: threading.Event, group: str
    ) -> None:
        self._task = task
        self._pen = pen
        self._stop = stop
        self._calm = calm
        self._group = group
        self._choices = Choices(task, group)
        self._slowness = random.Random(f"{task.seed}/{group}/slow")

    def share(self, client: lockring.Client) -> None:
        """Be a member again and again, until `stop`."""
        register = Register(Path(self._task.register))
        while not self._stop.is_set():
            one = self._join(client)
            if one is None:
                self._stop.wait(FAILED_S)
                continue
            until_ns = monotonic_ns() + self._choices.stay_ns()
            while True:  # look at the keys first: who was stopped is to ask `owns` before anything else
                self._work(one, register)
                if not one.visit.check() or self._stop.is_set():
                    break
                if monotonic_ns() > until_ns and not self._calm.is_set():
                    break
            self._leave(one)
            if not self._calm.is_set():
                self._stop.wait(self._choices.away_s())
        register.close()

    def _work(self, one: Membership[lockring.Membership], register: Register) -> None:
        planned = self._choices.round()
        owned = one.owned()
        if owned:
            key, fence = owned[int(planned.choice * len(owned))]
            self._stop.wait(planned.delay_s)
            register.write(*one.arguments(key, fence))
            one.look(key)
        self._stop.wait(planned.pause_s)

    def _join(self, client: lockring.Client) -> Membership[lockring.Membership] | None:
        asked_at_ns = monotonic_ns()
        try:
            membership = client.group(self._group, ttl=self._task.ttl_s).join(
                self._task.name, weight=self._choices.weight(), timeout=ACQUIRE_S_MAX
            )
        except (AcquireTimeout, LockLost, Unavailable) as error:
            failed(self._task, self._pen, lock_of_group(self._group), asked_at_ns, error)
            return None
        one = Membership(self._task, self._pen, membership, membership._grant, asked_at_ns)

        def changed(gained: KeySet, lost: KeySet) -> None:
            at_ns = monotonic_ns()
            if lost:
                self._stop.wait(self._slowness.uniform(0.0, LET_GO_S))
            one.changed(gained, lost, at_ns)

        membership.on_lost(one.visit.lost)
        membership.on_change(changed)
        return one

    def _leave(self, one: Membership[lockring.Membership]) -> None:
        one.visit.leaving()
        loss: LockLost | None = None
        try:
            one.membership.leave()
        except LockLost as error:
            loss = error
        one.visit.gone(loss)


class TaskMember:
    """A member that is a task, with the asyncio client. As `ThreadMember`.

    Args:
        write: writes to the register, outside of the event loop.
    """

    def __init__(
        self,
        task: Task,
        pen: Pen,
        stop: asyncio.Event,
        calm: asyncio.Event,
        group: str,
        write: Callable[[str, int, str, int, str], Awaitable[None]],
    ) -> None:
        self._task = task
        self._pen = pen
        self._stop = stop
        self._calm = calm
        self._group = group
        self._write = write
        self._choices = Choices(task, group)
        self._slowness = random.Random(f"{task.seed}/{group}/slow")

    async def share(self, client: lockring.aio.Client) -> None:
        """Be a member again and again, until `stop`."""
        while not self._stop.is_set():
            one = await self._join(client)
            if one is None:
                await self._pause(FAILED_S)
                continue
            until_ns = monotonic_ns() + self._choices.stay_ns()
            while True:  # look at the keys first: who was stopped is to ask `owns` before anything else
                await self._work(one)
                if not one.visit.check() or self._stop.is_set():
                    break
                if monotonic_ns() > until_ns and not self._calm.is_set():
                    break
            await self._leave(one)
            if not self._calm.is_set():
                await self._pause(self._choices.away_s())

    async def _work(self, one: Membership[lockring.aio.Membership]) -> None:
        planned = self._choices.round()
        owned = one.owned()
        if owned:
            key, fence = owned[int(planned.choice * len(owned))]
            await self._pause(planned.delay_s)
            await self._write(*one.arguments(key, fence))
            one.look(key)
        await self._pause(planned.pause_s)

    async def _pause(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), pause_s)

    async def _join(self, client: lockring.aio.Client) -> Membership[lockring.aio.Membership] | None:
        asked_at_ns = monotonic_ns()
        try:
            membership = await client.group(self._group, ttl=self._task.ttl_s).join(
                self._task.name, weight=self._choices.weight(), timeout=ACQUIRE_S_MAX
            )
        except (AcquireTimeout, LockLost, Unavailable) as error:
            failed(self._task, self._pen, lock_of_group(self._group), asked_at_ns, error)
            return None
        one = Membership(self._task, self._pen, membership, membership._grant, asked_at_ns)

        async def changed(gained: KeySet, lost: KeySet) -> None:
            at_ns = monotonic_ns()
            if lost:
                await self._pause(self._slowness.uniform(0.0, LET_GO_S))
            one.changed(gained, lost, at_ns)

        membership.on_lost(one.visit.lost)
        membership.on_change(changed)
        return one

    async def _leave(self, one: Membership[lockring.aio.Membership]) -> None:
        one.visit.leaving()
        loss: LockLost | None = None
        try:
            await one.membership.leave()
        except LockLost as error:
            loss = error
        one.visit.gone(loss)
