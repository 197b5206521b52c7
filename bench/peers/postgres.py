"""PostgreSQL's advisory locks, through psycopg: kept in memory for as long as a connection lasts, without a lease."""

from __future__ import annotations

import functools
import os
import pwd
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import psycopg

from bench.peers.base import HOST, Endpoint, Server
from bench.peers.programs import postgres_programs
from bench.processes import ServerFailed, ServerProcess
from lockring.server.local.children import free_ports

USER: Final = "postgres"
"""The server's user when this process is root: the server refuses to run as root."""

_ACQUIRE: Final = "SELECT pg_advisory_lock(hashtextextended(%s, 0))"
_RELEASE: Final = "SELECT pg_advisory_unlock(hashtextextended(%s, 0))"
_ACQUIRE_IN_TRANSACTION: Final = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


class PostgresServer(Server):
    """One PostgreSQL server, with room for 300 connections and for 100,000 locks."""

    renewals = "connection"

    def __init__(self, peer: str, directory: Path | None = None, *, is_patient: bool = False) -> None:
        super().__init__(peer, directory, is_patient=is_patient)
        (self._port,) = free_ports(HOST, 1)
        where = postgres_programs()
        if where is None:
            raise ServerFailed("there is no PostgreSQL server")
        self._initdb = str(where / "initdb")
        self._user = USER if os.geteuid() == 0 else None
        self._data = self.directory / "data"
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": "300",
            "max_locks_per_transaction": "1024",
        }
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = ServerProcess(
            [str(where / "postgres"), "-D", str(self._data), "-p", str(self._port), *flags],
            self.directory / "log",
            user=self._user,
        )

    def start(self) -> None:
        """Create a database, start the server, and wait until a client can connect."""
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
        made = subprocess.run(
            [
                self._initdb,
                "-D",
                str(self._data),
                "-U",
                USER,
                "-A",
                "trust",
                "--no-sync",
                "--no-instructions",
            ],
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise ServerFailed(f"initdb failed:\n{made.stderr}")
        self._process.start(self._answers)

    def _answers(self) -> bool:
        try:
            psycopg.connect(_dsn(self._port), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End the server and its clients' processes at once."""
        self._process.stop(signal.SIGQUIT)

    def pids(self) -> tuple[int, ...]:
        """Return the first process; its children serve the connections."""
        return (self._process.pid,)

    @property
    def address(self) -> str:
        """The address that it listens on."""
        return f"{HOST}:{self._port}"


def _dsn(port: int) -> str:
    return f"host={HOST} port={port} user={USER} dbname=postgres"


class BlockingClient:
    """One connection; locks of the session, so that each needs a call to release it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._connection = psycopg.connect(_dsn(endpoint.port), autocommit=True)
        self._is_in_transaction = False

    def acquire(self, name: str) -> Callable[[], object]:
        """Wait for a lock, and return the function that releases it."""
        if self._is_in_transaction:
            self._connection.execute(_ACQUIRE_IN_TRANSACTION, (name,))
            release: Callable[[], object] = self._connection.rollback
            return release
        self._connection.execute(_ACQUIRE, (name,))
        return functools.partial(self._connection.execute, _RELEASE, (name,))

    def hold_many(self) -> None:
        """Take them in one transaction: with many locks of the session, each statement looks at all of them."""
        self._connection.autocommit = False
        self._is_in_transaction = True


class AsyncioClient:
    """A connection for each lock held or waited for at once, opened in advance."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._port = endpoint.port
        self._idle: list[psycopg.AsyncConnection[tuple[object, ...]]] = []

    async def open(self, overlapping: int) -> None:
        """Open the connections."""
        for _ in range(overlapping):
            self._idle.append(await psycopg.AsyncConnection.connect(_dsn(self._port), autocommit=True))

    async def acquire(self, name: str) -> Callable[[], Awaitable[object]]:
        """Wait for a lock, and return the function that releases it."""
        connection = self._idle.pop()
        await connection.execute(_ACQUIRE, (name,))

        async def release() -> None:
            await connection.execute(_RELEASE, (name,))
            self._idle.append(connection)

        return release
