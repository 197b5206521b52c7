"""The newest state with the steps to it: what is known, what is forgotten, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from lockring.cluster_state import ClusterState, decode_state
from lockring.core import state_history
from lockring.core.state_history import StateHistory
from lockring.errors import ProtocolError
from lockring.ids import Version
from tests.unit.core.states import FIRST, first_state, moved


def walked(count: int) -> StateHistory:
    """A history of so many steps behind the first state."""
    history = StateHistory()
    history.start_at(first_state("a", "b"))
    for number in range(count):
        history.advance_to(moved(history.state, "b", number))
    return history


def test_the_differences_since_a_version_lead_from_it_to_the_newest() -> None:
    history, follower = walked(5), StateHistory()
    follower.start_at(moved(first_state("a", "b"), "b", 0))
    steps = history.differences_since(follower.state.version)
    assert steps is not None
    assert [(step.base, step.version) for step in steps] == [(v, v + 1) for v in range(FIRST + 1, FIRST + 5)]
    for step in steps:
        follower.take(step, follower.applied(step))
    assert follower.state == history.state


def test_the_newest_version_needs_no_step_and_an_unknown_one_has_none() -> None:
    history = walked(3)
    assert history.differences_since(history.state.version) == []
    assert history.differences_since(Version(FIRST - 1)) is None
    assert history.differences_since(Version(FIRST + 9)) is None


def test_only_the_last_steps_are_kept() -> None:
    history = walked(state_history.DIFFERENCES_MAX + 1)
    assert history.differences_since(FIRST) is None
    steps = history.differences_since(Version(FIRST + 1))
    assert steps is not None
    assert len(steps) == state_history.DIFFERENCES_MAX


def test_steps_that_are_as_long_as_a_state_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_history, "DIFFERENCE_BYTES_MAX", 60)
    history = walked(5)
    steps = history.differences_since(Version(history.state.version - 1))
    assert steps is not None
    assert history.differences_since(FIRST) is None
    assert sum(len(step.change) for step in steps) <= 60


def test_a_step_that_was_taken_can_be_passed_on_unchanged() -> None:
    history, follower, third = walked(1), walked(0), walked(0)
    (step,) = history.differences_since(FIRST) or []
    follower.take(step, follower.applied(step))
    assert follower.differences_since(FIRST) == [step]
    third.take(step, third.applied(step))
    assert third.state == history.state


def test_a_step_from_another_version_changes_nothing() -> None:
    history, follower = walked(2), walked(0)
    steps = history.differences_since(FIRST)
    assert steps is not None
    with pytest.raises(ProtocolError):
        follower.applied(steps[1])
    assert follower.state.version == FIRST
    assert follower.applied(steps[0]).changed == [0]


def test_a_damaged_step_changes_nothing() -> None:
    (step,) = walked(1).differences_since(FIRST) or []
    follower = walked(0)
    with pytest.raises(ProtocolError):
        follower.applied(msgspec.structs.replace(step, digest=step.digest ^ 1))
    assert follower.state.version == FIRST


def test_a_whole_state_begins_anew() -> None:
    history = walked(3)
    history.start_at(moved(history.state, "a", 1))
    assert history.differences_since(FIRST) is None
    assert history.differences_since(history.state.version) == []


def test_the_whole_state_is_encoded_once_for_each_version() -> None:
    history = walked(1)
    whole = history.whole()
    assert history.whole() is whole
    assert decode_state(whole.state) == history.state
    history.advance_to(moved(history.state, "a", 5))
    assert decode_state(history.whole().state) == history.state


def test_the_digest_follows_the_steps() -> None:
    history, other = walked(4), StateHistory()
    other.start_at(history.state)
    assert history.content() == other.content()


def test_an_empty_history_has_the_state_before_the_first() -> None:
    assert StateHistory().state == ClusterState()
