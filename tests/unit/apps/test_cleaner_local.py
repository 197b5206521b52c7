"""The local file system: scans, looks and removals that stay within the root, and real events."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.apps.cleaner import worker as worker_module
from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.tally import Tally
from lockring.apps.cleaner.core.words import Change, FolderEvent, FolderState, Reason
from lockring.apps.cleaner.group_ownership import GroupOwnership
from lockring.apps.cleaner.local import LocalStorage
from lockring.apps.cleaner.ownership import KEY_BYTES_MAX, Ownership, SoleOwnership, owner_key
from lockring.apps.cleaner.preview import preview
from lockring.apps.cleaner.storage import FoundFolder, Storage
from lockring.apps.cleaner.watching import InotifySource
from lockring.apps.cleaner.worker import Worker, WorkerPlan
from lockring.errors import (
    Denied,
    InvalidRequest,
    LockLost,
    LockringError,
    NotHeld,
    Overloaded,
    RootMissing,
    Unavailable,
)
from tests.processes import eventually

MS = 1_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def storage(root: Path) -> Iterator[LocalStorage]:
    found = LocalStorage(str(root))
    found.open()
    yield found
    found.close()


def scan(storage: LocalStorage, policy: Policy | None = None) -> dict[str, int | Reason]:
    return {
        each.folder: each.look.entries if isinstance(each.look, FolderState) else each.look
        for each in storage.scan(policy or Policy())
    }


# ------------------------------------------------------------------------ looking


def test_a_scan_finds_every_folder_after_what_is_in_it(root: Path, storage: LocalStorage) -> None:
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/d").mkdir()
    (root / "a/d/file").touch()
    found = scan(storage)
    assert found == {"a": 2, "a/b": 1, "a/b/c": 0, "a/d": 1}
    order = list(found)
    assert order.index("a/b/c") < order.index("a/b") < order.index("a")


def test_a_scan_and_a_look_agree_and_a_change_changes_the_stamp(root: Path, storage: LocalStorage) -> None:
    (root / "a/b").mkdir(parents=True)
    before = {each.folder: each.look for each in storage.scan(Policy())}["a/b"]
    assert storage.look("a/b", entries_max=1) == before
    eventually(lambda: _touched(root / "a/b") != before.stamp)  # type: ignore[union-attr]
    assert storage.look("a/b", entries_max=1) != before


def _touched(folder: Path) -> int:
    (folder / "file").touch()
    (folder / "file").unlink()
    return folder.stat().st_ctime_ns


def test_a_look_counts_to_its_bound(root: Path, storage: LocalStorage) -> None:
    (root / "a").mkdir()
    for number in range(5):
        (root / "a" / str(number)).touch()
    assert storage.look("a", entries_max=3) == FolderState(3, (root / "a").stat().st_ctime_ns)
    assert storage.look("nothing/here", entries_max=3) is Reason.GONE


def test_a_folder_of_great_depth_is_scanned_and_removed(root: Path, storage: LocalStorage) -> None:
    folder = "/".join(["d"] * 300)
    (root / folder).mkdir(parents=True)
    assert scan(storage)[folder] == 0
    assert storage.remove(folder) is None
    assert len(os.listdir("/proc/self/fd")) < 100


def test_a_scan_that_is_given_up_leaves_no_folder_open(root: Path, storage: LocalStorage) -> None:
    for number in range(20):
        (root / f"a/{number}/x/y").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    scanning = storage.scan(Policy())
    next(scanning)
    scanning.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before


# ------------------------------------------------------------------------ removing


def test_only_an_empty_folder_is_removed(root: Path, storage: LocalStorage) -> None:
    (root / "a/b").mkdir(parents=True)
    assert storage.remove("a") is Reason.NOT_EMPTY
    assert storage.remove("a/b") is None
    assert storage.remove("a/b") is Reason.GONE
    (root / "a/file").touch()
    assert storage.remove("a/file") is Reason.NOT_A_FOLDER


def test_nothing_outside_of_the_root_is_touched_through_a_link(
    root: Path, storage: LocalStorage, tmp_path: Path
) -> None:
    (tmp_path / "outside/empty").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "outside")
    assert scan(storage) == {}
    assert storage.remove("link/empty") is Reason.NOT_A_FOLDER
    assert storage.remove("link") is Reason.NOT_A_FOLDER
    assert isinstance(storage.look("link/empty", entries_max=1), Reason)
    assert (tmp_path / "outside/empty").is_dir()


def test_a_folder_on_another_file_system_is_left_alone(root: Path, storage: LocalStorage) -> None:
    (root / "a/b").mkdir(parents=True)
    storage._device += 1  # as if all below were on another one
    assert scan(storage) == {"a": Reason.FOREIGN}
    assert storage.remove("a/b") is Reason.FOREIGN
    assert storage.look("a/b", entries_max=1) is Reason.FOREIGN


def test_a_root_that_is_missing_or_not_a_folder_is_reported(root: Path) -> None:
    with pytest.raises(RootMissing, match="there is no folder"):
        LocalStorage(str(root / "none")).open()
    (root / "file").touch()
    with pytest.raises(RootMissing, match="not a folder"):
        LocalStorage(str(root / "file")).open()


def test_a_root_without_a_name_is_not_the_current_folder() -> None:
    with pytest.raises(InvalidRequest, match="must not be empty"):
        LocalStorage("")


def test_a_root_that_was_removed_and_made_again_is_the_root(root: Path, storage: LocalStorage) -> None:
    replaced: list[int] = []
    storage.on_replaced = lambda: replaced.append(1)
    (root / "former").mkdir()
    assert scan(storage) == {"former": 0}
    former = root.rename(root.with_name("away"))
    with pytest.raises(RootMissing):
        scan(storage)
    assert storage.remove("former") is None, "until there is another one, the former folder is still at hand"
    (root / "a/b").mkdir(parents=True)
    (former / "former").mkdir()
    assert scan(storage) == {"a/b": 0, "a": 1}
    assert storage.look("a/b", entries_max=1) != Reason.GONE
    assert storage.remove("a/b") is None
    assert (replaced, list(former.iterdir())) == ([1], [former / "former"])


def test_names_that_are_not_text_are_cleaned_too(root: Path, storage: LocalStorage) -> None:
    os.makedirs(os.fsencode(root) + b"/a/\xff\xfe")
    (folder,) = (each for each in scan(storage) if each != "a")
    assert owner_key(folder).startswith("blake2b:")
    assert storage.remove(folder) is None


def test_a_key_is_the_path_as_short_text() -> None:
    assert owner_key("a/b") == "a/b"
    assert owner_key("a/b" * 1000) != owner_key("a/c" * 1000)
    assert len(owner_key("a/b" * 1000)) < KEY_BYTES_MAX
    assert owner_key("a\n").startswith("blake2b:")


# ---------------------------------------------------------------------------- preview


trees = st.recursive(
    st.booleans(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=12
)


@given(tree=st.dictionaries(st.sampled_from("abc"), trees, max_size=3))
def test_a_run_removes_the_folders_that_a_preview_names(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    build(root, tree)
    storage = LocalStorage(str(root))
    storage.open()
    tally = Tally()
    named = list(preview(storage, Policy(), tally))
    worker, heard = a_worker(storage, once=True)
    worker.run()
    storage.close()
    assert sorted(named) == sorted(heard.folders)
    assert tally.seen == tally.deleted + sum(tally.kept.values())
    ran = worker.core.tally
    assert (ran.seen, ran.deleted, ran.kept) == (tally.seen, tally.deleted, tally.kept)


def build(folder: Path, tree: dict[str, object]) -> None:
    for name, inner in tree.items():
        if isinstance(inner, dict):
            (folder / name).mkdir()
            build(folder / name, inner)
        elif inner:
            (folder / name).touch()
        else:
            (folder / name).mkdir()


# ----------------------------------------------------------------------------- events


class Told:
    """The reports of a source of events."""

    def __init__(self) -> None:
        self.events: list[FolderEvent] = []
        self.lost = 0
        self.troubles: list[LockringError] = []

    def source(self, path: Path) -> InotifySource:
        return InotifySource(
            str(path),
            on_event=self.events.append,
            on_lost=self._on_lost,
            on_trouble=self.troubles.append,
        )

    def _on_lost(self) -> None:
        self.lost += 1

    def has(self, change: Change, folder: str) -> Callable[[], bool]:
        return lambda: any((each.change, each.folder) == (change, folder) for each in list(self.events))


@pytest.fixture
def told(root: Path) -> Iterator[Told]:
    (root / "a/b").mkdir(parents=True)
    found = Told()
    source = found.source(root)
    source.start()
    yield found
    source.stop()


def test_creations_removals_and_moves_are_reported_for_their_folder(root: Path, told: Told) -> None:
    (root / "a/b/file").touch()
    eventually(told.has(Change.CREATED, "a/b"))
    (root / "a/b/file").rename(root / "a/file")
    eventually(told.has(Change.REMOVED, "a/b"))
    eventually(told.has(Change.CREATED, "a"))
    (root / "a/file").unlink()
    eventually(told.has(Change.REMOVED, "a"))
    (root / "top").mkdir()
    eventually(told.has(Change.CREATED, ""))


def test_folders_that_appear_later_are_watched_too(root: Path, told: Told) -> None:
    (root / "a/new").mkdir()
    eventually(told.has(Change.CREATED, "a"))

    def seen() -> bool:
        (root / "a/new/file").touch()
        (root / "a/new/file").unlink()
        return told.has(Change.REMOVED, "a/new")()

    eventually(seen)


def test_a_full_table_of_watches_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from watchdog.observers import inotify_c

    for number in range(4):
        (root / str(number)).mkdir()
    real = inotify_c.InotifyFD.add_callback

    def add(self: Any, path: bytes, *rest: Any, **more: Any) -> Any:
        if path.endswith(b"/3"):
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        return real(self, path, *rest, **more)

    monkeypatch.setattr(inotify_c.InotifyFD, "add_callback", add)
    source = Told().source(root)
    with pytest.raises(Overloaded, match="max_user_watches"):
        source.start()
    source.stop()


# ----------------------------------------------------------------------------- worker


class Heard:
    """Hears what a worker does."""

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.troubles: list[LockringError] = []

    def deleted(self, storage: Storage, folder: str, fence: int, worker: str) -> None:
        self.folders.append(folder)

    def trouble(self, storage: Storage, error: LockringError) -> None:
        self.troubles.append(error)


def a_worker(
    storage: LocalStorage,
    *,
    ownership: Ownership | None = None,
    delay_ns: int = 0,
    once: bool = False,
    queue_max: int = 1000,
    interval_ns: int = 3600_000 * MS,
) -> tuple[Worker, Heard]:
    heard = Heard()
    plan = WorkerPlan(delay_ns=delay_ns, scan_interval_ns=interval_ns, queue_max=queue_max, once=once)
    return Worker(storage, ownership or SoleOwnership("w"), Policy(), plan, heard), heard


class Running:
    """A worker on a thread of its own, with its events."""

    def __init__(self, worker: Worker, root: Path, *, events: bool = False) -> None:
        self._worker = worker
        self._source = InotifySource(
            str(root), on_event=worker.told, on_lost=worker.events_lost, on_trouble=lambda error: None
        )
        self._events = events
        self._thread = threading.Thread(target=worker.run)

    def __enter__(self) -> Running:
        if self._events:
            self._source.start()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._source.stop()
        self._worker.stop()
        self._thread.join()


def test_an_event_removes_an_empty_folder_long_before_the_next_scan(
    root: Path, storage: LocalStorage
) -> None:
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/c/file").touch()
    worker, heard = a_worker(storage, delay_ns=20 * MS)
    with Running(worker, root, events=True):
        eventually(lambda: worker.core.tally.scans)
        (root / "a/b/c/file").unlink()
        eventually(lambda: not (root / "a/b").exists())
    assert heard.folders == ["a/b/c", "a/b"], "the parent follows at once"
    assert worker.core.tally.scans == 1


def test_without_events_a_scan_finds_empty_folders(root: Path, storage: LocalStorage) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").touch()
    worker, _heard = a_worker(storage, delay_ns=20 * MS, interval_ns=10 * MS)
    with Running(worker, root):
        eventually(lambda: worker.core.tally.scans)
        (root / "a/b/file").unlink()
        eventually(lambda: not (root / "a/b").exists())


def test_a_scan_makes_up_for_lost_events(root: Path, storage: LocalStorage) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").touch()
    worker, _heard = a_worker(storage)
    with Running(worker, root):
        eventually(lambda: worker.core.tally.scans)
        (root / "a/b/file").unlink()
        worker.events_lost()
        eventually(lambda: not (root / "a/b").exists())
    assert worker.core.tally.lost == 1


def test_folders_that_do_not_fit_into_the_queue_are_found_again(root: Path, storage: LocalStorage) -> None:
    for number in range(50):
        (root / f"a/{number}").mkdir(parents=True)
    worker, heard = a_worker(storage, once=True, queue_max=3, delay_ns=1 * MS)
    worker.run()
    assert len(heard.folders) == 50
    assert worker.core.dropped > 0


def test_a_worker_outlives_a_root_that_is_unreadable_for_a_while(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a/b").mkdir(parents=True)
    monkeypatch.setattr(worker_module, "_RETRY_NS", 10 * MS)
    worker, heard = a_worker(storage)
    errors: list[LockringError] = [Denied("expired"), RootMissing("not mounted"), Unavailable("cut off")]
    real = storage.scan

    def scan(policy: Policy) -> Iterator[FoundFolder]:
        if errors:
            raise errors.pop(0)
        return real(policy)

    monkeypatch.setattr(storage, "scan", scan)
    with Running(worker, root):
        eventually(lambda: not (root / "a/b").exists())
    assert [type(each) for each in heard.troubles] == [Denied, RootMissing, Unavailable]
    errors.append(Denied("expired"))
    once, _ = a_worker(storage, once=True)
    with pytest.raises(Denied):
        once.run()


class Shared:
    """An ownership that a test decides on."""

    def __init__(self) -> None:
        self.worker = "w"
        self.owned: set[str] = set()
        self.number = 1
        self.changed: list[Callable[[], None]] = []

    def fence(self, folder: str) -> int | None:
        return self.number if folder in self.owned else None

    def on_change(self, callback: Callable[[], None]) -> None:
        self.changed.append(callback)


def test_only_the_owner_removes_folders_and_a_scan_finds_gained_ones(
    root: Path, storage: LocalStorage
) -> None:
    for name in ("mine", "theirs"):
        (root / "a" / name).mkdir(parents=True)
    ownership = Shared()
    ownership.owned = {"a/mine"}
    worker, heard = a_worker(storage, ownership=ownership)
    with Running(worker, root):
        eventually(lambda: not (root / "a/mine").exists())
        eventually(lambda: worker.core.tally.scans)
        assert (root / "a/theirs").exists()
        ownership.owned.add("a/theirs")
        ownership.changed[0]()
        eventually(lambda: not (root / "a/theirs").exists())
    assert heard.folders == ["a/mine", "a/theirs"]


def test_a_folder_that_is_lost_while_it_is_looked_at_is_not_removed(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a/b").mkdir(parents=True)
    ownership = Shared()
    ownership.owned = {"a/b"}
    worker, heard = a_worker(storage, ownership=ownership, once=True)
    real = storage.look

    def look(folder: str, *, entries_max: int) -> FolderState | Reason:
        ownership.owned.discard(folder)
        return real(folder, entries_max=entries_max)

    monkeypatch.setattr(storage, "look", look)
    worker.run()
    assert heard.folders == []
    assert worker.core.tally.kept["another worker's"] == 1


def test_a_new_owner_waits_for_the_removal_that_is_under_way(
    root: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a/b").mkdir(parents=True)
    worker, heard = a_worker(storage, once=True)
    real = storage.remove
    taken = threading.Event()

    def take() -> None:
        worker.membership_changed()
        taken.set()

    def remove(folder: str) -> Reason | None:
        taker = threading.Thread(target=take)
        taker.start()
        taker.join(0.05)
        assert not taken.is_set(), "the removal is not over yet"
        return real(folder)

    monkeypatch.setattr(storage, "remove", remove)
    worker.run()
    assert heard.folders == ["a/b"]
    assert taken.wait(10)


# ------------------------------------------------------------------- ownership in a group


class AMember:
    """A membership that a test ends."""

    def __init__(self) -> None:
        self.version = 7
        self.loss: LockLost | None = None
        self.callbacks: list[Callable[[Any, Any], Any]] = []

    def fence(self, key: str) -> int:
        if self.loss is not None:
            raise self.loss
        if key.startswith("theirs"):
            raise NotHeld("theirs")
        return self.version

    def on_change(self, callback: Callable[[Any, Any], Any]) -> None:
        self.callbacks.append(callback)

    def check(self) -> None:
        if self.loss is not None:
            raise self.loss

    def leave(self) -> None:
        self.loss = LockLost("left")


def test_a_membership_that_was_lost_owns_nothing_until_it_is_taken_up_again() -> None:
    members: list[AMember] = []

    def join() -> AMember:
        members.append(AMember())
        return members[-1]

    ownership = GroupOwnership(join, "w")
    changes: list[int] = []
    ownership.on_change(lambda: changes.append(1))
    assert ownership.fence("a/b") == 7
    assert ownership.fence("theirs/b") is None
    assert not ownership.rejoin()
    members[0].loss = LockLost("cut off", reason="local-deadline")
    assert ownership.fence("a/b") is None
    assert ownership.rejoin()
    assert ownership.fence("a/b") == 7
    assert changes
    members[1].loss = LockLost("taken", reason="replaced")
    with pytest.raises(LockLost, match=r"another worker named 'w' .*--worker"):
        ownership.rejoin()


def test_a_worker_owns_nothing_before_new_owners_would_wait_for_its_removals() -> None:
    owned: list[int | None] = []

    class Asking(AMember):
        def on_change(self, callback: Callable[[Any, Any], Any]) -> None:
            owned.append(ownership.fence("a/b"))
            super().on_change(callback)

    members: list[AMember] = [AMember(), Asking()]
    ownership = GroupOwnership(lambda: members.pop(0), "w")
    first = ownership._member
    assert isinstance(first, AMember)
    first.loss = LockLost("cut off", reason="local-deadline")
    assert ownership.rejoin()
    assert owned == [None]
    assert ownership.fence("a/b") == 7
