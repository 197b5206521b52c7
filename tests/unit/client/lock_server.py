"""A lock server of a hundred lines over real TCP, for what only sockets, threads and loops can show.

It grants first come, first served, to readers together, and never expires anything. A test can make it stay mute, cut
connections, end leases, and send nonsense.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Self

import msgspec

from lockring.cluster_state import ClusterState, encode_state
from lockring.ids import Incarnation, NodeId
from lockring.net.frames import FrameReader, encode_frame
from lockring.protocol import (
    PROTOCOL,
    Acquire,
    Break,
    BreakReply,
    ClientHello,
    CloseSession,
    Describe,
    DescribeReply,
    Drain,
    DrainReply,
    GetState,
    GrantReply,
    HolderRecord,
    Keepalive,
    KeepaliveReply,
    List,
    ListReply,
    LockRecord,
    LossNotice,
    Message,
    Mode,
    QueueNotice,
    Refusal,
    Release,
    ReleaseReply,
    Routes,
    StateReply,
    ToNode,
    Undrain,
    UndrainReply,
    Unwatch,
    WaiterRecord,
    Watch,
    WatchNotice,
    Welcome,
)
from lockring.slots import SLOTS, slot_of
from tests.processes import PATIENCE_S

_decoder = msgspec.msgpack.Decoder(ToNode)


class _Entry:
    def __init__(self, connection: socket.socket, request: Acquire) -> None:
        self.connection = connection
        self.request = request
        self.generation = 0

    @property
    def shared(self) -> bool:
        return self.request.mode == Mode.SHARED

    @property
    def id(self) -> tuple[str, int]:
        return self.request.session, self.request.acquisition


class LockServer:
    """The server; use it as a context manager.

    Attributes:
        seen: every message received, in order.
        mute: message types that are not answered.
        promise_ms: the TTL that is promised, None for the one asked for.
        unserved: of how many slots it says that it may not tell.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._connections: list[socket.socket] = []
        self._queues: dict[str, list[_Entry]] = {}
        self._watches: dict[tuple[socket.socket, int], str] = {}
        self._generation = 0
        self._threads: list[threading.Thread] = []
        self.seen: list[Message] = []
        self.mute: set[type] = set()
        self.promise_ms: int | None = None
        self.greeted = 0
        self.unserved = 0

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # A listener that another thread waits in does not close: wake it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    # ---- what tests say

    def cut(self) -> None:
        """Break every connection."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def holders(self, name: str) -> list[tuple[str, int]]:
        """Return session and acquisition of a lock's holder or readers, and then of its waiters, in order."""
        with self._lock:
            return [entry.id for entry in self._queues.get(name, [])]

    def lose(self, name: str, reason: str = "broken", token: int = 0) -> None:
        """Notify a lock's holder, the first or that of a token, of its loss. It stays queued until its release."""
        with self._lock:
            loser = next(each for each in self._queues[name] if token in (0, each.generation))
            session, acquisition = loser.id
            self._send(loser.connection, LossNotice(session, acquisition, name, reason))

    def wait_until(self, condition: Any, seconds: float = PATIENCE_S) -> None:
        """Wait until a condition on this server holds; looked at after each message and connection."""
        with self._news:
            assert self._news.wait_for(condition, seconds), self.seen[-5:]

    def count(self, kind: type[Message]) -> int:
        """How many messages of a kind have come."""
        return sum(isinstance(message, kind) for message in self.seen)

    def say(self, data: bytes) -> None:
        """Send raw bytes on every connection."""
        with self._lock:
            for connection in self._connections:
                connection.sendall(data)

    # ---- what it does

    def _run(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._news:
                self._connections.append(connection)
            self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        frames: FrameReader[Message] = FrameReader(_decoder)
        with connection:
            while True:
                try:
                    data = connection.recv(65536)
                except OSError:
                    data = b""
                with self._news:
                    if not data:
                        self._connections.remove(connection)
                        for name in list(self._queues):
                            self._drop_waiters(name, connection)
                        break
                    for message in frames.feed(data):
                        self.seen.append(message)
                        if type(message) not in self.mute:
                            self._answer(connection, message)
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _send(self, connection: socket.socket, message: Message) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(encode_frame(message))

    def _drop_waiters(self, name: str, connection: socket.socket) -> None:
        queue = self._queues[name]
        queue[1:] = [entry for entry in queue[1:] if entry.connection is not connection]

    def _answer(self, connection: socket.socket, message: Any) -> None:
        answer: Message
        match message:
            case ClientHello():
                self.greeted += 1
                self._send(connection, Welcome(PROTOCOL, "cluster", "node", "a", 1, 1))
                answer = Routes(1, [(NodeId("a"), Incarnation(1), self.address)], b"\0\0" * SLOTS, "")
            case Acquire():
                self._acquire(connection, message)
                return
            case Release():
                found = self._remove(message.name, (message.session, message.acquisition))
                answer = ReleaseReply(message.request, found)
            case Keepalive():
                answer = KeepaliveReply(message.request, self.promise_ms or message.ttl_ms, True)
            case CloseSession():
                for name, queue in self._queues.items():
                    for entry in list(queue):
                        if entry.request.session == message.session:
                            self._remove(name, entry.id)
                answer = ReleaseReply(message.request, True)
            case Describe():
                answer = DescribeReply(message.request, self._info(message.name))
            case List():
                names = sorted(n for n, q in self._queues.items() if q and n.startswith(message.prefix))
                answer = ListReply(
                    message.request, [self._info(name) for name in names], -1, "", self.unserved
                )
            case Watch():
                self._watches[connection, message.request] = message.name
                answer = WatchNotice(message.request, self._info(message.name))
            case Unwatch():
                self._watches.pop((connection, message.watch), None)
                answer = ReleaseReply(message.request, True)
            case Break():
                for entry in self._queues.get(message.name, [])[:1]:
                    if entry.generation == message.generation:
                        self._send(entry.connection, LossNotice(*entry.id, message.name, "broken"))
                        if message.force:
                            self._remove(message.name, entry.id)
                        answer = BreakReply(message.request, message.force, 0 if message.force else 1000)
                        break
                else:
                    answer = Refusal(message.request, "not-held", "nobody holds it under that token")
            case GetState():
                answer = StateReply(message.request, encode_state(ClusterState("cluster", 1)), "all is well")
            case Drain() | Undrain():
                done = DrainReply if isinstance(message, Drain) else UndrainReply
                answer = (
                    done(message.request, message.node)
                    if message.node == "a"
                    else Refusal(message.request, "unknown-node", f"there is no {message.node}")
                )
            case _:
                raise AssertionError(message)
        self._send(connection, answer)

    def _acquire(self, connection: socket.socket, request: Acquire) -> None:
        queue = self._queues.setdefault(request.name, [])
        entry = _Entry(connection, request)
        for known in queue:
            if known.id == entry.id:
                known.connection, known.request = connection, request
                if known.generation:
                    self._grant(known)
                else:
                    self._send(connection, QueueNotice(request.request))
                return
        can_join = all(each.generation and each.shared and entry.shared for each in queue)
        if request.wait_ms == 0 and not can_join:
            self._send(connection, Refusal(request.request, "timeout", "held by another", request.name))
            return
        if request.ttl_ms > 30_000:
            self._send(connection, Refusal(request.request, "invalid", "the longest TTL here is 30 s"))
            return
        queue.append(entry)
        self._grant_first(queue)
        if not entry.generation:
            self._send(connection, QueueNotice(request.request))
        self._changed(request.name)

    def _grant_first(self, queue: list[_Entry]) -> None:
        for place, entry in enumerate(queue):
            if place and not (entry.shared and queue[0].shared):
                return
            if not entry.generation:
                self._grant(entry)

    def _grant(self, entry: _Entry) -> None:
        if not entry.generation:
            self._generation += 1
            entry.generation = self._generation
        request = entry.request
        promise = self.promise_ms or request.ttl_ms
        self._send(entry.connection, GrantReply(request.request, entry.generation, promise, request.request))

    def _remove(self, name: str, which: tuple[str, int]) -> bool:
        queue = self._queues.get(name, [])
        for place, entry in enumerate(queue):
            if entry.id == which:
                del queue[place]
                self._grant_first(queue)
                self._changed(name)
                return True
        return False

    def _changed(self, name: str) -> None:
        for (connection, request), watched in self._watches.items():
            if watched == name:
                self._send(connection, WatchNotice(request, self._info(name)))

    def _info(self, name: str) -> LockRecord:
        queue = self._queues.get(name, [])
        holders = [
            HolderRecord(
                e.request.owner, e.request.session, e.request.acquisition, e.generation, 5, 1000, 900
            )
            for e in queue
            if e.generation
        ]
        waiters = [
            WaiterRecord(e.request.owner, e.request.session, e.request.acquisition, 7)
            for e in queue
            if not e.generation
        ]
        return LockRecord(name, slot_of(name), "a", 0, 1, self._generation, 0, holders, waiters)
