"""Announcements of a lost grant in the asyncio client: an event and callbacks, on the event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence

from lockring.client.aio._support import Driver
from lockring.client.grant_state import (
    GrantState,
    LossCallback,
    keep_from_being_dropped,
    loss_of,
    may_be_dropped,
)
from lockring.client.logs import log_loss
from lockring.core.client import Ticket
from lockring.errors import LockLost

Event = asyncio.Event


class LossNotices(GrantState):
    """The part of a grant that announces its loss."""

    __slots__ = ("_event",)

    _driver: Driver

    def __init__(self, driver: Driver, ticket: Ticket) -> None:
        super().__init__(driver, ticket)
        self._event: Event | None = None
        # Weakly: the client must not keep a grant alive that the program has dropped.
        ticket.holder = weakref.ref(self)

    def _lost_event(self) -> Event:
        is_lost = self._loss is not None
        if self._event is None:
            self._event = asyncio.Event()
            vars(self._event)["grant"] = (
                self  # the program waits for this grant's loss, so it must stay alive
            )
        if is_lost:
            self._event.set()
        return self._event

    def _add_loss_callback(self, callback: LossCallback) -> None:
        if self._ticket.reason:
            _call_back([callback], loss_of(self._ticket))
            return
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)
        keep_from_being_dropped(self)

    def _on_ticket_lost(self) -> None:
        """Announce the loss; the driver calls this on the event loop."""
        log_loss(self._ticket)
        may_be_dropped(self)
        if self._hold is not None:
            self._hold.end("lost")
        if self._ticket.reason == "forked":
            # The event and the callbacks belong to the parent's loop, which does not run here.
            self._event = None
            self._callbacks = None
            return
        if self._event is not None:
            self._event.set()
        callbacks, self._callbacks = self._callbacks, None
        if callbacks:
            _call_back(callbacks, loss_of(self._ticket))


def _call_back(callbacks: Sequence[LossCallback], loss: LockLost) -> None:
    for callback in callbacks:
        try:
            callback(loss)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - reported
            # The other callbacks must be called, and the driver has more to do. A callback may well raise the
            # cancellation of a task whose result it reads.
            context = {"message": "a lockring on_lost callback failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
