"""The account of itself that a server gives over HTTP.

A process has one part for each of its servers, a node or a coordinator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lockring.server.metrics.figures import Figures


class Check(NamedTuple):
    """One condition for a server to be ready.

    Attributes:
        name: of the condition, in lower case and with hyphens.
        ok: whether it holds.
        note: why it does not, as a sentence; "" if it does.
    """

    name: str
    ok: bool
    note: str = ""


class HttpPart(NamedTuple):
    """A server of the process, as the site sees it.

    Its functions are called in the event loop, and take milliseconds at most.

    Attributes:
        name: "node" or "coordinator".
        checks: returns the conditions for the server to be ready.
        add_figures: adds the server's metrics.
        is_leader: returns whether it leads the coordinators; None for a node.
        seeds: returns addresses (HOST:PORT) of servers of the cluster that answer about it.
    """

    name: str
    checks: Callable[[], list[Check]]
    add_figures: Callable[[Figures], None]
    is_leader: Callable[[], bool] | None = None
    seeds: Callable[[], list[str]] = list
