"""The store in PostgreSQL, where the database or the way to it does not behave."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from lockring.cluster_state import ClusterState, encode_state
from lockring.core.coordinator import OPERATION_TIMEOUT_NS
from lockring.core.election import Candidate
from lockring.errors import InvalidRequest, StoreError
from lockring.ids import TermId
from lockring.store.base import StoreUnreachable
from lockring.store.postgresql import _READ, PostgresStore, _is_final
from lockring.store.postgresql_connections import PgConnector
from lockring.units import NS_PER_S
from tests.middlebox import Middlebox
from tests.stores.servers import HOST, PostgresServer

ONE = Candidate("term-1", "one:9500")
PATIENCE_S = 60
"""Far more than any deadline here, since the machine may be busy."""
GIVEN_UP_S = OPERATION_TIMEOUT_NS / NS_PER_S
"""When a coordinator gives up an operation. The store promises to be done before, with some seconds to spare."""


def state(version: int) -> ClusterState:
    return ClusterState(cluster="c", version=version, term=ONE.term)


@pytest.fixture
def own() -> Iterator[PostgresServer]:
    """A server of the test's own, for tests that break it."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def box(postgresql: PostgresServer) -> Iterator[Middlebox]:
    with Middlebox(f"{HOST}:{postgresql.port}") as box:
        yield box


def through(box: Middlebox, postgresql: PostgresServer, name: str) -> PostgresStore:
    """A store that leads, reached through the box."""
    store = PostgresStore(postgresql.url(name=name, port=int(box.address.rpartition(":")[2])))
    assert store.campaign(ONE, 60_000).leader == ONE
    assert store.write(0, state(1))
    return store


def test_the_tables_are_made_by_the_first_start_alone(own: PostgresServer) -> None:
    first = PostgresStore(own.url())
    assert first.created
    second = PostgresStore(own.url(name="other"))
    assert not second.created
    assert first.campaign(ONE, 60_000).leader == ONE
    assert first.write(0, state(1))
    assert second.read() is None
    first.close()
    second.close()


def test_a_cluster_stays_new_until_its_first_state_is_written(own: PostgresServer) -> None:
    PostgresStore(own.url()).close()  # as an export does, which finds no state
    second, third = PostgresStore(own.url()), PostgresStore(own.url())
    assert second.created
    assert third.created
    assert second.read() is None
    assert second.campaign(ONE, 60_000).leader == ONE
    assert second.write(0, state(1))
    fourth = PostgresStore(own.url())
    assert not fourth.created
    for each in (second, third, fourth):
        each.close()


def test_a_cluster_whose_row_was_lost_is_not_new(own: PostgresServer) -> None:
    store = PostgresStore(own.url())
    with psycopg.connect(own.url()) as connection:
        connection.execute("DELETE FROM lockring_clusters")
    assert store.campaign(ONE, 60_000).leader == ONE
    again = PostgresStore(own.url())
    assert not again.created
    store.close()
    again.close()


def test_a_password_that_was_not_escaped_is_not_shown(postgresql: PostgresServer) -> None:
    for password in (
        "wr0ng/s3cret",
        "wr0ng#s3cret",
        "wr0ng?s3cret",
        "wr0ng@s3cret",
        "wr0ng%s3cret",
        "wr0ng s3cret",
    ):
        with pytest.raises(InvalidRequest, match="the URL of the store is malformed") as failed:
            PostgresStore(postgresql.url(password=password))
        assert not re.search("wr0ng|s3cret", repr(failed.value))


def test_errors_do_not_show_the_password(postgresql: PostgresServer) -> None:
    with pytest.raises(StoreError, match="password authentication failed") as failed:
        PostgresStore(postgresql.url(password="wr0ng"))
    assert "wr0ng" not in str(failed.value)
    assert f"lockring@{HOST}:{postgresql.port}" in str(failed.value)


def test_a_database_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreError, match=rf"PostgreSQL \(postgresql://u@{HOST}:1/db\) cannot be opened"):
        PostgresStore(f"postgresql://u:p@{HOST}:1/db")


@pytest.mark.parametrize("name", ["x" * 201, "%0A"])
def test_a_name_that_no_cluster_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cluster's name"):
        PostgresStore(f"postgresql://u:p@{HOST}:1/db#{name}")


def test_a_store_goes_on_after_its_server_was_killed_and_started_again(own: PostgresServer) -> None:
    store = PostgresStore(own.url())
    assert store.campaign(ONE, 60_000).leader == ONE
    assert store.write(0, state(1))
    own.kill()
    with pytest.raises(StoreError, match="PostgreSQL"):
        store.read()
    own.start()
    assert store.read() == state(1)
    assert store.write(1, state(2))
    assert store.campaign(ONE, 60_000).leader == ONE
    store.close()


