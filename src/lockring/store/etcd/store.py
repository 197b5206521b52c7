"""A store in etcd, version 3.4 or newer: one key for the state, one for the lead, and one for each coordinator.

| key | holds | ends |
|---|---|---|
| `PREFIX/lockring` | the version of this layout, and whether there was ever a state | never |
| `PREFIX/state` | the state | never |
| `PREFIX/election/leader` | the term that leads | with the lease of its coordinator |
| `PREFIX/election/coordinators/TERM` | a coordinator's address | with its lease |

- *Compare-and-set in one transaction.* A write compares the revision of the state that it replaces, and the term that
  leads. A former leader writes nothing, however late its request arrives.
- *Leadership by etcd's clock.* A lease that etcd has ended takes the coordinator's keys with it. etcd may let one live
  longer than asked, for one after a change of its own leader. That is harmless: only the comparison counts.
- *Reads are linearizable*: they show whatever any member has confirmed.
- *The outcome of a write.* If no answer arrives, the state is read back. The write has taken place if it is there. If
  another state is there, the write can no longer succeed, or was replaced already: it counts as not stored. Otherwise
  its outcome is unknown, and reported so: the request may still be on its way. It is not sent a second time.
- *The state is fetched once.* A read asks for keys without what they hold, and for the state only if that was written
  since the last time, the lead has changed, or etcd's members have elected a leader. An etcd that was set back to a
  backup may have the same revision for another state, but not under all of the same.
- *A campaign may be repeated.* It writes the same keys with the same lease, and none once that lease has ended.

Reads are no transactions: a member without space refuses even one that writes nothing.
Renewals write no key, so that they leave no history behind.
Each new state does: etcd needs `--auto-compaction-retention`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from lockring.cluster_state import ClusterState, decode_state, encode_state
from lockring.core.election import Candidate, Election
from lockring.errors import ProtocolError, StoreError
from lockring.ids import NO_VERSION, TermId, Version
from lockring.store.base import StoreUnreachable
from lockring.store.etcd.calls import (
    LEASE_GRANT,
    LEASE_KEEP_ALIVE,
    LEASE_REVOKE,
    RANGE,
    TXN,
    EtcdCalls,
    LeaseGone,
    OutOfSpace,
    Unanswered,
)
from lockring.store.etcd.etcd_pb2 import (
    Compare,
    KeyValue,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    Operation,
    PutRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from lockring.store.etcd.place import parse

DEADLINE_S: Final = 6.0
"""Longest time for an operation, reading back included. A coordinator gives up after 10 s."""
_READ_BACK_S: Final = 3.0
"""The part of it that is kept for reading back."""
_WRITE_S_MIN: Final = 0.5
"""A write that has less time than this is not begun: its outcome would too likely be unknown."""
_READ_BACKS_MAX: Final = 3
_READ_BACK_PAUSE_S: Final = 0.2
STATE_BYTES_MAX: Final = 1_500 * 1024
"""Longest state: etcd takes requests of up to 1.5 MiB, and the rest of the request needs little."""
_CAMPAIGN_TRIES_MAX: Final = 3
"""How often a campaign begins again because its lease ended meanwhile."""

_MARK: Final = b"lockring"
_STATE: Final = b"state"
_ELECTION: Final = b"election/"
_LEADER: Final = b"election/leader"
_COORDINATORS: Final = b"election/coordinators/"

_LAYOUT: Final = b"1"
_LAYOUT_NEW: Final = b"1 new"
"""Stands in the place of `_LAYOUT` until the first state is written."""


class _Trace(NamedTuple):
    """The signs, without the state itself, that it is the same as before.

    Attributes:
        elections: the term of etcd's members, raised at each election of their own leader.
        revision: at which the state was last written, 0 if there is none.
        writes: how often its key was written.
        lease: of the coordinator that leads, 0 if none does. Only it writes, and no lease comes twice.
    """

    elections: int
    revision: int
    writes: int
    lease: int

    def after(self, write: TxnResponse) -> _Trace:
        """Return the trace after a write of the state that has succeeded."""
        header = write.header
        return _Trace(header.raft_term, header.revision, self.writes + 1, self.lease)


class _StateKey(NamedTuple):
    """The state's key as a read has shown it: its trace, and the state, None if there was none."""

    trace: _Trace
    state: ClusterState | None

    @property
    def revision(self) -> int:
        """The revision at which it was written, 0 if there was none."""
        return self.trace.revision

    @property
    def version(self) -> Version:
        return NO_VERSION if self.state is None else self.state.version


class _Coordinators(NamedTuple):
    """The keys of the coordinators."""

    leader: KeyValue | None
    others: dict[TermId, KeyValue]


