"""Which server's word counts for the end of a drain: only one that would know of a change."""

from __future__ import annotations

import pytest

from lockring.cli import cluster
from lockring.cli.client_settings import ClientSettings
from lockring.cluster_state import ClusterState, Member, Replica
from lockring.errors import Unavailable
from lockring.ids import NodeId
from lockring.net.oneshot import ServerView

OLD, NEW = "127.0.0.1:1", "127.0.0.1:2"
NODE = NodeId("N1")


def view(condition: str, *, age_s: float) -> ServerView:
    life = Replica(NODE, 1)
    state = ClusterState(cluster="c", version=1, members={NODE: Member(life, "h:1", condition=condition)})
    return ServerView("coordinator", Replica("", 0), state, "the store is cut off" if age_s else "", age_s)


@pytest.fixture(autouse=True)
def views(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {OLD: view("draining", age_s=3600.0), NEW: view("active", age_s=1.0)}
    monkeypatch.setattr(cluster, "ask_state", lambda server, timeout_s, dial, credential: known[server])


def test_a_server_that_has_heard_nothing_new_is_passed_over() -> None:
    settings = ClientSettings(servers=(OLD, NEW), connect_timeout_s=1.0)
    assert cluster._left_on(NODE, settings).condition == "active"


def test_a_drain_does_not_end_by_the_word_of_a_server_that_has_heard_nothing_new() -> None:
    settings = ClientSettings(servers=(OLD,), connect_timeout_s=0.1)
    with pytest.raises(Unavailable, match=f"{OLD} has heard nothing new for 1 h.*: the store is cut off"):
        cluster._left_on(NODE, settings)


def test_a_ring_that_is_old_is_drawn_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.ring.main(["--server", OLD, "--json"], standalone_mode=False) in (None, 0)
    shown = capsys.readouterr()
    assert '"version": "1"' in shown.out
    assert "lockring: warning: this is the ring of 1 h" in shown.err
    cluster.ring.main(["--server", NEW, "--json"], standalone_mode=False)
    assert capsys.readouterr().err == ""
