"""The load of the long tests: locks that are held all the while, and hands that take turns with contended ones.

Everything is in one process, so that one clock and one memory say which hand believes in what, and when.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import lockring
from lockring.errors import AcquireTimeout, LockLost, Unavailable

TTL_S: Final = 30
"""The lock of a holder outlasts a pause of a busy machine, besides the fault."""
HANDS: Final = 8
CONTENDED: Final = tuple(f"turn/{number}" for number in range(4))
_ACQUIRE_S_MAX: Final = 20
_VISIT_S_MAX: Final = 0.1


class Holder:
    """A client that holds many locks, and checks that none was lost and no token has changed."""

    def __init__(self, servers: str, locks: int, *, ttl_s: int = TTL_S) -> None:
        self.client = lockring.Client(servers, ttl=ttl_s)
        self.grants = [self.client.lock(f"job/{number}").acquire(timeout=60) for number in range(locks)]
        self.tokens = [grant.fencing_token for grant in self.grants]
        self.lost: list[str] = []
        for grant in self.grants:
            grant.on_lost(lambda lost: self.lost.append(lost.name))

    def check(self, after: str) -> None:
        """Nothing is lost, and the nodes have every grant under its token."""
        assert self.lost == [], after
        assert all(grant.held for grant in self.grants), after
        assert all(grant.verify() for grant in self.grants), after
        assert [grant.fencing_token for grant in self.grants] == self.tokens, after

    def take_again(self) -> None:
        """Release and acquire every lock: each has a greater token than before."""
        for place, grant in enumerate(self.grants):
            grant.release()
            again = self.client.lock(grant.name).acquire(timeout=60)
            assert again.fencing_token > self.tokens[place]
            self.grants[place], self.tokens[place] = again, again.fencing_token


class Turns:
    """Threads that acquire and release a few locks in competition, and note each violation.

    - Two hands must not believe in the same lock at the same time, by their own deadlines.
    - A grant has a greater token than every grant of its lock before.
    - No grant is lost.
    """

    def __init__(self, servers: str, *, seed: int) -> None:
        self.violations: list[str] = []
        self.visits = 0
        self.refusals = 0
        self._clients = [lockring.Client(servers, ttl=TTL_S) for _ in range(2)]
        self._mutex = threading.Lock()
        self._inside: dict[str, tuple[int, lockring.Grant]] = {}
        self._tokens: dict[str, int] = {}
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._take_turns, args=(number, random.Random(seed * HANDS + number)))
            for number in range(HANDS)
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the hands work for the time of a block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
            for client in self._clients:
                client.close()

    def check(self, after: str) -> None:
        """Nothing was violated so far, and the hands get their locks."""
        assert self.violations == [], after
        before = self.visits
        end_s = time.monotonic() + 60
        while self.visits < before + 2 * HANDS:
            assert time.monotonic() < end_s, f"{after}: no lock can be acquired"
            time.sleep(0.01)

    def _take_turns(self, hand: int, rng: random.Random) -> None:
        client = self._clients[hand % len(self._clients)]
        while not self._stop.is_set():
            name = rng.choice(CONTENDED)
            try:
                grant = client.lock(name).acquire(timeout=_ACQUIRE_S_MAX)
            except (AcquireTimeout, Unavailable):
                self.refusals += 1
                continue
            self._enter(hand, grant)
            time.sleep(rng.random() * _VISIT_S_MAX)
            if not grant.held:
                self._note(f"hand {hand} has lost {name} (token {grant.fencing_token})")
            with self._mutex:
                if self._inside.get(name, (hand, grant))[1] is grant:
                    self._inside.pop(name, None)
                self.visits += 1
            try:
                grant.release()
            except (LockLost, Unavailable) as error:
                self._note(f"hand {hand} cannot release {name}: {error}")

    def _enter(self, hand: int, grant: lockring.Grant) -> None:
        name = grant.name
        with self._mutex:
            other, present = self._inside.get(name, (hand, grant))
            if present is not grant and present.held and grant.held:
                self._note(f"hands {other} and {hand} hold {name} at the same time")
            if grant.fencing_token <= self._tokens.get(name, 0):
                self._note(f"the token of {name} fell from {self._tokens[name]} to {grant.fencing_token}")
            self._inside[name] = hand, grant
            self._tokens[name] = max(grant.fencing_token, self._tokens.get(name, 0))

    def _note(self, text: str) -> None:
        self.violations.append(text)
