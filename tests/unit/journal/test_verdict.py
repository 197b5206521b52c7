"""The identity of files across boots and mounts."""

from __future__ import annotations

import pytest

from lockring.journal.codec import DurablePosition, FileIdentity, SegmentHeader
from lockring.journal.host import Host
from lockring.journal.reading import JournalContent, SegmentContent
from lockring.journal.verdict import Evidence, reason_against

HERE = Host("boot", "machine")
WRITTEN = FileIdentity(device=1, inode=2, edition=3)


def evidence_of(
    *,
    here: FileIdentity = WRITTEN,
    nameplate: FileIdentity | None = WRITTEN,
    altered_ns: int = 0,
    host: Host = HERE,
) -> Evidence:
    """Return what a directory shows beside its segments."""
    return Evidence(
        WRITTEN,
        here,
        DurablePosition(0),
        nameplate=nameplate,
        altered_ns=altered_ns,
        newest_number=1,
        host=host,
    )


def judgement(evidence: Evidence, written: FileIdentity = WRITTEN, found: FileIdentity = WRITTEN) -> str:
    """Return the judgement on a journal whose only segment has an identity and is found with another."""
    header = SegmentHeader(
        number=1,
        first=1,
        follows=0,
        durable=0,
        continues=False,
        salt=1,
        node="n1",
        boot=HERE.boot,
        machine=HERE.machine,
        is_synced=True,
        lock=WRITTEN,
        itself=written,
    )
    segment = SegmentContent("1", header, found, [], last=0, begins=True, answered=0, gap=None, size=0)
    content = JournalContent([], header, 0, 0, gap=None, used=[segment])
    return reason_against(content, evidence, "/data")


def is_vouched_for(written: FileIdentity, found: FileIdentity, *, host: Host = HERE) -> bool:
    """Return whether a journal is vouched for whose only segment has an identity and is found with another."""
    return judgement(evidence_of(host=host), written, found) == ""


@pytest.mark.parametrize(
    ("found", "is_same"),
    [
        (WRITTEN, True),
        (FileIdentity(1, 9, 3), False),
        (FileIdentity(1, 2, 9), False),
        (FileIdentity(7, 2, 3), True),
    ],
)
def test_a_file_keeps_its_number_and_edition_over_mounts(found: FileIdentity, is_same: bool) -> None:
    assert is_vouched_for(WRITTEN, found) == is_same


def test_without_an_edition_a_file_on_another_device_is_a_copy_within_one_boot() -> None:
    written, found = FileIdentity(1, 2, 0), FileIdentity(7, 2, 0)
    assert is_vouched_for(written, written)
    assert not is_vouched_for(written, found)
    assert is_vouched_for(written, found, host=HERE._replace(boot="next boot"))


def test_a_kernel_that_learns_of_editions_makes_no_copy_of_a_file() -> None:
    assert is_vouched_for(FileIdentity(1, 2, 0), FileIdentity(1, 2, 5))


def test_a_position_file_that_names_another_file_is_a_copy() -> None:
    assert judgement(evidence_of()) == ""
    assert judgement(evidence_of(nameplate=FileIdentity(1, 2, 4))) == (
        "the journal in /data is a copy: its file position is not the one that the node wrote"
    )
    assert "no valid file named position" in judgement(evidence_of(nameplate=None))


def test_a_change_of_the_times_counts_only_where_files_have_no_edition() -> None:
    assert judgement(evidence_of(altered_ns=1 << 60)) == ""
    here = FileIdentity(1, 2, 0)
    assert judgement(evidence_of(here=here, nameplate=here)) == ""
    altered = judgement(evidence_of(here=here, nameplate=here, altered_ns=1 << 60))
    assert altered.startswith("the journal in /data was changed after the node's last write")
