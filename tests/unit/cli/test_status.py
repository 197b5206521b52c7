"""The lines of `lockring status`, and a cluster whose servers come and go meanwhile."""

from __future__ import annotations

import pytest

from lockring.cli import status
from lockring.cli.client_settings import ClientSettings
from lockring.cli.health import ServerAnswer
from lockring.cli.status import builds_line
from lockring.cluster_state import ClusterState, Member, Replica
from lockring.errors import Unavailable
from lockring.ids import NodeId
from lockring.net.oneshot import Dial
from lockring.protocol import ServerStatus

COORDINATOR, NODE = "127.0.0.1:1", "127.0.0.1:2"
LIFE = Replica(NodeId("a"), 1)


def test_a_newer_server_that_ends_between_two_questions_leaves_the_older_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = ClusterState(cluster="c", version=5, members={LIFE.node: Member(LIFE, NODE)})

    def ask_state(
        dial: Dial, server: str, timeout_s: float, *, credential: str
    ) -> tuple[str, tuple[ClusterState, str]]:
        if server == NODE:
            raise Unavailable(f"{NODE} cannot be reached: connection refused")
        return server, (older, "cut off")

    def ask_all(
        state: ClusterState, dial: Dial, server: str, timeout_s: float, *, credential: str
    ) -> tuple[ServerAnswer, dict[NodeId, ServerAnswer]]:
        return ServerAnswer(None, "away"), {
            LIFE.node: ServerAnswer(ServerStatus("node", LIFE.node, LIFE.incarnation, 9))
        }

    monkeypatch.setattr(status, "_ask_state", ask_state)
    monkeypatch.setattr(status, "_ask_all", ask_all)
    look = status.look_at(ClientSettings(servers=(COORDINATOR,), connect_timeout_s=0.1))
    assert (look.state, look.note) == (older, "cut off")


@pytest.mark.parametrize(
    ("builds", "line"),
    [
        (["compiled", "compiled"], "lockring runs compiled on 2 nodes"),
        (["interpreted", "compiled"], "lockring runs compiled on 1 node, interpreted on 1 node"),
        (["compiled", None], "lockring runs compiled on 1 node"),  # no answer, or an older version
        ([None], ""),
    ],
)
def test_the_nodes_of_each_build_are_counted(builds: list[str | None], line: str) -> None:
    assert builds_line(builds) == line
