"""A client process of either version: it holds some locks throughout, and takes turns at others.

`python -m tests.upgrade.worker SERVERS NAME REGISTER`: in `REGISTER` (see `tests.chaos.register`) it notes each
visit of a lock, with its token. It ends with its standard input, and prints what it has lost, as JSON. It uses only
what both versions have.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any, Final

import lockring
from tests.chaos.register import Register

HELD: Final = 25
"""Locks that each process holds throughout."""
SHARED: Final = tuple(f"turn/{number}" for number in range(6))
"""Locks at which all processes take turns."""
HANDS: Final = 3
"""Threads that take turns, in each process."""
ACQUIRE_S_MAX: Final = 30.0


class Worker:
    """The locks of one process, and what became of them."""

    def __init__(self, servers: str, name: str, register: Path) -> None:
        self._name = name
        self._register = register
        self._client = lockring.Client(servers, ttl=30)
        self._end = threading.Event()
        self.problems: list[str] = []
        self._held = [self._hold(f"held/{name}/{number}") for number in range(HELD)]

    def _hold(self, lock: str) -> Any:
        grant = self._client.lock(lock).acquire(timeout=ACQUIRE_S_MAX)
        grant.on_lost(lambda lost: self.problems.append(f"lost {lost.name}"))
        return grant

    def run(self) -> None:
        """Work until the standard input ends."""
        tokens = [grant.fencing_token for grant in self._held]
        hands = [threading.Thread(target=self._take_turns, args=(number,)) for number in range(HANDS)]
        for hand in hands:
            hand.start()
        sys.stdin.read()
        self._end.set()
        for hand in hands:
            hand.join()
        for grant, token in zip(self._held, tokens, strict=True):
            if not grant.verify() or grant.fencing_token != token:
                self.problems.append(f"{grant.name} is not held under token {token} any more")
            grant.release()
        self._client.close()

    def _take_turns(self, number: int) -> None:
        rng, register = random.Random(f"{self._name}/{number}"), Register(self._register)
        while not self._end.is_set():
            try:
                self._visit(rng.choice(SHARED), rng, register)
            except lockring.LockringError as error:
                self.problems.append(f"{type(error).__name__}: {error}")
            self._end.wait(rng.uniform(0.0, 0.02))
        register.close()

    def _visit(self, lock: str, rng: random.Random, register: Register) -> None:
        with self._client.lock(lock).acquire(timeout=ACQUIRE_S_MAX) as grant:
            self._note(register, lock, grant.fencing_token, "enter")
            self._end.wait(rng.uniform(0.0, 0.01))
            self._note(register, lock, grant.fencing_token, "leave")

    def _note(self, register: Register, lock: str, token: int, doing: str) -> None:
        while (verdict := register.write(lock, token, self._name, os.getpid(), doing).verdict) == "busy":
            continue
        if verdict != "accepted":
            self.problems.append(f"token {token} of {lock} is older than one before it")


def main() -> None:
    """Do what the arguments say."""
    servers, name, register = sys.argv[1:]
    worker = Worker(servers, name, Path(register))
    worker.run()
    print(json.dumps({"imported": lockring.__file__, "problems": worker.problems}))


if __name__ == "__main__":
    main()
