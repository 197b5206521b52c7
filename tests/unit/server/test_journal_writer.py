"""The journal of one life of a node, written to a disk with faults: what leaves when, and what the log says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from random import Random
from typing import ClassVar

import pytest
from msgspec.structs import replace

from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState, Copy, Member, Replica, SlotState, encode_state
from lockring.core.effects import COORDINATOR, Effect, Send
from lockring.core.journal import LifeBegan
from lockring.core.node import NodeCore
from lockring.errors import JournalError
from lockring.ids import Incarnation, NodeId, Version
from lockring.journal import worker as worker_module
from lockring.journal.journal import Durability, Journal
from lockring.net.core_loop import CoreLoop
from lockring.protocol import (
    PROTOCOL,
    Acquire,
    ClientHello,
    GrantReply,
    Heartbeat,
    HeartbeatAck,
    Release,
    Remove,
    Replicate,
    Snapshot,
    State,
    Tail,
)
from lockring.server.journal_writer import JournalWriter
from lockring.server.node_log import NodeLog
from lockring.slots import SLOTS, slot_of
from lockring.units import NS_PER_MS
from tests.unit.journal.faulty_disk import FaultyDisk
from tests.unit.net.serving import run, until

N1, N2 = NodeId("N1"), NodeId("N2")
VERSION = 10


class Life:
    """A life of a node that serves every slot, with one client. The test plays the coordinator.

    Attributes:
        granted: the locks that the client has.
        on_disk_when_sent: how long the journal was when mutations left for the copy of the lock "x".
    """

    begun: ClassVar[list[Life]] = []
    """The lives of this test."""

    def __init__(
        self,
        disk: FaultyDisk,
        durability: Durability = "process",
        incarnation: int = 1,
        *,
        begins: bool = True,
        follows: ClusterState | None = None,
    ) -> None:
        self.begun.append(self)
        self.disk = disk
        self.granted: list[str] = []
        self.on_disk_when_sent: list[int] = []
        me = Replica(N1, Incarnation(incarnation))
        self.journal = Journal(disk.files(), node=N1, durability=durability, host=disk.host)
        self.core = NodeCore(me, journal=self.journal.found, durability=durability, now_ns=monotonic_ns())
        self.writer = JournalWriter(
            self.core,
            self.journal,
            waits_for_sync=durability == "disk",
            wake=lambda: self.pump.schedule(),
            flush=lambda: self.pump.flush(),
            carry_out=self._carry_out,
            reopen=lambda: Journal(
                disk.files(), node=N1, durability=durability, host=disk.host, is_of_new_life=False
            ),
        )
        self.pump = CoreLoop(self.core, self._carry_out, take_effects=self.writer.take_effects)
        self._requests = itertools.count(1)
        self._names: dict[int, str] = {}
        if not begins:
            return
        self.writer.begin()
        self.core.connected(COORDINATOR, now_ns=monotonic_ns())
        if follows is None:
            self._learn(me)
        else:
            self._tell(follows)
            self._come_back(me, follows)
        self.core.connected(1, now_ns=monotonic_ns())
        self.core.receive(1, ClientHello(PROTOCOL, "", "client", 1), now_ns=monotonic_ns())
        self.pump.flush()

    def _learn(self, me: Replica) -> None:
        slot = SlotState(VERSION, VERSION, VERSION, me, None, None, 1, 10**12)
        member = Member(me, "here:1", condition="active")
        state = ClusterState(
            cluster="c", version=VERSION, members={N1: member}, slots=(slot,) * SLOTS, coordinator="there:1"
        )
        self._tell(state)

    def _come_back(self, me: Replica, former: ClusterState) -> None:
        version = Version(former.version + 1)
        slot = replace(former.slots[0], epoch=version, since=version, primary=me)
        members = {N1: replace(former.members[N1], replica=me)}
        self._tell(replace(former, version=version, members=members, slots=(slot,) * SLOTS))

    def _tell(self, state: ClusterState) -> None:
        self.core.receive(COORDINATOR, State(encode_state(state)), now_ns=monotonic_ns())
        self.pump.flush()

    def add_copy(self) -> None:
        """Have the lock "x" copied to another node, which acknowledges nothing."""
        peer, version, number = Replica(N2, Incarnation(1)), Version(VERSION + 1), slot_of("x")
        slots = list(self.core.state.slots)
        slots[number] = replace(slots[number], epoch=version, backup=Copy(peer, version))
        members = self.core.state.members | {N2: Member(peer, "there:2", condition="active")}
        self._tell(replace(self.core.state, version=version, members=members, slots=tuple(slots)))
        self.core.connected(peer, now_ns=monotonic_ns())
        self.pump.flush()

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Send):
                continue
            message = effect.message
            if isinstance(message, Heartbeat):
                self.core.receive(COORDINATOR, HeartbeatAck(message.sequence, VERSION), now_ns=monotonic_ns())
            elif isinstance(message, Replicate) and any(isinstance(each, Tail) for each in message.streams):
                self.on_disk_when_sent.append(self.journal_bytes)
            elif isinstance(message, GrantReply):
                self.granted.append(self._names[message.request])

    @property
    def journal_bytes(self) -> int:
        """How many bytes of the newest segment were written, without the room behind them."""
        return len(self.disk.copy()[max(segments(self.disk))].rstrip(b"\0"))

    def acquire(self, name: str, number: int) -> None:
        """Ask for a lock, and take one turn."""
        request = next(self._requests)
        self._names[request] = name
        message = Acquire(request, "session", 10_000, "owner", number, name)
        self.core.receive(1, message, now_ns=monotonic_ns())
        self.pump.flush()

    def release(self, name: str, number: int) -> None:
        """Give a lock back, and take one turn."""
        message = Release(next(self._requests), "session", number, name)
        self.core.receive(1, message, now_ns=monotonic_ns())
        self.pump.flush()

    @property
    def is_settled(self) -> bool:
        """Whether the journal has everything."""
        journal = self.core._context.journal
        return journal is not None and journal.is_settled

    async def settled(self) -> None:
        """Wait until the journal has everything."""
        await until(lambda: self.is_settled)

    def end(self) -> None:
        """End in order."""
        self.pump.stop()
        self.writer.end()

    def end_thread(self) -> None:
        """End the thread that syncs, if it has not ended."""
        self.pump.stop()
        self.writer._worker.finish()

    def lose_power(self) -> None:
        """End with the machine: the thread that syncs must not outlive it."""
        self.end_thread()
        self.disk.lose_power()


def written(disk: FaultyDisk) -> list[str]:
    """Return the names of the locks whose grants and removals the next life finds, as "+name" and "-name"."""
    disk.kill()
    journal = Journal(disk.files(), node=N1, durability="process", host=disk.host)
    journal.close(in_order=False)
    assert journal.reason == ""
    tails = [each for each in journal.found.entries if isinstance(each, Tail)]
    return [
        ("-" if isinstance(change, Remove) else "+") + change.name
        for tail in tails
        for change in tail.mutations
    ]


def in_loop(test: Callable[[FaultyDisk], Awaitable[None]]) -> None:
    """Run a test, and end the threads of all lives that it has begun."""

    async def main() -> None:
        Life.begun.clear()
        try:
            await test(FaultyDisk(Random(1)))
        finally:
            for life in Life.begun:
                life.end_thread()

    run(main())


def test_a_life_that_has_begun_outlives_a_loss_of_power_before_it_has_joined() -> None:
    async def main(disk: FaultyDisk) -> None:
        for seed in range(20):  # each loses another part of what is not synced
            disk = FaultyDisk(Random(seed))
            Life(disk).lose_power()
            journal = Journal(disk.files(), node=N1, durability="process", host=disk.host)
            assert LifeBegan(N1, Incarnation(1)) in journal.found.entries

    in_loop(main)


@pytest.mark.parametrize("seed", range(8))
def test_a_life_whose_first_sync_fails_leaves_the_journal_as_after_a_crash(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(disk: FaultyDisk) -> None:
        disk = FaultyDisk(Random(seed))
        life = Life(disk, "disk")
        life.acquire("x", 1)
        await until(lambda: life.granted == ["x"])
        life.lose_power()
        life = Life(disk, "disk", incarnation=2, begins=False)
        disk.fails_syncs = True
        with pytest.raises(JournalError) as caught:
            life.writer.begin()
        assert str(caught.value) == (
            "the journal in /data/journal cannot be written: input/output error; name another directory with --data-dir"
        )
        disk.fails_syncs = False
        life.end()
        assert caplog.messages == []
        disk.lose_power()
        journal = Journal(disk.files(), node=N1, durability="disk", host=disk.host)
        assert journal.reason == ""
        journal.close(in_order=False)

    in_loop(main)


def test_an_answer_leaves_in_the_turn_in_which_its_grant_is_written() -> None:
    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        life.acquire("x", 1)
        assert life.granted == ["x"]
        assert written(disk) == ["+x"]

    in_loop(main)


def test_with_the_durability_disk_an_answer_leaves_once_its_grant_is_synced() -> None:
    async def main(disk: FaultyDisk) -> None:
        life = Life(disk, "disk")
        await life.settled()
        before = disk.syncs
        life.acquire("x", 1)
        assert life.granted == []
        await until(lambda: life.granted == ["x"])
        assert disk.syncs > before
        life.lose_power()
        assert written(disk) == ["+x"]

    in_loop(main)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_copy_is_sent_a_grant_before_this_node_writes_it(durability: Durability) -> None:
    async def main(disk: FaultyDisk) -> None:
        life = Life(disk, durability)
        life.add_copy()
        await life.settled()
        before = life.journal_bytes
        life.acquire("x", 1)
        assert life.on_disk_when_sent == [before]
        assert life.journal_bytes > before
        await life.settled()
        assert life.granted == []
        life.lose_power()

    in_loop(main)


def test_batches_that_follow_one_another_are_marked_now_and_then_and_the_last_one_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marked: list[int] = []
    mark = Journal.mark

    def counted(self: Journal) -> None:
        mark(self)
        marked.append(self.durable_ordinal)

    monkeypatch.setattr(Journal, "mark", counted)

    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        await life.settled()
        began_ns = monotonic_ns()
        for number in range(1, 101):
            life.acquire(f"x{number}", number)
            await asyncio.sleep(0.003)
        took_ns = monotonic_ns() - began_ns
        assert len(marked) <= 3 + took_ns / (100 * NS_PER_MS)
        await until(lambda: marked[-1] == life.journal.durable_ordinal)
        life.end()

    in_loop(main)


def test_what_comes_while_a_sync_is_under_way_shares_the_next_one() -> None:
    async def main(disk: FaultyDisk) -> None:
        life = Life(disk, "disk")
        await life.settled()
        before = disk.syncs
        for number in range(1, 51):
            life.acquire(f"x{number}", number)
        await until(lambda: len(life.granted) == 50)
        assert disk.syncs - before < 10

    in_loop(main)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_directory_that_was_deleted_is_made_again_with_everything_that_is_held(
    durability: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "CHECK_EVERY_S", 0.01)

    async def main(disk: FaultyDisk) -> None:
        life = Life(disk, durability)
        await life.settled()
        life.acquire("x", 1)
        await until(lambda: life.granted == ["x"])
        disk.lose_directory()
        await until(lambda: bool(life.core.journal_trouble))
        life.acquire("y", 2)
        assert life.granted == ["x"]
        await until(lambda: life.granted == ["x", "y"])
        await life.settled()
        life.end_thread()
        disk.kill()
        journal = Journal(disk.files(), node=N1, durability=durability, host=disk.host)
        assert journal.reason == ""
        assert all(f"name={name!r}" in str(journal.found.entries) for name in ("x", "y"))

    in_loop(main)


@pytest.mark.interpreted  # it patches the journal
def test_a_directory_that_was_made_again_is_left_if_the_former_one_cannot_be() -> None:
    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        await life.settled()
        disk.lose_directory()

        def close(*, in_order: bool = True) -> None:
            raise RuntimeError("a bug")

        life.journal.close = close  # type: ignore[method-assign]
        with pytest.raises(RuntimeError):
            life.writer._make_again()
        Journal(disk.files(), node=N1, durability="process", host=disk.host).close()

    in_loop(main)


def test_a_journal_that_cannot_be_written_lets_grants_wait_and_goes_on_when_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "lockring.node")

    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        await life.settled()
        life.acquire("x", 1)
        disk.free_bytes = 0
        life.acquire("y", 2)
        assert life.granted == ["x"]
        assert "no space left on device" in life.core.journal_trouble.lower()
        status = life.core.status(now_ns=monotonic_ns())
        assert (status.durability, status.journal_trouble) == ("process", life.core.journal_trouble)
        assert status.journal_trouble_ms >= 0
        await asyncio.sleep(0.3)  # some attempts, which log nothing
        assert life.granted == ["x"]
        disk.free_bytes = None
        await until(lambda: life.granted == ["x", "y"])
        await life.settled()
        assert life.core.journal_trouble == ""
        assert written(disk) == []  # but in snapshots
        begun, ended = caplog.messages
        assert "no space left on device" in begun.lower()
        assert "locks that are held stay held, and new ones wait" in begun
        assert ended.startswith("the journal works again")

    in_loop(main)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_mount_that_is_gone_for_a_while_is_tried_until_it_is_back(
    durability: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even the files that are open cannot be asked for, as on a share of a server that restarts."""
    monkeypatch.setattr(worker_module, "CHECK_EVERY_S", 0.01)

    async def main(disk: FaultyDisk) -> None:
        life = Life(disk, durability)
        await life.settled()
        disk.is_stale = True
        await until(lambda: bool(life.core.journal_trouble))
        assert "stale file handle" in life.core.journal_trouble.lower()
        life.acquire("x", 1)
        await asyncio.sleep(0.5)  # some attempts
        assert life.granted == []
        disk.is_stale = False
        await until(lambda: life.granted == ["x"])
        await life.settled()
        assert life.core.journal_trouble == ""
        life.end()

    in_loop(main)


