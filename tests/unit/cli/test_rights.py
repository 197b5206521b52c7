"""Remarks of `lockring status` on servers that do not check the same rights."""

from __future__ import annotations

from lockring.cli.health import NO_ANSWER, ServerAnswer, diagnose
from lockring.cli.rights import about_rights, rights_line
from lockring.cluster_state import ClusterState
from lockring.ids import NodeId
from lockring.protocol import ServerStatus


def status(auth: str, acl: str = "") -> ServerStatus:
    return ServerStatus("node", NodeId("N1"), 1, 1, auth=auth, acl=acl)


def test_servers_that_check_the_same_rights_or_none_are_not_remarked_on() -> None:
    assert about_rights({"N1": status("off"), "N2": status("")}) == []
    assert about_rights({"N1": status("enforcing", "a1"), "the coordinator": status("enforcing", "a1")}) == []


def test_a_server_that_checks_no_rights_beside_others_is_named_with_its_reason() -> None:
    remarks = about_rights({"N1": status("enforcing", "a1"), "N3": status("off"), "N2": status("")})
    assert remarks == [
        "rights are not checked by N3, though others check them: start it with --auth and --acl-file too",
        "rights are not checked by N2, of a version that knows no identities: upgrade it to this one",
    ]


def test_a_server_that_only_tries_rights_out_beside_others_is_named() -> None:
    (remark,) = about_rights({"N1": status("enforcing", "a1"), "N2": status("permissive", "a1")})
    assert remark == "rights are only tried out by N2 (--auth permissive), though others enforce them"


def test_different_acl_files_are_named_with_the_servers_that_have_them() -> None:
    statuses = {
        "N3": status("enforcing", "b2"),
        "N1": status("enforcing", "a1"),
        "N2": status("enforcing", "a1"),
    }
    (remark,) = about_rights(statuses)
    assert remark.endswith("rights depend on the server that is asked: a1 at N1, N2; b2 at N3")


def test_a_cluster_whose_servers_differ_is_degraded() -> None:
    state = ClusterState(cluster="c", members={})
    answers = {
        NodeId("N1"): ServerAnswer(status("enforcing", "a1")),
        NodeId("N2"): ServerAnswer(status("off")),
    }
    health = diagnose(state, answers, NO_ANSWER, wall_ns=0)
    assert [each for each in health.remarks if "rights are not checked by N2" in each]


def test_the_rights_have_a_line_where_any_server_checks_them() -> None:
    def found(*servers: tuple[str | None, str | None]) -> dict[str, object]:
        (auth, edition), *members = servers
        return {
            "coordinator_auth": auth,
            "coordinator_acl_edition": edition,
            "members": [{"auth": auth, "acl_edition": edition} for auth, edition in members],
        }

    assert rights_line(found(("off", None), (None, None))) == ""
    line = rights_line(found(("enforcing", "a1"), ("enforcing", "a1"), (None, None)))
    assert line == "rights are enforcing, by the ACL file of edition a1"
