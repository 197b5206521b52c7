"""Looks at a cluster: asks its servers for all that `lockring top` shows, each part by itself.

The cost to the servers has a bound, however many locks there are: the first ones by name of those with waiters, the
first ones of all, and a few events. The coordinator is asked for its status alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Final, NamedTuple, TypeVar

from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import tls_for
from lockring.cli.top.model import (
    CLUSTER,
    EVENTS,
    LOCK,
    LOCKS,
    CoordinatorView,
    LiveLook,
    LocksSlice,
    TopView,
)
from lockring.client.aio.tls_opener import opener_with
from lockring.client.tls_dial import dial_with
from lockring.errors import ConfigError, LockringError
from lockring.ids import LockName
from lockring.net.oneshot import ask_report
from lockring.views.cluster import ClusterView
from lockring.views.filters import EventFilter, LockFilter
from lockring.views.locks import LocksView
from lockring.views.reader import ClusterReader, Viewer

SLICE: Final = 100
"""Most locks with waiters that are asked for, and most of all locks."""
EVENTS_ASKED: Final = 20

_COORDINATOR_S_MAX: Final = 1.0
"""How long the coordinator may take to answer."""
_CLOSE_S_MAX: Final = 1.0

_T = TypeVar("_T")


class Subject(NamedTuple):
    """The subject of a look.

    Attributes:
        prefix: how the names of locks begin, "" for all.
        lock: the lock whose queue is shown, "" for none.
    """

    prefix: str = ""
    lock: str = ""


class Looker:
    """Asks the servers of a cluster. Lives in one event loop.

    Args:
        settings: name the cluster.

    Raises:
        ConfigError: a file of TLS cannot be used.
    """

    def __init__(self, settings: ClientSettings) -> None:
        tls = tls_for(settings)
        self._settings = settings
        self._dial = dial_with(tls)
        self._reader = ClusterReader(lambda: settings.addresses, opener_with(tls), is_server=False)

    async def close(self) -> None:
        """End all connections, those that are under way in a moment at most: the process ends with them."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reader.close(), _CLOSE_S_MAX)

    async def look(self, wanted: Subject) -> LiveLook:
        """Return the cluster at this moment. The errors of its parts are in the look, so that none of them ends it."""
        try:
            viewer = Viewer(None, self._settings.credential())
        except (
            ConfigError
        ) as error:  # the file may be missing for a moment, while another one takes its place
            return LiveLook(errors=dict.fromkeys((CLUSTER, LOCKS, EVENTS, LOCK), error))
        errors: dict[str, LockringError] = {}
        cluster, locks, events, lock = await asyncio.gather(
            _part(CLUSTER, self._cluster(viewer), errors),
            _part(LOCKS, self._locks(viewer, wanted.prefix), errors),
            _part(
                EVENTS, self._reader.events(viewer, EventFilter(prefix=wanted.prefix), EVENTS_ASKED), errors
            ),
            _part(LOCK, self._reader.lock(viewer, LockName(wanted.lock)), errors)
            if wanted.lock
            else _nothing(),
        )
        view = TopView(
            cluster=None if cluster is None else cluster[0],
            coordinator=None if cluster is None else cluster[1],
            locks=locks,
            events=None if events is None else tuple(events.events),
            lock=lock,
        )
        return LiveLook(view, errors)

    async def _cluster(self, viewer: Viewer) -> tuple[ClusterView, CoordinatorView]:
        state, view = await self._reader.cluster(viewer)
        return view, await self._coordinator(state.coordinator, viewer.credential)

    async def _coordinator(self, address: str, credential: str) -> CoordinatorView:
        if not address:
            return CoordinatorView("", answers=False, problem="the cluster state names none")
        timeout_s = min(_COORDINATOR_S_MAX, self._settings.connect_timeout_s)
        try:
            _, status = await asyncio.to_thread(
                ask_report, address, timeout_s=timeout_s, dial=self._dial, credential=credential
            )
        except LockringError as error:
            return CoordinatorView(address, answers=False, problem=str(error))
        return CoordinatorView(
            address,
            answers=True,
            standbys=tuple(status.standbys),
            store=status.store,
            store_problem="" if status.store_failing_ms < 0 else status.store_problem,
        )

    async def _locks(self, viewer: Viewer, prefix: str) -> LocksSlice:
        waiting, some = await asyncio.gather(
            self._reader.locks(viewer, LockFilter(prefix=prefix, show="waiting", limit=SLICE)),
            self._reader.locks(viewer, LockFilter(prefix=prefix, limit=SLICE)),
        )
        return slice_of(waiting, some)


def slice_of(waiting: LocksView, some: LocksView) -> LocksSlice:
    """Return the locks of two pages, each once: those with waiters, and the first ones of all."""
    names = {each.name for each in waiting.locks}
    rows = (*waiting.locks, *(each for each in some.locks if each.name not in names))
    return LocksSlice(
        rows,
        some.matched,
        has_more=bool(waiting.after or some.after),
        unserved_slots=max(waiting.unserved_slots, some.unserved_slots),
    )


async def _part(part: str, answer: Awaitable[_T], errors: dict[str, LockringError]) -> _T | None:
    try:
        return await answer
    except LockringError as error:
        errors[part] = error
        return None


async def _nothing() -> None:
    return None