class EtcdStore:
    """Keeps the state of one cluster in etcd. Thread-safe; operations wait for one another.

    Args:
        url: `etcd://[USER[:PASSWORD]@]HOST[:PORT],…[/PREFIX]`, or `etcds://…?ca=FILE&cert=FILE&key=FILE`; see `place`.

    Attributes:
        created: whether no state was ever written there before.
        place: the engine and where it is, for people.

    Raises:
        StoreUnreachable: no member answers, or none has space.
        InvalidRequest: the URL is malformed.
        StoreError: etcd refuses the user, or the prefix is in use for
            something else. The text does not show the password.
    """

    def __init__(self, url: str) -> None:
        place = parse(url)
        self.place = place.named
        self._prefix = f"{place.prefix}/".encode()
        self._calls = EtcdCalls(place)
        self._mutex = threading.Lock()
        self._known: tuple[_Trace, ClusterState] | None = None
        self._lasts_s: dict[int, int] = {}
        self._is_closed = False
        self.created = False
        try:
            with self._operation("opened") as until_s:
                self.created = self._lay_out(until_s)
        except BaseException:
            self.close()
            raise

    # ----------------------------------------------------------------------- the state

    def read(self) -> ClusterState | None:
        """Return the stored state, None if there is none.

        Raises:
            StoreError: it cannot be read, or is damaged.
        """
        with self._operation("read") as until_s:
            return self._read(until_s).state

    def write(self, expected_version: Version, state: ClusterState) -> bool:
        """Store the state if the stored version is the expected one and its term leads; return whether it was stored.

        Raises:
            StoreError: it could not be written, or it is unknown whether it was.
        """
        data = encode_state(state)
        if len(data) > STATE_BYTES_MAX:
            raise StoreError(
                f"the cluster's state is too large for {self.place}: it has {len(data)} bytes of at most {STATE_BYTES_MAX};"
                " fewer nodes make it smaller"
            )
        with self._operation("written") as until_s:
            before = self._read(until_s)
            if before.version != expected_version:
                return False
            puts = [self._put(_STATE, data)]
            if not before.revision:
                puts.append(self._put(_MARK, _LAYOUT))
            # The read has found a member that answers. Without time for its answer, nothing is sent.
            write_until_s = until_s - _READ_BACK_S
            if time.monotonic() > write_until_s - _WRITE_S_MIN:
                raise StoreError("the state was read too slowly to leave time for a write")
            request = TxnRequest(
                compare=[
                    Compare(target=Compare.MOD, key=self._key(_STATE), mod_revision=before.revision),
                    Compare(target=Compare.VALUE, key=self._key(_LEADER), value=state.term.encode()),
                ],
                success=puts,
            )
            try:
                answer = self._calls.once(TXN, request, write_until_s)
            except (Unanswered, OutOfSpace) as error:
                return self._what_became_of_it(before, state, error, until_s)
            if answer.succeeded:
                self._known = before.trace.after(answer), state
            return answer.succeeded

    # ----------------------------------------------------------------------- the lead

    def campaign(self, candidate: Candidate, ttl_ms: int) -> Election:
        """Take or renew the lead, or stand by. See `SharedStore`. etcd counts in seconds, and from 2 s on.

        Raises:
            StoreError: etcd does not answer, or it is unknown what became of the call.
        """
        ttl_s = -(-ttl_ms // 1_000)
        with self._operation("asked for the leader") as until_s:
            for _ in range(_CAMPAIGN_TRIES_MAX):
                coordinators = self._coordinators(until_s)
                if self._is_renewed(coordinators, candidate, ttl_s, until_s):
                    return self._election(coordinators)
                with contextlib.suppress(LeaseGone):
                    coordinators = self._candidacy(coordinators, candidate, ttl_s, until_s)
                    # None leads if the leader's lease has ended between the read and the transaction.
                    if coordinators.leader is not None:
                        return self._election(coordinators)
            raise StoreError(f"a lease of {ttl_s} s ends before it can be used: etcd is too slow")

    def election(self) -> Election:
        """Return the coordinators as etcd knows them now.

        Raises:
            StoreError: etcd does not answer.
        """
        with self._operation("asked for the leader") as until_s:
            return self._election(self._coordinators(until_s))

    def resign(self, term: TermId) -> None:
        """End this term's lead or candidacy.

        Raises:
            StoreError: etcd does not answer; what is given up ends with its time.
        """
        with self._operation("written") as until_s:
            coordinators = self._coordinators(until_s)
            leases = {own.lease for own in self._keys_of(coordinators, term)}
            for lease in leases:
                with contextlib.suppress(LeaseGone):
                    self._calls.repeat(LEASE_REVOKE, LeaseRevokeRequest(id=lease), until_s=until_s)

    def close(self) -> None:
        """End the connections, and refuse all further calls. Closing twice is harmless."""
        with self._mutex:
            self._is_closed = True
            self._calls.close()

    # ----------------------------------------------------------------------- operations on the state

    @contextlib.contextmanager
    def _operation(self, verb: str) -> Iterator[float]:
        """Run an operation alone, and name the place in its errors. Yields when it must be over."""
        with self._mutex:
            if self._is_closed:
                raise StoreError(f"{self.place} is closed")
            try:
                yield time.monotonic() + DEADLINE_S
            except _Complete:
                raise
            except (Unanswered, OutOfSpace) as error:
                raise StoreUnreachable(f"{self.place} cannot be {verb}: {error}") from error
            except StoreError as error:
                raise StoreError(f"{self.place} cannot be {verb}: {error}") from error

    def _lay_out(self, until_s: float) -> bool:
        """Mark the prefix as a store's unless it is one, and return whether there was never a state in it."""
        key = self._key(_MARK)
        marks = list(self._range(RangeRequest(key=key), until_s).kvs)
        if not marks:
            others = self._range(self._all_below(b"", limit=1), until_s).kvs
            if others and others[0].key != key:
                raise StoreError(
                    f"{_shown(self._prefix)} is in use for something else: it has a key {_shown(others[0].key)}, but none"
                    " that marks a store; name another prefix in the URL"
                )
            marks = self._txn(
                until_s,
                compare=Compare(target=Compare.CREATE, key=key, create_revision=0),
                writes=[self._put(_MARK, _LAYOUT_NEW)],
                read=RangeRequest(key=key),
            )
        value = marks[0].value if marks else b""
        if value not in (_LAYOUT, _LAYOUT_NEW):
            raise StoreError(
                f"{_shown(key)} holds {_shown(value)}: the store there is of another release, or of another program; name"
                " another prefix in the URL"
            )
        # Damage is better found now, while an operator watches the start, than at the first change.
        return self._read(until_s).state is None and value == _LAYOUT_NEW

    def _read(self, until_s: float) -> _StateKey:
        """Read the state; most often it is the one of the last time, and need not be fetched."""
        trace = self._trace(self._range(self._all_below(b"", keys_only=True), until_s))
        if trace.revision and self._known is not None and self._known[0] == trace:
            return _StateKey(trace, self._known[1])
        found = self._range(RangeRequest(key=self._key(_STATE)), until_s).kvs if trace.revision else []
        if not found:
            return _StateKey(trace._replace(revision=0, writes=0), None)
        trace = trace._replace(revision=found[0].mod_revision, writes=found[0].version)
        self._known = trace, self._decoded(found[0])
        return _StateKey(*self._known)

    def _trace(self, found: RangeResponse) -> _Trace:
        keys = {each.key: each for each in found.kvs}
        state, leader = keys.get(self._key(_STATE), KeyValue()), keys.get(self._key(_LEADER), KeyValue())
        return _Trace(found.header.raft_term, state.mod_revision, state.version, leader.lease)

    def _decoded(self, found: KeyValue) -> ClusterState:
        try:
            return decode_state(found.value)
        except ProtocolError as error:
            raise StoreError(
                f"the key {_shown(found.key)} is damaged: {error}; restore it from a backup, or name another prefix in the URL"
            ) from error

    def _what_became_of_it(
        self, before: _StateKey, state: ClusterState, cause: StoreError, until_s: float
    ) -> bool:
        """Find out whether a write has taken place whose answer was lost."""
        if isinstance(cause, Unanswered):
            self._calls.pass_over()
        for attempt in range(_READ_BACKS_MAX):
            if attempt:
                time.sleep(max(0.0, min(_READ_BACK_PAUSE_S, until_s - time.monotonic())))
            try:
                now = self._read(until_s)
            except StoreError:
                break
            if now.revision != before.revision:
                return now.state == state
            if isinstance(cause, OutOfSpace):  # etcd has answered, so a read shows all that it did
                try:
                    raise cause
                finally:
                    del cause  # its traceback has this call, and would keep itself in memory
            if time.monotonic() > until_s:
                break
        raise _Complete(f"it is unknown whether {self.place} has taken the new state: {cause}") from cause

    # ----------------------------------------------------------------------- operations on the lead

    def _is_renewed(
        self, coordinators: _Coordinators, candidate: Candidate, ttl_s: int, until_s: float
    ) -> bool:
        """Renew the lease of a candidate that has all its keys already; return whether that has worked."""
        own = self._keys_of(coordinators, candidate.term)
        leads = self._leads(coordinators, candidate.term)
        if coordinators.leader is None or len(own) != 1 + leads or len({each.lease for each in own}) != 1:
            return False
        if coordinators.others[candidate.term].value != candidate.address.encode():
            return False
        answer = self._calls.repeat(LEASE_KEEP_ALIVE, LeaseKeepAliveRequest(id=own[0].lease), until_s=until_s)
        # A lease's time is chosen when it is made. For another time, another one is needed.
        return answer.ttl > 0 and answer.ttl == self._lasts_s.get(ttl_s, ttl_s)

    def _candidacy(
        self, coordinators: _Coordinators, candidate: Candidate, ttl_s: int, until_s: float
    ) -> _Coordinators:
        """Write the keys of a candidate with a new lease, and that of the leader if no other one leads."""
        granted = self._calls.repeat(LEASE_GRANT, LeaseGrantRequest(ttl=ttl_s), until_s=until_s)
        self._lasts_s[ttl_s] = granted.ttl
        key, term = self._key(_LEADER), candidate.term.encode()
        if self._leads(coordinators, candidate.term):
            compare = Compare(target=Compare.VALUE, key=key, value=term)
        else:
            compare = Compare(target=Compare.CREATE, key=key, create_revision=0)
        stands = self._put(_COORDINATORS + term, candidate.address.encode(), granted.id)
        leads = self._put(_LEADER, term, granted.id)
        found = self._txn(
            until_s,
            compare=compare,
            writes=[leads, stands],
            else_writes=[stands],
            read=self._all_below(_ELECTION),
        )
        return self._sorted(found)

    def _coordinators(self, until_s: float) -> _Coordinators:
        return self._sorted(self._range(self._all_below(_ELECTION), until_s).kvs)

    def _sorted(self, found: Iterable[KeyValue]) -> _Coordinators:
        leader, start = None, self._key(_COORDINATORS)
        others: dict[TermId, KeyValue] = {}
        for each in found:
            if each.key == self._key(_LEADER):
                leader = each
            elif each.key.startswith(start):
                others[TermId(_text(each.key.removeprefix(start)))] = each
        return _Coordinators(leader, others)

    def _leads(self, coordinators: _Coordinators, term: TermId) -> bool:
        return coordinators.leader is not None and coordinators.leader.value == term.encode()

    def _keys_of(self, coordinators: _Coordinators, term: TermId) -> list[KeyValue]:
        """Return the keys of a term: the leader's, if it leads, and its own."""
        own = [coordinators.others[term]] if term in coordinators.others else []
        if coordinators.leader is not None and self._leads(coordinators, term):
            own.append(coordinators.leader)
        return own

    def _election(self, coordinators: _Coordinators) -> Election:
        candidates = [Candidate(term, _text(found.value)) for term, found in coordinators.others.items()]
        leader = None
        if coordinators.leader is not None:
            term = TermId(_text(coordinators.leader.value))
            leader = next((each for each in candidates if each.term == term), None)
            if leader is None:
                raise StoreError(
                    f"{_shown(coordinators.leader.key)} names the term {term!r}, but there is no coordinator of it; unless one"
                    " campaigns soon, delete that key"
                )
        standbys = sorted((each for each in candidates if each != leader), key=lambda each: each.address)
        return Election(leader, tuple(standbys))

    # ----------------------------------------------------------------------- keys and transactions

    def _key(self, name: bytes) -> bytes:
        return self._prefix + name

    def _put(self, name: bytes, value: bytes, lease: int = 0) -> Operation:
        return Operation(put=PutRequest(key=self._key(name), value=value, lease=lease))

    def _all_below(self, name: bytes, *, limit: int = 0, keys_only: bool = False) -> RangeRequest:
        start = self._key(name)
        assert start.endswith(b"/")
        return RangeRequest(key=start, range_end=start[:-1] + b"0", limit=limit, keys_only=keys_only)

    def _range(self, request: RangeRequest, until_s: float) -> RangeResponse:
        return self._calls.repeat(RANGE, request, until_s=until_s)

    def _txn(
        self,
        until_s: float,
        *,
        compare: Compare,
        writes: Iterable[Operation],
        else_writes: Iterable[Operation] = (),
        read: RangeRequest,
    ) -> list[KeyValue]:
        """Carry out writes that may be repeated, by a comparison, and read some keys after that."""
        request = TxnRequest(
            compare=[compare],
            success=[*writes, Operation(range=read)],
            failure=[*else_writes, Operation(range=read)],
        )
        answer = self._calls.repeat(TXN, request, until_s=until_s)
        return list(answer.responses[-1].range.kvs)


class _Complete(StoreError):
    """An error whose text says all."""


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise StoreError(f"a coordinator's key is damaged: it holds {_shown(data)}; delete it") from error


def _shown(data: bytes) -> str:
    return repr(data[:100].decode(errors="replace"))
