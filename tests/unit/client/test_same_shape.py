"""The two clients have the same names, arguments and descriptions."""

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
AWAITED = {
    "acquire",
    "acquire_all",
    "break_lock",
    "close",
    "describe",
    "drain",
    "groups",
    "join",
    "leave",
    "locks",
    "owner_of",
    "release",
    "state",
    "state_and_note",
    "try_acquire",
    "undrain",
    "verify",
    "wait_settled",
}


def members(cls: type) -> dict[str, Any]:
    return {
        name: inspect.getattr_static(cls, name)
        for name in dir(cls)
        if not name.startswith("_") and name not in ONLY_BLOCKING
    }


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda cls: cls.__name__)
def test_names_arguments_and_descriptions_are_the_same(blocking: type, awaited: type) -> None:
    assert blocking.__doc__ is not None
    assert awaited.__doc__ is not None
    assert blocking.__doc__ == awaited.__doc__.replace("async with", "with")
    assert members(blocking).keys() == members(awaited).keys()
    for name, ours in members(blocking).items():
        theirs = members(awaited)[name]
        assert inspect.getdoc(ours) == inspect.getdoc(theirs), name
        if inspect.isfunction(ours):
            assert list(inspect.signature(ours).parameters.values()) == [
                parameter
                if name != "synchronized" or parameter.name == "self"
                else inspect.signature(ours).parameters[parameter.name]
                for parameter in inspect.signature(theirs).parameters.values()
            ], name
    arguments = dict(inspect.signature(awaited).parameters)
    arguments.pop("own_thread", None)  # the blocking client has such a thread anyway
    assert dict(inspect.signature(blocking).parameters) == arguments or blocking in (
        lockring.Grant,
        lockring.Grants,
        lockring.Group,
        lockring.Lock,
        lockring.Membership,
        lockring.RWLock,
    )


@pytest.mark.parametrize(("blocking", "awaited"), PAIRS, ids=lambda cls: cls.__name__)
def test_what_does_io_is_a_coroutine_in_one_and_a_plain_function_in_the_other(
    blocking: type, awaited: type
) -> None:
    for name, ours in members(blocking).items():
        theirs = members(awaited)[name]
        assert not inspect.iscoroutinefunction(ours), name
        is_awaited = name in AWAITED or (awaited, name) == (lockring.aio.Group, "members")
        assert inspect.iscoroutinefunction(theirs) == is_awaited, name
