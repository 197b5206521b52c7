"""Servers that are up at once have their turns, and one that fails leaves the others theirs."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.beside import FLOOR, SYNC
from bench.children import Child, ChildFailed, Inbox
from bench.field import Field, turns
from bench.peers.base import Server
from bench.results import Values
from bench.scale import SCALES, Scale
from bench.workloads.base import InSlices, OneChild, Runner, Workload

PASSES = 4


class NoServer(Server):
    """A server without a process, for clients that need none."""

    renewals = "connection"

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def pids(self) -> tuple[int, ...]:
        """Return nothing."""
        return ()

    @property
    def address(self) -> str:
        """No address."""
        return ""


class Failing(NoServer):
    """The same for clients that fail in their second slice."""


def counted(inbox: Inbox, slices_max: int) -> Values:
    """Say the numbers of the slices, and fail after that many."""
    inbox.say("ready")
    slices = 0
    while inbox.hear():
        slices += 1
        if slices > slices_max:
            raise RuntimeError("no more")
        inbox.say({"number": float(slices), "odd": float(slices % 2)})
    return {"number": float(slices)}


def begin(server: Any, variant: str, scale: Scale) -> Runner:
    return OneChild(Child(counted, 1 if isinstance(server, Failing) else PASSES))


def measured(tmp_path: Path, *servers: Server, beside: tuple[str, ...] = ()) -> tuple[list[Any], list[str]]:
    workload = Workload(
        name="counting",
        title="Counting",
        peers={"any": tuple(each.peer for each in servers)},
        how=InSlices(begin, lambda _: PASSES),
        rounds=lambda _: 1,
        beside=beside,
    )
    failed: list[str] = []
    field = Field(
        workload,
        {each.peer: each for each in servers},
        round_=7,
        directory=tmp_path,
        left_out=lambda peer, variant, error: failed.append(f"{peer} {variant} {type(error).__name__}"),
    )
    return field.measure("any", SCALES["tiny"]), failed


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_has_its_turn_in_each_pass(count: int) -> None:
    assert all(sorted(order) == list(range(count)) for order in turns(count, 2 * count))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_no_neighbour_is_favoured_by_the_order(count: int) -> None:
    after = Counter(pair for order in turns(count, 2 * count) for pair in pairwise(order))
    assert all(after[one, other] == after[other, one] for one, other in after)
    first = Counter(order[0] for order in turns(count, 2 * count))
    assert set(first.values()) == {2}


def test_every_slice_is_kept_with_its_place_in_time(tmp_path: Path) -> None:
    (found,), failed = measured(tmp_path, NoServer("none", tmp_path))
    assert failed == []
    assert (found.peer, found.round, found.variant) == ("none", 7, "any")
    assert [values["number"] for values in found.slices] == [1, 2, 3, 4]
    at_s = [values["at_s"] for values in found.slices]
    assert at_s == sorted(at_s)
    assert found.values["number"] == PASSES  # as the client says in the end
    assert found.values["odd"] == 0.5  # the median of its slices


def test_a_peer_that_fails_is_left_out_and_the_others_have_all_their_slices(tmp_path: Path) -> None:
    found, failed = measured(tmp_path, NoServer("none", tmp_path), Failing("failing", tmp_path))
    assert [(each.peer, len(each.slices)) for each in found] == [("none", PASSES)]
    assert failed == [f"failing any {ChildFailed.__name__}"]


def test_what_the_machine_can_do_is_measured_in_turn_with_the_servers(tmp_path: Path) -> None:
    found, _ = measured(tmp_path, NoServer("none", tmp_path), beside=(FLOOR, SYNC))
    floor, sync, server = found
    assert (floor.peer, sync.peer, server.peer) == (FLOOR, SYNC, "none")
    assert floor.values["median_us"] > 0 and sync.values["median_us"] > 0
    assert len(floor.slices) == len(sync.slices) == PASSES
    order = sorted((values["at_s"], each.peer) for each in found for values in each.slices)
    assert all(len({peer for _, peer in order[place : place + 3]}) == 3 for place in range(0, 3 * PASSES, 3))
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
