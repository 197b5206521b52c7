"""Groups of members that share work, with both clients, against real clusters."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lockring
import lockring.aio
from lockring.testing import LocalCluster
from tests.processes import eventually

pytestmark = [pytest.mark.cluster]

TTL_S = 30.0
"""A member that nothing is to happen to outlasts a pause of a busy machine."""
VICTIM_TTL_S = 10.0
"""Of a member that is killed: it outlasts one as well, and its end is waited for."""

KEYS = [f"key-{number}" for number in range(300)]
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def client(steady: LocalCluster) -> Iterator[lockring.Client]:
    with lockring.Client(steady.servers, owner="one", ttl=TTL_S) as client:
        yield client


@pytest.fixture
def other(steady: LocalCluster) -> Iterator[lockring.Client]:
    with lockring.Client(steady.servers, owner="other", ttl=TTL_S) as client:
        yield client


def wait_for(what: Callable[[], bool]) -> None:
    eventually(what)


def owned(member: lockring.Membership | lockring.aio.Membership) -> set[str]:
    return {key for key in KEYS if member.owns(key)}


def test_members_share_the_keys_and_only_those_of_who_comes_or_goes_move(
    client: lockring.Client, other: lockring.Client
) -> None:
    with client.group("share").join("a") as a:
        assert a.wait_settled(timeout=30) == a.version
        assert owned(a) == set(KEYS)
        with other.group("share").join("b", weight=3, payload=b"at port 80") as b:
            b.wait_settled(timeout=30)
            assert [(each.id, each.weight, each.payload, each.owner) for each in b.members] == [
                ("a", 1, b"", "one"),
                ("b", 3, b"at port 80", "other"),
            ]
            assert owned(a) | owned(b) == set(KEYS)
            assert not owned(a) & owned(b)
            assert all((a.owner(key) == "b") == b.owns(key) for key in KEYS)
            before = owned(b)
            c = client.group("share").join("c")
            c.wait_settled(timeout=30)
            assert owned(c)
            assert owned(b) == before - owned(c)
            c.leave()
            wait_for(lambda: owned(a) | owned(b) == set(KEYS))
            assert owned(b) == before
        wait_for(lambda: owned(a) == set(KEYS))


def test_later_owner_has_a_greater_fence_and_who_owns_nothing_has_none(
    client: lockring.Client, other: lockring.Client
) -> None:
    a = client.group("fences").join("a")
    a.wait_settled(timeout=30)
    before = {key: a.fence(key) for key in KEYS}
    b = other.group("fences").join("b")
    b.wait_settled(timeout=30)
    for key in KEYS:
        owner, loser = (b, a) if b.owns(key) else (a, b)
        assert owner.fence(key) > before[key]
        with pytest.raises(lockring.NotHeld, match=f"gives it to '{owner.member_id}'"):
            loser.fence(key)
    a.leave()
    with pytest.raises(lockring.NotHeld):
        a.fence(KEYS[0])
    assert owned(a) == set()
    b.leave()


def test_keys_have_no_other_owner_until_the_callback_of_their_former_one_has_returned(
    client: lockring.Client, other: lockring.Client
) -> None:
    a = client.group("finish").join("a")
    a.wait_settled(timeout=30)
    told: list[tuple[int, int]] = []
    may_end, began = threading.Event(), threading.Event()
    lost_keys: set[str] = set()

    def finish(gained: lockring.KeySet, lost: lockring.KeySet) -> None:
        told.append((len(gained), len(lost)))
        if lost:
            lost_keys.update(key for key in KEYS if key in lost)
            assert not any(a.owns(key) for key in lost_keys)
            began.set()
            assert may_end.wait(30)

    a.on_change(finish)
    b = other.group("finish").join("b")
    assert began.wait(30)
    with pytest.raises(lockring.AcquireTimeout):
        b.wait_settled(timeout=0.3)
    assert owned(b) == set()
    assert client.group("finish").describe().awaited == ("a",)
    may_end.set()
    b.wait_settled(timeout=30)
    assert owned(b) == lost_keys
    assert told[0] == (4096, 0)
    assert len(told) == 2
    b.leave()
    a.leave()


def test_member_that_is_killed_loses_its_keys_after_its_lease(quick: LocalCluster) -> None:
    program = """
