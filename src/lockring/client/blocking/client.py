"""The blocking client: `lockring.Client` and what it gives out."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from lockring.client.arguments import (
    ANSWER_TIMEOUT_S_DEFAULT,
    CONNECT_TIMEOUT_S_DEFAULT,
    TTL_S_DEFAULT,
    Seconds,
    answer_to_ns,
    check_prefix,
    check_token,
    default_owner,
    lock_names,
    server_addresses,
    ttl_to_ms,
    wait_to_ms,
)
from lockring.client.blocking.driver import BlockingDriver
from lockring.client.blocking.grants import Grant, Grants
from lockring.client.blocking.groups import Group
from lockring.client.blocking.locks import Lock, RWLock
from lockring.client.blocking.threading_lock import ThreadingLock
from lockring.client.grant_state import Holder
from lockring.client.group_state import GroupList, groups_of
from lockring.client.lock_info import Broken, LockInfo, LockList, broken_of, lock_info, lock_list
from lockring.client.process_bound import ProcessBound
from lockring.client.watch_updates import WatchUpdate, shown_update
from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState, decode_state
from lockring.core.client import Wait
from lockring.names import GROUP_PREFIX, check_lock_name, check_node_id, check_owner
from lockring.protocol import WAIT_FOREVER, Mode
from lockring.protocol import LockRecords as WireLockList
from lockring.units import NS_PER_MS


class Client(ProcessBound):
    """A client of a lock cluster. It may be shared by any number of threads, or tasks of one event loop.

    It connects when it is first needed, and keeps what it holds alive until it is released or the client is closed. As a
    context manager it closes itself. After a fork the child has lost all grants (reason "forked"); a blocking client
    starts afresh there, an asyncio client is closed there.

    Args:
        servers: "host:port,host:port" or a list of such: any nodes, or the coordinator; the others are found through them.
            Default: the variable `LOCKRING_SERVER`, or 127.0.0.1:9501.
        owner: the label that others see; default "user@host:pid".
        ttl: the lease of locks that name none, in seconds: 0.1 s to what the cluster allows (30 s). Longer leases survive
            longer interruptions; shorter ones free the locks of a crashed process sooner.
        connect_timeout: how long an acquire without a timeout waits for the very first server to answer, in seconds.
        own_thread: for the asyncio client only: whether leases are kept alive from a thread of its own, as the blocking client
            does, so that code which blocks the event loop for long costs no lock. Each call then takes about 0.2 ms more.
            Losses are told on the event loop, once that runs; `held` and `remaining` are right at any time.

    Raises:
        InvalidRequest: an argument is not of the form it must have. No I/O happens before the first request.
    """

    def __init__(
        self,
        servers: str | Iterable[str] | None = None,
        *,
        owner: str | None = None,
        ttl: Seconds = TTL_S_DEFAULT,
        connect_timeout: Seconds = CONNECT_TIMEOUT_S_DEFAULT,
    ) -> None:
        self._ttl_ms = ttl_to_ms(ttl)
        own = None if owner is None else check_owner(owner)
        self._engine = BlockingDriver(
            server_addresses(servers),
            (lambda: own) if own is not None else default_owner,
            wait_to_ms(connect_timeout, "connect_timeout") * NS_PER_MS,
        )

    @property
    def owner(self) -> str:
        """The label that others see."""
        return self._engine.owner

    def lock(self, name: str, *, ttl: Seconds | None = None) -> Lock:
        """A lock by its name. No I/O happens, and nothing is acquired yet.

        Args:
            name: 1 to 1,024 bytes of text in UTF-8.
            ttl: its lease in seconds, if it is to differ from the client's.

        Raises:
            InvalidRequest: no such name or TTL is possible.
        """
        return Lock(self, check_lock_name(name), self._ttl_ms if ttl is None else ttl_to_ms(ttl))

    def rwlock(self, name: str, *, ttl: Seconds | None = None) -> RWLock:
        """A lock that many may hold to read, or one to write. No I/O happens, and nothing is acquired yet.

        Args:
            name: 1 to 1,024 bytes of text in UTF-8.
            ttl: its lease in seconds, if it is to differ from the client's.

        Raises:
            InvalidRequest: no such name or TTL is possible.
        """
        return RWLock(self, check_lock_name(name), self._ttl_ms if ttl is None else ttl_to_ms(ttl))

    def group(self, name: str, *, ttl: Seconds | None = None) -> Group:
        """A group of members that share work, by its name. No I/O happens, and nothing is joined yet.

        Args:
            name: 1 to 1,018 bytes of text in UTF-8. The group's lock is named "group:" and this.
            ttl: the lease of memberships in seconds, if it is to differ from the client's.

        Raises:
            InvalidRequest: no such name or TTL is possible.
        """
        return Group(self, name, self._ttl_ms if ttl is None else ttl_to_ms(ttl))

    def groups(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> GroupList:
        """The groups that have members, by name.

        Each is as its node saw it when it was asked; the list as a whole is no snapshot. Where some slots cannot be told of at
        present, the list says so: see `GroupList.unserved_slots`.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: a node could not be reached within that time, or no slot is served at all.
        """
        return groups_of(self._listed(GROUP_PREFIX, timeout))

    def acquire_all(
        self,
        names: Iterable[str],
        *,
        timeout: Seconds | None = None,
        ttl: Seconds | None = None,
        shared: bool = False,
    ) -> Grants:
        """Acquire several locks, all or none. They are taken in the order of their names, so that callers cannot deadlock.

        Args:
            names: of the locks, each once.
            timeout: longest wait for all of them together in seconds, None for ever.
            ttl: their lease in seconds, if it is to differ from the client's.
            shared: whether all are acquired to read only, so that others may read at the same time.

        Raises:
            AcquireTimeout: one of them was not granted in time; none is held.
            LockLost: one was lost while waiting for another; none is held.
            Unavailable, InvalidRequest, ClientClosed: as for `Lock.acquire`.
        """
        wanted = lock_names(names)
        ttl_ms = self._ttl_ms if ttl is None else ttl_to_ms(ttl)
        wait_ms = wait_to_ms(timeout)
        until_ns = monotonic_ns() + wait_ms * NS_PER_MS
        mode = Mode.SHARED if shared else Mode.EXCLUSIVE
        grants: dict[str, Grant] = {}
        try:
            for name in sorted(wanted):
                left_ms = WAIT_FOREVER
                if wait_ms != WAIT_FOREVER:
                    left_ms = max(0, until_ns - monotonic_ns()) // NS_PER_MS
                grants[name] = self._acquire(name, ttl_ms, left_ms, mode)
            for grant in grants.values():
                grant.check()
        except BaseException:
            for grant in reversed(grants.values()):
                self._engine.let_go(grant._ticket)
            raise
        return Grants(grants[name] for name in wanted)

    def as_threading_lock(self, name: str, *, ttl: Seconds | None = None) -> ThreadingLock:
        """A lock with the methods of `threading.Lock`, for code that expects one."""
        return ThreadingLock(self.lock(name, ttl=ttl))

    def describe(self, name: str, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> LockInfo:
        """What is known of a lock: its holders, who waits in which order, its last token, its node.

        Args:
            name: of the lock, held or free.
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node could tell within that time.
        """
        wanted, give_up_ns = check_lock_name(name), answer_to_ns(timeout)
        answer = self._engine.ask(
            lambda core, now_ns: core.describe(wanted, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return lock_info(answer.lock)

    def owner_of(self, name: str, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> Holder | None:
        """Who holds a lock, or None if nobody does.

        Args:
            name: of the lock.
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node could tell within that time.
        """
        holders = self.describe(name, timeout=timeout).holders
        return holders[0] if holders else None

    def locks(self, prefix: str = "", *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> LockList:
        """The locks that are held or waited for and whose name starts with `prefix`, by name.

        Each is as its node saw it when it was asked; the list as a whole is no snapshot. Where some slots cannot be told of at
        present, the list says so: see `LockList.unserved_slots`.

        Args:
            prefix: how their names start; "" for all.
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: a node could not be reached within that time, or no slot is served at all.
        """
        return lock_list(self._listed(prefix, timeout))

    def _listed(self, prefix: str, timeout: Seconds) -> WireLockList:
        start, give_up_ns = check_prefix(prefix), answer_to_ns(timeout)
        locks: WireLockList = self._engine.ask(
            lambda core, now_ns: core.list_locks(start, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return locks

    def watch(self, name: str) -> Iterator[WatchUpdate]:
        """The lock as it is now, and again after every change, until the iteration is ended.

        Each update has the holders and the waiters, and what has happened since the one before. Changes that follow each other
        closely may come as one update; none is left out unless the update says that it has a gap. It goes on over failures
        and moves of the lock, with a gap.

        Args:
            name: of the lock.

        Raises:
            Unavailable: no server was ever reached.
            ClientClosed: the client was closed.
        """
        return self._watch(check_lock_name(name))

    def _watch(self, name: str) -> Iterator[WatchUpdate]:
        call = self._engine.watch(name)
        try:
            while True:
                for update in self._engine.next_updates(call):
                    yield shown_update(update)
        finally:
            self._engine.unwatch(call)

    def break_lock(
        self,
        name: str,
        token: int,
        *,
        force: bool = False,
        timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT,
    ) -> Broken:
        """End the lease of a lock's holder, named by its fencing token.

        The holder is told, and its lease is not renewed any more: the lock is free once it lets go, or once its TTL has
        passed (`free_within_s`). With `force` it is free at once: for a moment two may believe to hold it.

        Args:
            name: of the lock.
            token: the fencing token of the holder that is meant, so that nobody else is hit.
            force: free the lock at once.
            timeout: how long to try, in seconds.

        Raises:
            NotHeld: nobody holds the lock under that token.
            Unavailable: no node could do it within that time.
        """
        wanted, generation, give_up_ns = check_lock_name(name), check_token(token), answer_to_ns(timeout)
        broken = self._engine.ask(
            lambda core, now_ns: core.break_lock(
                wanted, generation, force=force, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns
            )
        )
        return broken_of(broken)

    def state(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> ClusterState:
        """The cluster's members, and who has which slot, as the server knows it that is asked.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no server answered within that time.
        """
        return self.state_and_note(timeout=timeout)[0]

    def state_and_note(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> tuple[ClusterState, str]:
        """Like `state`, with a sentence on what the server is waiting for ("" for nothing)."""
        give_up_ns = answer_to_ns(timeout)
        answer = self._engine.ask(
            lambda core, now_ns: core.get_state(give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return decode_state(answer.state), answer.note

    def drain(self, node: str, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> None:
        """Begin to move everything off a node, so that it can be stopped; see `state` for how far it is, `undrain` for a change of mind.

        Args:
            node: id of the node.
            timeout: how long to try, in seconds.

        Raises:
            UnknownNode: the cluster has no such member.
            LastNode: it is the last one that can serve: the others have failed, or are drained.
            Unavailable: no server could do it within that time.
        """
        member, give_up_ns = check_node_id(node), answer_to_ns(timeout)
        self._engine.ask(
            lambda core, now_ns: core.drain(member, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )

    def undrain(self, node: str, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> None:
        """Let a node that was drained have slots again. Changes nothing if it was not.

        Args:
            node: id of the node.
            timeout: how long to try, in seconds.

        Raises:
            UnknownNode: the cluster has no such member.
            NodeLeaving: it was told to stop, and leaves by itself.
            Unavailable: no server could do it within that time, or the node was not in touch.
        """
        member, give_up_ns = check_node_id(node), answer_to_ns(timeout)
        self._engine.ask(
            lambda core, now_ns: core.drain(
                member, undo=True, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns
            )
        )

    def waits(self) -> list[Wait]:
        """What each call of this client waits for that has no answer yet: other holders, or an outage; since when, and for how
        long yet at the most, where that is known. For a program that wants to say so while it waits. No I/O happens.
        """
        return self._engine.waits()

    def close(self) -> None:
        """Give up everything that is held or waited for, tell the nodes, and close the connections.

        Grants that are still held are lost, with reason "session-ended". Waits for an answer a second at most.
        """
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _acquire(
        self, name: str, ttl_ms: int, wait_ms: int, mode: int = Mode.EXCLUSIVE, payload: bytes = b""
    ) -> Grant:
        engine = self._engine
        return engine.acquire(name, ttl_ms, wait_ms, functools.partial(Grant, engine), mode, payload)

    def __repr__(self) -> str:
        return f"<Client {','.join(self._engine.addresses)} owner {self.owner!r}>"
