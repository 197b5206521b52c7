"""A directory of a journal on real files, the lives that use it, and the machines on which they run."""

from __future__ import annotations

from pathlib import Path

from lockring.journal.files import DirectoryFiles
from lockring.journal.host import Host
from lockring.journal.journal import Durability, Journal
from lockring.journal.reading import read_segments, segment_name
from tests.unit.journal.batches import NODE, batch

HERE = Host("boot-1", "m" * 32)
REBOOTED = HERE._replace(boot="boot-2")
ELSEWHERE = Host("boot-9", "x" * 32)
IN_A_CONTAINER = Host("boot-3", "")


class Place:
    """A directory, and the lives that have used it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lives: list[Journal] = []

    def start(self, *, durability: Durability = "process", host: Host = HERE, node: str = NODE) -> Journal:
        self.lives.append(
            Journal(DirectoryFiles(self.directory), node=node, durability=durability, host=host)
        )
        return self.lives[-1]

    def crash(self) -> None:
        """The process dies after its answers have left."""
        self.lives[-1].mark()
        self.lives[-1].close(in_order=False)

    def path(self, number: int) -> Path:
        return self.directory / segment_name(number)

    def end(self, number: int) -> int:
        """Return where the records of a segment end."""
        found = read_segments(DirectoryFiles(self.directory), NODE)
        return next(content.size for content in found.used if content.name == segment_name(number))

    def segments(self) -> list[str]:
        return sorted(path.name for path in self.directory.glob("*.log"))


def sync(journal: Journal) -> None:
    point = journal.sync_point()
    assert point is not None
    journal.perform(point)
    assert journal.complete(point)


def rewrite(journal: Journal, number: int, *names: int) -> None:
    """Write everything again in one batch."""
    journal.begin_rewrite()
    journal.append(batch(number, *names, ends_rewrite=True))
