"""Announcements of a lost grant in the blocking client: an event and callbacks, for any thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

from lockring.client.blocking._support import Driver
from lockring.client.grant_state import (
    GrantState,
    LossCallback,
    keep_from_being_dropped,
    loss_of,
    may_be_dropped,
    report_in_thread,
)
from lockring.client.logs import log_loss
from lockring.core.client import Ticket

Event = threading.Event


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
        known = self._event
        if known is not None:
            return known
        # Made and set outside the driver's lock, inside which no foreign code may run: a signal handler or finalizer
        # there would wait with the lock held. If two threads get here, the second one's event is discarded.
        made = threading.Event()
        vars(made)["grant"] = self  # the program waits for this grant's loss, so it must stay alive
        if is_lost or self._ticket.reason:
            made.set()
        with self._driver.locked():
            if self._event is None:
                self._event = made
        if self._ticket.reason and self._event is made:
            made.set()  # lost since the first check, when there was no event to set yet
        return self._event

    def _add_loss_callback(self, callback: LossCallback) -> None:
        added, is_added = [callback], False
        keep_from_being_dropped(self)
        with self._driver.locked():
            if not self._ticket.reason:
                is_added = True
                if self._callbacks is None:
                    self._callbacks = added
                else:
                    self._callbacks += added
        if not is_added:
            may_be_dropped(self)
            self._call_back([callback])

    def _on_ticket_lost(self) -> None:
        """Announce the loss; the driver calls this with its lock held."""
        log_loss(self._ticket, self._driver.start_writing)
        may_be_dropped(self)
        hold = self._hold
        if hold is not None:  # after the section, since the end of a span is the program's code
            self._driver.do_after(lambda: hold.end("lost"))
        if self._ticket.reason == "forked":
            # The parent's threads may have been inside the event, whose lock then stays taken here forever.
            self._event = None
            self._callbacks = None
            return
        if self._event is not None:
            # After the section: a thread may hold the event's own lock, and wait for the section in a finalizer.
            self._driver.do_after(self._event.set)
        callbacks, self._callbacks = self._callbacks, None
        if callbacks:
            self._call_back(callbacks)

    def _call_back(self, callbacks: Sequence[LossCallback]) -> None:
        """Run loss callbacks on a thread of their own, so that a slow one delays nothing else."""
        loss = loss_of(self._ticket)

        def call() -> None:
            for callback in callbacks:
                try:
                    callback(loss)
                except BaseException:  # noqa: BLE001 - reported; the other callbacks must be called
                    report_in_thread()

        self._driver.spawn(call, f"lockring-lost-{self.name[:40]}")
