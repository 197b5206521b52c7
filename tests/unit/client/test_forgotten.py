"""Objects that are never closed: dropped grants, forgotten clients, ended loops, and programs that end."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from collections.abc import Callable

import pytest

import lockring
import lockring.aio
from lockring.errors import ClientClosed
from lockring.protocol import CloseSession, Keepalive
from tests.processes import PATIENCE_S
from tests.unit.client.lock_server import LockServer

CLIENTS = ("lockring-client", "lockring-connect")
"""How the names of clients' threads begin. Tests of servers may have left others."""


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(CLIENTS)]


def wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith(CLIENTS):
            thread.join(PATIENCE_S)
    assert threads() == []


class TestBlocking:
    def test_a_dropped_grant_gives_its_lock_up_and_warns(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        with pytest.warns(ResourceWarning, match="grant of 'x' was dropped while it was held"):  # noqa: PT031
            client.lock("x").acquire()
            server.wait_until(
                lambda: server.holders("x") == []
            )  # the other thread may be the last to refer to it

    def test_a_grant_that_was_released_or_lost_may_be_dropped(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        client.lock("x").acquire().release()
        grant = client.lock("y").acquire()
        lost = grant.lost
        server.lose("y")
        assert lost.wait(PATIENCE_S)

    @pytest.mark.parametrize("way", ["callback", "event"])
    def test_a_grant_with_a_loss_callback_or_event_is_not_dropped(
        self, client: lockring.Client, server: LockServer, way: str
    ) -> None:
        grant: lockring.Grant | None = client.lock("x").acquire()
        assert grant is not None
        gone = weakref.ref(grant)
        told = grant.lost if way == "event" else threading.Event()
        if way == "callback":
            grant.on_lost(lambda _, told=told: told.set())  # type: ignore[misc]
        grant = None
        gc.collect()
        server.wait_until(lambda: len(server.holders("x")) == 1)
        server.lose("x")
        assert told.wait(PATIENCE_S)
        del told
        client.describe("x")
        gc.collect()
        assert gone() is None

    def test_a_forgotten_client_ends_its_thread_its_descriptors_and_its_sessions(
        self, server: LockServer
    ) -> None:
        lockring.Client(server.address).close()
        before = len(os.listdir("/proc/self/fd"))
        client: lockring.Client | None = lockring.Client(server.address)
        assert client is not None
        client.lock("x").acquire().release()
        assert threads() == ["lockring-client"]
        with pytest.warns(ResourceWarning, match="forgotten and not closed"):  # noqa: PT031
            client = None
            wait_for_threads()  # one of them may be the last to refer to it
        assert server.count(CloseSession) == 1
        # The server, whose descriptors count too, may be a moment behind.
        server.wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    def test_a_client_whose_grant_lives_is_not_forgotten(self, server: LockServer) -> None:
        grant = lockring.Client(server.address).lock("x", ttl=3).acquire()
        gc.collect()
        server.wait_until(lambda: server.count(Keepalive) >= 3)
        assert grant.held
        grant.release()
        with pytest.warns(ResourceWarning, match="forgotten"):  # noqa: PT031
            del grant
            wait_for_threads()

    def test_no_part_of_a_client_keeps_its_driver_alive(self, server: LockServer) -> None:
        client = lockring.Client(server.address)
        client.lock("x").acquire().release()
        client.close()
        wait_for_threads()
        gone = weakref.ref(client._driver)
        gc.disable()  # counted references alone must do
        try:
            del client
            assert gone() is None
        finally:
            gc.enable()

    def test_a_closed_client_and_one_that_was_never_used_may_be_forgotten(self, server: LockServer) -> None:
        lockring.Client(server.address)
        client = lockring.Client(server.address)
        client.lock("x").acquire().release()
        client.close()
        del client
        assert threads() == []


class TestAsyncio:
    def test_a_dropped_grant_gives_its_lock_up_and_warns(self, server: LockServer) -> None:
        async def main(own_thread: bool) -> None:
            async with lockring.aio.Client(server.address, own_thread=own_thread) as client:
                with pytest.warns(ResourceWarning, match="grant of 'x' was dropped"):  # noqa: PT031
                    await client.lock("x").acquire()
                    await asyncio.to_thread(server.wait_until, lambda: server.holders("x") == [])

        for own_thread in (False, True):
            asyncio.run(main(own_thread))

    @pytest.mark.parametrize("own_thread", [False, True])
    def test_a_forgotten_client_ends_its_sessions(self, server: LockServer, own_thread: bool) -> None:
        def is_over() -> bool:
            gc.collect()  # whatever goes between the threads may be in a circle, once both have let go of it
            return server.count(CloseSession) == 1

        async def main() -> None:
            client: lockring.aio.Client | None = lockring.aio.Client(server.address, own_thread=own_thread)
            assert client is not None
            grant = await client.lock("x").acquire()
            await grant.release()
            del grant
            with pytest.warns(ResourceWarning, match="forgotten and not closed"):  # noqa: PT031
                client = None
                await asyncio.to_thread(server.wait_until, is_over)

        asyncio.run(main())
        wait_for_threads()

    @pytest.mark.parametrize("own_thread", [False, True])
    def test_a_client_is_closed_at_the_end_of_its_loop(self, server: LockServer, own_thread: bool) -> None:
        async def main() -> lockring.aio.Grant:
            client = lockring.aio.Client(server.address, own_thread=own_thread)
            return await client.lock("x").acquire()

        grant = asyncio.run(main())
        assert server.holders("x") == []
        assert not grant.held
        wait_for_threads()

    def test_a_client_with_a_thread_of_its_own_ends_when_its_loop_is_closed_by_hand(
        self, server: LockServer
    ) -> None:
        loop = asyncio.new_event_loop()
        client = lockring.aio.Client(server.address, own_thread=True)
        grant = loop.run_until_complete(client.lock("x").acquire())
        loop.close()
        server.wait_until(lambda: server.holders("x") == [])
        wait_for_threads()
        assert not grant.held

    @pytest.mark.parametrize("own_thread", [False, True])
    @pytest.mark.parametrize("over", [False, True], ids=["while its loop stands", "after its loop"])
    def test_an_asyncio_client_can_be_closed_from_another_loop(
        self, server: LockServer, own_thread: bool, over: bool
    ) -> None:
        loop = asyncio.new_event_loop()
        client = lockring.aio.Client(server.address, own_thread=own_thread)
        grant = loop.run_until_complete(client.lock("x").acquire())
        if over:
            loop.close()
        asyncio.run(client.close())
        server.wait_until(lambda: server.holders("x") == [])
        assert not grant.held
        wait_for_threads()
        if not over:
            with pytest.raises(ClientClosed):
                loop.run_until_complete(client.lock("y").acquire())
            loop.close()
        del client, grant
        with warnings.catch_warnings(
            action="ignore"
        ):  # asyncio warns of a loop that was closed with what runs on it
            gc.collect()

    def test_an_asyncio_client_can_be_closed_from_another_thread_while_its_loop_runs(
        self, server: LockServer
    ) -> None:
        async def main(own_thread: bool) -> None:
            client = lockring.aio.Client(server.address, own_thread=own_thread)
            grant = await client.lock("x").acquire()
            await asyncio.to_thread(lambda: asyncio.run(client.close()))
            assert not grant.held
            assert server.holders("x") == []

        for own_thread in (False, True):
            asyncio.run(main(own_thread))


def drop_at_the_limit(box: list[object]) -> None:
    """Drop the last references to what is in a box where the stack has no room for a finalizer."""
    try:
        drop_at_the_limit(box)
    except RecursionError:
        box.clear()
        raise


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have errors of finalizers forgotten: the hook of pytest would keep what the finalizer was called for."""
    monkeypatch.setattr(sys, "unraisablehook", bool)


@pytest.mark.usefixtures("unreported")
class TestAFinalizerThatFails:
    """The lock is given up although `__del__` could not run to its end."""

    def test_of_the_blocking_client(self, client: lockring.Client, server: LockServer) -> None:
        kept = client.lock("kept", ttl=3).acquire()
        with pytest.warns(ResourceWarning, match="was dropped while it was held") as warned:  # noqa: PT031
            box: list[object] = [client.lock("x", ttl=3).acquire()]
            with pytest.raises(RecursionError):
                drop_at_the_limit(box)
            server.wait_until(lambda: server.holders("x") == [] and len(warned) == 1)
        assert kept.held
        kept.release()

    def test_of_the_blocking_client_itself(self, server: LockServer) -> None:
        client = lockring.Client(server.address)
        client.lock("x", ttl=3).acquire().release()
        box: list[object] = [client]
        del client
        with pytest.raises(RecursionError):
            drop_at_the_limit(box)
        server.wait_until(lambda: server.count(CloseSession) == 1)
        wait_for_threads()

    @pytest.mark.parametrize("own_thread", [False, True])
    def test_of_the_asyncio_client(self, server: LockServer, own_thread: bool) -> None:
        async def main() -> None:
            async with lockring.aio.Client(server.address, own_thread=own_thread) as client:
                box: list[object] = [await client.lock("x", ttl=3).acquire()]
                with pytest.raises(RecursionError):
                    drop_at_the_limit(box)
                with pytest.warns(ResourceWarning, match="was dropped while it was held"):  # noqa: PT031
                    await asyncio.to_thread(server.wait_until, lambda: server.holders("x") == [])
                    await client.owner_of("x")  # after what the driver does at that moment

        asyncio.run(main())

    def test_of_a_program_that_takes_the_warning_for_an_error(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        box: list[object] = [client.lock("x", ttl=3).acquire()]
        with warnings.catch_warnings(action="error"):
            with pytest.raises(RecursionError):
                drop_at_the_limit(box)
            server.wait_until(lambda: server.holders("x") == [])
        client.lock("x").acquire(timeout=PATIENCE_S).release()


END: dict[str, str] = {
    "at the end of the module": "pass",
    "by sys.exit": "sys.exit(3)",
    "by an error": "raise ZeroDivisionError",
}

BLOCKING = """
    import sys, lockring
    client = lockring.Client(sys.argv[1])
    grant = client.lock("x").acquire()
"""
ASYNCIO = """
    import asyncio, sys, lockring.aio
    client = lockring.aio.Client(sys.argv[1], own_thread={own_thread})
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = 60  # a report that the machine is busy would name lockring
    grant = loop.run_until_complete(client.lock("x").acquire())
"""


def run_program(server: LockServer, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", *options, "-c", textwrap.dedent(text), server.address],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


class TestTheEndOfAProgram:
    @pytest.mark.parametrize("end", END.values(), ids=END)
    @pytest.mark.parametrize(
        "begin",
        [BLOCKING, ASYNCIO.format(own_thread=False), ASYNCIO.format(own_thread=True)],
        ids=["blocking", "asyncio", "own thread"],
    )
    def test_the_end_of_the_program_gives_up_its_locks(
        self, server: LockServer, begin: str, end: str
    ) -> None:
        run = run_program(server, textwrap.dedent(begin) + end)
        assert run.returncode == {"pass": 0, "sys.exit(3)": 3}.get(end, 1), run.stderr
        server.wait_until(lambda: server.holders("x") == [])
        assert "lockring" not in run.stderr.replace("import lockring", "")

    def test_threads_that_work_on_keep_their_locks(self, server: LockServer) -> None:
        run = run_program(
            server,
            """
            import sys, threading, time, lockring
            client = lockring.Client(sys.argv[1])
            main = threading.main_thread()

            def work():
                with client.lock("x") as grant:
                    main.join()
                    time.sleep(0.3)
                    assert grant.verify()
                    print("worked")

            threading.Thread(target=work).start()
            """,
        )
        assert (run.returncode, run.stdout) == (0, "worked\n"), run.stderr
        assert server.holders("x") == []

    def test_functions_registered_with_atexit_run_before_the_goodbye(self, server: LockServer) -> None:
        program = BLOCKING + "    import atexit; atexit.register(lambda: print(grant.verify()))"
        assert run_program(server, program).stdout == "True\n"

    def test_a_silent_server_delays_the_end_of_the_program_by_about_a_second(
        self, server: LockServer
    ) -> None:
        server.mute = {CloseSession}
        program = """
            import sys, time, atexit, lockring
            begun = []
            atexit.register(lambda: print(time.monotonic() - begun[0]))
            clients = [lockring.Client(sys.argv[1]) for _ in range(5)]
            grants = [client.lock(f"x{number}").acquire() for number, client in enumerate(clients)]
            atexit.register(lambda: begun.append(time.monotonic()))
        """
        run = run_program(server, program)
        assert run.returncode == 0, run.stderr
        assert 0.9 < float(run.stdout) < PATIENCE_S
        assert server.count(CloseSession) == 5

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_a_process_of_multiprocessing_says_goodbye_for_itself_alone(
        self, server: LockServer, method: str, tmp_path: object
    ) -> None:
        program = f"""
            import multiprocessing, sys, lockring
            client = lockring.Client(sys.argv[1])

            def work(address):
                global grant, own
                own = lockring.Client(address)
                grant = own.lock("child").acquire()

            if __name__ == "__main__":
                held = client.lock("parent").acquire()
                child = multiprocessing.get_context({method!r}).Process(target=work, args=(sys.argv[1],))
                child.start()
                child.join()
                other = lockring.Client(sys.argv[1])
                print(child.exitcode, held.verify(), other.owner_of("child"))
        """
        path = f"{tmp_path}/program.py"
        with open(path, "w") as file:
            file.write(textwrap.dedent(program))
        run = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", path, server.address],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert run.stdout == "0 True None\n", run.stderr

    def test_a_child_that_ends_leaves_its_parents_locks_alone(self, server: LockServer) -> None:
        program = """
            import os, sys, lockring
            client = lockring.Client(sys.argv[1])
            grant = client.lock("x").acquire()
            child = os.fork()
            if not child:
                sys.exit(0)
            os.waitpid(child, 0)
            print(grant.verify())
        """
        run = run_program(server, program, "-W", "ignore::DeprecationWarning")
        assert run.stdout == "True\n", run.stderr

    def test_os_exit_skips_the_goodbye(self, server: LockServer) -> None:
        run_program(server, BLOCKING + "    import os; os._exit(0)")
        assert server.count(CloseSession) == 0


@pytest.mark.parametrize("when", ["dropped", "forgotten"])
def test_a_warning_that_is_an_error_stops_nothing(
    client: lockring.Client, server: LockServer, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[type[BaseException] | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: reported.append(args.exc_type))

    def forget() -> None:
        other = lockring.Client(server.address)
        other.lock("x").acquire().release()

    def drop() -> None:
        client.lock("x").acquire()

    run: dict[str, Callable[[], None]] = {"dropped": drop, "forgotten": forget}
    run[when]()
    server.wait_until(lambda: server.holders("x") == [])
    if when == "forgotten":
        server.wait_until(lambda: server.count(CloseSession) == 1)
        wait_for_threads()
    assert reported == [ResourceWarning]
