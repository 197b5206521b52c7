"""The demo's scenes, in their order. Each does something to the cluster or to a worker, and says what comes of it.

Nothing here is staged: the processes are real, each figure is measured, and a demo in which a promise is broken fails.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from lockring.cli.demo.ledger import Entry, Ledger
from lockring.cli.demo.narrator import Narrator
from lockring.cli.demo.worker import LOCK, TTL_S
from lockring.cli.demo.workers import DemoFailed, Word, Workers
from lockring.testing import COORDINATOR, LocalCluster
from lockring.units import NS_PER_MS

PATIENCE_S: Final = 60.0
"""How long anything may take that is awaited: many times what it takes, also on a busy machine."""

_WATCHED_S: Final = 3.0
_TURNS_MIN: Final = 4


class Stage(NamedTuple):
    """The things that the scenes play with.

    Attributes:
        cluster: the servers.
        workers: the clients.
        ledger: the resource that the lock protects.
        narrator: says what happens.
        frozen: the workers that were frozen so far.
    """

    cluster: LocalCluster
    workers: Workers
    ledger: Ledger
    narrator: Narrator
    frozen: list[str]


def compete(stage: Stage) -> None:
    """Let the workers compete in peace."""
    cluster, workers, narrator = stage.cluster, stage.workers, stage.narrator
    narrator.scene(
        "Four workers want one lock",
        f"Each takes {LOCK!r}, writes five times to a ledger, and lets go.",
        "Waiters wait without polling, and the first one in the queue is the next holder.",
    )
    workers.wait(
        "all workers have had the lock", lambda: len({w.worker for w in _grants(workers)}) == 4, PATIENCE_S
    )
    seen = len(workers.words)
    time.sleep(_WATCHED_S)
    workers.wait("workers have taken turns", lambda: len(turns_of(workers.words)) >= _TURNS_MIN, PATIENCE_S)
    for word in workers.since(seen, "holds")[:4]:
        narrator.happens(f"{word.worker} holds it, token {word.token}")
    turns = turns_of(workers.words)
    waits = sorted(each.took_ms for each in turns)
    first = sum(each.is_of_first for each in turns)
    if not is_growing([word.token for word in _grants(workers)]):
        raise DemoFailed("a grant had a token that is not above the one before")
    narrator.aside(
        f"The lock's primary is {cluster.primary_of(LOCK)}, and its copy is on {cluster.backup_of(LOCK)}."
    )
    narrator.shows(
        f"from one worker to the next in {waits[len(waits) // 2]:.1f} ms, and each token is above the last"
    )
    narrator.aside(f"{first} of {len(turns)} times, the next holder was the worker that had asked first.")


def kill_primary(stage: Stage) -> None:
    """Kill the node that keeps the lock, while a worker holds it."""
    cluster, workers, narrator = stage.cluster, stage.workers, stage.narrator
    primary, backup = cluster.primary_of(LOCK), cluster.backup_of(LOCK)
    narrator.scene(
        f"kill -9 of {primary}, the lock's primary, while a worker holds the lock",
        f"Each grant was on {backup} before it was answered, so nothing is lost.",
    )
    holder = _someone_holds(workers)
    seen = len(workers.words)
    cluster.kill(primary)
    workers.wait("the holder writes", lambda: _by(workers.since(seen, "writes"), holder), PATIENCE_S)
    narrator.happens(f"{primary} is dead; {holder} goes on writing")
    workers.wait("the next worker has the lock", lambda: workers.since(seen, "holds"), PATIENCE_S)
    following = workers.since(seen, "holds")[0]
    narrator.happens(
        f"{following.worker} holds it, token {following.token}, now kept by {cluster.primary_of(LOCK)}"
    )
    cluster.restart(primary)
    cluster.wait_until_stable(timeout_s=PATIENCE_S)
    if lost := workers.since(seen, "lost"):
        raise DemoFailed(f"{lost[0].worker} has lost the lock, although a copy of it was left")
    narrator.happens(f"{primary} is started again, and has its share of the slots")
    has_noticed = _by(workers.since(seen, "unavailable"), holder)
    narrator.shows(f"no lock was lost, and {holder} {'had to ask again' if has_noticed else 'never noticed'}")


def freeze_holder(stage: Stage) -> None:
    """Freeze the worker that holds the lock, and let it write once its lease is over."""
    workers, ledger, narrator = stage.workers, stage.ledger, stage.narrator
    narrator.scene(
        "A holder freezes, and wakes up too late",
        f"Its lease ends after {TTL_S:g} s without a renewal. What it does when it wakes is the hard part.",
    )
    frozen = _someone_holds(workers)
    token = max(word.token for word in _grants(workers) if word.worker == frozen)
    seen = len(workers.words)
    workers.freeze(frozen)
    stage.frozen.append(frozen)
    begun_s = time.monotonic()
    narrator.happens(f"{frozen} is frozen in the middle of its work, with token {token}")
    workers.wait(
        "another worker has the lock", lambda: _by_others(workers.since(seen, "holds"), frozen), PATIENCE_S
    )
    (following, *_) = _by_others(workers.since(seen, "holds"), frozen)
    narrator.happens(
        f"{following.worker} holds it, token {following.token}, {time.monotonic() - begun_s:.1f} s after the freeze"
    )
    workers.wait("the ledger has the newer token", lambda: ledger.read().token > token, PATIENCE_S)
    before = ledger.read()
    workers.thaw(frozen)
    workers.wait("the late write is refused", lambda: _by(workers.since(seen, "refused"), frozen), PATIENCE_S)
    after = ledger.read()
    if after.refused <= before.refused or after.token <= token:
        raise DemoFailed(f"{frozen} says that its write was refused, and the ledger does not")
    narrator.happens(
        f"{frozen} wakes up and writes: the ledger refuses its token {token}, which is below {after.token}"
    )
    workers.wait("the late holder knows", lambda: _by(workers.since(seen, "lost"), frozen), PATIENCE_S)
    narrator.happens(f"{frozen} learns that it has lost the lock: LockLost")
    narrator.shows("a lease frees the lock, and the fencing token keeps the late writer out")


def kill_coordinator(stage: Stage) -> None:
    """Kill the coordinator while the workers go on."""
    cluster, workers, narrator = stage.cluster, stage.workers, stage.narrator
    narrator.scene(
        "kill -9 of the coordinator",
        "It decides which node has what, and is on the path of no lock. Several may stand by for each other.",
    )
    seen = len(workers.words)
    cluster.kill(COORDINATOR)
    narrator.happens("the coordinator is dead")
    time.sleep(_WATCHED_S)
    count = len(workers.since(seen, "holds"))
    if count == 0:
        raise DemoFailed("no lock was granted while the coordinator was away")
    narrator.happens(f"{count} grants in {_WATCHED_S:g} s meanwhile")
    cluster.restart(COORDINATOR)
    cluster.wait_until_stable(timeout_s=PATIENCE_S)
    narrator.happens("it is started again on its state")
    narrator.shows("locks do not wait for the coordinator")


def drain_node(stage: Stage) -> None:
    """Drain the lock's primary, as before its machine is rebooted."""
    cluster, workers, narrator = stage.cluster, stage.workers, stage.narrator
    primary = cluster.primary_of(LOCK)
    narrator.scene(
        f"lockring drain {primary}",
        "Everything moves to the other nodes while locks are held: a rolling restart costs nothing.",
    )
    seen = len(workers.words)
    cluster.drain(primary)
    cluster.wait_until_stable(timeout_s=PATIENCE_S)
    state = cluster.state()
    left = sum(slot.primary is not None and slot.primary.node == primary for slot in state.slots)
    if left:
        raise DemoFailed(f"{primary} still serves {left} slots after its drain")
    narrator.happens(f"{primary} has nothing any more; the lock is kept by {cluster.primary_of(LOCK)}")
    cluster.undrain(primary)
    cluster.wait_until_stable(timeout_s=PATIENCE_S)
    narrator.happens(f"{primary} has its share again")
    if workers.since(seen, "lost") or workers.since(seen, "unavailable"):
        raise DemoFailed("a worker has lost the lock, or could not reach it, while a node was drained")
    narrator.shows(f"{len(workers.since(seen, 'holds'))} grants meanwhile, none lost")


