"""The verdict on a cluster, from its state and from what its servers say of themselves."""

from __future__ import annotations

import msgspec

from lockring.cli.health import Health, ServerAnswer, diagnose
from lockring.cluster_state import ClusterState, Copy, Member, Replica, SlotState
from lockring.ids import ClusterId, NodeId
from lockring.protocol import ServerStatus
from lockring.slots import SLOTS
from lockring.units import NS_PER_S

A, B = Replica("a", 1), Replica("b", 1)
VERSION = 1_000 * NS_PER_S
NOW = VERSION + 10 * NS_PER_S
HALF = SLOTS // 2
REFUSED = "cannot be reached: Connection refused"


def slot(primary: Replica | None, backup: Replica | None = None) -> SlotState:
    copy = None if backup is None else Copy(backup, VERSION)
    return SlotState(VERSION, VERSION, 1, primary, copy, None, 1, 10)


def state(*slots: SlotState, members: tuple[Replica, ...] = (A, B)) -> ClusterState:
    """Of two members; the slots are spread over the kinds given, in equal parts."""
    return ClusterState(
        "cluster",
        VERSION,
        members={each.node: Member(each, f"{each.node}:1", condition="active") for each in members},
        slots=tuple([each for each in slots for _ in range(SLOTS // len(slots))]),
        coordinator="c:1",
    )


def node(
    replica: Replica, serving: int, *, left_ms: int = 20_000, over_ms: int = -1, away_ms: int = -1
) -> ServerAnswer:
    return ServerAnswer(
        ServerStatus(
            "node",
            replica.node,
            replica.incarnation,
            VERSION,
            serving=serving,
            primary=HALF,
            lease_left_ms=left_ms,
            lease_over_ms=over_ms,
            away_ms=away_ms,
        )
    )


def coordinator(note: str = "", **heard_ms: int) -> ServerAnswer:
    return ServerAnswer(ServerStatus("coordinator", "", 0, VERSION, note=note, heard=list(heard_ms.items())))


def judge(where: ClusterState, a: ServerAnswer, b: ServerAnswer, of_coordinator: ServerAnswer) -> Health:
    return diagnose(where, {NodeId("a"): a, NodeId("b"): b}, of_coordinator, wall_ns=NOW)


WHOLE = state(slot(A, B), slot(B, A))


def test_a_cluster_whose_nodes_all_serve_is_serving() -> None:
    health = judge(WHOLE, node(A, HALF), node(B, HALF), coordinator())
    assert (health.condition, health.slots_served) == ("serving", SLOTS)
    assert (health.reasons, health.remarks, health.since_s) == ([], [], None)
    assert health.heading == "SERVING: all 4096 slots have a primary and a backup"


def test_slots_of_nodes_without_a_lease_are_not_served_whatever_the_state_says() -> None:
    health = judge(
        WHOLE,
        node(A, 0, left_ms=0, over_ms=8_000, away_ms=38_000),
        node(B, 0, left_ms=0, over_ms=9_000, away_ms=39_000),
        ServerAnswer(None, REFUSED),
    )
    assert (health.condition, health.slots_served, health.since_s) == ("down", 0, 8.0)
    assert health.heading == "NOT SERVING for 8 s: no lock can be acquired or renewed"
    assert health.reasons == [
        "a has been without the coordinator's lease for 8 s",
        "b has been without the coordinator's lease for 9 s",
    ]
    assert health.remarks == [
        f"the coordinator at c:1 does not answer ({REFUSED})",
        "a, b have been without the coordinator for 39 s, and may no longer serve",
    ]


def test_a_cluster_that_goes_on_without_its_coordinator_is_degraded_and_says_for_how_long() -> None:
    health = judge(
        WHOLE,
        node(A, HALF, left_ms=18_500, away_ms=11_000),
        node(B, HALF, left_ms=18_000, away_ms=12_000),
        ServerAnswer(None, REFUSED),
    )
    assert (health.condition, health.lease_left_s) == ("degraded", 18.0)
    assert "a, b have been without the coordinator for 12 s, and may serve for another 18 s" in health.remarks


def test_a_coordinator_that_answers_and_does_not_renew_leases_makes_a_cluster_degraded() -> None:
    """As with a full disk under its store: the nodes are in touch with it, and their leases run down."""
    health = judge(
        WHOLE,
        node(A, HALF, left_ms=9_900),
        node(B, HALF, left_ms=9_500),
        coordinator("the store cannot be written: no space left on device"),
    )
    assert (health.condition, health.lease_left_s) == ("degraded", 9.5)
    (remark,) = health.remarks
    assert "does not renew the leases of a, b" in remark
    assert "no space left on device" in remark


def test_a_lease_that_was_renewed_a_moment_ago_is_no_cause_for_a_remark() -> None:
    health = judge(WHOLE, node(A, HALF, left_ms=29_000), node(B, HALF, left_ms=16_000), coordinator())
    assert (health.condition, health.lease_left_s, health.remarks) == ("serving", None, [])


def test_a_coordinator_that_only_this_machine_cannot_reach_is_reported_as_that() -> None:
    health = judge(WHOLE, node(A, HALF), node(B, HALF), ServerAnswer(None, REFUSED))
    assert health.condition == "degraded"
    assert "though the nodes are in touch with it" in health.remarks[0]


def test_slots_of_a_primary_that_does_not_answer_count_for_nothing() -> None:
    health = judge(WHOLE, ServerAnswer(None, REFUSED), node(B, HALF), coordinator(a=12_000, b=300))
    assert (health.condition, health.slots_served) == ("partial", HALF)
    assert health.reasons == [
        f"a at a:1 does not answer ({REFUSED}); the coordinator last heard from it 12 s ago: 2048 slots"
    ]
    assert health.heading.startswith("PARTLY NOT SERVING: 2048 of 4096 slots")


def test_a_cluster_whose_nodes_are_all_dead_is_down_since_the_last_was_heard() -> None:
    dead = ServerAnswer(None, REFUSED)
    health = judge(WHOLE, dead, dead, coordinator(a=12_000, b=7_000))
    assert (health.condition, health.since_s) == ("down", 7.0)
    unknown = judge(WHOLE, dead, dead, coordinator(a=12_000, b=-1))
    assert (unknown.condition, unknown.since_s) == ("down", None)


def test_another_life_of_a_node_serves_nothing_of_the_former_one() -> None:
    health = judge(WHOLE, node(Replica("a", 2), HALF), node(B, HALF), coordinator())
    assert (health.condition, health.slots_served) == ("partial", HALF)
    assert "a was started again and has not joined yet" in health.reasons[0]


def test_slots_that_never_had_a_primary_are_not_said_to_be_without_one_for_decades() -> None:
    health = judge(state(SlotState()), node(A, 0), node(B, 0), coordinator())
    assert (health.condition, health.since_s) == ("down", None)
    assert health.heading == "NOT SERVING: no lock can be acquired or renewed"
    assert health.reasons == [
        "4096 slots of 4096 not assigned yet: a node gets them once no other has joined for a moment"
    ]


def test_slots_without_a_primary_say_since_when_and_what_the_coordinator_waits_for() -> None:
    health = judge(state(slot(None)), node(A, 0), node(B, 0), coordinator("4096 slots wait"))
    assert (health.condition, health.since_s) == ("down", 10.0)
    assert health.reasons[0].startswith("4096 slots of 4096 without a primary for 10 s")
    assert health.reasons[1] == "the coordinator says: 4096 slots wait"


def test_slots_of_a_former_life_wait_since_the_node_was_started_again_at_the_latest() -> None:
    again = Replica("a", (NOW - 3 * NS_PER_S) // 1_000)
    where = state(slot(A), members=(again, B))
    health = judge(where, node(again, 0), node(B, 0), coordinator("4096 slots wait for leases"))
    assert (health.condition, health.since_s) == ("down", 3.0)
    assert health.reasons[0].startswith("4096 slots of 4096 without a primary for 3 s")


def test_a_node_with_its_lease_that_waits_for_a_copy_says_how_many_slots_wait() -> None:
    health = judge(WHOLE, node(A, HALF - 48), node(B, HALF), coordinator())
    assert (health.condition, health.slots_served) == ("partial", SLOTS - 48)
    assert health.reasons[0].startswith("a may not serve 48 of its 2048 slots at this moment")


def test_slots_without_a_backup_are_no_outage() -> None:
    health = judge(state(slot(A), slot(B, A)), node(A, HALF), node(B, HALF), coordinator())
    assert (health.condition, health.slots_served) == ("degraded", SLOTS)
    assert health.remarks == ["2048 slots without a backup: a crash of the primary would lose their locks"]


def test_a_cluster_without_members_is_down() -> None:
    health = diagnose(ClusterState(), {}, coordinator(), wall_ns=NOW)
    assert (health.condition, health.reasons) == ("down", ["no node has joined yet"])


def with_store(place: str, failing_ms: int, problem: str) -> ServerStatus:
    return ServerStatus(
        "coordinator", "", 0, VERSION, store=place, store_failing_ms=failing_ms, store_problem=problem
    )


def test_a_store_that_does_not_work_makes_a_cluster_degraded_and_names_place_time_and_reason() -> None:
    status = with_store("etcd (etcd://h/p)", 12_000, "etcd (etcd://h/p) cannot be read: it does not answer")
    health = judge(WHOLE, node(A, HALF), node(B, HALF), ServerAnswer(status))
    assert (health.condition, health.remarks) == (
        "degraded",
        [
            "the coordinator's store has not worked for 12 s: etcd (etcd://h/p) cannot be read: it does not answer"
        ],
    )


def test_a_reason_that_does_not_name_the_store_gets_its_name() -> None:
    status = with_store("SQLite (/data)", 3_000, "the store has not answered for 10 s")
    health = judge(WHOLE, node(A, HALF), node(B, HALF), ServerAnswer(status))
    assert health.remarks == [
        "the coordinator's store SQLite (/data) has not worked for 3 s: the store has not answered for 10 s"
    ]


def test_a_standby_reports_on_the_store_where_the_leader_is_gone() -> None:
    standby = with_store("PostgreSQL (postgresql://h/d)", 500, "connection refused")
    nodes = {NodeId("a"): node(A, HALF), NodeId("b"): node(B, HALF)}
    health = diagnose(WHOLE, nodes, ServerAnswer(None, REFUSED), standby=standby, wall_ns=NOW)
    assert health.remarks == [
        f"the coordinator at c:1 does not answer ({REFUSED}), though the nodes are in touch with it",
        "the coordinator's store PostgreSQL (postgresql://h/d) has not worked for 0.5 s: connection refused",
    ]


# --------------------------------------------------------------------------- journals


def with_journal(answer: ServerAnswer, *, trouble: str = "", trouble_ms: int = -1) -> ServerAnswer:
    assert answer.status is not None
    status = msgspec.structs.replace(
        answer.status, durability="process", journal_trouble=trouble, journal_trouble_ms=trouble_ms
    )
    return ServerAnswer(status)


def test_a_node_that_cannot_write_its_journal_is_named_with_the_reason() -> None:
    a = with_journal(node(A, HALF), trouble="no space left on device", trouble_ms=12_000)
    health = judge(WHOLE, a, with_journal(node(B, HALF)), coordinator())
    assert health.condition == "degraded"
    (remark,) = health.remarks
    assert remark.startswith("a has not been able to write its journal for 12 s (no space left on device): ")


def test_locks_without_a_backup_outlive_a_crash_where_there_is_a_journal() -> None:
    alone = state(slot(A), slot(B))
    health = judge(alone, with_journal(node(A, HALF)), with_journal(node(B, HALF)), coordinator())
    assert health.remarks == [
        "4096 slots without a backup: their locks outlive a crash, in the journal of a, b alone"
    ]
    health = judge(alone, with_journal(node(A, HALF)), node(B, HALF), coordinator())
    assert health.remarks == ["4096 slots without a backup: a crash of the primary would lose their locks"]


def test_a_server_of_another_cluster_is_named() -> None:
    """The state that is shown is that of the cluster that answered first, which may be the wrong one."""
    nodes = {NodeId("a"): node(A, HALF), NodeId("b"): node(B, HALF)}
    health = diagnose(WHOLE, nodes, coordinator(), strangers={"h:9": ClusterId("c9")}, wall_ns=NOW)
    assert health.condition == "degraded"
    assert any("h:9 belongs to another cluster, c9" in each for each in health.remarks)
