"""A worker whose storage cannot be reached for a while: it leaves it alone, and says so once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.words import FolderState, Reason
from lockring.apps.cleaner.local import LocalStorage
from lockring.apps.cleaner.ownership import SoleOwnership
from lockring.apps.cleaner.storage import Storage
from lockring.apps.cleaner.worker import Worker, WorkerPlan
from lockring.errors import LockringError, Unavailable
from tests.processes import eventually

FOLDERS = 200


class Cut(LocalStorage):
    """A storage whose folders can be listed, and then no more be looked at."""

    is_cut = False
    attempts = 0

    def look(self, folder: str, *, entries_max: int) -> FolderState | Reason:
        if self.is_cut:
            self.attempts += 1
            raise Unavailable(f"{self.name} cannot be reached")
        return super().look(folder, entries_max=entries_max)


class Heard:
    def __init__(self) -> None:
        self.troubles: list[LockringError] = []

    def deleted(self, storage: Storage, folder: str, fence: int, worker: str) -> None:
        raise AssertionError(f"{folder} was removed")

    def trouble(self, storage: Storage, error: LockringError) -> None:
        self.troubles.append(error)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(FOLDERS):
        (tmp_path / "top" / f"folder-{number}").mkdir(parents=True)
    return tmp_path


def test_due_folders_share_one_attempt_while_the_cluster_is_unreachable(root: Path) -> None:
    storage = Cut(str(root))
    storage.open()
    heard = Heard()
    plan = WorkerPlan(delay_ns=500_000_000, scan_interval_ns=10**12, queue_max=1000, once=False)
    worker = Worker(storage, SoleOwnership("w"), Policy(), plan, heard)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        eventually(lambda: worker.core.waiting >= FOLDERS)
        storage.is_cut = True
        eventually(lambda: heard.troubles)
        time.sleep(1)  # so long nothing more happens
        assert storage.attempts == 1
        assert len(heard.troubles) == 1
    finally:
        worker.stop()
        thread.join()
        storage.close()
