"""A peer that cannot be measured is named, with the reason and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.builds import VARIABLE
from bench.install import NEEDS, Need, lack, obstacle, prepare
from bench.peers import OURS, PEERS


def need(*, is_there: bool, library: str = "msgspec") -> Need:
    return Need(
        server="Foo",
        is_there=lambda: is_there,
        packages=("foo-server", "foo-extra"),
        services=(),
        version=lambda: "1",
        libraries={library: library},
    )


@pytest.mark.parametrize(
    ("may_install", "user_id", "apt_get", "reason"),
    [
        (True, 0, "/usr/bin/apt-get", ""),
        (False, 0, "/usr/bin/apt-get", "nothing was to be installed"),
        (True, 1000, "/usr/bin/apt-get", "only root can install it"),
        (True, 0, None, "there is no apt-get to install it"),
    ],
)
def test_obstacles_to_an_installation_are_named(
    may_install: bool, user_id: int, apt_get: str | None, reason: str
) -> None:
    assert obstacle(may_install, user_id, apt_get) == reason


def test_a_server_that_is_missing_is_named_with_the_packages_that_bring_it() -> None:
    sentence = lack(need(is_there=False), "only root can install it")
    assert sentence == (
        "Foo: left out, it is not installed, and only root can install it. Try: apt-get install foo-server foo-extra"
    )


def test_a_package_that_did_not_bring_its_server_is_blamed() -> None:
    assert "apt-get did not bring it" in lack(need(is_there=False), "")


def test_a_client_library_that_is_missing_is_named() -> None:
    sentence = lack(need(is_there=True, library="no_such_library"), "")
    assert sentence.startswith("Foo: left out, no_such_library is not installed.")
    assert "pip install" in sentence


def test_a_peer_with_server_and_library_is_measured() -> None:
    assert lack(need(is_there=True), "") == ""


def test_lockring_needs_nothing_that_would_have_to_be_installed() -> None:
    interpreted = tuple(peer for peer in OURS if not PEERS[peer].is_compiled)
    said: list[str] = []
    ready = prepare(interpreted, may_install=False, say=said.append)
    assert (ready.peers, ready.left_out, said) == (interpreted, [], [])


def test_without_a_compiled_build_its_peers_are_left_out_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))
    ready = prepare(OURS, may_install=False, say=lambda _: None)
    assert [peer for peer in ready.peers if PEERS[peer].is_compiled] == []
    assert "lockring" in ready.peers
    (sentence,) = ready.left_out
    assert sentence.startswith("lockring, compiled: left out, there is no ")


def test_peers_that_cannot_be_measured_are_left_out_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(NEEDS, "redis", need(is_there=False))
    ready = prepare(("redis", "lockring"), may_install=False, say=lambda _: None)
    assert ready.peers == ("lockring",)
    assert ready.left_out == [lack(need(is_there=False), "nothing was to be installed")]


def test_every_peer_but_lockring_says_what_it_needs() -> None:
    assert {PEERS[peer].module for peer in PEERS if peer not in OURS} == set(NEEDS)
