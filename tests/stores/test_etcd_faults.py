"""Two coordinators on three members of etcd that are killed and frozen: what was confirmed is one chain of states."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate
from lockring.errors import StoreError
from lockring.store.etcd.store import EtcdStore
from tests.stores.servers_etcd import PATIENCE_S, EtcdServer

LASTS_S = 15
"""How long members are killed and frozen; a coordinator loses the lead several times meanwhile."""


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path / "etcd", 3)
    yield server
    server.kill()


class Write(NamedTuple):
    """A write and its outcome: True, False, or the error."""

    expected: int
    version: int
    outcome: bool | str


class Coordinator:
    """Campaigns and writes until it is stopped, as fast as it can, and now and then pauses for longer than its lead."""

    def __init__(self, url: str, name: str, versions: Iterator[int], seed: int) -> None:
        self.writes: list[Write] = []
        self.reads: list[int] = []
        self.over = threading.Event()
        self._store = EtcdStore(url)
        self._candidate = Candidate(name, f"{name}:9500")
        self._versions = versions
        self._random = random.Random(seed)
        self.thread = threading.Thread(target=self._run, name=name)

    def _run(self) -> None:
        while not self.over.is_set():
            with contextlib.suppress(StoreError):
                self._turn()
        self._store.close()

    def _turn(self) -> None:
        stored = self._store.read()
        self.reads.append(0 if stored is None else stored.version)
        leads = self._store.campaign(self._candidate, 2_000).leader == self._candidate
        if self._random.random() < 0.02:
            self.over.wait(4)
        # Now and then it takes itself for the leader although it is not.
        if leads or self._random.random() < 0.2:
            for _ in range(20):
                if not self._writes(self.reads[-1]):
                    break

    def _writes(self, expected: int) -> bool:
        version = next(self._versions)
        new = ClusterState(cluster="c", version=version, term=self._candidate.term)
        try:
            outcome: bool | str = self._store.write(expected, new)
        except StoreError as error:
            outcome = str(error)
        self.writes.append(Write(expected, version, outcome))
        if outcome is True:
            self.reads.append(version)
        return outcome is True


def disturb(server: EtcdServer, seed: int) -> None:
    """Kill or freeze one member after another, with little time between."""
    chance = random.Random(seed)
    until_s = time.monotonic() + LASTS_S
    while time.monotonic() < until_s:
        member = chance.choice(server.members)
        if chance.random() < 0.5:
            server.kill(member)
            time.sleep(chance.uniform(0, 2))
            server.start(member)
        else:
            server.freeze(member)
            time.sleep(chance.uniform(0, 4))
            server.thaw(member)
        time.sleep(chance.uniform(0, 1.5))


@pytest.mark.slow
def test_confirmed_writes_are_one_chain_while_members_are_killed_and_frozen(three: EtcdServer) -> None:
    seed = 1
    versions = itertools.count(1)
    coordinators = [Coordinator(three.url(), name, versions, seed) for name in ("one", "two")]
    for each in coordinators:
        each.thread.start()
    disturb(three, seed)
    three.wait()
    for each in coordinators:
        each.over.set()
    for each in coordinators:
        each.thread.join(PATIENCE_S)
        assert not each.thread.is_alive()
    check(coordinators)


def check(coordinators: list[Coordinator]) -> None:
    writes = [write for each in coordinators for write in each.writes]
    stored = {write.version for write in writes if write.outcome is True}
    unknown = {write.version for write in writes if "unknown" in str(write.outcome)}
    refused = {write.version for write in writes} - stored - unknown
    seen = {version for each in coordinators for version in each.reads} - {0}
    print(f"{len(stored)} stored, {len(unknown)} unknown, {len(refused)} refused, {len(seen)} seen")
    assert len(stored) > 20, "the members were never there for long enough"
    assert refused
    # Nothing that was said not to be stored is ever there.
    assert not seen & refused
    # Each state has one successor at most.
    replaced = [write.expected for write in writes if write.outcome is True]
    assert len(replaced) == len(set(replaced))
    # A state that replaced another one is based on what was there: nothing confirmed is lost on the way.
    assert {write.expected for write in writes if write.outcome is True} <= stored | unknown | {0}
    newest = max(stored)
    followed = {write.expected: write.version for write in writes if write.outcome is not False}
    assert {version for version in stored if version not in followed} <= {newest, max(seen)}