def test_after_a_failed_sync_everything_is_written_again() -> None:
    async def main(disk: FaultyDisk) -> None:
        life = Life(disk, "disk")
        await life.settled()
        disk.fails_syncs = True
        life.acquire("x", 1)
        await until(lambda: bool(life.core.journal_trouble))
        assert life.granted == []
        disk.fails_syncs = False
        await until(lambda: life.granted == ["x"])
        life.lose_power()
        journal = Journal(disk.files(), node=N1, durability="disk", host=disk.host)
        assert journal.reason == ""
        snapshots = [each for each in journal.found.entries if isinstance(each, Snapshot) and each.holders]
        assert [holder.name for each in snapshots for holder in each.holders] == ["x"]

    in_loop(main)


def test_the_last_turn_is_written_at_the_end() -> None:
    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        await life.settled()
        life.acquire("x", 1)
        life.release("x", 1)
        life.end()
        assert written(disk) == ["+x", "-x"]

    in_loop(main)


def test_an_end_in_order_needs_no_other_proof_even_after_another_boot() -> None:
    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        await life.settled()
        life.acquire("x", 1)
        life.end()
        disk.lose_power()
        assert written(disk) == ["+x"]

    in_loop(main)


def test_a_long_journal_is_written_again_and_its_former_segments_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockring.journal.growth.REWRITE_BYTES_MIN", 300_000)

    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        await life.settled()
        before = set(segments(disk))
        number = 0
        while life.is_settled or number < 5_000:
            number += 1
            life.acquire("x", number)
            life.release("x", number)
            if number % 500 == 0:
                await asyncio.sleep(0.01)
            if number > 20_000 or before.isdisjoint(segments(disk)):
                break
        await until(lambda: before.isdisjoint(segments(disk)))
        assert life.core.journal_trouble == ""

    in_loop(main)


