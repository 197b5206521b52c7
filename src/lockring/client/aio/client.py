"""The asyncio client: `lockring.aio.Client`."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lockring.client.aio._support import Driver
from lockring.client.aio.driver import AsyncDriver
from lockring.client.aio.grants import Grant, Grants, acquire_in_span
from lockring.client.aio.locks import Lock, RWLock
from lockring.client.aio.threaded_driver import ThreadedDriver
from lockring.client.arguments import (
    ANSWER_TIMEOUT_S_DEFAULT,
    CONNECT_TIMEOUT_S_DEFAULT,
    TTL_S_DEFAULT,
    Seconds,
    answer_to_ns,
    check_prefix,
    check_token,
    lock_names,
    owner_label,
    server_addresses,
    ttl_to_ms,
    wait_to_ms,
)
from lockring.client.grant_state import Holder
from lockring.client.lock_info import (
    Broken,
    LockInfo,
    LockList,
    LockPage,
    broken_of,
    lock_info,
    lock_list,
    lock_page,
)
from lockring.client.process_bound import ProcessBound
from lockring.client.searching import check_page_limit, search_of
from lockring.client.tls import FilePath, files_of, tls_of
from lockring.client.tracing import SDK
from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState, decode_state
from lockring.core.client import LocksFound, Wait
from lockring.ids import LockName
from lockring.names import GROUP_PREFIX, check_lock_name, check_node_id
from lockring.protocol import WAIT_FOREVER, LockRecords, Mode
from lockring.units import NS_PER_MS

if TYPE_CHECKING:
    from lockring.client.aio.groups import Group
    from lockring.client.group_state import GroupList
    from lockring.client.watch_updates import WatchUpdate

# Groups and watches are imported by the methods that need them: a program that needs neither starts sooner.


class Client(ProcessBound):
    """A client of a lock cluster. It may be shared by any number of tasks of one event loop.

    It connects when it is first used, and keeps the leases of its locks alive until they are released or the client
    is closed. As a context manager it closes itself. After a fork the child has lost all grants (reason "forked"),
    and the client is closed there.

    Args:
        servers: "host:port,host:port" or an iterable of such strings. Name any nodes, or the coordinator: the client
            finds the others through them. Default: the environment variable `LOCKRING_SERVER`, or else
            127.0.0.1:9501. With lockrings:// before them they speak TLS, with lockring:// they do not; without either,
            they do if any of the next four arguments is given.
        owner: the label that other clients see; default "user@host:pid".
        ttl: the lease of locks that do not set their own, in seconds: from 0.1 s to the cluster's limit (30 s by
            default). Longer leases survive longer interruptions; shorter ones free the locks of a crashed process
            sooner.
        connect_timeout: how long an acquire without a timeout waits for the very first server to answer, in seconds.
        ca: a file with the authorities whose certificates the servers show (PEM). Default: the environment variable
            `LOCKRING_CA`, or else those of the system.
        cert: a file with the client's certificate (PEM); default: `LOCKRING_CERT`, or none.
        key: a file with the key of that; default: `LOCKRING_KEY`.
        server_name: the name that the servers' certificates must have; default: `LOCKRING_SERVER_NAME`, or the host
            that is dialed. All files may be replaced at any time; new connections use the new ones.
        token_file: a file with the token or JWT to show to servers that ask for one. It is read again for each
            connection. Default: the file that the variable `LOCKRING_TOKEN_FILE` names, or else the token in
            `LOCKRING_TOKEN`.
        own_thread: keep leases alive from a thread of the client's own, as the blocking client does, so that code
            which blocks the event loop for a long time costs no lock. Each call then takes about 0.2 ms longer.
            Callbacks still run on the event loop once that runs again; `held` and `remaining` are right at any time.
            A loop that is stopped and not closed may run again, so the locks stay renewed: close the loop, or the
            client.

    Raises:
        InvalidRequest: an argument is malformed. No connection is opened before the first request.
        ConfigError: a file is missing, malformed or without a token, or does not fit.
    """

    def __init__(
        self,
        servers: str | Iterable[str] | None = None,
        *,
        owner: str | None = None,
        ttl: Seconds = TTL_S_DEFAULT,
        connect_timeout: Seconds = CONNECT_TIMEOUT_S_DEFAULT,
        ca: FilePath | None = None,
        cert: FilePath | None = None,
        key: FilePath | None = None,
        server_name: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        own_thread: bool = False,
    ) -> None:
        self._ttl_ms = ttl_to_ms(ttl)
        addresses = server_addresses(servers, token_file)
        self._driver: Driver = (ThreadedDriver if own_thread else AsyncDriver)(
            addresses,
            owner_label(owner),
            wait_to_ms(connect_timeout, "connect_timeout") * NS_PER_MS,
            tls=tls_of(addresses, files_of(ca, cert, key, server_name)),
        )

    @property
    def owner(self) -> str:
        """The label that other clients see."""
        return self._driver.owner

    def lock(self, name: str, *, ttl: Seconds | None = None) -> Lock:
        """Return the lock with this name. No I/O happens, and nothing is acquired yet.

        Args:
            name: 1 to 1,024 bytes of UTF-8 text.
            ttl: the lock's lease in seconds; default: the client's.

        Raises:
            InvalidRequest: the name or the TTL is invalid.
        """
        return Lock(self._driver, check_lock_name(name), self._ttl_ms if ttl is None else ttl_to_ms(ttl))

    def rwlock(self, name: str, *, ttl: Seconds | None = None) -> RWLock:
        """Return the lock with this name, for many readers or one writer. No I/O happens, and nothing is acquired
        yet.

        Args:
            name: 1 to 1,024 bytes of UTF-8 text.
            ttl: the lock's lease in seconds; default: the client's.

        Raises:
            InvalidRequest: the name or the TTL is invalid.
        """
        return RWLock(self._driver, check_lock_name(name), self._ttl_ms if ttl is None else ttl_to_ms(ttl))

    def group(self, name: str, *, ttl: Seconds | None = None) -> Group:
        """Return the group with this name, whose members share work by keys. No I/O happens, and nothing is joined
        yet.

        Args:
            name: 1 to 1,018 bytes of UTF-8 text. The group's lock is named "group:" plus this name.
            ttl: the lease of its memberships in seconds; default: the client's.

        Raises:
            InvalidRequest: the name or the TTL is invalid.
        """
        from lockring.client.aio.groups import Group

        return Group(self._driver, name, self._ttl_ms if ttl is None else ttl_to_ms(ttl))

    async def groups(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> GroupList:
        """Return the groups that have members, sorted by name.

        Each group is as its node saw it when asked; the list as a whole is not a snapshot. If some slots cannot be
        listed at present, `GroupList.unserved_slots` says how many.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: a node could not be reached within `timeout`, or no slot is served at all.
        """
        from lockring.client.group_state import groups_of

        return groups_of(await self._listed(GROUP_PREFIX, timeout))

    async def acquire_all(
        self,
        names: Iterable[str],
        *,
        timeout: Seconds | None = None,
        ttl: Seconds | None = None,
        shared: bool = False,
    ) -> Grants:
        """Acquire several locks, all or none. Locks are acquired in the order of their names, so that callers cannot
        deadlock.

        Args:
            names: the locks' names, without repetition.
            timeout: longest wait for all of them together in seconds, None for no limit.
            ttl: the locks' lease in seconds; default: the client's.
            shared: acquire all locks for reading, so that others can read at the same time.

        Raises:
            AcquireTimeout: one of the locks was not granted in time; none is held.
            LockLost: one of the locks was lost while waiting for another; none is held.
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
                if SDK in sys.modules:
                    grants[name] = await acquire_in_span(self._driver, name, ttl_ms, left_ms, mode)
                else:
                    grants[name] = await self._driver.acquire(Grant, name, ttl_ms, left_ms, mode)
            for grant in grants.values():
                grant.check()
        except BaseException:
            for grant in reversed(grants.values()):
                grant._let_go()
            raise
        return Grants(grants[name] for name in wanted)

    # Blocking face: as_threading_lock

    async def describe(self, name: str, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> LockInfo:
        """Return the state of a lock: its holders, its queue, its last fencing token, its node.

        Args:
            name: the lock's name, whether it is held or free.
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node answered within `timeout`.
        """
        wanted, give_up_ns = check_lock_name(name), answer_to_ns(timeout)
        answer = await self._driver.ask(
            lambda core, now_ns: core.describe(wanted, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return lock_info(answer.lock)

    async def owner_of(self, name: str, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> Holder | None:
        """Return the holder of a lock (the first one of a shared lock), None if the lock is free.

        Args:
            name: the lock's name.
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node answered within `timeout`.
        """
        info = await self.describe(name, timeout=timeout)
        return info.holders[0] if info.holders else None

    async def locks(self, prefix: str = "", *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> LockList:
        """Return the locks that are held or waited for and whose name starts with `prefix`, sorted by name.

        Each lock is as its node saw it when asked; the list as a whole is not a snapshot. If some slots cannot be
        listed at present, `LockList.unserved_slots` says how many.

        Args:
            prefix: how the names start; "" for all.
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: a node could not be reached within `timeout`, or no slot is served at all.
        """
        return lock_list(await self._listed(prefix, timeout))

    async def find_locks(
        self,
        prefix: str = "",
        *,
        after: str = "",
        limit: int = 100,
        text: str = "",
        owner: str = "",
        mode: str | None = None,
        held: bool = False,
        waiting: bool = False,
        timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT,
    ) -> LockPage:
        """Return the first locks by name that are wanted: a page of `locks` that stays quick with a million of them.

        Args:
            prefix: how the names start; "" for all.
            after: the name behind which the page begins, such as `LockPage.after` of the page before.
            limit: how many locks it has at most, 1 to 1,000.
            text: a part of the name; "" for any.
            owner: a part of the label of a holder or a waiter, whatever its case; "" for any.
            mode: how the lock is held: "exclusive", "shared" or "semaphore"; None for any.
            held: leave out the locks without a holder.
            waiting: leave out the locks without a waiter.
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: a node could not be reached within `timeout`, or no slot is served at all.
            InvalidRequest: the limit, the mode or a text is invalid.
        """
        start, give_up_ns, most = check_prefix(prefix), answer_to_ns(timeout), check_page_limit(limit)
        search = search_of(after=after, text=text, owner=owner, mode=mode, held=held, waiting=waiting)
        found: LocksFound = await self._driver.ask(
            lambda core, now_ns: core.search(
                start, search, limit=most, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns
            )
        )
        return lock_page(found)

    async def _listed(self, prefix: str, timeout: Seconds) -> LockRecords:
        start, give_up_ns = check_prefix(prefix), answer_to_ns(timeout)
        locks: LockRecords = await self._driver.ask(
            lambda core, now_ns: core.list_locks(start, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return locks

    def watch(self, name: str) -> AsyncIterator[WatchUpdate]:
        """Yield the lock's present state, and again after every change, until the iteration is ended.

        Each update has the holders, the waiters, and the events since the update before. Changes in quick succession
        may arrive as one update; no event is missing unless the update says that there is a gap. The watch continues
        across failures and moves of the lock, with a gap.

        Args:
            name: the lock's name.

        Raises:
            Unavailable: no server was ever reached.
            ClientClosed: the client was closed.
        """
        from lockring.client.aio.watching import WatchUpdates

        return WatchUpdates(self._watch(check_lock_name(name)))

    async def _watch(self, name: LockName) -> AsyncGenerator[WatchUpdate]:
        from lockring.client.watch_updates import shown_update

        watch = self._driver.watch(name)
        try:
            while True:
                for update in await self._driver.next_updates(watch):
                    yield shown_update(update)
        finally:
            self._driver.unwatch(watch)

    async def break_lock(
        self,
        name: str,
        token: int,
        *,
        force: bool = False,
        timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT,
    ) -> Broken:
        """End the lease of a lock's holder, which the fencing token identifies.

        The holder is notified, and its lease is no longer renewed: the lock is free once the holder lets go or once
        the TTL has passed (`free_within_s`). With `force` the lock is free at once, so that for a moment two clients
        may both believe that they hold it.

        Args:
            name: the lock's name.
            token: the fencing token of the holder, so that no other holder is hit.
            force: free the lock at once.
            timeout: how long to try, in seconds.

        Raises:
            NotHeld: no grant of the lock has that token.
            Unavailable: no node answered within `timeout`.
        """
        wanted, generation, give_up_ns = check_lock_name(name), check_token(token), answer_to_ns(timeout)
        broken = await self._driver.ask(
            lambda core, now_ns: core.break_lock(
                wanted, generation, force=force, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns
            )
        )
        return broken_of(broken)

    async def state(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> ClusterState:
        """Return the cluster's members and which of them has which slot, as known to the server that answers.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no server answered within `timeout`.
        """
        state, _ = await self.state_and_note(timeout=timeout)
        return state

    async def state_and_note(
        self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT
    ) -> tuple[ClusterState, str]:
        """Return `state`, with a sentence on what the server is waiting for ("" for nothing)."""
        give_up_ns = answer_to_ns(timeout)
        answer = await self._driver.ask(
            lambda core, now_ns: core.get_state(give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return decode_state(answer.state), answer.note

    async def drain(self, node: str, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> None:
        """Begin to move everything off a node, so that it can be stopped.

        `state` shows the progress; `undrain` takes it back.

        Args:
            node: the node's id.
            timeout: how long to try, in seconds.

        Raises:
            UnknownNode: the cluster has no such member.
            LastNode: no other node can serve: the others have failed or are drained.
            Unavailable: no server answered within `timeout`.
        """
        member, give_up_ns = check_node_id(node), answer_to_ns(timeout)
        await self._driver.ask(
            lambda core, now_ns: core.drain(member, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )

    async def undrain(self, node: str, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> None:
        """Let a drained node have slots again. Does nothing if the node was not drained.

        Args:
            node: the node's id.
            timeout: how long to try, in seconds.

        Raises:
            UnknownNode: the cluster has no such member.
            NodeLeaving: the node is stopping and leaves by itself.
            Unavailable: no server answered within `timeout`, or the node was not in touch.
        """
        member, give_up_ns = check_node_id(node), answer_to_ns(timeout)
        await self._driver.ask(
            lambda core, now_ns: core.drain(
                member, undo=True, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns
            )
        )

    def waits(self) -> list[Wait]:
        """Return what each unanswered call of this client waits for: other holders, or an outage.

        Each entry says since when, and for how much longer at most where that is known. Use it to show progress
        during long waits. No I/O happens.
        """
        return self._driver.waits()

    async def close(self) -> None:
        """Release every lock, cancel every waiting acquire, notify the nodes, and close the connections.

        Grants that are still held are lost, with reason "session-ended". Waits for the nodes' answers for one second
        at most.
        """
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Client {','.join(self._driver.addresses)} owner {self.owner!r}>"
