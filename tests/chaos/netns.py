"""Links as network namespaces: every process has a machine of its own, as far as the network is concerned.

All of them are on one bridge, which is in a namespace as well: the machine's own network is not touched. A one-way cut
tells the sender's kernel a hardware address for the target that no machine has. Its packets then get lost on the
bridge, silently and at once, in this direction only; and no kernel module is needed that a small system may lack, as
`tc` filters do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from typing import Final

from lockring.testing import Place
from tests.chaos.links import LinksFailed

PREFIX: Final = "lrchaos-"
"""Namespaces are named by this, the process id of the run and the name of the process in it."""

SWITCH: Final = "switch"
OUTSIDE: Final = "control"
PORT: Final = 9500
_NAMED: Final = "/run/netns"
"""Where `ip netns` keeps the names."""

_CLONE_NEWNET: Final = 0x4000_0000
_HOSTS_MAX: Final = 250
_COMMAND_S_MAX: Final = 60.0


class NetnsLinks:
    """One run's namespaces. Needs root."""

    kind = "netns"
    forgets = False

    def __init__(self) -> None:
        remove_leftovers()
        self._run = f"{PREFIX}{os.getpid()}-"
        self._numbers: dict[str, int] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._home: int | None = None
        try:
            _ip("netns", "add", self._run + SWITCH)
            _ip("-n", self._run + SWITCH, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._run + SWITCH, "link", "set", "bridge", "up")
        except BaseException:
            self.close()
            raise

    def place(self, name: str) -> Place:
        """An address of its own, on a port that all servers use."""
        return Place(f"{_address(self._number(name))}:{PORT}", prefix=self.prefix(name), insecure=True)

    def prefix(self, name: str) -> tuple[str, ...]:
        """`ip netns exec` becomes what it starts."""
        self._number(name)
        return ("ip", "netns", "exec", self._run + name)

    def enter(self) -> None:
        """Move the calling thread, and all that it starts from now on, into a namespace that is never cut off."""
        self._number(OUTSIDE)
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        with open(f"{_NAMED}/{self._run}{OUTSIDE}", "rb") as namespace:
            _set_namespace(namespace.fileno())

    def cut(self, source: str, target: str) -> None:
        """Give the source a hardware address for the target that no machine has."""
        self._teach(source, target, "02:4c:52:ff:ff:ff")
        self._cuts.add((source, target))

    def mend(self, source: str, target: str) -> None:
        """Give the source the target's true hardware address."""
        if (source, target) in self._cuts:
            self._teach(source, target, _hardware(self._number(target)))
            self._cuts.discard((source, target))

    def forget(self, source: str, target: str) -> None:
        """Nothing here knows single connections."""
        raise LinksFailed("network namespaces forget no connections: use proxies")

    def isolate(self, name: str) -> None:
        """Take its port off the bridge."""
        _ip("-n", self._run + SWITCH, "link", "set", f"port{self._number(name)}", "nomaster")

    def rejoin(self, name: str) -> None:
        """Put its port onto the bridge."""
        _ip("-n", self._run + SWITCH, "link", "set", f"port{self._number(name)}", "master", "bridge")

    def close(self) -> None:
        """Delete the namespaces, and with them what was in them. Processes in them must be ended before."""
        if self._home is not None:
            _set_namespace(self._home)
            os.close(self._home)
            self._home = None
        for name in _namespaces():
            if name.startswith(self._run):
                _ip("netns", "del", name)
        self._numbers.clear()
        self._cuts.clear()

    def _number(self, name: str) -> int:
        """The number of a process on the bridge; made on first use."""
        number = self._numbers.get(name)
        if number is None:
            number = len(self._numbers) + 1
            assert number <= _HOSTS_MAX, "the address has one byte for the number"
            self._attach(self._run + name, number)
            self._numbers[name] = number
        return number

    def _attach(self, namespace: str, number: int) -> None:
        switch, port = self._run + SWITCH, f"port{number}"
        _ip("netns", "add", namespace)
        own = ["-n", namespace]
        _ip(
            *own, "link", "add", "eth0", "address", _hardware(number),
            "type", "veth", "peer", "name", port, "netns", switch,
        )  # fmt: skip
        _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
        _ip(*own, "address", "add", f"{_address(number)}/24", "dev", "eth0")
        _ip(*own, "link", "set", "lo", "up")
        _ip(*own, "link", "set", "eth0", "up")

    def _teach(self, source: str, target: str, hardware: str) -> None:
        address = _address(self._number(target))
        self._number(source)
        _ip(
            "-n", self._run + source, "neigh", "replace", address,
            "lladdr", hardware, "nud", "permanent", "dev", "eth0",
        )  # fmt: skip


def remove_leftovers() -> list[str]:
    """Delete the namespaces of runs that have ended without doing so, and return their names."""
    removed = []
    for name in _namespaces():
        run = name.removeprefix(PREFIX).split("-")[0]
        if not name.startswith(PREFIX) or not run.isdigit() or os.path.exists(f"/proc/{run}"):
            continue
        for pid in _ip("netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "del", name)
        removed.append(name)
    return removed


def _namespaces() -> list[str]:
    return sorted(os.listdir(_NAMED)) if os.path.isdir(_NAMED) else []


def _address(number: int) -> str:
    return f"10.99.0.{number}"


def _hardware(number: int) -> str:
    return f"02:4c:52:00:00:{number:02x}"


def _ip(*arguments: str) -> str:
    done = subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, check=False, timeout=_COMMAND_S_MAX
    )
    if done.returncode:
        raise LinksFailed(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _set_namespace(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        raise LinksFailed(f"setns: {os.strerror(ctypes.get_errno())}")
