"""A cluster of two versions, and clients of both that work on it meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lockring.server.local.children import child_environment
from lockring.testing import LocalCluster
from lockring.testing.process import TestedProcess
from tests.chaos.register import Register
from tests.processes import PATIENCE_S, eventually
from tests.upgrade.previous import variables_for

STABLE_S: Final = 180.0
NEW_SETTINGS: Final = frozenset({"--data-dir", "--durability"})
"""Settings of nodes that the previous version does not know."""
NEW_FLAGS: Final = frozenset({"--no-http"})
"""Flags of all servers, without values, that it does not know."""
VISITS: Final = 20
"""Visits of locks that each client makes after each step, at least."""


class MixedCluster(LocalCluster):
    """A cluster whose processes run the previous version, until each is exchanged for this one.

    Nodes of this version keep journals, which those of the previous one leave alone.

    Args:
        previous: the sources of the previous version.
        nodes: how many nodes there are.
    """

    def __init__(self, previous: Path, *, nodes: int) -> None:
        super().__init__(nodes, stabilization_s=0.3, durability="process")
        self._previous = previous
        self._exchanged: set[str] = set()

    def _spawn(self, process: TestedProcess) -> None:
        is_previous = process.address not in self._exchanged
        sources = self._previous if is_previous else None
        process.variables = {**(process.variables or {}), **variables_for(sources)}
        command = process.command
        if is_previous:
            process.command = [word for word in command if word not in NEW_FLAGS]
            if "node" in command:
                process.command = _without(process.command, NEW_SETTINGS)
        super()._spawn(process)
        process.command = command

    def exchange(self, name: str, *, for_previous: bool = False, kill: bool = False) -> None:
        """End a process, start it in the other version, and wait until the cluster is whole.

        Args:
            name: of the process.
            for_previous: whether it goes back to the previous version.
            kill: whether it is killed, rather than stopped in order.
        """
        if kill:
            self.kill(name)
        else:
            self.terminate(name)
            code = self.wait_for_exit(name, timeout_s=PATIENCE_S)
            assert code == 0, f"{name} ended with {code}\n{self.log_of(name)}"
        if for_previous:
            self._exchanged.discard(self.address_of(name))
        else:
            self._exchanged.add(self.address_of(name))
        self.restart(name)
        self.wait_until_stable(timeout_s=STABLE_S)


def _without(command: list[str], flags: frozenset[str]) -> list[str]:
    """Return a command line without these flags and their values."""
    follows = [False, *(word in flags for word in command)]
    return [
        word for word, is_value in zip(command, follows, strict=False) if not is_value and word not in flags
    ]


class Clients:
    """Processes of clients of both versions, which hold locks and take turns at others.

    Args:
        cluster: they use it.
        previous: the sources of the previous version.
    """

    def __init__(self, cluster: LocalCluster, previous: Path) -> None:
        self._register = cluster.directory / "register.db"
        Register.create(self._register)
        self._reader = Register(self._register)
        self._processes = {
            name: self._start(name, cluster.servers, sources)
            for name, sources in (("previous", previous), ("present", None))
        }

    def _start(self, name: str, servers: str, sources: Path | None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.upgrade.worker", servers, name, str(self._register)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(variables_for(sources)),
        )

    def __enter__(self) -> Self:
        """Wait until both work."""
        self.work()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            process.kill()
            process.communicate()
        self._reader.close()

    def work(self) -> None:
        """Wait until each of them has made some more visits."""
        before = self._visits()
        for name, process in self._processes.items():

            def has_visited(name: str = name, process: subprocess.Popen[str] = process) -> bool:
                assert process.poll() is None, f"the client of version {name} has ended"
                return self._visits().get(name, 0) >= before.get(name, 0) + VISITS

            eventually(has_visited, lambda name=name: f"visits of version {name}")  # type: ignore[misc]

    def _visits(self) -> dict[str, int]:
        rows = sorted(self._reader.rows(), key=attrgetter("client"))
        return {client: len(list(found)) // 2 for client, found in groupby(rows, key=attrgetter("client"))}

    def finish(self) -> dict[str, Any]:
        """End them, and return what each has to say: where it has its version from, and its problems."""
        reports = {}
        for name, process in self._processes.items():
            text, _ = process.communicate("", timeout=PATIENCE_S)
            assert process.returncode == 0, f"the client of version {name} ended with {process.returncode}"
            reports[name] = json.loads(text)
        return reports

    def overlaps(self) -> list[str]:
        """Return the visits during which another client was at the same lock, and those with an older token."""
        found = []
        rows = sorted(self._reader.rows(), key=attrgetter("lock"))  # and in the order of writing
        for lock, visits in groupby(rows, key=attrgetter("lock")):
            inside, highest = None, 0
            for row in visits:
                if row.doing == "enter":
                    if inside is not None or row.token <= highest:
                        found.append(f"{lock}: {row} while {inside} was there, after token {highest}")
                    inside, highest = row, row.token
                else:
                    if inside is None or inside.token != row.token:
                        found.append(f"{lock}: {row} while {inside} was there")
                    inside = None
        return found
