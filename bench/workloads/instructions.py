"""The instructions of a lock and its release, in client and server: they do not depend on the machine's speed.

They are counted by single steps outside the kernel, in one thread and one turn of its loop at a time, while everything
else runs at full speed. The client finds each answer there when it looks, so its vain looks are not in the figure. A
server's turn counts up to its first write. Not every server can be counted like that. Some spread a request over
several threads (Go, Java). Nodes with copies have timers that fall due in each turn, since a turn takes a second then.
"""

from __future__ import annotations

import signal
import statistics
import time
from typing import Any, Final

from bench import peers
from bench.children import Child, Inbox
from bench.peers.base import Endpoint
from bench.processes import thread_cpu_s
from bench.results import Values
from bench.scale import Scale
from bench.stepping import NOTHING, CannotStep, Count, Stepped, obstacle
from bench.workloads.base import Alone, Outcome, Workload

_LOCK: Final = "lock-1"
_WARM: Final = 2000
"""Pairs before the count: Python replaces its instructions by special ones as they are repeated."""

_TTL_S: Final = 120
"""Longer than a pair takes step by step: with redis-py and Redis, that was more than a minute on one machine."""

_MARK: Final = signal.SIGUSR1
_BUSY_SHARE: Final = 0.05
"""A thread counts if it has this share of the servers' processor time, or more."""

_PROBES: Final = 5
_BURST: Final = 12
_PAUSE_S: Final = 0.004
"""After each request the server finds the time to wait for the next one, although each of its system calls is slow."""

_BEFORE: Final = 6
"""Pairs of a burst, and those of them before the turn that counts: what a pair leaves to the next one is in it then."""


def measure(server: Any, variant: str, scale: Scale) -> Outcome:
    """Count instructions and system calls of a pair.

    Raises:
        CannotStep: this machine or its settings do not allow it.
    """
    del variant
    if sentence := obstacle():
        raise CannotStep(sentence)
    endpoint = server.endpoint(ttl_s=_TTL_S)
    with Child.under(endpoint.python, _client, endpoint) as child:
        child.hear()
        before_s = thread_cpu_s(endpoint.servers)
        _tell(child, "warm up")
        used_s = {
            thread: after_s - before_s.get(thread, 0.0)
            for thread, after_s in thread_cpu_s(endpoint.servers).items()
        }
        busy = [thread for thread, each_s in used_s.items() if each_s > _BUSY_SHARE * sum(used_s.values())]
        in_client = _of_client(child, scale.counted)
        in_servers = sum((_of_thread(thread, child, scale.counted) for thread in busy), NOTHING)
    both = in_client + in_servers
    return Outcome(_values("client", in_client) | _values("server", in_servers) | _values("both", both))


def _values(side: str, count: Count) -> Values:
    return {
        f"{side}_instructions": float(count.instructions),
        f"{side}_syscalls": float(count.syscalls),
    }


def _of_client(child: Child[None], times: int) -> Count:
    """Return the client's work for a pair."""
    counts = []
    with Stepped(child.pid) as thread:
        for _ in range(times):
            counts.append(thread.between_signals(_MARK, lambda: child.tell("marked pair")))
            child.hear()
    return _usual(counts)


def _of_thread(number: int, child: Child[None], times: int) -> Count:
    """Return a server's thread's work for a pair: the sum over its turns, each counted in a burst of its own.

    A turn that is stepped takes so long that whatever follows is no longer usual, so the burst's later turns count for
    nothing.
    """
    with Stepped(number) as thread:

        def turns(stepped: int | None = None) -> list[Count]:
            found = thread.turns(lambda: child.tell("burst"), child.has_word, stepped)
            child.hear()
            return found

        of_pair = round(statistics.median(len(turns()) for _ in range(_PROBES)) / _BURST)
        first = _BEFORE * of_pair
        return sum(
            (_usual([turns(turn)[turn] for _ in range(times)]) for turn in range(first, first + of_pair)),
            NOTHING,
        )


def _usual(counts: list[Count]) -> Count:
    """Return the second least count.

    A timer that falls due during the steps adds to a count, and does so often. A message of another kind shifts the
    turns, but seldom.
    """
    return sorted(counts)[:2][-1]


def _tell(child: Child[None], word: str) -> None:
    child.tell(word)
    child.hear()


def _client(inbox: Inbox, endpoint: Endpoint) -> None:
    client = peers.blocking(endpoint)
    inbox.say("ready")
    while True:
        match inbox.hear():
            case "warm up":
                for _ in range(_WARM):
                    client.acquire(_LOCK)()
            case "marked pair":
                signal.raise_signal(_MARK)
                client.acquire(_LOCK)()
                signal.raise_signal(_MARK)
            case "burst":
                for _ in range(_BURST):
                    release = client.acquire(_LOCK)
                    time.sleep(_PAUSE_S)
                    release()
                    time.sleep(_PAUSE_S)
        inbox.say("done")


WORKLOAD = Workload(
    name="instructions",
    title="Instructions of a lock and its release",
    peers={"one client": ("lockring", "lockring+compiled", "redis", "postgres")},
    how=Alone(measure),
    rounds=lambda _: 1,
    is_patient=True,
)
