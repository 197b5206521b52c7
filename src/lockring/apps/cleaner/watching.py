"""Events of a local file system, by inotify.

inotify reports changes made by this machine, not by others on a shared file system, and its table of watches is
limited. So events only make the cleaner quicker; scans go on. If the table is full, `Overloaded` is raised or, if
that happens later, `on_trouble` is called; the caller then relies on scans.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import Any

from lockring.apps.cleaner.core.words import ROOT, Change, FolderEvent
from lockring.clock import monotonic_ns
from lockring.errors import ExtraMissing, LockringError, Overloaded
from lockring.native import from_native, to_native

# Without this, watchdog's remarks at its end reach standard error, between our own lines.
logging.getLogger("watchdog").addHandler(logging.NullHandler())


class InotifySource:
    """See the module.

    Args:
        path: the root, absolute and without links.
        on_event: called with each change, from a thread of the source; must be quick.
        on_lost: called from that thread when events were lost.
        on_trouble: called from that thread, once, when new folders can no longer be watched.
    """

    def __init__(
        self,
        path: str,
        *,
        on_event: Callable[[FolderEvent], None],
        on_lost: Callable[[], None],
        on_trouble: Callable[[LockringError], None],
    ) -> None:
        self._path = path
        self._on_event = on_event
        self._on_lost = on_lost
        self._on_trouble = on_trouble
        self._observer: Any = None
        self._inotify: Any = None
        self._full: OSError | None = None
        self._is_started = False

    def start(self) -> None:
        """Start to report events: all changes after the return.

        Raises:
            ConfigError: watchdog is not installed.
            Overloaded: the table of watches, or of inotify instances, is full.
            LockringError: inotify refuses for another reason.
        """
        try:
            from watchdog.observers.api import BaseObserver
            from watchdog.observers.inotify import InotifyEmitter
            from watchdog.observers.inotify_c import InotifyFD
        except ImportError as error:
            raise ExtraMissing(
                f"events need watchdog ({error}): install lockring[cleaner], or use --no-events"
            ) from None
        source = self

        class WatchTable(InotifyFD):  # type: ignore[misc, unused-ignore]
            """The table of watches, which reports when it is full and when it has lost events."""

            def add_callback(self, path: bytes, *rest: Any, **more: Any) -> Any:
                try:
                    return super().add_callback(path, *rest, **more)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.ENOMEM):
                        source._table_full(error)
                    raise

            def handle_event(self, event: Any) -> None:
                if event.is_queue_overflow:
                    source._on_lost()
                super().handle_event(event)

        try:
            self._inotify = WatchTable()
            self._inotify.start()
            self._observer = BaseObserver(InotifyEmitter, inotify_fd=self._inotify)
            self._observer.schedule(
                _handler(self._told), to_native(self._path), recursive=True, event_filter=_wanted_events()
            )
            self._observer.start()
        except OSError as error:
            self.stop()
            raise _refused(error) from error
        if self._full is not None:
            self.stop()
            raise _refused(self._full) from self._full
        self._is_started = True

    def stop(self) -> None:
        """Stop; harmless if not started."""
        observer, self._observer = self._observer, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join()
        inotify, self._inotify = self._inotify, None
        if inotify is not None:
            inotify.stop()
            inotify.join()

    def _table_full(self, error: OSError) -> None:
        is_first = self._full is None
        self._full = error
        if is_first and self._is_started:
            self._on_trouble(_refused(error))

    def _told(self, kind: str, path: str, target: str) -> None:
        now_ns = monotonic_ns()
        if path == self._path:
            self._on_lost()  # the root itself: let a scan find what has taken its place
            return
        if kind in ("deleted", "moved"):
            self._tell(Change.REMOVED, path, now_ns)
        if kind in ("created", "moved"):
            self._tell(Change.CREATED, target or path, now_ns)

    def _tell(self, change: Change, path: str, now_ns: int) -> None:
        folder = os.path.dirname(path)
        if folder == self._path:
            self._on_event(FolderEvent(change, ROOT, now_ns))
        elif folder.startswith(self._path.rstrip("/") + "/"):
            self._on_event(FolderEvent(change, folder[len(self._path.rstrip("/")) + 1 :], now_ns))


def _refused(error: OSError) -> LockringError:
    what = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        return Overloaded(
            f"the inotify table is full ({what}); allow more watches with sysctl fs.inotify.max_user_watches"
        )
    if error.errno == errno.EMFILE:
        return Overloaded(
            f"no inotify instance is left ({what}); allow more with sysctl fs.inotify.max_user_instances"
        )
    return LockringError(f"inotify refuses: {what}")


def _wanted_events() -> list[Any]:
    from watchdog import events

    return [
        events.FileCreatedEvent,
        events.DirCreatedEvent,
        events.FileDeletedEvent,
        events.DirDeletedEvent,
        events.FileMovedEvent,
        events.DirMovedEvent,
    ]


def _handler(told: Callable[[str, str, str], None]) -> Any:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler

    class Handler(FileSystemEventHandler):
        """Passes on all events."""

        def dispatch(self, event: FileSystemEvent) -> None:
            if not event.is_synthetic:
                source, target = (
                    from_native(os.fsdecode(each)) for each in (event.src_path, event.dest_path)
                )
                told(event.event_type, source, target)

    return Handler()
