"""A store in PostgreSQL: one row for a cluster, and one for each of its coordinators.

- *Compare-and-set in one statement.* The `UPDATE` names the version that is expected and the term that leads. A former
  leader writes nothing, however late its statement arrives.
- *Leadership by the database's clock.* Coordinators need not agree on the time. No advisory lock of a session is used:
  behind a pooler it belongs to whichever session the pooler picks.
- *One message, one transaction.* Each operation is sent as a whole, with its own settings: poolers may hand it to any
  session, and it happens either completely or not at all. Nothing is prepared.
- *The outcome of a commit.* If the connection breaks during a write, the row is read back on a new one. The write has
  taken place if its version is there, and cannot any more if yet another one is. Otherwise its outcome is unknown,
  and reported so: a statement may still wait in a server's socket.
- *A deadline for each operation*, with all of its hosts (`postgresql_connections`). libpq has none for answers, so a
  timer shuts the socket down.
- *The state is fetched once.* A version under the term of one leader names one state forever, since only the leader
  writes. So a read asks for the state only if either is another one than the last that was seen.
- *Only a server that takes writes is believed.* One that was the primary may go on as a standby, or be made read-only,
  under connections that stand. So each operation asks for that too, and looks for another server.

`synchronous_commit` is on for each write, whatever the server's default is. Where the server's standbys are
asynchronous, its failover may lose the newest states: coordinators notice an older state, and wait for all leases to
end.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from lockring.cluster_state import ClusterState, decode_state, encode_state
from lockring.core.election import Candidate, Election
from lockring.errors import ProtocolError, StoreError
from lockring.ids import NO_TERM, NO_VERSION, TermId, Version
from lockring.store.base import StoreUnreachable
from lockring.store.postgresql_connections import NoHostConnects, PgConnection, PgConnector
from lockring.store.postgresql_place import parse

DEADLINE_S: Final = 6.0
"""Longest time for an operation, reading back included. A coordinator gives up after 10 s."""

_FINAL_CLASSES: Final = frozenset({"0A", "22", "23", "28", "3D", "3F", "42"})
"""Of error codes: unknown features and values, logins, databases and schemas that are not there, missing rights."""
_WRONG_STATE_CLASS: Final = "25"
"""Of error codes: the server takes no writes, among others."""
_FINAL_WORDS: Final = (
    "authentication failed",
    "no pg_hba.conf entry",
    "no password supplied",
    "does not exist",
    "is not permitted to log in",
    "permission denied for database",
    "does not support SSL",
    "invalid ",
)
"""In a server's refusal to let a client in, where it speaks English; of others, the log has the words."""
_ADDRESS: Final = re.compile(r"^- host: ", re.MULTILINE)
"""Begins the words on each address of a name that has several."""

# The server, the database or the role may have other defaults than those that the statements are made for.
_BEGIN: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED",
    "SET LOCAL synchronous_commit TO on",
    "SET LOCAL lock_timeout TO 0",
    f"SET LOCAL statement_timeout TO {int(DEADLINE_S * 1000)}",
    "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean",
)
_ARE_THERE: Final = "SELECT to_regclass('lockring_coordinators') IS NOT NULL"
_LOCK_TABLES: Final = "SELECT pg_advisory_xact_lock(hashtext('lockring_clusters'))"
_CLUSTERS: Final = """
CREATE TABLE IF NOT EXISTS lockring_clusters (
    name text PRIMARY KEY,
    version bigint NOT NULL,
    state bytea NOT NULL,
    term text NOT NULL
)
"""
_COORDINATORS: Final = """
CREATE TABLE IF NOT EXISTS lockring_coordinators (
    name text NOT NULL,
    term text NOT NULL,
    address text NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (name, term)
)
"""
_NEW_ROW: Final = """
INSERT INTO lockring_clusters (name, version, state, term)
SELECT %(name)s, 0, 'new', '' WHERE NOT EXISTS (SELECT FROM lockring_clusters)
"""
"""Stands for a state that was never written, beside tables that are new. A row that was lost leaves nothing, or is made
again without that word."""
_IS_NEW: Final = "SELECT FROM lockring_clusters WHERE name = %(name)s AND version = 0 AND state = 'new'"
_READ: Final = """
SELECT version, term, CASE WHEN version = %(known_version)s AND term = %(known_term)s THEN NULL ELSE state END
FROM lockring_clusters WHERE name = %(name)s
"""
_WRITE: Final = """
UPDATE lockring_clusters SET version = %(version)s, state = %(state)s
WHERE name = %(name)s AND version = %(expected)s AND term = %(term)s
"""
_BOOK: Final = """
INSERT INTO lockring_coordinators (name, term, address, until)
VALUES (%(name)s, %(term)s, %(address)s, clock_timestamp() + %(ttl_ms)s * interval '1 millisecond')
ON CONFLICT (name, term) DO UPDATE SET until = EXCLUDED.until
"""
_MAKE_ROW: Final = """
INSERT INTO lockring_clusters (name, version, state, term) VALUES (%(name)s, 0, '', '') ON CONFLICT (name) DO NOTHING
"""
_LOCK_ROW: Final = "SELECT FROM lockring_clusters WHERE name = %(name)s FOR UPDATE"
_LEAD: Final = """
UPDATE lockring_clusters AS cluster SET term = %(term)s
WHERE cluster.name = %(name)s AND cluster.term <> %(term)s AND NOT EXISTS (
    SELECT FROM lockring_coordinators AS leader
    WHERE leader.name = cluster.name AND leader.term = cluster.term AND leader.until > clock_timestamp()
)
"""
_CLEAN: Final = "DELETE FROM lockring_coordinators WHERE name = %(name)s AND until <= clock_timestamp()"
_ELECTION: Final = """
SELECT each.term, each.address, each.term = cluster.term
FROM lockring_coordinators AS each JOIN lockring_clusters AS cluster USING (name)
WHERE name = %(name)s AND each.until > clock_timestamp() ORDER BY each.address
"""
_RESIGN: Final = "DELETE FROM lockring_coordinators WHERE name = %(name)s AND term = %(term)s"