def test_a_journal_does_not_fill_a_small_volume_by_itself() -> None:
    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        await life.settled()
        disk.free_bytes = 1_500_000
        before, compacted = set(segments(disk)), 0
        for number in range(1, 30_000):
            life.acquire("x", number)
            life.release("x", number)
            if number % 200 == 0:
                await asyncio.sleep(0.005)
                assert life.core.journal_trouble == ""
                if before.isdisjoint(now := set(segments(disk))):
                    before, compacted = now, compacted + 1
        assert compacted >= 3, "it was compacted again and again"

    in_loop(main)


def test_a_long_journal_for_which_no_new_file_can_be_made_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lockring.journal.growth.REWRITE_BYTES_MIN", 10_000)
    monkeypatch.setattr("lockring.server.journal_writer._COMPACT_AGAIN_S", 0.05)

    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        await life.settled()
        before = set(segments(disk))
        disk.fails_creations = True
        for number in range(1, 301):
            life.acquire(f"x{number}", number)
        await until(lambda: bool(caplog.messages))
        await asyncio.sleep(0.3)  # some attempts more
        life.acquire("y", 301)
        assert life.granted[-1] == "y"
        assert (life.core.journal_trouble, life.journal.has_failed) == ("", False)
        assert set(segments(disk)) == before
        (line,) = caplog.messages
        assert line == (
            "a new file of the journal in /data/journal cannot be written: no space left on device; free some space there,"
            " or name another directory with --data-dir; the present one goes on, and grows until then"
        )
        disk.fails_creations = False
        life.acquire("z", 302)
        await until(lambda: before.isdisjoint(segments(disk)))
        life.end()

    in_loop(main)


