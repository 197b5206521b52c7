"""How a node greets the servers that it dials, and which answers it accepts."""

from __future__ import annotations

import pytest

from lockring.cluster_state import Replica
from lockring.core.node import NodeCore
from lockring.errors import LockringError, StaleVersion, WrongCluster, WrongRole
from lockring.protocol import PROTOCOL, PeerHello, Welcome
from tests.unit.core.node.world import Nodes

PEER = Replica("B", 7)


def welcome(role: str = "node", *, cluster: str = "c", node: str = "B", incarnation: int = 7) -> Welcome:
    return Welcome(PROTOCOL, cluster, role, node, incarnation, 1, "")


def joined() -> NodeCore:
    """A node of cluster "c"."""
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes.cores["A"]


def test_a_hello_names_the_cluster_and_both_lives() -> None:
    assert joined().hello_to(PEER) == PeerHello(PROTOCOL, "c", "A", 1, "B", 7)


def test_the_life_that_was_greeted_may_answer() -> None:
    joined().check_peer(PEER, welcome(), address="b:1")


@pytest.mark.parametrize("answer", [welcome(incarnation=8), welcome(node="C")])
def test_another_life_may_not_answer(answer: Welcome) -> None:
    with pytest.raises(StaleVersion, match=r"b:1 is .#., not B#7") as caught:
        joined().check_peer(PEER, answer, address="b:1")
    assert caught.value.code == "stale"


@pytest.mark.parametrize("cluster", ["c", "another"])
def test_a_new_node_joins_any_cluster(cluster: str) -> None:
    core = NodeCore(Replica("A", 1), now_ns=0)
    core.greet_coordinator(welcome("coordinator", cluster=cluster), address="c:1")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (welcome("coordinator", cluster="another"), WrongCluster),
        (welcome("coordinator", cluster=""), WrongCluster),
        (welcome("node"), WrongRole),
    ],
)
def test_a_node_joins_only_coordinators_of_its_cluster(answer: Welcome, error: type[LockringError]) -> None:
    joined().greet_coordinator(welcome("coordinator"), address="c:1")
    with pytest.raises(error, match="c:1"):
        joined().greet_coordinator(answer, address="c:1")