def test_a_connection_that_was_cut_while_idle_is_opened_again_without_an_error(
    box: Middlebox, postgresql: PostgresServer, name: str
) -> None:
    store = through(box, postgresql, name)
    box.reset()
    assert store.read() == state(1)
    box.reset()
    assert store.campaign(ONE, 60_000).leader == ONE
    store.close()


def alter(server: PostgresServer, setting: str, value: str) -> None:
    """Change a setting of a running server, for all transactions that begin from now on."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET {setting} = {value}")
        connection.execute("SELECT pg_reload_conf()")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        until_s = time.monotonic() + PATIENCE_S
        while connection.execute(f"SHOW {setting}").fetchone() != (value.strip("'"),):
            assert time.monotonic() < until_s
            time.sleep(0.05)


def test_a_server_that_takes_no_writes_any_more_is_not_believed(own: PostgresServer) -> None:
    store = PostgresStore(own.url())
    assert store.campaign(ONE, 60_000).leader == ONE
    assert store.write(0, state(1))
    alter(own, "default_transaction_read_only", "on")
    for call in (store.read, store.election, lambda: store.campaign(ONE, 60_000)):
        with pytest.raises(StoreUnreachable):
            call()
    alter(own, "default_transaction_read_only", "off")
    assert store.read() == state(1)
    assert store.write(1, state(2))
    store.close()


def test_a_write_to_a_server_that_takes_none_has_failed_and_is_not_of_unknown_outcome(
    own: PostgresServer,
) -> None:
    store = PostgresStore(own.url())
    assert store.campaign(ONE, 60_000).leader == ONE
    alter(own, "default_transaction_read_only", "on")
    with pytest.raises(StoreUnreachable, match=r"cannot be written: .*read-only"):
        store.write(0, state(1))
    alter(own, "default_transaction_read_only", "off")
    assert store.read() is None
    assert store.write(0, state(1))
    store.close()


@pytest.mark.parametrize(
    ("setting", "value"), [("default_transaction_isolation", "serializable"), ("lock_timeout", "1ms")]
)
def test_the_defaults_of_a_server_do_not_matter(own: PostgresServer, setting: str, value: str) -> None:
    alter(own, setting, f"'{value}'")
    stores = [PostgresStore(own.url()) for _ in range(3)]
    failures: list[StoreError] = []

    def campaign(store: PostgresStore, candidate: Candidate) -> None:
        for _ in range(40):
            try:
                store.campaign(candidate, 60_000)
            except StoreError as error:
                failures.append(error)

    candidates = [Candidate(TermId(f"term-{number}"), f"host-{number}:1") for number in range(3)]
    threads = [threading.Thread(target=campaign, args=pair) for pair in zip(stores, candidates, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for store in stores:
        store.close()


def test_another_host_is_asked_once_the_first_takes_no_writes(
    own: PostgresServer, postgresql: PostgresServer
) -> None:
    """Each has a state of its own here, so that an answer shows which one has given it."""
    for server, version in ((own, 7), (postgresql, 9)):
        first = PostgresStore(server.url(name="hosts"))
        assert first.campaign(ONE, 60_000).leader == ONE
        assert first.write(0, state(version))
        first.close()
    store = PostgresStore(of_hosts(own.port, postgresql.port, name="hosts"))
    assert store.read() == state(7)
    alter(own, "default_transaction_read_only", "on")
    assert store.read() == state(9)
    assert store.write(9, state(10))
    store.close()


def of_hosts(*ports: int, name: str, database: str = "postgres") -> str:
    hosts = ",".join(f"{HOST}:{port}" for port in ports)
    return f"postgresql://lockring:s3cret@{hosts}/{database}#{name}"


@pytest.fixture
def silent() -> Iterator[list[int]]:
    """Ports at which connections are accepted, and nothing answers."""
    with contextlib.ExitStack() as opened:
        ports = []
        for _ in range(5):
            listener = opened.enter_context(socket.socket())
            listener.bind((HOST, 0))
            listener.listen()
            ports.append(listener.getsockname()[1])
        yield ports


@pytest.mark.parametrize("first", ["silent", "server"])
def test_a_silent_host_hides_no_other(
    postgresql: PostgresServer, silent: list[int], name: str, first: str
) -> None:
    ports = [silent[0], postgresql.port] if first == "silent" else [postgresql.port, silent[0]]
    store = PostgresStore(of_hosts(*ports, name=name))
    assert store.read() is None
    store.close()


@pytest.mark.parametrize("first", ["silent", "server"])
def test_a_host_that_refuses_for_good_does_not_end_the_wait_for_a_silent_one(
    postgresql: PostgresServer, silent: list[int], name: str, first: str
) -> None:
    ports = [silent[0], postgresql.port] if first == "silent" else [postgresql.port, silent[0]]
    with pytest.raises(StoreUnreachable, match='database "nosuch" does not exist'):
        PostgresStore(of_hosts(*ports, name=name, database="nosuch"))


def test_hosts_that_all_refuse_for_good_end_the_wait(postgresql: PostgresServer, name: str) -> None:
    with pytest.raises(StoreError, match='database "nosuch" does not exist') as failed:
        PostgresStore(of_hosts(postgresql.port, postgresql.port, name=name, database="nosuch"))
    assert not isinstance(failed.value, StoreUnreachable)


@pytest.mark.parametrize(
    ("of_the_other", "is_final"),
    [
        ("connection timeout expired", False),
        ('connection failed: connection to server at "::1", port 1 failed: Connection refused', False),
        (
            'connection failed: connection to server at "::1", port 1 failed: FATAL:  database does not exist',
            True,
        ),
    ],
)
def test_each_address_of_a_name_counts(of_the_other: str, is_final: bool) -> None:
    """As psycopg puts it where a name has several."""
    refusal = 'connection failed: connection to server at "127.0.0.1", port 1 failed: FATAL:  database does not exist'
    text = (
        f"{refusal}\nMultiple connection attempts failed. All failures were:\n- host: 'db', port: '1', hostaddr: '::1':"
        f" {of_the_other}\n- host: 'db', port: '1', hostaddr: '127.0.0.1': {refusal}"
    )
    assert _is_final(psycopg.OperationalError(text)) == is_final


def test_many_silent_hosts_take_no_longer_than_one_operation_may(silent: list[int], name: str) -> None:
    begun_s = time.monotonic()
    with pytest.raises(StoreUnreachable, match="does not answer in time"):
        PostgresStore(of_hosts(*silent, name=name))
    assert time.monotonic() - begun_s < GIVEN_UP_S


def test_a_name_that_is_looked_up_for_too_long_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch, postgresql: PostgresServer, name: str
) -> None:
    goes_on, looked_up, look_up = threading.Event(), [], socket.getaddrinfo

    def slow(host: str, *rest: Any, **options: Any) -> Any:
        if host != "slow.test":
            return look_up(host, *rest, **options)
        looked_up.append(host)
        goes_on.wait(10 * PATIENCE_S)
        return look_up(HOST, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    connector = PgConnector(f"postgresql://lockring:s3cret@slow.test:{postgresql.port}/postgres")
    for _ in range(3):
        with pytest.raises(psycopg.OperationalError, match="does not answer in time"):
            connector.connect(time.monotonic() + 0.3)
    goes_on.set()
    connector.connect(time.monotonic() + PATIENCE_S).close()
    assert looked_up == ["slow.test"], "an attempt that is under way is waited for"


def test_a_connection_that_comes_after_the_end_is_closed(
    monkeypatch: pytest.MonkeyPatch, postgresql: PostgresServer
) -> None:
    goes_on, closed, connect = threading.Event(), threading.Event(), psycopg.connect

    def slow(*words: Any, **options: Any) -> Any:
        goes_on.wait(10 * PATIENCE_S)
        connection = connect(*words, **options)
        close = connection.close

        def noted() -> None:
            close()
            closed.set()

        monkeypatch.setattr(connection, "close", noted)
        return connection

    monkeypatch.setattr(psycopg, "connect", slow)
    connector = PgConnector(postgresql.url())
    with pytest.raises(psycopg.OperationalError, match="does not answer in time"):
        connector.connect(time.monotonic() + 0.2)
    connector.close()
    goes_on.set()
    assert closed.wait(PATIENCE_S)


def test_a_write_for_which_there_is_no_connection_has_failed(own: PostgresServer) -> None:
    store = PostgresStore(own.url())
    assert store.campaign(ONE, 60_000).leader == ONE
    own.kill()
    with pytest.raises(StoreUnreachable):
        store.read()
    with pytest.raises(StoreUnreachable, match="cannot be written"):
        store.write(0, state(1))
    store.close()


def test_a_server_that_stands_still_fails_a_call_in_time(own: PostgresServer) -> None:
    store = PostgresStore(own.url())
    assert store.campaign(ONE, 60_000).leader == ONE
    own.freeze()
    try:
        begun_s = time.monotonic()
        with pytest.raises(StoreError, match="PostgreSQL"):
            store.read()
        assert time.monotonic() - begun_s < GIVEN_UP_S
    finally:
        own.thaw()
    assert store.read() is None
    store.close()


def test_a_write_whose_answer_is_lost_has_taken_place(
    box: Middlebox, postgresql: PostgresServer, name: str
) -> None:
    store = through(box, postgresql, name)
    box.forget(there=False)
    assert store.write(1, state(2))
    assert store.read() == state(2)
    store.close()


def test_a_write_that_never_arrives_is_of_unknown_outcome(
    box: Middlebox, postgresql: PostgresServer, name: str
) -> None:
    store = through(box, postgresql, name)
    box.forget(back=False)
    with pytest.raises(StoreError, match="unknown whether"):
        store.write(1, state(2))
    assert store.read() == state(1)
    assert store.write(1, state(3))
    store.close()


@pytest.mark.slow
def test_a_write_that_never_arrives_while_another_coordinator_writes_has_not_taken_place(
    box: Middlebox, postgresql: PostgresServer, name: str
) -> None:
    store = through(box, postgresql, name)
    other = PostgresStore(postgresql.url(name=name))
    assert other.write(1, state(5))
    box.forget(back=False)
    assert not store.write(1, state(2))
    store.close()
    other.close()


def written_behind(server: PostgresServer, name: str, change: str) -> tuple[bool, ClusterState | None]:
    """Let a leader's write wait in the server for a transaction that changes its row; return what becomes of it."""
    store = PostgresStore(server.url(name=name))
    assert store.campaign(ONE, 60_000).leader == ONE
    assert store.write(0, state(1))
    outcomes: list[bool] = []
    thread = threading.Thread(target=lambda: outcomes.append(store.write(1, state(2))))
    with psycopg.connect(server.url()) as other, psycopg.connect(server.url(), autocommit=True) as look:
        other.execute(
            f"UPDATE lockring_clusters SET {change} WHERE name = %(name)s",
            {"name": name, "state": encode_state(state(5))},
        )
        thread.start()
        until_s = time.monotonic() + PATIENCE_S
        while not look.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            assert time.monotonic() < until_s
            time.sleep(0.02)
        other.commit()
        thread.join()
    stored = store.read()
    store.close()
    (outcome,) = outcomes
    return outcome, stored


