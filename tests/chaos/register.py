"""The resource that the locks protect: a register per lock in a database that refuses writers with an older token."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from lockring.clock import monotonic_ns

BUSY_MS: Final = 200
"""How long a write waits for another one. A client that is frozen in the middle of its transaction keeps the database
locked: the others then go on without having written."""

Verdict = Literal["accepted", "refused", "busy"]

_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS registers (lock TEXT PRIMARY KEY, token INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS writes (
        id INTEGER PRIMARY KEY, lock TEXT NOT NULL, token INTEGER NOT NULL, client TEXT NOT NULL,
        pid INTEGER NOT NULL, doing TEXT NOT NULL, at_ns INTEGER NOT NULL, highest INTEGER NOT NULL,
        verdict TEXT NOT NULL);
"""


class Decided(NamedTuple):
    """The outcome of a write, and when that was decided."""

    verdict: Verdict
    at_ns: int


class Row(NamedTuple):
    """One write as the database has it. `highest` is the highest token that it had seen before."""

    lock: str
    token: int
    client: str
    pid: int
    doing: str
    at_ns: int
    highest: int
    verdict: str


class Register:
    """One connection to the database. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(
            path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA synchronous = OFF")  # processes die here, machines do not

    @classmethod
    def create(cls, path: Path) -> None:
        """Make the database, once for all processes."""
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)

    def write(self, lock: str, token: int, client: str, pid: int, doing: str) -> Decided:
        """Write in the name of a holder: "enter", "work" or "leave". Refused if a higher token was here before.

        It is one transaction: compare, set, and the record of it.
        """
        try:
            with self.transaction():
                found = self._db.execute("SELECT token FROM registers WHERE lock = ?", (lock,)).fetchone()
                highest = found[0] if found else 0
                verdict: Verdict = "accepted" if token >= highest else "refused"
                at_ns = monotonic_ns()
                if verdict == "accepted":
                    self._db.execute(
                        "INSERT INTO registers VALUES (?, ?) ON CONFLICT (lock) DO UPDATE SET token = excluded.token",
                        (lock, token),
                    )
                self._db.execute(
                    "INSERT INTO writes (lock, token, client, pid, doing, at_ns, highest, verdict)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (lock, token, client, pid, doing, at_ns, highest, verdict),
                )
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            return Decided("busy", monotonic_ns())
        return Decided(verdict, at_ns)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Lock the database for writing until the block ends."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def rows(self) -> list[Row]:
        """All writes, in the order in which the database took them."""
        found = self._db.execute(
            "SELECT lock, token, client, pid, doing, at_ns, highest, verdict FROM writes ORDER BY id"
        )
        return [Row(*each) for each in found]

    def close(self) -> None:
        """Close the connection."""
        self._db.close()
