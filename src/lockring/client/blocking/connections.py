"""The connections of one client: opened by short-lived threads, since looking names up may block, and dropped."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from lockring.client.blocking.background import Background
from lockring.client.blocking.connection import IDLE_NS, ClientConnection, connect
from lockring.client.blocking.section import Section
from lockring.client.blocking.thread_starter import ThreadStarter
from lockring.clock import monotonic_ns
from lockring.errors import LockringError, Unavailable
from lockring.ids import LinkId
from lockring.system_errors import reason_of

if TYPE_CHECKING:
    from lockring.security.tls_policy import ClientTls

Opened = Callable[[int, LinkId, ClientConnection | None, LockringError | None], None]
"""Given in a section: the time, the link, its connection, None if it failed, and then why."""


class Connections:
    """The open connections by link, and those that are being opened.

    All methods are called in sections.

    Args:
        section: the client's.
        background: the place of its background thread.
        starter: knows the threads that open connections.
        tls: the client's TLS, None for none.

    Attributes:
        wires: the open connections.
    """

    __slots__ = ("_background", "_marks", "_section", "_starter", "_tls", "wires")

    def __init__(
        self,
        section: Section,
        background: Background,
        starter: ThreadStarter,
        *,
        tls: ClientTls | None = None,
    ) -> None:
        self._section = section
        self._background = background
        self._starter = starter
        self._tls = tls
        self.wires: dict[LinkId, ClientConnection] = {}
        self._marks: dict[int, object] = {}
        """By link, what stands for the attempt to open it. A link may be given up and be wanted again meanwhile."""

    def open(self, link: LinkId, address: str, opened: Opened) -> None:
        """Begin to open a connection after this section; `opened` gets it, unless it is given up before."""
        mark = self._marks[link] = object()
        self._section.do_after(functools.partial(self._start_opener, link, address, mark, opened))

    def hang_up(self, link: LinkId) -> None:
        """Give up a link, whether or not it is open yet."""
        self._marks.pop(link, None)
        wire = self.wires.get(link)
        if wire is not None:
            self.drop(wire)

    def drop(self, wire: ClientConnection) -> None:
        """End a connection, and let the calls that wait at it look for another one."""
        del self.wires[wire.link]
        self._background.watch(wire, 0)
        wire.hang_up()
        if wire.reader is None:
            wire.close()
        else:
            wire.wake()
        wire.let_all_in()

    def forget_all(self) -> list[ClientConnection]:
        """Give up every link, and return the open connections, which nothing here knows any more."""
        wires, self.wires, self._marks = self.wires, {}, {}
        return list(wires.values())

    # ------------------------------------------------------------------ in threads of their own, outside sections

    def _start_opener(self, link: LinkId, address: str, mark: object, opened: Opened) -> None:
        work = functools.partial(self._connect, link, address, mark, opened)
        opener = threading.Thread(target=work, name=f"lockring-connect-{address}", daemon=True)
        openers = self._starter.openers
        openers.add(opener)
        try:
            opener.start()
        except (RuntimeError, MemoryError, OSError) as error:
            openers.discard(opener)
            self._finish_opening(link, mark, opened, None, _not_connected(error))
        except BaseException:
            # Raised by a signal handler: the thread may not have started. If it has, the second one comes too late.
            self._section.do_after(functools.partial(self._start_opener, link, address, mark, opened))
            self._background.rouse()
            raise

    def _connect(self, link: LinkId, address: str, mark: object, opened: Opened) -> None:
        wire: ClientConnection | None = None
        failure: LockringError | None = None
        try:
            sock, tls = connect(address, self._tls)
            try:
                # No call has used it yet: let the background thread watch it at once.
                wire = ClientConnection(link, address, sock, monotonic_ns() - IDLE_NS, tls=tls)
            except BaseException:
                sock.close()
                raise
        except BaseException as error:  # noqa: BLE001 - any error is this connection's, and the core must learn of it
            failure = error if isinstance(error, LockringError) else _not_connected(error)
        finally:
            self._starter.openers.discard(threading.current_thread())
        self._finish_opening(link, mark, opened, wire, failure)

    def _finish_opening(
        self,
        link: LinkId,
        mark: object,
        opened: Opened,
        wire: ClientConnection | None,
        failure: LockringError | None,
    ) -> None:
        self._section.inside(
            functools.partial(
                self._hand_over, link=link, mark=mark, wire=wire, failure=failure, opened=opened
            )
        )

    def _hand_over(
        self,
        now_ns: int,
        *,
        link: LinkId,
        mark: object,
        wire: ClientConnection | None,
        failure: LockringError | None,
        opened: Opened,
    ) -> None:
        if self._marks.get(link) is not mark:  # given up meanwhile
            if wire is not None:
                wire.close()
            return
        del self._marks[link]
        if wire is not None:
            self.wires[link] = wire
        opened(now_ns, link, wire, failure)
        if wire is not None and not wire.closed:
            self._background.watch(wire, wire.wanted_events(now_ns))


def _not_connected(error: BaseException) -> Unavailable:
    return Unavailable(f"cannot be connected to: {reason_of(error)}")
