"""The tree of errors and its codes."""

from __future__ import annotations

import builtins
import inspect

import pytest

from lockring import errors
from lockring.errors import InvalidRequest, LockLost, LockringError, from_code

CLASSES = [
    each
    for each in vars(errors).values()
    if inspect.isclass(each) and issubclass(each, LockringError) and each.__module__ == errors.__name__
]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [each.code for each in CLASSES]
    assert len(set(codes)) == len(codes) > 15
    assert all("code" in vars(each) for each in CLASSES), "an inherited code would come back as its parent"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_a_code_from_the_wire_comes_back_as_the_class_it_was_sent_for(kind: type[LockringError]) -> None:
    error = from_code(kind.code, "what happened", name="a-lock")
    assert type(error) is kind
    assert str(error) == "what happened"
    assert error.name == "a-lock"
    assert isinstance(kind.retryable, bool)
    assert kind.__doc__


def test_an_unknown_code_of_a_newer_server_is_still_an_error_of_ours() -> None:
    assert type(from_code("from-the-future", "text")) is LockringError


def test_errors_fit_what_the_standard_library_calls_the_same_thing() -> None:
    assert issubclass(errors.AcquireTimeout, TimeoutError)
    assert issubclass(errors.Unavailable, ConnectionError)
    assert issubclass(errors.Denied, PermissionError)
    assert issubclass(errors.NotHeld, RuntimeError)
    assert issubclass(InvalidRequest, ValueError)


def test_no_error_hides_a_builtin() -> None:
    assert not [each.__name__ for each in CLASSES if hasattr(builtins, each.__name__)]


def test_only_errors_that_may_pass_by_themselves_are_retryable() -> None:
    assert {each.code for each in CLASSES if each.retryable} == {
        "unavailable",
        "moved",
        "overloaded",
        "stale",
        "not-coordinator",
        "reentrant",
    }


def test_an_error_about_a_lost_lock_has_its_name_and_the_reason() -> None:
    error = LockLost("gone", name="nightly", reason="broken")
    assert (error.name, error.reason, str(error)) == ("nightly", "broken", "gone")
    assert LockLost("gone").reason == "expired"


def test_an_error_about_a_right_says_which_one_is_missing() -> None:
    error = from_code("denied", "no", name="jobs/7", right="acquire")
    assert isinstance(error, errors.Denied)
    assert (error.name, error.right) == ("jobs/7", "acquire")
    assert errors.Denied("no").right == ""


def test_a_caller_that_has_not_proven_its_identity_is_denied_too() -> None:
    assert issubclass(errors.Unauthenticated, errors.Denied)
    assert type(from_code("unauthenticated", "who are you?")) is errors.Unauthenticated


def test_an_error_about_a_rate_says_when_to_come_again() -> None:
    error = from_code("overloaded", "too fast", retry_after_s=0.25)
    assert isinstance(error, errors.Overloaded)
    assert error.retry_after_s == 0.25
    assert errors.Overloaded("full").retry_after_s is None