_NONE_KNOWN: Final = -1
"""The version of no row: a new one has 0."""


class _Result(NamedTuple):
    """The outcome of one statement of an operation."""

    changed: int
    rows: list[tuple[Any, ...]]


class _Row(NamedTuple):
    """The cluster's row.

    Attributes:
        version: of the state, 0 for none.
        term: of the leader.
        state: the encoded state; None if version and term are those that were named as known.
    """

    version: Version
    term: TermId
    state: bytes | None


class _Known(NamedTuple):
    """The last state that was seen, with the leader's term then."""

    version: Version
    term: TermId
    state: ClusterState


class _TakesNoWrites(psycopg.OperationalError):
    """A server has become a standby, or read-only, under a connection."""

    def __init__(self, connection: PgConnection) -> None:
        info = connection.info
        super().__init__(
            f"{info.host}:{info.port} takes no writes: it is a standby now, or read-only by its settings"
        )


class PostgresStore:
    """Keeps the state of one cluster in a PostgreSQL database. Thread-safe; operations wait for one another.

    Args:
        url: `postgresql://…` as libpq has it: several hosts, TLS and a service file included; `#NAME` at its end names
            the cluster, "lockring" without it. The role needs the right to create tables at the first start only.

    Attributes:
        created: whether the tables were made for this cluster, and no state was ever written to them.
        place: the engine and where it is, for people.

    Raises:
        InvalidRequest: the URL is malformed.
        StoreUnreachable: the server does not answer, or cannot at present.
        StoreError: the database does not let this role in, or is not there.
            No text shows the password.
    """

    def __init__(self, url: str) -> None:
        place = parse(url)
        self._name = place.name
        self._secrets = place.secrets
        self.place = place.named
        self._mutex = threading.Lock()
        self._connector = PgConnector(place.conninfo)
        self._connection: PgConnection | None = None
        self._known: _Known | None = None
        self._is_closed = False
        self.created = False
        try:
            self._make_tables()
            (found,) = self._run("opened", _IS_NEW)
            self.created = bool(found.rows)
        except BaseException:
            self.close()
            raise

    # ----------------------------------------------------------------------- the state

    def read(self) -> ClusterState | None:
        """Return the stored state, None if there is none.

        Raises:
            StoreError: it cannot be read, or is damaged.
        """
        known = self._known
        version, term = (_NONE_KNOWN, NO_TERM) if known is None else (known.version, known.term)
        (result,) = self._run("read", _READ, known_version=version, known_term=term)
        row = _row_of(result)
        if row.state is None:
            assert known is not None
            return known.state
        return self._decoded(row.version, row.term, row.state)

    def write(self, expected_version: Version, state: ClusterState) -> bool:
        """Store the state if the stored version is the expected one and its term leads; return whether it was stored.

        Raises:
            StoreError: it could not be written, or it is unknown whether it was.
        """
        values = {
            "name": self._name,
            "version": state.version,
            "state": encode_state(state),
            "expected": expected_version,
            "term": state.term,
        }
        with self._mutex:
            until_s = time.monotonic() + DEADLINE_S
            try:
                self._connect(until_s)
            except psycopg.Error as error:  # so nothing was sent
                raise self._failed("written", error) from error
            try:
                (result,) = self._attempt([_WRITE], values, until_s)
                is_stored = result.changed == 1
            except psycopg.Error as error:
                if not self._may_have_happened(error):
                    raise self._failed("written", error) from error
                is_stored = self._what_became_of_it(expected_version, values, error, until_s)
            if is_stored:
                self._known = _Known(state.version, state.term, state)
            return is_stored

    # ----------------------------------------------------------------------- the lead

    def campaign(self, candidate: Candidate, ttl_ms: int) -> Election:
        """Take or renew the lead, or stand by. See `SharedStore`.

        Raises:
            StoreError: the database does not answer, or it is unknown what became of the call.
        """
        values = {"term": candidate.term, "address": candidate.address, "ttl_ms": ttl_ms}
        # Campaigns come one after the other. The lock is a statement of its own: the next one sees what was committed
        # while this one waited.
        statements = (_MAKE_ROW, _LOCK_ROW, _LEAD, _BOOK, _CLEAN, _ELECTION)
        results = self._run("asked for the leader", *statements, **values)
        return _election_of(results[-1])

    def election(self) -> Election:
        """Return the coordinators as the database knows them now.

        Raises:
            StoreError: the database does not answer.
        """
        (result,) = self._run("asked for the leader", _ELECTION)
        return _election_of(result)

    def resign(self, term: TermId) -> None:
        """End this term's lead or candidacy.

        Raises:
            StoreError: the database does not answer; what is given up ends with its time.
        """
        self._run("written", _RESIGN, term=term)

    def close(self) -> None:
        """End the connection, and refuse all further calls. Closing twice is harmless."""
        with self._mutex:
            self._is_closed = True
            self._connector.close()
            self._drop()

    # ----------------------------------------------------------------------- operations

    def _make_tables(self) -> None:
        """Make the tables unless they are there."""
        (found,) = self._run("opened", _ARE_THERE)
        if found.rows[0] == (False,):
            # Two coordinators that start at once must not trip over each other's tables.
            self._run("opened", _LOCK_TABLES, _CLUSTERS, _COORDINATORS, _NEW_ROW)

    def _decoded(self, version: Version, term: TermId, data: bytes) -> ClusterState | None:
        if not version:
            return None
        try:
            state = decode_state(data)
            if state.version != version:
                raise ProtocolError(f"it bears version {state.version}, not {version}")
        except ProtocolError as error:
            raise StoreError(
                f"the state in {self.place} is damaged: {error}; restore the row from a backup, or name"
                " another cluster after # in --store"
            ) from error
        self._known = _Known(version, term, state)
        return state

    # ----------------------------------------------------------------------- the connection

    def _run(self, verb: str, *statements: str, **values: object) -> list[_Result]:
        """Run an operation that may be repeated, on a new connection if the present one turns out to be broken."""
        values["name"] = self._name
        with self._mutex:
            until_s = time.monotonic() + DEADLINE_S
            had_connection = self._connection is not None
            try:
                return self._attempt(statements, values, until_s)
            except psycopg.Error as error:
                # A connection that was idle may have been cut long ago, or its server may have become a standby: that
                # says nothing about the database.
                if not had_connection or self._connection is not None or time.monotonic() >= until_s:
                    raise self._failed(verb, error) from error
            try:
                return self._attempt(statements, values, until_s)
            except psycopg.Error as error:
                raise self._failed(verb, error) from error

    def _attempt(
        self, statements: Sequence[str], values: Mapping[str, object], until_s: float
    ) -> list[_Result]:
        """Run statements in one transaction and one round trip; a connection that breaks in it is dropped."""
        connection = self._connect(until_s)
        script = ";".join((*_BEGIN, *statements, "COMMIT"))
        try:
            with _shut_down_at(connection, until_s), psycopg.ClientCursor(connection) as cursor:
                cursor.execute(script.encode(), values)
                results = _results_of(cursor)
            takes_no_writes = results[len(_BEGIN) - 1].rows[0][0]
            if takes_no_writes:
                raise _TakesNoWrites(connection)
            return results[len(_BEGIN) : -1]
        except BaseException as error:
            self._clear(error)
            raise

    def _connect(self, until_s: float) -> PgConnection:
        if self._is_closed:
            raise StoreError(f"{self.place} is closed")
        if self._connection is None:
            self._connection = self._connector.connect(until_s)
        return self._connection

    def _clear(self, error: BaseException) -> None:
        """Make the connection fit for the next operation after one that has failed, or drop it."""
        connection = self._connection
        if connection is None:
            return
        if isinstance(error, _TakesNoWrites) or _class_of(error) == _WRONG_STATE_CLASS:
            self._drop()
            return
        try:
            with _shut_down_at(connection, time.monotonic() + 1):
                connection.rollback()
        except psycopg.Error:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _may_have_happened(self, error: psycopg.Error) -> bool:
        """Return whether the database may have committed although the call failed: its answer did not arrive."""
        return self._connection is None and error.sqlstate is None

    def _what_became_of_it(
        self, expected: int, values: dict[str, Any], cause: psycopg.Error, until_s: float
    ) -> bool:
        """Find out whether a write has taken place whose answer was lost."""
        try:
            whole = {**values, "known_version": _NONE_KNOWN, "known_term": NO_TERM}
            (result,) = self._attempt([_READ], whole, max(until_s, time.monotonic() + 1))
        except psycopg.Error as error:
            raise self._unknown(cause) from error
        row = _row_of(result)
        if row.version == values["version"] and row.state == values["state"]:
            return True
        if row.version == expected:
            raise self._unknown(cause)
        return False

    def _unknown(self, cause: psycopg.Error) -> StoreError:
        return StoreError(f"it is unknown whether {self.place} has taken the new state: {self._said(cause)}")

    def _failed(self, verb: str, error: psycopg.Error) -> StoreError:
        kind = StoreError if _is_final(error) else StoreUnreachable
        return kind(f"{self.place} cannot be {verb}: {self._said(error)}")

    def _said(self, error: psycopg.Error) -> str:
        return self._secrets.scrubbed(_text_of(error))


