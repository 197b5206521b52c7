"""An honest client among strangers: it holds locks, renews them, acquires and releases others, and notes any harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import lockring

HELD: Final = 40
CHURNED: Final = 8
TTL_S: Final = 90.0
"""Longer than a process on a busy machine stands still: a lock that is lost shall have been lost for another reason."""

_TIMEOUT_S: Final = 60.0
_PAUSE_S: Final = 0.01


class Honest:
    """A client at work on a thread of its own, from `with` to `finish`.

    Args:
        servers: of its cluster.
        label: goes into the names of its locks.
        held: how many locks it holds all the time.
        files: the arguments of the client that are its files, None for none.
    """

    def __init__(
        self, servers: str, label: str, *, held: int = HELD, files: Mapping[str, str] | None = None
    ) -> None:
        self.names = tuple(f"honest/{label}/held/{number}" for number in range(held))
        self.harm: list[str] = []
        self.latencies_s: list[float] = []
        self._label = label
        self._client = lockring.Client(servers, owner=f"honest {label}", ttl=TTL_S, **(files or {}))
        self._grants: dict[str, lockring.Grant] = {}
        self._tokens: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"honest-{label}")

    def __enter__(self) -> Self:
        for name in self.names:
            grant = self._grants[name] = self._client.lock(name).acquire(timeout=_TIMEOUT_S)
            self._tokens[name] = grant.fencing_token
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def finish(self) -> list[str]:
        """Stop, ask the cluster whether every lock is still held under its token, take new ones; return the harm
        done."""
        self._stop.set()
        self._thread.join()
        for name, grant in self._grants.items():
            try:
                verified = grant.verify()
                holding = self._client.owner_of(name)
            except lockring.LockringError as error:
                self.harm.append(f"{name}: {error!r}")
                continue
            if not verified or holding is None or holding.fencing_token != self._tokens[name]:
                self.harm.append(f"{name} is held as {holding!r}, not under token {self._tokens[name]}")
        for number in range(HELD):
            self._turn(f"honest/{self._label}/after/{number}")
        return self.harm

    def _work(self) -> None:
        number = 0
        while not self._stop.is_set() and not self.harm:
            number += 1
            self._turn(f"honest/{self._label}/churned/{number % CHURNED}")
            for name, grant in self._grants.items():
                if not grant.held or grant.fencing_token != self._tokens[name]:
                    self.harm.append(f"{name} was lost: {grant!r}")
            self._stop.wait(_PAUSE_S)

    def _turn(self, name: str) -> None:
        begun_s = time.perf_counter()
        try:
            with self._client.lock(name).acquire(timeout=_TIMEOUT_S):
                pass
        except lockring.LockringError as error:
            self.harm.append(f"{name}: {error!r}")
        self.latencies_s.append(time.perf_counter() - begun_s)


def milliseconds(latencies_s: list[float]) -> str:
    """How long acquire and release took together: median, 99th of a hundred, and the longest."""
    ordered = sorted(latencies_s)
    if not ordered:
        return "none"
    parts = (ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1])
    return " / ".join(f"{1000 * each:.1f}" for each in parts) + " ms"
