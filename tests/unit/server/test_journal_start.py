"""The log lines about a journal when a life begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lockring.ids import NodeId
from lockring.journal.files import DirectoryFiles
from lockring.journal.journal import Journal
from lockring.journal.reading import segment_name
from lockring.server.journal_start import JOURNAL_PART, ROOM_BYTES_MIN, open_journal
from lockring.server.settings import NodeSettings
from tests.unit.journal.batches import batch


def settings_of(directory: Path) -> NodeSettings:
    return NodeSettings(id="n1", coordinators=("127.0.0.1:9",), data_dir=str(directory))


def leave_a_torn_write(directory: Path) -> int:
    """Leave the journal of a life that crashed, with three bytes of a further record; return where these are."""
    journal = Journal(DirectoryFiles(directory / JOURNAL_PART), node=NodeId("n1"), durability="process")
    journal.append(batch(1))
    journal.mark()
    journal.close(in_order=False)
    with (directory / JOURNAL_PART / segment_name(1)).open("ab") as file:
        end = file.tell()
        file.write(b"\x01\x02\x03")
    return end


def test_bytes_that_are_dropped_as_a_torn_write_are_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    end = leave_a_torn_write(tmp_path)
    for life in range(2):
        caplog.clear()
        journal = open_journal(settings_of(tmp_path))
        assert journal is not None
        assert journal.reason == ""
        journal.append(batch(1))
        journal.close(in_order=False)
        warned = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
        words = (
            f"3 bytes behind batch 1 ({segment_name(1)}, from byte {end} on) in {tmp_path / JOURNAL_PART} were dropped,"
            " as a write that was cut off before it was answered for; if the files were damaged or shortened afterwards,"
            " locks that were granted in the last moments of the former life may be missing"
        )
        assert warned == ([words] if life == 0 else [])


@pytest.mark.parametrize(("room", "is_warned"), [(ROOM_BYTES_MIN - 1, True), (ROOM_BYTES_MIN, False)])
def test_a_volume_with_little_room_is_warned_of(
    room: int,
    is_warned: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DirectoryFiles, "room", lambda self: room)
    journal = open_journal(settings_of(tmp_path))
    assert journal is not None
    journal.close()
    warned = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    words = (
        f"the volume of {tmp_path / JOURNAL_PART} has 47 MiB left, and a journal may need 48 MiB beside what it holds:"
        " it is compacted more often there. New locks wait while the volume is full"
    )
    assert warned == ([words] if is_warned else [])


def test_the_room_of_a_directory_is_that_of_its_volume(tmp_path: Path) -> None:
    files = DirectoryFiles(tmp_path)
    free = shutil.disk_usage(tmp_path).free
    assert abs(files.room() - free) < max(free // 10, 100 * 1024 * 1024)
    files.unlock()
    assert files.room() > free, "unknown"