import lockring, sys, time
member = lockring.Client(sys.argv[1], ttl=float(sys.argv[2])).group("killed").join("victim")
print(member.wait_settled(timeout=30), flush=True)
time.sleep(600)
"""
    with lockring.Client(quick.servers, ttl=TTL_S) as client:
        a = client.group("killed").join("a")
        a.wait_settled(timeout=30)
        victim = subprocess.Popen(
            [sys.executable, "-c", program, quick.servers, str(VICTIM_TTL_S)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert victim.stdout is not None
            assert int(victim.stdout.readline()) == a.wait_settled(timeout=30)
            kept = owned(a)
            assert kept < set(KEYS)
            victim.kill()
            wait_for(lambda: owned(a) == set(KEYS))
            assert [member.id for member in a.members] == ["a"]
        finally:
            victim.kill()
            victim.communicate()
        a.leave()


def test_members_keep_their_keys_over_the_death_of_the_groups_node(quick: LocalCluster) -> None:
    with (
        lockring.Client(quick.servers, ttl=TTL_S) as client,
        lockring.Client(quick.servers, ttl=TTL_S) as other,
    ):
        a = client.group("failover").join("a")
        b = other.group("failover").join("b")
        b.wait_settled(timeout=30)
        wait_for(lambda: owned(a) | owned(b) == set(KEYS))
        kept, version = owned(a), a.version
        changes: list[object] = []
        a.on_change(lambda gained, lost: changes.append((gained, lost)))
        quick.kill(client.describe("group:failover").primary)
        wait_for(lambda: min(a.version, b.version) > version and a.settled and b.settled)
        assert owned(a) == kept
        assert owned(a) | owned(b) == set(KEYS)
        assert len(changes) == 1  # what it owned when it registered
        c = client.group("failover").join("c")
        c.wait_settled(timeout=30)
        assert owned(c)


def test_who_joins_under_the_id_of_a_member_takes_over_from_it(
    client: lockring.Client, other: lockring.Client
) -> None:
    old = client.group("again").join("same")
    old.wait_settled(timeout=30)
    fence = old.fence(KEYS[0])
    reasons: list[str] = []
    old.on_lost(lambda loss: reasons.append(loss.reason))
    new = other.group("again").join("same")
    new.wait_settled(timeout=30)
    wait_for(lambda: owned(new) == set(KEYS))
    assert new.fence(KEYS[0]) > fence
    assert old.lost.wait(30)
    with pytest.raises(lockring.LockLost, match="replaced"):
        old.check()
    with pytest.raises(lockring.LockLost, match="replaced"):
        old.leave()
    wait_for(lambda: reasons == ["replaced"])
    new.leave()


def test_a_membership_whose_leaving_is_interrupted_is_left_once_its_callback_has_returned(
    client: lockring.Client,
) -> None:
    finishing, may_finish, main = threading.Event(), threading.Event(), threading.get_ident()

    def finish(gained: lockring.KeySet, lost: lockring.KeySet) -> None:
        if lost:
            finishing.set()
            assert may_finish.wait(60)

    def interrupt() -> None:
        assert finishing.wait(60)
        with client._driver.locked():
            pass  # what tells the member that it owns nothing has been done
        signal.pthread_kill(main, signal.SIGINT)

    member = client.group("broken-off").join("a")
    member.on_change(finish)
    member.wait_settled(timeout=30)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        member.__exit__(None, None, None)
    thread.join(60)
    assert member.held, "nobody else may have its keys yet"
    may_finish.set()
    wait_for(lambda: not member.held)
    wait_for(lambda: client.group("broken-off").members() == ())


@pytest.mark.parametrize("own_thread", [False, True])
@pytest.mark.parametrize("how", ["cancelled", "on another loop"])
def test_a_membership_with_asyncio_is_left_wherever_its_block_ends(
    steady: LocalCluster, own_thread: bool, how: str
) -> None:
    async def scene() -> None:
        async with lockring.aio.Client(steady.servers, own_thread=own_thread) as client:
            group = client.group("wherever")
            finishing, may_finish = asyncio.Event(), asyncio.Event()

            async def finish(gained: lockring.KeySet, lost: lockring.KeySet) -> None:
                if lost:
                    finishing.set()
                    await may_finish.wait()

            member = await group.join("a")
            member.on_change(finish)
            await member.wait_settled(timeout=30)
            if how == "cancelled":
                leaving = asyncio.create_task(member.__aexit__(None, None, None))
                await finishing.wait()
                leaving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await leaving
            else:
                await asyncio.to_thread(asyncio.run, member.__aexit__(None, None, None))
                await finishing.wait()
            assert member.held, "nobody else may have its keys yet"
            may_finish.set()
            while await group.members() != ():  # noqa: ASYNC110 - seen at the node only
                await asyncio.sleep(0.01)
            assert not member.held

    asyncio.run(asyncio.wait_for(scene(), 60))


@pytest.mark.parametrize("own_thread", [False, True])
def test_groups_with_asyncio(steady: LocalCluster, own_thread: bool) -> None:
    async def scene() -> None:
        async with (
            lockring.aio.Client(steady.servers, ttl=TTL_S, own_thread=own_thread) as one,
            lockring.aio.Client(steady.servers, ttl=TTL_S, own_thread=own_thread) as two,
        ):
            told: list[tuple[str, int, int]] = []
            held: list[bool] = []
            async with await one.group("aio").join("a") as a:
                await a.wait_settled(timeout=30)

                async def slowly(gained: lockring.KeySet, lost: lockring.KeySet) -> None:
                    await asyncio.sleep(0)
                    told.append(("a", len(gained), len(lost)))

                a.on_change(slowly)
                b = await two.group("aio").join("b")
                b.on_change(lambda gained, lost: told.append(("b", len(gained), len(lost))))
                b.on_change(lambda gained, lost: held.append(b.held))
                await b.wait_settled(timeout=30)
                assert all(a.owns(key) != b.owns(key) for key in KEYS)
                assert [each.name for each in await one.groups() if each.members == 2] == ["aio"]
                assert [member.id for member in await two.group("aio").members()] == ["a", "b"]
                await b.leave()
                assert held == [True, True]  # losses by leaving are reported before the membership ends
                with pytest.raises(lockring.NotHeld):
                    await b.leave()
            assert told[0] == ("a", 4096, 0)
            lost = told[1][2]
            assert lost
            assert told[1:] == [("a", 0, lost), ("b", lost, 0), ("b", 0, lost), *told[4:]]
            assert not a.held

    asyncio.run(scene())


@pytest.mark.parametrize("own_thread", [False, True])
def test_a_callback_that_ends_its_own_tasks_lets_the_group_settle(
    steady: LocalCluster, own_thread: bool
) -> None:
    """Waiting for a task that was cancelled raises what would also end the task that calls back."""

    async def scene() -> None:
        async with lockring.aio.Client(steady.servers, ttl=TTL_S, own_thread=own_thread) as client:
            a = await client.group(f"cancelling-{own_thread}").join("a")
            await a.wait_settled(timeout=30)
            work = asyncio.get_running_loop().create_task(asyncio.sleep(3600))

            async def stop(gained: lockring.KeySet, lost: lockring.KeySet) -> None:
                if lost:
                    work.cancel()
                    await work

            a.on_change(stop)
            b = await client.group(f"cancelling-{own_thread}").join("b")
            await b.wait_settled(timeout=30)
            assert any(b.owns(key) for key in KEYS)

    problems: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: problems.append(context["exception"])
        )
        await scene()

    asyncio.run(main())
    assert all(isinstance(problem, asyncio.CancelledError) for problem in problems)


@pytest.mark.parametrize("own_thread", [False, True])
def test_a_callback_that_cancels_the_task_it_runs_in_holds_up_neither_other_callbacks_nor_the_group(
    steady: LocalCluster, own_thread: bool
) -> None:
    async def scene() -> None:
        async with lockring.aio.Client(steady.servers, ttl=TTL_S, own_thread=own_thread) as client:
            name = f"self-cancelling-{own_thread}"
            a = await client.group(name).join("a")
            await a.wait_settled(timeout=30)
            told: list[int] = []

            def cancel(gained: lockring.KeySet, lost: lockring.KeySet) -> None:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()

            async def note(gained: lockring.KeySet, lost: lockring.KeySet) -> None:
                await asyncio.sleep(0)
                told.append(len(lost))

            a.on_change(cancel)
            a.on_change(note)
            b = await client.group(name).join("b")
            await b.wait_settled(timeout=30)
            assert any(told)
            await asyncio.wait_for(a.leave(), 30)
            await b.leave()

    asyncio.run(scene())


def test_a_callback_may_leave_the_group_with_a_bound_on_the_time(steady: LocalCluster) -> None:
    """`wait_for` runs what it bounds in another task, which is still part of the call."""

    async def scene() -> None:
        async with lockring.aio.Client(steady.servers, ttl=TTL_S) as client:
            a = await client.group("bounded").join("a")
            left = asyncio.Event()

            async def leave(gained: lockring.KeySet, lost: lockring.KeySet) -> None:
                if gained:
                    await asyncio.wait_for(asyncio.ensure_future(a.leave()), 20)
                    left.set()

            a.on_change(leave)
            await asyncio.wait_for(left.wait(), 30)
            assert not a.held

    asyncio.run(scene())


def test_a_member_can_wait_for_what_a_later_view_gives_it(
    client: lockring.Client, other: lockring.Client
) -> None:
    a = client.group("later").join("a")
    alone = a.wait_settled(timeout=30)
    b = other.group("later").join("b")
    both = a.wait_settled(after=alone, timeout=30)
    assert both > alone
    assert [member.id for member in a.members] == ["a", "b"]
    assert a.wait_settled(timeout=30) == both  # what is known already is not a later view
    with pytest.raises(lockring.AcquireTimeout, match=f"no settled version after {both}"):
        a.wait_settled(after=both, timeout=0.2)
    b.leave()
    a.wait_settled(after=both, timeout=30)
    assert owned(a) == set(KEYS)
    for wrong in (-1, True, 1.0, "1"):
        with pytest.raises(lockring.InvalidRequest, match="after is a version of the group"):
            a.wait_settled(after=wrong)  # type: ignore[arg-type]
    a.leave()


def test_a_task_can_wait_for_what_a_later_view_gives_its_member(steady: LocalCluster) -> None:
    async def scene() -> None:
        async with lockring.aio.Client(steady.servers, ttl=TTL_S) as client:
            a = await client.group("later-aio").join("a")
            alone = await a.wait_settled(timeout=30)
            b = await client.group("later-aio").join("b")
            both = await a.wait_settled(after=alone, timeout=30)
            await b.leave()
            await a.wait_settled(after=both, timeout=30)
            assert owned(a) == set(KEYS)

    asyncio.run(scene())


async def never_run(*_: object) -> None:
    """A callback that a blocking client could only make a coroutine of."""


def test_errors_of_a_membership_speak_of_the_membership(client: lockring.Client) -> None:
    member = client.group("speaks").join("a")
    for wrong in (None, 5, b"x"):
        with pytest.raises(lockring.InvalidRequest, match="a key must be text"):
            member.owns(wrong)  # type: ignore[arg-type]
    for takes in (member.on_change, member.on_lost):
        with pytest.raises(lockring.InvalidRequest, match="takes a function"):
            takes(None)  # type: ignore[arg-type]
        with pytest.raises(lockring.InvalidRequest, match=f"{takes.__name__} calls a plain function"):
            takes(functools.partial(never_run))  # type: ignore[arg-type]
    other = client.group("speaks").join("a")
    wait_for(lambda: not member.held)
    with pytest.raises(lockring.LockLost, match="another member has joined under the id 'a'"):
        member.check()
    other.leave()
    for act in (other.leave, other.wait_settled, lambda: other.fence("x")):
        with pytest.raises(lockring.NotHeld, match="membership of 'a' in the group 'speaks' was left"):
            act()


@pytest.mark.parametrize("own_thread", [False, True])
def test_who_leaves_after_the_client_was_closed_has_lost_the_membership(
    steady: LocalCluster, own_thread: bool
) -> None:
    async def main() -> None:
        async with lockring.aio.Client(steady.servers, own_thread=own_thread) as client:
            member = await client.group("closed").join("a")
        with pytest.raises(lockring.LockLost, match="the client was closed"):
            await member.leave()

    asyncio.run(main())


def test_a_failing_hook_for_errors_keeps_no_caller_waiting(
    client: lockring.Client,
    other: lockring.Client,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the hook is broken")

    monkeypatch.setattr(threading, "excepthook", fail)
    a = client.group("hook").join("a")
    a.on_change(fail)
    with other.group("hook").join("b") as b:
        b.wait_settled(timeout=30)
    wait_for(lambda: owned(a) == set(KEYS))
    a.leave()
    assert "the hook is broken" in capfd.readouterr().err


def test_the_child_of_a_fork_is_no_longer_a_member(client: lockring.Client) -> None:
    inside, go_on = threading.Event(), threading.Event()
    member = client.group("forked").join("a")

    def take_long_once(gained: lockring.KeySet, lost: lockring.KeySet) -> None:
        if not inside.is_set():
            inside.set()
            go_on.wait(60)

    member.on_change(take_long_once)
    assert inside.wait(30)  # a thread of the parent's is telling
    child = os.fork()
    if child == 0:
        try:
            member.leave()
        except lockring.LockLost as error:
            os._exit(7 if error.reason == "forked" else 1)
        os._exit(2)
    go_on.set()
    until = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 7
    member.leave()


def test_a_group_can_be_looked_at_from_a_shell(client: lockring.Client, steady: LocalCluster) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "lockring", *words, "--server", steady.servers]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    with client.group("shell").join("worker", weight=2, payload=b"hi") as member:
        version = member.wait_settled(timeout=30)
        assert {"name": "shell", "members": 1, "version": version} in json.loads(run("groups", "--json"))
        assert re.search(rf"^shell +1 +{version}$", run("groups"), re.MULTILINE)
        shown = run("group", "shell", "--owner-of", "x")
        assert f"1 member, version {version}, settled" in shown
        assert "'x' belongs to 'worker'" in shown
        assert "'' belongs to 'worker'" in run("group", "shell", "--owner-of", "")  # a key like any other
        found = json.loads(run("group", "shell", "--json", "--owner-of", "x"))
        assert (found["settled"], found["awaited"], found["key_owner"]) == (True, [], "worker")
        [only] = found["members"]
        assert (only["id"], only["weight"], only["share"], only["payload_base64"]) == (
            "worker",
            2,
            1.0,
            "aGk=",
        )
    empty = json.loads(run("group", "nobody", "--json"))
    assert (empty["members"], empty["settled"]) == ([], True)


def test_the_example_of_the_page_about_groups_runs(steady: LocalCluster) -> None:
    page = (DOCS / "groups.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"LOCKRING_SERVER": steady.servers},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cleaned = re.findall(r"^(/\w+) is cleaned by worker-[12]$", done.stdout, re.MULTILINE)
    assert cleaned == ["/in", "/out", "/tmp"]
    assert "worker-2 owns all of them now" in done.stdout.splitlines()
