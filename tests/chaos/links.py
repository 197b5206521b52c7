"""The network between the processes of a run, and how it is cut: network namespaces, or proxies where these cannot be
had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

from lockring.testing import Place

Pids = Callable[[], dict[str, int]]
"""Tells which process id belongs to which name at the moment."""


class LinksFailed(RuntimeError):
    """The network could not be made, or not be changed."""


class Links(Protocol):
    """A network in which what one named process sends to another can be lost, without notice to either.

    A cut is one-way. What is on its way then, and what is sent afterwards, arrives after the mending if both sides
    still want it, as TCP has it. Not safe for use by several threads at once.
    """

    kind: str
    forgets: bool
    """Whether `forget` can be done here."""

    def place(self, name: str) -> Place:
        """Return the place of a server process; the same for the same name."""

    def prefix(self, name: str) -> tuple[str, ...]:
        """Return the start of a client process's command line that puts it into this network under that name."""

    def enter(self) -> None:
        """Let this process reach all others, whatever is cut. To be called once, before there are other threads."""

    def cut(self, source: str, target: str) -> None:
        """From now on nothing arrives that `source` sends to `target`."""

    def mend(self, source: str, target: str) -> None:
        """Undo a cut; harmless where there is none."""

    def forget(self, source: str, target: str) -> None:
        """Let existing connections lose everything that `source` sends to `target`, forever and without notice.

        New connections work.
        """

    def isolate(self, name: str) -> None:
        """At one stroke, nothing that a process sends arrives anywhere, and nothing arrives that is sent to it."""

    def rejoin(self, name: str) -> None:
        """Undo `isolate`; harmless where it was not called. Cuts stay as they are."""

    def close(self) -> None:
        """Remove everything that was made. Closing twice is harmless."""


def choose(wanted: str, pids: Pids) -> Links:
    """The links that are wanted: "netns", "proxy", or "auto" for the first of them that can be had here.

    Raises:
        LinksFailed: there is no such thing here.
    """
    from tests.chaos.netns import NetnsLinks
    from tests.chaos.proxy import ProxyLinks

    why_not = why_no_namespaces()
    if wanted == "netns" and why_not:
        raise LinksFailed(f"no network namespaces: {why_not}")
    if wanted == "proxy" or why_not:
        if sys.platform != "linux":
            raise LinksFailed("the proxy tells connections apart by what Linux says of them in /proc")
        return ProxyLinks(pids)
    return NetnsLinks()


def why_no_namespaces() -> str:
    """Why network namespaces cannot be made here, "" if they can."""
    if sys.platform != "linux":
        return "this is not Linux"
    if os.geteuid() != 0:
        return "only root may make them"
    if shutil.which("ip") is None:
        return "there is no `ip` command (package iproute2)"
    return _trial()


def _trial() -> str:
    name = f"lrchaos-{os.getpid()}-trial"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return made.stderr.strip() or "`ip netns add` fails"
    veth = ["ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two"]
    bridge = ["ip", "-n", name, "link", "add", "three", "type", "bridge"]
    problems = []
    for command in (veth, bridge):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            problems.append(done.stderr.strip())
    subprocess.run(["ip", "netns", "del", name], check=True)
    return "; ".join(problems)
