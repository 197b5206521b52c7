"""The package under Python's own tools: help, completion, copying and pickling."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import pickle
import pydoc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import lockring
import lockring.aio
from lockring.errors import LockLost, NotCopyable
from tests.unit.client.lock_server import LockServer

CLASSES = [
    lockring.Client,
    lockring.Lock,
    lockring.RWLock,
    lockring.Grant,
    lockring.Grants,
    lockring.Group,
    lockring.Membership,
    lockring.ThreadingLock,
    lockring.aio.Client,
    lockring.aio.Lock,
    lockring.aio.RWLock,
    lockring.aio.Grant,
    lockring.aio.Grants,
    lockring.aio.Group,
    lockring.aio.Membership,
]


@pytest.mark.parametrize("module", ["lockring", "lockring.aio"])
def test_help_is_one_page_that_names_the_first_classes(module: str) -> None:
    text = pydoc.render_doc(importlib.import_module(module), renderer=pydoc.plaintext)
    assert "Client" in text
    assert len(text.splitlines()) < 80


def test_all_public_names_are_listed_before_any_of_them_is_used() -> None:
    script = (
        "import lockring; names = [name for name in dir(lockring) if name[0] != '_'];"
        "print(*names); [getattr(lockring, name) for name in names];"
        "assert names == [name for name in dir(lockring) if name[0] != '_']"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert {"Client", "Lock", "Grant", "ThreadingLock", "AcquireTimeout", "LockLost", "aio"} <= set(names)
    assert not {"TYPE_CHECKING", "Any", "core", "messages", "client", "net"} & set(names)
    home = [name for name in names if not hasattr(getattr(lockring, name), "__doc__")]
    assert home == []


def test_the_asyncio_client_needs_no_import_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", "import lockring; lockring.aio.Client()"], check=True)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_completion_offers_public_names_only(cls: type) -> None:
    offered = [name for name in dir(cls) if not name.startswith("_")]
    assert not {"ticket", "on_ticket_lost", "on_regrouped", "followed"} & set(offered)
    for name in offered:
        documentation = getattr(cls, name).__doc__ or ""
        assert "For the client" not in documentation, name


@pytest.fixture(
    params=[
        lambda client: client,
        lambda client: client.lock("x"),
        lambda client: client.rwlock("x"),
        lambda client: client.group("x"),
        lambda client: client.as_threading_lock("x"),
        lambda client: client.lock("x").acquire(),
        lambda client: client.acquire_all(["x"]),
        lambda client: client.watch("x"),
        lambda client: lockring.aio.Client(),
        lambda client: lockring.aio.Client().lock("x"),
        lambda client: lockring.aio.Client().rwlock("x"),
        lambda client: lockring.aio.Client().group("x"),
        lambda client: lockring.aio.Client().watch("x"),
    ],
    ids="Client Lock RWLock Group ThreadingLock Grant Grants watch aio.Client aio.Lock aio.RWLock aio.Group aio.watch".split(),
)
def thing(request: pytest.FixtureRequest, client: lockring.Client) -> Any:
    return request.param(client)


@pytest.mark.parametrize(
    "attempt", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"]
)
def test_objects_with_leases_cannot_be_copied(thing: Any, attempt: Callable[[Any], Any]) -> None:
    with pytest.raises(NotCopyable, match=r"belong to this one: (pass|make)") as refusal:
        attempt(thing)
    assert isinstance(refusal.value, TypeError)
    assert type(thing).__name__ in str(refusal.value)


def test_a_client_is_not_sent_to_a_process_that_is_spawned(client: lockring.Client) -> None:
    process = multiprocessing.get_context("spawn").Process(target=print, args=(client,))
    with pytest.raises(NotCopyable, match="make a client there, from the addresses of the servers"):
        process.start()


def test_results_and_errors_can_be_pickled(server: LockServer, client: lockring.Client) -> None:
    with client.lock("x"):
        holding = client.owner_of("x")
        assert pickle.loads(pickle.dumps(holding)) == holding
        update = next(client.watch("x"))
        assert pickle.loads(pickle.dumps(update)) == update
    error = pickle.loads(pickle.dumps(LockLost("the lock 'x' was lost", name="x", reason="broken")))
    assert (str(error), error.name, error.reason) == ("the lock 'x' was lost", "x", "broken")