def test_a_directory_that_was_deleted_is_noticed_by_a_compaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "CHECK_EVERY_S", 1_000)
    monkeypatch.setattr("lockring.journal.growth.REWRITE_BYTES_MIN", 10_000)

    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        await life.settled()
        disk.lose_directory()
        for number in range(1, 301):
            life.acquire(f"x{number}", number)
        await until(lambda: bool(life.core.journal_trouble))
        life.end()

    in_loop(main)


@pytest.mark.parametrize(
    ("locks", "words"),
    [
        (0, "no lock was held in it"),
        (1, "1 lock came back from the journal, and its holder keeps it"),
        (2, "2 locks came back from the journal, and their holders keep them"),
    ],
)
def test_the_log_says_once_how_many_locks_came_back_and_how_long_it_took(
    locks: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lockring.node")

    async def main(disk: FaultyDisk) -> None:
        life = Life(disk)
        for number in range(locks):
            life.acquire("xy"[number], number + 1)
        await life.settled()
        former = life.core.state
        life.end()
        later = Life(disk, incarnation=2, follows=former)
        later.acquire("granted since", locks + 1)
        assert later.granted == ["granted since"]
        now_ns = monotonic_ns()
        log = NodeLog(later.core, began_ns=now_ns - 1_250 * NS_PER_MS)
        log.look(now_ns)
        log.look(now_ns)
        (line,) = caplog.messages
        assert line == f"serving again 1.25 s after the journal was opened: {words}"

    in_loop(main)


def segments(disk: FaultyDisk) -> list[str]:
    return [name for name in disk.files().names() if name.endswith(".log")]
