"""The blocking client over real sockets: grants, loss, questions and wrong servers."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from datetime import UTC, datetime

import pytest

import lockring
from lockring.errors import (
    AcquireTimeout,
    ClientClosed,
    InvalidRequest,
    LockLost,
    NotHeld,
    ProtocolError,
    Unavailable,
    UnknownNode,
)
from lockring.protocol import Acquire, CloseSession, Keepalive, Message, Release, Unwatch
from tests.processes import PATIENCE_S, address
from tests.unit.client.blocking.threads import in_thread, signal_once
from tests.unit.client.lock_server import LockServer


class TestGrant:
    def test_a_grant_describes_itself(self, client: lockring.Client) -> None:
        before, began_s = datetime.now(UTC), time.monotonic()
        grant = client.lock("x").acquire()
        assert (grant.name, grant.owner) == ("x", "tester")
        assert grant.fencing_token == 1
        assert before <= grant.acquired_at <= datetime.now(UTC)
        assert grant.held
        left_s = grant.remaining()
        assert 10 - (time.monotonic() - began_s) <= left_s <= 10
        assert not grant.lost.is_set()
        assert grant.check() is grant
        assert grant.verify()
        told_s = re.search(r"'x' token 1, held, (\d+\.\d) s left", repr(grant))
        assert told_s is not None
        assert left_s - (time.monotonic() - began_s) - 0.1 <= float(told_s[1]) <= left_s + 0.1

    def test_a_released_grant_is_neither_held_nor_lost(self, client: lockring.Client) -> None:
        grant = client.lock("x").acquire()
        grant.release()
        assert not grant.held
        assert grant.remaining() == 0.0
        assert not grant.lost.is_set()
        assert "released" in repr(grant)
        with pytest.raises(NotHeld):
            grant.check()
        with pytest.raises(NotHeld):
            grant.release()
        assert not grant.verify()

    def test_tokens_grow(self, client: lockring.Client) -> None:
        tokens = []
        for _ in range(3):
            with client.lock("x") as grant:
                tokens.append(grant.fencing_token)
        assert tokens == [1, 2, 3]

    def test_a_grant_can_be_entered_and_is_released_at_the_end(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        with client.lock("x").acquire(timeout=5) as grant:
            assert grant.held
            assert len(server.holders("x")) == 1
        assert server.holders("x") == []
        with pytest.raises(NotHeld), grant:
            raise AssertionError("the body must not run")

    def test_a_grant_may_be_released_inside_its_block(self, client: lockring.Client) -> None:
        with client.lock("x") as grant:
            grant.release()

    def test_an_error_in_the_block_releases_and_passes(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        with pytest.raises(ZeroDivisionError), client.lock("x"):
            raise ZeroDivisionError
        assert server.holders("x") == []

    def test_one_lock_object_may_be_entered_by_many_threads_and_within_itself(
        self, client: lockring.Client
    ) -> None:
        lock = client.lock("x")
        inside: list[int] = []

        def work() -> None:
            for _ in range(5):
                with lock as grant:
                    inside.append(grant.fencing_token)
                    assert grant.held

        threads = [in_thread(work) for _ in range(4)]
        for thread in threads:
            thread.join(PATIENCE_S)
        assert sorted(inside) == list(range(1, 21))
        assert len(lock._blocks) == 0

    def test_a_decorated_function_runs_under_the_lock(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        @client.lock("x").synchronized
        def work(number: int) -> tuple[int, int]:
            """The docstring of the function."""
            return number, len(server.holders("x"))

        assert work(7) == (7, 1)
        assert work.__doc__ == "The docstring of the function."
        assert server.holders("x") == []

        async def wrong() -> None: ...

        with pytest.raises(InvalidRequest, match=r"lockring\.aio"):
            client.lock("x").synchronized(wrong)


class TestLoss:
    def test_a_loss_sets_the_event_and_starts_the_callbacks(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        grant = client.lock("x").acquire()
        told: list[LockLost] = []
        called = threading.Event()
        grant.on_lost(told.append)
        grant.on_lost(lambda _: called.set())
        server.lose("x", "broken")
        assert grant.lost.wait(PATIENCE_S)
        assert called.wait(PATIENCE_S)
        assert not grant.held
        assert (told[0].name, told[0].reason) == ("x", "broken")
        assert "lost: broken" in repr(grant)
        server.wait_until(lambda: server.count(Release) == 1)
        with pytest.raises(LockLost) as caught:
            grant.check()
        assert caught.value.reason == "broken"
        with pytest.raises(LockLost):
            grant.release()

    def test_a_callback_that_comes_late_is_called_at_once(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        grant = client.lock("x").acquire()
        lost = grant.lost
        server.lose("x")
        assert lost.wait(PATIENCE_S)
        called = threading.Event()
        grant.on_lost(lambda _: called.set())
        assert called.wait(PATIENCE_S)

    def test_a_callback_that_fails_is_reported_and_the_others_are_called(
        self, client: lockring.Client, server: LockServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reported: list[threading.ExceptHookArgs] = []
        monkeypatch.setattr(threading, "excepthook", reported.append)
        grant = client.lock("x").acquire()
        called = threading.Event()
        grant.on_lost(lambda _: 1 / 0)
        grant.on_lost(lambda _: called.set())
        server.lose("x")
        assert called.wait(PATIENCE_S)
        assert reported[0].exc_type is ZeroDivisionError

    def test_a_callback_is_not_called_after_a_release(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        grant = client.lock("x").acquire()
        grant.on_lost(lambda _: pytest.fail("it was released"))
        grant.release()
        client.close()
        assert not grant.lost.is_set()

    def test_leaving_a_block_after_a_loss_raises(self, client: lockring.Client, server: LockServer) -> None:
        with pytest.raises(LockLost, match="'x'"), client.lock("x") as grant:  # noqa: PT012
            server.lose("x")
            assert grant.lost.wait(PATIENCE_S)

    def test_an_error_that_ends_the_block_after_a_loss_carries_a_note(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        with pytest.raises(ZeroDivisionError) as caught, client.lock("x") as grant:  # noqa: PT012
            server.lose("x")
            assert grant.lost.wait(PATIENCE_S)
            raise ZeroDivisionError
        assert any("lost" in note for note in caught.value.__notes__)

    def test_a_lock_that_cannot_be_renewed_is_lost_before_its_lease_ends(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        server.mute = {Keepalive, Acquire}
        server.mute = {Keepalive}
        grant = client.lock("x", ttl=0.5).acquire()
        granted_at_s = seen_held_at_s = time.monotonic()
        while grant.held:
            assert seen_held_at_s < granted_at_s + 0.5
            seen_held_at_s = time.monotonic()
        assert grant.lost.wait(PATIENCE_S)
        with pytest.raises(LockLost) as caught:
            grant.check()
        assert caught.value.reason == "local-deadline"

    def test_a_held_lock_is_renewed_without_any_call(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        grant = client.lock("x", ttl=2).acquire()  # more than a busy machine takes from the one that renews
        server.wait_until(lambda: server.count(Keepalive) >= 6)
        assert grant.held
        grant.release()

    def test_held_reads_the_clock_even_if_nothing_else_has_run(
        self, client: lockring.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a stop of the process: the very next look tells, whatever thread comes first."""
        grant = client.lock("x").acquire()
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        later = lambda: now_ns + 11_000_000_000  # noqa: E731
        for module in ("grant_state", "blocking.section"):
            monkeypatch.setattr(f"lockring.client.{module}.monotonic_ns", later)
        assert grant.lost.is_set()
        assert not grant.held
        assert grant.remaining() == 0.0

    def test_closing_the_client_ends_its_grants(self, server: LockServer) -> None:
        with lockring.Client(server.address) as client:
            grant = client.lock("x").acquire()
        assert grant.lost.is_set()
        assert server.holders("x") == []
        assert server.count(CloseSession) == 1
        with pytest.raises(LockLost) as caught:
            grant.check()
        assert caught.value.reason == "session-ended"

    def test_after_a_stop_pending_messages_are_read_before_a_server_counts_as_silent(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        """A stopped process is the same as one whose threads cannot run: here, while one of them keeps the lock."""
        grant = client.lock("x", ttl=9).acquire()
        server.wait_until(lambda: server.count(Keepalive) >= 1)
        with client._driver.locked():
            time.sleep(2.5)
        time.sleep(0.3)
        assert grant.held
        assert server.greeted == 1
        grant.release()


class TestAcquireAll:
    def test_several_locks_are_acquired_by_name_and_returned_in_the_order_given(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        with client.acquire_all(["b", "c", "a"]) as grants:
            assert [grant.name for grant in grants] == ["b", "c", "a"]
            assert [grant.fencing_token for grant in grants] == [2, 3, 1]
            assert grants.held
            assert len(grants[:2]) == 2
            assert "token" in repr(grants)
        assert not grants.held
        assert all(server.holders(name) == [] for name in "abc")
        with pytest.raises(NotHeld):
            grants.release()
        with pytest.raises(NotHeld):
            grants.check()

    def test_acquire_all_acquires_all_locks_or_none(
        self, client: lockring.Client, other: lockring.Client, server: LockServer
    ) -> None:
        client.lock("y").acquire().release()  # connected: the wait is for the lock alone
        with other.lock("b"):
            with pytest.raises(AcquireTimeout):
                client.acquire_all(["c", "b", "a"], timeout=1)
            server.wait_until(lambda: server.holders("a") == [])
            assert server.holders("c") == []

    def test_the_loss_of_one_lock_is_raised_at_the_end_and_all_are_released(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        with pytest.raises(LockLost, match="'b'"), client.acquire_all(["a", "b"]) as grants:  # noqa: PT012
            server.lose("b")
            assert grants[1].lost.wait(PATIENCE_S)
        server.wait_until(lambda: server.holders("a") == [] == server.holders("b"))

    def test_a_release_of_several_reports_a_loss_after_releasing_the_others(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        grants = client.acquire_all(["a", "b"], timeout=5, ttl=5)
        server.lose("b")
        assert grants[1].lost.wait(PATIENCE_S)
        with pytest.raises(LockLost):
            grants.release()
        assert server.holders("a") == []

    @pytest.mark.parametrize("by", ["block", "release"])
    def test_an_interrupted_release_of_several_leaves_none_held(
        self, client: lockring.Client, server: LockServer, by: str
    ) -> None:
        grants = client.acquire_all(["a", "b", "c"])
        server.mute = {Release}
        interrupting = signal_once(client, server, lambda: server.count(Release) == 1)
        with pytest.raises(KeyboardInterrupt):
            grants.__exit__(None, None, None) if by == "block" else grants.release()
        interrupting.join(PATIENCE_S)
        assert not any(grant.held for grant in grants)
        server.wait_until(lambda: server.count(Release) == 3)


class TestQuestions:
    def test_describe_owner_of_and_locks_show_a_lock(self, client: lockring.Client) -> None:
        assert client.owner_of("x") is None
        with client.lock("x") as grant:
            described = client.describe("x")
            assert described.holders[0].session == grant.session
            holding = client.owner_of("x")
            assert holding is not None
            assert str(holding) == "tester"
            assert (holding.fencing_token, holding.session) == (grant.fencing_token, grant.session)
            assert (holding.held_s, holding.ttl_s, holding.ttl_left_s) == (0.005, 1.0, 0.9)
            assert [lock.name for lock in client.locks()] == ["x"]
            assert client.locks("y") == []

    def test_a_watch_sees_every_change_and_ends_with_the_iteration(
        self, client: lockring.Client, other: lockring.Client, server: LockServer
    ) -> None:
        watch = client.watch("x")
        assert next(watch).holders == []
        with other.lock("x"):
            assert next(watch).holders[0].owner == "other"
        assert next(watch).holders == []
        watch.close()  # type: ignore[attr-defined]
        server.wait_until(lambda: server.count(Unwatch) == 1)

    def test_a_watch_ends_when_the_client_is_closed(self, client: lockring.Client) -> None:
        watch = client.watch("x")
        next(watch)
        closing = in_thread(client.close)
        with pytest.raises(ClientClosed):
            next(watch)
        closing.join(PATIENCE_S)

    def test_break_state_and_drain_are_answered(self, client: lockring.Client, server: LockServer) -> None:
        grant = client.lock("x").acquire()
        lost = grant.lost
        with pytest.raises(NotHeld):
            client.break_lock("x", grant.fencing_token + 1)
        assert client.break_lock("x", grant.fencing_token).freed is False
        assert lost.wait(PATIENCE_S)
        again = client.lock("x").acquire()
        assert client.break_lock("x", token=again.fencing_token, force=True).freed is True
        assert not again.verify()
        assert client.state().cluster == "cluster"
        assert client.state_and_note()[1] == "all is well"
        client.drain("a")
        with pytest.raises(UnknownNode):
            client.drain("b")
        client.undrain("a")
        with pytest.raises(UnknownNode):
            client.undrain("b")

    def test_a_query_without_an_answer_is_unavailable(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        client.state()
        server.mute = {Message, *[type(each) for each in server.seen]}
        with pytest.raises(Unavailable, match="did not answer"):
            client.state(timeout=0.2)


class TestServers:
    def test_a_refusal_of_the_cluster_is_raised(self, client: lockring.Client) -> None:
        with pytest.raises(InvalidRequest, match="30 s"):
            client.lock("x", ttl=60).acquire()

    def test_a_closed_client_refuses_everything(self, server: LockServer) -> None:
        client = lockring.Client(server.address)
        client.close()
        client.close()
        for call in (client.lock("x").acquire, client.state, lambda: next(client.watch("x"))):
            with pytest.raises(ClientClosed):
                call()

    def test_unreachable_servers_are_unavailable_with_a_reason_for_each_address(self) -> None:
        nobody, neither = address(), address()
        with lockring.Client(f"{nobody},{neither}") as client:
            with pytest.raises(Unavailable, match=f"{nobody}: connection refused"):
                client.lock("x").acquire(timeout=1)
            with pytest.raises(Unavailable, match=nobody):
                client.describe("x", timeout=0.3)

    def test_without_a_timeout_an_acquire_gives_up_after_the_connect_timeout(self) -> None:
        nobody = address()
        with (
            lockring.Client(nobody, connect_timeout=0.3) as client,
            pytest.raises(Unavailable, match=nobody),
        ):
            client.lock("x").acquire()

    def test_closing_while_a_connection_is_being_made_is_fine(self, server: LockServer) -> None:
        for _ in range(10):
            client = lockring.Client(server.address)

            def wait(client: lockring.Client = client) -> None:
                # The client may be closed before the lock is acquired, or while it is held.
                with contextlib.suppress(ClientClosed, LockLost), client.lock("x"):
                    pass

            waiting = in_thread(wait)
            client.close()
            waiting.join(PATIENCE_S)
            assert not waiting.is_alive()

    def test_an_unknown_host_is_unavailable(self) -> None:
        with (
            lockring.Client("no.such.host.invalid:1") as client,
            pytest.raises(Unavailable, match=r"no\.such"),
        ):
            client.lock("x").acquire(timeout=1)

    @pytest.mark.parametrize(
        "words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\3abc", b"SSH-2.0-OpenSSH_9.0\r\n"]
    )
    def test_a_port_that_speaks_something_else_is_named(self, words: bytes) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = listener.accept()
                        with connection:
                            connection.sendall(words)
                            connection.recv(1000)

            thread = in_thread(serve)
            port = listener.getsockname()[1]
            with (
                lockring.Client(f"127.0.0.1:{port}") as client,
                pytest.raises(ProtocolError, match=f"{port} is not a lockring server"),
            ):
                client.lock("x").acquire()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)

    def test_a_port_that_hangs_up_is_named(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        listener.accept()[0].close()

            thread = in_thread(serve)
            port = listener.getsockname()[1]
            with (
                lockring.Client(f"127.0.0.1:{port}") as client,
                pytest.raises(Unavailable, match=f"{port}: .*without a greeting"),
            ):
                client.lock("x").acquire(timeout=2)
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)

    def test_garbage_on_a_good_connection_only_ends_that(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        grant = client.lock("x").acquire()
        server.say(b"\xff\xff\xff\xffgarbage")
        server.wait_until(lambda: server.greeted == 2)
        assert grant.held
        assert grant.verify()
        grant.release()

    def test_large_and_many_messages_go_both_ways(self, client: lockring.Client) -> None:
        """More than a socket takes at once, so that sending goes on in the background."""
        names = [f"{number:05}" + "n" * 900 for number in range(1_500)]
        grants = client.acquire_all(names, timeout=60)
        assert [lock.name for lock in client.locks()] == names
        grants.release()
        assert client.locks() == []