SCENES: Final = (compete, kill_primary, freeze_holder, kill_coordinator, drain_node)


def conclude(stage: Stage) -> None:
    """Check what must have held all along, and say so.

    Raises:
        DemoFailed: it did not.
    """
    workers, ledger, narrator = stage.workers, stage.ledger, stage.narrator
    grants = _grants(workers)
    written = [word.token for word in sorted(workers.since(0, "writes"), key=lambda word: word.at_ns)]
    refused = workers.since(0, "refused")
    if not is_growing([word.token for word in sorted(grants, key=lambda word: word.at_ns)]):
        raise DemoFailed("a grant had a token that is not above the one before")
    if written != sorted(written):
        raise DemoFailed("the ledger took a write under a lower token after one under a higher")
    entry = ledger.read()
    if entry != Entry(max(written, default=0), len(written), len(refused), len(set(written))):
        raise DemoFailed(
            f"the ledger has {entry}, and its workers speak of {len(written)} writes under {len(set(written))} tokens"
            f" and {len(refused)} that were refused"
        )
    narrator.scene("The outcome")
    narrator.happens(f"{len(grants)} grants, {entry.writes} writes, {entry.refused} late writes refused")
    narrator.happens(_losses([word.worker for word in workers.since(0, "lost")], stage.frozen))
    narrator.shows(f"{entry.writers} holders wrote, one after the other, and tokens only grew")


