"""The two clients have the same names and arguments, even where the blocking one is not generated from the other."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import lockring
import lockring.aio

PAIRS = [
    (lockring.Client, lockring.aio.Client),
    (lockring.Lock, lockring.aio.Lock),
    (lockring.RWLock, lockring.aio.RWLock),
    (lockring.Grant, lockring.aio.Grant),
    (lockring.Grants, lockring.aio.Grants),
    (lockring.Group, lockring.aio.Group),
    (lockring.Membership, lockring.aio.Membership),
]
ONLY_BLOCKING = {"as_threading_lock"}


def members(cls: type) -> dict[str, Any]:
    return {
        name: inspect.getattr_static(cls, name)
        for name in dir(cls)
        if not name.startswith("_") and name not in ONLY_BLOCKING
    }


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda cls: cls.__name__)
def test_public_names_and_arguments_are_the_same(blocking: type, awaited: type) -> None:
    assert members(blocking).keys() == members(awaited).keys()
    for name, ours in members(blocking).items():
        theirs = members(awaited)[name]
        if inspect.isfunction(ours) and name != "synchronized":
            ours_takes, theirs_takes = inspect.signature(ours), inspect.signature(theirs)
            assert ours_takes.parameters == theirs_takes.parameters, name


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda cls: cls.__name__)
def test_the_blocking_client_has_no_coroutines(blocking: type, awaited: type) -> None:
    assert [name for name, each in members(blocking).items() if inspect.iscoroutinefunction(each)] == []
    assert not {"__aenter__", "__aexit__", "__aiter__", "__await__"} & set(vars(blocking))


def test_the_documentation_of_the_blocking_client_does_not_mention_asyncio() -> None:
    for blocking, _ in PAIRS:
        for name, each in {"": blocking, **members(blocking)}.items():
            said = (inspect.getdoc(each) or "").lower()
            assert not [word for word in ("await", "asyncio", "event loop", "async with") if word in said], (
                name
            )
            assert " task" not in said, (blocking, name)