def _is_final(error: psycopg.Error) -> bool:
    """Return whether waiting cannot mend an error: the server refuses, or libpq does not understand the URL.

    Of a connection that fails, libpq gives the server's words alone, without their code. A host that may still come is
    worth waiting for, whatever others say; and so is one of the addresses of a name.
    """
    if isinstance(error, NoHostConnects):
        return all(map(_is_final, error.failures))
    if error.sqlstate is not None:
        return _class_of(error) in _FINAL_CLASSES
    if not isinstance(error, psycopg.OperationalError):
        return True
    return all(map(_is_refusal, _ADDRESS.split(str(error))[1:] or [str(error)]))


def _is_refusal(text: str) -> bool:
    """Return whether one address has refused, however often it was asked."""
    lines = [line for line in text.splitlines() if " failed: " in line] or [text]
    return all(any(words in line for words in _FINAL_WORDS) for line in lines)


def _class_of(error: object) -> str:
    """Return the class of an error's code, "" if it has none."""
    return (error.sqlstate or "")[:2] if isinstance(error, psycopg.Error) else ""


def _results_of(cursor: psycopg.ClientCursor[tuple[Any, ...]]) -> list[_Result]:
    results: list[_Result] = []
    while True:
        rows = cursor.fetchall() if cursor.description is not None else []
        results.append(_Result(cursor.rowcount, rows))
        if not cursor.nextset():
            return results


def _row_of(result: _Result) -> _Row:
    if not result.rows:
        return _Row(NO_VERSION, NO_TERM, b"")
    version, term, state = result.rows[0]
    return _Row(version, term, None if state is None else bytes(state))


def _election_of(result: _Result) -> Election:
    leader: Candidate | None = None
    standbys: list[Candidate] = []
    for term, address, is_leading in result.rows:
        if is_leading:
            leader = Candidate(term, address)
        else:
            standbys.append(Candidate(term, address))
    return Election(leader, tuple(standbys))


@contextlib.contextmanager
def _shut_down_at(connection: PgConnection, until_s: float) -> Iterator[None]:
    """Shut the connection's socket down if the block takes too long: the call in it then fails."""
    end = socket.socket(fileno=os.dup(connection.fileno()))

    def shut_down() -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, until_s - time.monotonic()), shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        end.close()


def _text_of(error: psycopg.Error) -> str:
    """Return what the database or the library says, in one line."""
    text = " ".join(str(error).split())
    return text.removeprefix("ERROR: ").removeprefix("FATAL: ") or type(error).__name__
