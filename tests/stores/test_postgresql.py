"""The store in PostgreSQL, where the database or the way to it does not behave."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import psycopg
import pytest

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate
from lockring.errors import InvalidRequest, StoreError
from lockring.store.postgresql import DEADLINE_S, PostgresStore
from tests.middlebox import Middlebox
from tests.stores.servers import HOST, PostgresServer

ONE = Candidate("term-1", "one:9500")
PATIENCE_S = 60
"""Far more than any deadline here, since the machine may be busy."""


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


@pytest.mark.slow
def test_a_server_that_stands_still_fails_a_call_in_time(own: PostgresServer) -> None:
    store = PostgresStore(own.url())
    assert store.campaign(ONE, 60_000).leader == ONE
    own.freeze()
    try:
        begun_s = time.monotonic()
        with pytest.raises(StoreError, match="PostgreSQL"):
            store.read()
        assert time.monotonic() - begun_s < DEADLINE_S + PATIENCE_S
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


def test_a_table_that_vanished_is_an_error_and_no_empty_store(own: PostgresServer) -> None:
    store = PostgresStore(own.url())
    with psycopg.connect(own.url()) as connection:
        connection.execute("DROP TABLE lockring_clusters")
    with pytest.raises(StoreError, match="lockring_clusters"):
        store.read()
    with pytest.raises(StoreError, match="lockring_clusters"):
        store.campaign(ONE, 60_000)
    store.close()