def test_a_write_that_arrives_after_another_one_is_refused(postgresql: PostgresServer, name: str) -> None:
    assert written_behind(postgresql, name, "version = 5, state = %(state)s") == (False, state(5))


def test_a_former_leader_writes_nothing_however_late_its_request_arrives(
    postgresql: PostgresServer, name: str
) -> None:
    """A change of the lead leaves the version as it was."""
    assert written_behind(postgresql, name, "term = 'term-2'") == (False, state(1))


@pytest.mark.parametrize("damage", ["state = '\\x00'", "version = 7"])
def test_a_damaged_state_is_refused_rather_than_taken_for_none(
    postgresql: PostgresServer, name: str, damage: str
) -> None:
    store = PostgresStore(postgresql.url(name=name))
    assert store.campaign(ONE, 60_000).leader == ONE
    assert store.write(0, state(1))
    with psycopg.connect(postgresql.url()) as connection:
        connection.execute(f"UPDATE lockring_clusters SET {damage} WHERE name = %s", (name,))
    again = PostgresStore(postgresql.url(name=name))
    with pytest.raises(StoreError, match="damaged"):
        again.read()
    store.close()
    again.close()


def test_a_state_is_fetched_once(postgresql: PostgresServer, name: str) -> None:
    store = PostgresStore(postgresql.url(name=name))
    assert store.campaign(ONE, 60_000).leader == ONE
    assert store.write(0, state(1))
    known = {"known_version": 1, "known_term": ONE.term}
    assert store._run("read", _READ, **known)[0].rows == [(1, ONE.term, None)]
    assert store._run("read", _READ, **known | {"known_version": 2})[0].rows[0][2] is not None
    assert store._run("read", _READ, **known | {"known_term": "another"})[0].rows[0][2] is not None
    store.close()


def test_a_state_of_the_same_version_by_another_leader_is_seen(postgresql: PostgresServer, name: str) -> None:
    """As after a restore, where the next leader's clock is behind."""
    store = PostgresStore(postgresql.url(name=name))
    assert store.campaign(ONE, 60_000).leader == ONE
    assert store.write(0, state(7))
    assert store.read() == state(7)
    theirs = ClusterState(cluster="c", version=7, term="term-2")
    with psycopg.connect(postgresql.url()) as connection:
        connection.execute(
            "UPDATE lockring_clusters SET state = %s, term = 'term-2' WHERE name = %s",
            (encode_state(theirs), name),
        )
    assert store.read() == theirs
    store.close()


def test_a_table_that_vanished_is_an_error_and_no_empty_store(own: PostgresServer) -> None:
    store = PostgresStore(own.url())
    with psycopg.connect(own.url()) as connection:
        connection.execute("DROP TABLE lockring_clusters")
    with pytest.raises(StoreError, match="lockring_clusters"):
        store.read()
    with pytest.raises(StoreError, match="lockring_clusters"):
        store.campaign(ONE, 60_000)
    store.close()
