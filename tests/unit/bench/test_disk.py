"""Durability is measured on a disk, and never on a file system in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import disk
from bench.disk import Disk, NoDisk, find_disk

MOUNTS = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:20 / /tmp rw - tmpfs tmpfs rw
24 23 254:1 / /tmp/kept\040files rw,noatime shared:7 - xfs /dev/vdb rw
25 22 254:2 / /var rw - ext4 /dev/vdc rw
26 22 0:21 / /var rw - tmpfs later rw
""".strip()


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/", ("ext4", "/dev/vda")),
        ("/home/me", ("ext4", "/dev/vda")),
        ("/tmp", ("tmpfs", "tmpfs")),
        ("/tmp/x", ("tmpfs", "tmpfs")),
        ("/tmpfiles", ("ext4", "/dev/vda")),
        ("/tmp/kept files/x", ("xfs", "/dev/vdb")),
        ("/var/lib", ("tmpfs", "later")),
    ],
)
def test_a_directory_belongs_to_the_deepest_mount_above_it_and_to_the_last_on_that_point(
    directory: str, expected: tuple[str, str]
) -> None:
    assert disk._mount_of(Path(directory), MOUNTS) == expected


def test_a_directory_in_memory_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, kept = tmp_path / "memory", tmp_path / "kept"
    memory.mkdir()
    kept.mkdir()
    table = tmp_path / "mounts"
    table.write_text(
        f"1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {memory.resolve()} rw - tmpfs tmpfs rw\n"
    )
    monkeypatch.setattr(disk, "_MOUNTS", table)
    found = find_disk([tmp_path / "missing", memory, kept])
    assert found == Disk(kept, "ext4", "/dev/vda")
    assert str(found) == "ext4 on /dev/vda"
    with pytest.raises(NoDisk, match=r"memory is on tmpfs\. Set TMPDIR to a directory on a disk"):
        find_disk([memory])
