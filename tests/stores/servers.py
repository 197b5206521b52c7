"""Real servers for the tests of stores: each in a directory of its own, on loopback, and killed at the end."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from lockring.addresses import split_address
from lockring.server.local.children import free_ports
from lockring.testing import Place

HOST = "127.0.0.1"
STARTED_S_MAX = 60
"""A server that is not there after this time will not come any more; it takes one second on a quiet machine."""


class ServerFailed(Exception):
    """A server is not installed, or does not start."""


def postgresql_programs() -> Path:
    """The directory of the newest PostgreSQL server's programs, which Debian keeps off the PATH."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin/initdb") if path.parts[-3].isdigit()]
    if found:
        return max(found, key=lambda path: int(path.parts[-3])).parent
    on_path = shutil.which("initdb")
    if on_path is None:
        raise ServerFailed("there is no PostgreSQL server; `make stores` installs it")
    return Path(on_path).parent


class PostgresServer:
    """One PostgreSQL server, which may be killed, frozen and started again on the same data.

    Args:
        place: its address; None for a free port of the loopback interface.
    """

    def __init__(self, place: Place | None = None) -> None:
        # Not below pytest's directory, which the server's own user cannot enter.
        self.directory = directory = Path(tempfile.mkdtemp(prefix="lockring-postgresql-"))
        self.place = Place(f"{HOST}:{free_ports(HOST, 1)[0]}") if place is None else place
        self._programs = postgresql_programs()
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(directory, entry.pw_uid, entry.pw_gid)
        password = directory / "password"
        password.write_text("s3cret\n")
        password.chmod(0o644)
        self._run("initdb", "-D", self._data, "-U", "lockring", "-A", "scram-sha-256", "--pwfile", password)
        with (self._data / "pg_hba.conf").open("a") as hosts:
            hosts.write("host all all samenet scram-sha-256\n")
        self.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return split_address(self.place.listen)[1]

    @property
    def pid(self) -> int | None:
        """The id of its first process, None if it is not running."""
        return None if self._process is None else self._process.pid

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def url(self, *, password: str = "s3cret", name: str = "", port: int = 0) -> str:
        """The URL of a store in it."""
        host, public = split_address(self.place.public)
        where = f"postgresql://lockring:{password}@{host}:{port or public}/postgres"
        return f"{where}#{quote(name)}" if name else where

    def _run(self, program: str, *arguments: object) -> None:
        # Python would fork to change the user, and gRPC, if it is in this process, may end the child by its threads.
        done = subprocess.run(
            ["setpriv", *self._as_user(), str(self._programs / program), *map(str, arguments)],
            cwd=self.directory,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ServerFailed(f"{program}: {done.stderr.strip()}")

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        host = split_address(self.place.listen)[0]
        settings = {"listen_addresses": host, "unix_socket_directories": "", "port": str(self.port)}
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix(), str(self._programs / "postgres"), "-D", str(self._data), *flags],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ready = [str(self._programs / "pg_isready"), "-h", host, "-p", str(self.port), "-q"]
        until_s = time.monotonic() + STARTED_S_MAX
        while subprocess.run(ready).returncode:
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise ServerFailed(
                    f"PostgreSQL does not start: {(self.directory / 'log').read_text()[-2000:]}"
                )
            time.sleep(0.05)

    def _prefix(self) -> list[str]:
        """The start of its command line: into its place, as its user, and never longer than this process."""
        return [*self.place.prefix, "setpriv", *self._as_user(), "--pdeathsig", "KILL"]

    def _as_user(self) -> list[str]:
        if self._user is None:
            return []
        return ["--reuid", self._user, "--regid", self._user, "--clear-groups"]

    def kill(self) -> None:
        """Kill it and all of its processes, with whatever they are doing."""
        if self._process is not None:
            # Else it may start a process in the place of one that was killed, and leave that behind.
            self._process.send_signal(signal.SIGSTOP)
            wait_until_stopped(self._process.pid)
            pids = self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            for pid in pids:
                wait_until_gone(pid)

    def remove(self) -> None:
        """Kill it, and remove what it has stored."""
        self.kill()
        shutil.rmtree(self.directory)

    def freeze(self) -> None:
        """Let it, and all of its processes, stand still: the kernel goes on taking connections and data."""
        for pid in self.signal(signal.SIGSTOP):
            wait_until_stopped(pid)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> set[int]:
        """Send a signal to every process of the server, and return their ids."""
        assert self._process is not None
        # The workers are in sessions of their own.
        pids = {self._process.pid}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, IndexError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self._process.pid:
                    pids.add(int(stat.parent.name))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids


def wait_until_stopped(pid: int) -> None:
    """Wait until all threads of a process stand still after a SIGSTOP: the one that takes it may be at the disk."""
    until_s = time.monotonic() + STARTED_S_MAX
    while any(state not in "TtZX" for state in _states_of(pid)):
        if time.monotonic() > until_s:
            raise ServerFailed(f"process {pid} does not stop")
        time.sleep(0.005)


def wait_until_gone(pid: int) -> None:
    """Wait until no thread of a process is left after a SIGKILL: its memory and its ports are free then."""
    until_s = time.monotonic() + STARTED_S_MAX
    while any(state not in "ZX" for state in _states_of(pid)):
        if time.monotonic() > until_s:
            raise ServerFailed(f"process {pid} does not end")
        time.sleep(0.005)


def _states_of(pid: int) -> list[str]:
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            states.append(stat.read_text().rpartition(")")[2].split()[0])
    return states