def _grants(workers: Workers) -> list[Word]:
    return workers.since(0, "holds")


def _by(words: list[Word], worker: str) -> list[Word]:
    return [word for word in words if word.worker == worker]


def _by_others(words: list[Word], worker: str) -> list[Word]:
    return [word for word in words if word.worker != worker]


def _someone_holds(workers: Workers) -> str:
    """Wait until a worker has just got the lock, and return it."""
    seen = len(workers.words)
    workers.wait("a worker gets the lock", lambda: workers.since(seen, "holds"), PATIENCE_S)
    return workers.since(seen, "holds")[-1].worker


def _losses(losers: list[str], frozen: list[str]) -> str:
    """Return in words which workers have lost a lock."""
    if not losers:
        return "no lock lost"
    if len(losers) > 1:
        return f"{len(losers)} locks lost: of {', '.join(losers)}"
    return (
        f"1 lock lost: {'that of the worker that was frozen' if losers == frozen else f'that of {losers[0]}'}"
    )


class Turn(NamedTuple):
    """The way of the lock from one holder to the next one.

    Attributes:
        took_ms: the time from the beginning of the release to the grant.
        is_of_first: whether the next holder is the worker that had asked before all others that were waiting.
    """

    took_ms: float
    is_of_first: bool


def turns_of(words: Sequence[Word]) -> list[Turn]:
    """Return the turns that workers have taken while others were waiting, in their order."""
    waiting: dict[str, int] = {}
    releases: Word | None = None
    found = []
    for word in sorted(words, key=lambda word: word.at_ns):
        if word.what == "asks":
            waiting[word.worker] = word.at_ns
        elif word.what == "releases":
            releases = word if waiting else None
        elif word.what == "holds":
            first = min(waiting, key=lambda worker: waiting[worker], default="")
            if releases is not None:
                took_ms = (word.at_ns - releases.at_ns) / NS_PER_MS
                found.append(Turn(took_ms, word.worker == first))
            releases = None
            waiting.pop(word.worker, None)
        elif word.what in ("lost", "unavailable"):
            releases = None
            waiting.pop(word.worker, None)
    return found


def is_growing(tokens: Sequence[int]) -> bool:
    """Return whether each token is above the one before it."""
    return all(before < after for before, after in itertools.pairwise(tokens))
