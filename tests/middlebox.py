"""A device between a client and a server: it passes bytes on, and forgets connections without notice to either end."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Any, Final, Self

from lockring.addresses import split_address

_READ_BYTES: Final = 64 * 1024
_WAKE_S: Final = 0.05


class _Passage:
    """One connection through the box."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.ends = (near, far)
        self.forgotten: set[socket.socket] = set()
        """The ends from which nothing gets to the other one any more."""

    def other(self, end: socket.socket) -> socket.socket:
        """The other end."""
        return self.ends[end is self.ends[0]]


class Middlebox:
    """Passes connections on to a server; use it as a context manager.

    Attributes:
        address: HOST:PORT at which it accepts connections.
        target: HOST:PORT of the server that new connections lead to.
        accepted: how many connections there have been.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._passages: list[_Passage] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="middlebox", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()
        self.reset()

    def forget(self, *, there: bool = True, back: bool = True) -> None:
        """Swallow all further bytes on existing connections: `there` (to the server), `back`, or both."""
        with self._lock:
            for passage in self._passages:
                near, far = passage.ends
                passage.forgotten |= ({near} if there else set()) | ({far} if back else set())

    def reset(self) -> None:
        """Break the connections that there are."""
        with self._lock:
            passages = list(self._passages)
        for passage in passages:
            for end in passage.ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)  # the box's thread closes it
        if self._over.is_set():
            for passage in passages:
                for end in passage.ends:
                    end.close()

    def _run(self) -> None:
        while not self._over.is_set():
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                with self._lock:
                    passages = list(self._passages)
                for passage in passages:
                    for end in passage.ends:
                        if end.fileno() >= 0:
                            selector.register(end, selectors.EVENT_READ, passage)
                found = selector.select(_WAKE_S)
            for key, _ in found:
                if key.data is None:
                    self._accept()
                else:
                    self._pass(key.data, key.fileobj)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(split_address(self.target), timeout=5)
        except OSError:
            near.close()
            return
        with self._lock:
            self.accepted += 1
            self._passages.append(_Passage(near, far))

    def _pass(self, passage: _Passage, end: Any) -> None:
        try:
            data = end.recv(_READ_BYTES)
        except OSError:
            data = b""
        if end in passage.forgotten and data:
            return
        try:
            if data:
                passage.other(end).sendall(data)
                return
        except OSError:
            pass  # the other side is gone, which ends both
        end.close()
        if end not in passage.forgotten:
            passage.other(end).close()
