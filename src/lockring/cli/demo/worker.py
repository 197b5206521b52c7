"""A worker of the demo, a process of its own: it takes the lock, writes to the ledger under its token, and lets go.

It says what it does on standard output, one JSON object per line, and ends when its input ends.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Final

import lockring
from lockring.cli.demo.ledger import Ledger
from lockring.clock import monotonic_ns
from lockring.errors import LockLost, Unavailable
from lockring.server.lifecycle import die_with_parent

LOCK: Final = "demo/ledger"
TTL_S: Final = 3.0
_WRITES: Final = 5
_PAUSE_S: Final = 0.1


def main(servers: str, name: str, ledger_path: str) -> None:
    """Work until the input ends.

    Args:
        servers: the addresses of nodes.
        name: of the worker, which other clients see.
        ledger_path: the path of the ledger's file.
    """
    ledger = Ledger(Path(ledger_path))
    with lockring.Client(servers, owner=name, ttl=TTL_S) as client:
        _say("starts", 0)
        while not _is_told_to_end():
            try:
                _work(client, ledger)
            except LockLost as error:
                _say("lost", 0, reason=str(error))
            except Unavailable as error:
                _say("unavailable", 0, reason=str(error))


def _work(client: lockring.Client, ledger: Ledger) -> None:
    _say("asks", 0)
    with client.lock(LOCK).acquire() as grant:
        _say("holds", grant.fencing_token)
        for _ in range(_WRITES):
            # As a program does that was stopped between its look at the lock and its write: only the token protects.
            time.sleep(_PAUSE_S)
            _say("writes" if ledger.write(grant.fencing_token) else "refused", grant.fencing_token)
        _say("releases", grant.fencing_token)  # before it does, so that this is never behind the next grant


def _is_told_to_end() -> bool:
    readable, _, _ = select.select([0], [], [], 0)
    return bool(readable) and not os.read(0, 1)


def _say(what: str, token: int, **more: str) -> None:
    print(json.dumps({"what": what, "token": token, "at_ns": monotonic_ns(), **more}), flush=True)


if __name__ == "__main__":
    die_with_parent()
    main(*sys.argv[1:])
