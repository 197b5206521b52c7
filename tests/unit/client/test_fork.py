"""A fork: the child has lost the parent's grants and starts afresh, and the parent does not notice."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
import warnings
from collections.abc import Callable

import pytest

import lockring
import lockring.aio
from lockring.errors import ClientClosed, LockLost
from tests.unit.client.lock_server import LockServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_child(work: Callable[[], None]) -> None:
    """Run assertions in a forked child, and fail with its traceback if they fail."""
    out, into = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the subject here
        child = os.fork()
    if child == 0:
        try:
            work()
            os.write(into, b"ok")
        except BaseException:  # noqa: BLE001 - reported to the parent
            os.write(into, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(into)
    told = b""
    while piece := os.read(out, 65536):
        told += piece
    os.close(out)
    os.waitpid(child, 0)
    assert told == b"ok", told.decode()


def test_the_child_has_lost_the_grants_and_works_afresh(client: lockring.Client, server: LockServer) -> None:
    grant = client.lock("x").acquire()
    lost, called = grant.lost, threading.Event()
    grant.on_lost(lambda _: called.set())
    released = client.lock("y").acquire()
    released.release()

    def child() -> None:
        assert not grant.held
        assert grant.lost.is_set()
        assert "forked" in repr(grant)
        with pytest.raises(LockLost) as caught:
            grant.check()
        assert caught.value.reason == "forked"
        with pytest.raises(LockLost):
            grant.release()
        assert not released.lost.is_set()
        assert client.lock("x").try_acquire() is None
        with client.lock("z") as own:
            assert own.held
            assert own.session != grant.session
        client.close()

    in_child(child)
    assert grant.held
    assert grant.verify()
    assert not lost.is_set()
    assert not called.is_set()
    # The parent's connection is untouched: no second greeting of its own, and its release is the one that counts.
    grant.release()
    assert server.holders("x") == []


def test_a_block_that_the_child_leaves_raises_that_the_lock_is_lost(
    client: lockring.Client, server: LockServer
) -> None:
    with client.lock("x"):

        def child() -> None:
            with pytest.raises(LockLost, match="forked"), client.lock("x").acquire(timeout=3):
                raise AssertionError

        with pytest.raises(AssertionError, match="AcquireTimeout"):
            in_child(child)
    assert server.holders("x") == []


def test_a_closed_client_stays_closed_in_the_child(server: LockServer) -> None:
    client = lockring.Client(server.address)
    client.lock("x").acquire().release()
    client.close()

    def child() -> None:
        with pytest.raises(ClientClosed):
            client.lock("x").acquire()

    in_child(child)


def test_the_default_owner_names_the_childs_process(server: LockServer) -> None:
    with lockring.Client(server.address) as client:
        assert client.owner.endswith(f":{os.getpid()}")

        def child() -> None:
            assert client.owner.endswith(f":{os.getpid()}")

        in_child(child)


def test_an_asyncio_client_is_closed_in_the_child(server: LockServer) -> None:
    async def main() -> None:
        async with lockring.aio.Client(server.address) as client:
            grant = await client.lock("x").acquire()

            def child() -> None:
                assert not grant.held
                assert grant.lost.is_set()
                with pytest.raises(LockLost, match="forked"):
                    grant.check()
                coroutine = client.lock("y").acquire()
                # In the child the loop of the parent still counts as running.
                with pytest.raises(ClientClosed, match="fork"):
                    coroutine.send(None)

            in_child(child)
            assert grant.held
            assert await grant.verify()

    asyncio.run(main())
