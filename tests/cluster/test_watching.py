"""Watching a lock on a real cluster, with both clients and from the command line."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from queue import Queue
from threading import Thread

import pytest

import lockring
import lockring.aio
from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S

pytestmark = [pytest.mark.cluster]


class Follower:
    """Watches a lock in a thread; its news can be waited for."""

    def __init__(self, client: lockring.Client, name: str) -> None:
        self.news: Queue[lockring.WatchUpdate] = Queue()
        self.last: lockring.WatchUpdate | None = None
        self._watch = client.watch(name)
        Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            for update in self._watch:
                self.news.put(update)
        except lockring.ClientClosed:
            return

    def next(self) -> lockring.WatchUpdate:
        self.last = self.news.get(timeout=PATIENCE_S)
        return self.last


def told(update: lockring.WatchUpdate) -> list[tuple[str, str, str]]:
    return [(event.kind, event.owner, event.reason) for event in update.events]


@pytest.fixture
def client(steady: LocalCluster) -> Iterator[lockring.Client]:
    with lockring.Client(steady.servers, owner="first") as made:
        yield made


def test_holders_waiters_and_losses_are_seen_without_a_gap(
    steady: LocalCluster, client: lockring.Client
) -> None:
    watcher = Follower(client, "scene")
    first = watcher.next()
    assert (first.events, first.gap, first.holders, first.waiters) == ((), False, [], [])
    with lockring.Client(steady.servers, owner="second") as other:
        grant = other.rwlock("scene").read().acquire()
        update = watcher.next()
        assert told(update) == [("granted", "second", "")]
        assert (update.events[0].fencing_token, update.events[0].shared) == (grant.fencing_token, True)
        assert other.lock("scene").try_acquire(timeout=6) is None, "so long that it surely waits"
        assert told(watcher.next()) == [("waiting", "second", "")]
        assert told(watcher.next()) == [("left", "second", "timeout")]
        client.break_lock("scene", grant.fencing_token, force=True)
        update = watcher.next()
        assert [(loss.owner, loss.reason) for loss in update.losses] == [("second", "broken")]
        assert update.holders == []
    assert watcher.last is not None
    assert not watcher.last.gap


def test_a_holder_that_dies_is_seen_to_have_lost_its_lock(steady: LocalCluster) -> None:
    program = f"""
import lockring, sys, time
grant = lockring.Client({steady.servers!r}, owner="mortal", ttl=1).lock("mortal").acquire()
print(grant.fencing_token, flush=True)
time.sleep(600)
"""
    with lockring.Client(steady.servers) as client:
        watcher = Follower(client, "mortal")
        watcher.next()
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        try:
            assert told(watcher.next()) == [("granted", "mortal", "")]
        finally:
            process.kill()
            process.communicate()
        update = watcher.next()
        assert [(loss.owner, loss.reason) for loss in update.losses] == [("mortal", "expired")]
        assert not update.gap


def test_a_watch_goes_on_over_the_death_of_the_locks_node_and_says_that_it_has_a_gap(
    quick: LocalCluster,
) -> None:
    with lockring.Client(quick.servers, ttl=30) as client, lockring.Client(quick.servers) as other:
        grant = client.lock("survivor").acquire()
        watcher = Follower(other, "survivor")
        before = watcher.next()
        quick.kill(quick.primary_of("survivor"))
        update = watcher.next()
        assert update.gap
        assert update.lock.primary != before.lock.primary
        assert update.events == (), "the same holder is there"
        assert [holder.fencing_token for holder in update.holders] == [grant.fencing_token]
        grant.release()
        update = watcher.next()
        while update.gap:  # the cluster may still be moving slots
            update = watcher.next()
        assert [event.kind for event in update.events] in (["released"], [])


def test_a_watch_with_asyncio_tells_the_same(steady: LocalCluster) -> None:
    async def scene() -> list[list[tuple[str, str, str]]]:
        seen = []
        async with lockring.aio.Client(steady.servers, owner="me") as client:
            watch = client.watch("aio scene")
            assert (await anext(watch)).events == ()
            async with client.lock("aio scene"):
                seen.append(told(await anext(watch)))
            update = await anext(watch)
            assert not update.gap
            seen.append(told(update))
        return seen

    assert asyncio.run(scene()) == [[("granted", "me", "")], [("released", "me", "")]]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_what_happens(
    steady: LocalCluster, client: lockring.Client, as_json: bool
) -> None:
    name = f"printed {as_json}"
    command = [sys.executable, "-m", "lockring", "watch", name, "--server", steady.servers]
    watching = subprocess.Popen(
        [*command, "--json"] if as_json else command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        grant = client.rwlock(name).read().acquire()
        held = watching.stdout.readline()
        client.break_lock(name, grant.fencing_token, force=True)
        lost = watching.stdout.readline()
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == -signal.SIGINT  # 130 to a shell
    token = grant.fencing_token
    if as_json:
        assert [json.loads(line)["gap"] for line in (first, held, lost)] == [False] * 3
        [granted], [broken] = json.loads(held)["events"], json.loads(lost)["events"]
        assert granted == {
            "kind": "granted",
            "owner": "first",
            "session": grant.session,
            "fencing_token": token,
            "mode": "shared",
            "reason": None,
        }
        assert (broken["kind"], broken["reason"]) == ("lost", "broken")
    else:
        assert first.rstrip().endswith("free")
        assert held.rstrip().endswith(
            f"held by first (token {token}, shared)  [granted to first (token {token})]"
        )
        assert lost.rstrip().endswith(f"free  [lost by first (token {token}): broken]")
