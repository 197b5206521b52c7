"""Remarks of `lockring status` on certificates that end soon."""

from __future__ import annotations

import pytest

from lockring.cli.certificates import about_certificates, certificate_facts
from lockring.cli.health import NO_ANSWER, ServerAnswer, diagnose
from lockring.cluster_state import ClusterState, Replica
from lockring.ids import NodeId
from lockring.protocol import CertificateInfo, ServerStatus

DAY_S = 86_400
NOW_S = 1_800_000_000


def status(*certificates: CertificateInfo) -> ServerStatus:
    return ServerStatus("node", NodeId("N1"), 1, 1, certificates=list(certificates))


def test_a_certificate_is_remarked_on_from_fourteen_days_before_its_end() -> None:
    def remarks(days: int) -> list[str]:
        return about_certificates(
            {"N1": status(CertificateInfo("clients", "a.pem", NOW_S + days * DAY_S))}, NOW_S
        )

    assert remarks(15) == []
    assert len(remarks(13)) == 1
    assert remarks(-2) == [
        "the certificate a.pem of N1 for clients ended 2 d ago: replace it, and it is in use within a second"
    ]


def test_servers_with_the_same_file_share_a_line() -> None:
    shared = CertificateInfo("servers", "node.pem", NOW_S + 3 * DAY_S)
    assert about_certificates({"N2": status(shared), "N1": status(shared)}, NOW_S) == [
        "the certificate node.pem of N1, N2 for other servers ends in 3 d: replace it, and it is in use within a second"
    ]


def test_a_peer_speaks_for_a_server_that_does_not_answer_and_for_no_other() -> None:
    own = CertificateInfo("servers", "n2.pem", NOW_S + DAY_S)
    seen = [CertificateInfo("peer", "N2", NOW_S + DAY_S), CertificateInfo("peer", "N3", NOW_S + 2 * DAY_S)]
    found = about_certificates({"N1": status(*seen), "N2": status(own)}, NOW_S)
    assert found == [
        "the certificate that N3 has shown N1 ends in 2 d: replace it there, unless that was done since",
        "the certificate n2.pem of N2 for other servers ends in 1 d: replace it, and it is in use within a second",
    ]


def test_certificates_that_end_in_the_same_second_are_told_apart_by_their_fingerprints() -> None:
    ends_s = NOW_S + DAY_S
    own = CertificateInfo("servers", "n2.pem", ends_s, "aa")
    seen = [CertificateInfo("peer", "N2", ends_s + 1, "aa"), CertificateInfo("peer", "N3", ends_s, "bb")]
    found = about_certificates({"N1": status(*seen), "N2": status(own)}, NOW_S)
    assert [each.partition(" of ")[0].partition(" has ")[0] for each in found] == [
        "the certificate that N3", "the certificate n2.pem",
    ]  # fmt: skip


@pytest.mark.parametrize(("mine", "theirs"), [("aa", ""), ("", "aa"), ("", "")])
def test_one_of_an_earlier_version_without_a_fingerprint_is_known_by_its_end(mine: str, theirs: str) -> None:
    own = CertificateInfo("servers", "n2.pem", NOW_S + DAY_S, mine)
    seen = CertificateInfo("peer", "N2", NOW_S + DAY_S, theirs)
    (found,) = about_certificates({"N1": status(seen), "N2": status(own)}, NOW_S)
    assert "n2.pem" in found


def test_a_certificate_that_ends_soon_degrades_a_cluster_that_serves() -> None:
    ending = status(CertificateInfo("clients", "a.pem", NOW_S + DAY_S))
    life = Replica(NodeId("N1"), 1)
    state = ClusterState(cluster="c", version=1)
    answers = {life.node: ServerAnswer(ending)}
    health = diagnose(state, answers, NO_ANSWER, wall_ns=NOW_S * 10**9)
    assert any("a.pem of N1" in each for each in health.remarks)
    other = diagnose(state, answers, ServerAnswer(ending), wall_ns=NOW_S * 10**9)
    assert any("of N1, the coordinator for clients" in each for each in other.remarks)


def test_facts_have_the_end_in_both_forms() -> None:
    found = status(CertificateInfo("clients", "a.pem", NOW_S + 60), CertificateInfo("peer", "N2", NOW_S))
    assert certificate_facts(found, NOW_S) == [
        {"shown_to": "clients", "file": "a.pem", "ends_at": "2027-01-15T08:01:00+00:00", "ends_in_s": 60}
    ]
    assert certificate_facts(None, NOW_S) == []
