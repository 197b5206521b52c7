"""`lockring clean-folders`: remove folders that became empty."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final

import click

from lockring import exits
from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.tally import Tally
from lockring.apps.cleaner.group_ownership import GroupOwnership
from lockring.apps.cleaner.local import LocalStorage
from lockring.apps.cleaner.ownership import Ownership, SoleOwnership
from lockring.apps.cleaner.preview import preview
from lockring.apps.cleaner.s3 import SCHEME, S3Storage
from lockring.apps.cleaner.storage import Storage
from lockring.apps.cleaner.watching import InotifySource
from lockring.apps.cleaner.worker import Worker, WorkerPlan, run_all
from lockring.cli.clean.report import CleanProgress, CleanReporter, facts_of, print_report
from lockring.cli.clean.settings import CleanSettings
from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import client_options, client_settings, connect
from lockring.cli.sections import read_settings
from lockring.cli.signal_end import SignalEnd
from lockring.clock import monotonic_ns
from lockring.errors import ConfigError, ExtraMissing, InvalidRequest, LockLost, LockringError
from lockring.names import LOCK_NAME_BYTES_MAX
from lockring.native import from_native, to_native
from lockring.terminals import shown
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_S, seconds_to_ns

_TICK_S: Final = 0.2
_REJOIN_NS_MIN: Final = NS_PER_S // 4
_REJOIN_NS_MAX: Final = 10 * NS_PER_S
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("clean-folders")
@click.argument("roots", nargs=-1, metavar="ROOT…")
@client_options(CleanSettings)
@click.pass_context
def clean_folders(ctx: click.Context, /, roots: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Remove folders that became empty, in folders of this machine or in buckets (s3://BUCKET/PREFIX).

    A folder goes when it has been empty for --delay. A ROOT itself never goes, nor do its direct children without
    --children. Any number of workers on any machines may clean the same ROOTs: the ring of their group assigns each
    folder to one of them, and only this owner removes it. SIGTERM or Ctrl-C ends the worker, with a report.

    \b
    Exit codes:
      0   done, or ended by a signal without --once
      64  usage   66  no such ROOT   69  bucket or cluster unreachable   77  no permission
      76  another worker has taken this one's name   128 + N  signal N ended --once
    """  # noqa: D301 - the backslash is for click: it keeps lines as they are
    settings = read_settings(CleanSettings, "clean-folders", given)
    if not roots:
        raise click.UsageError("which folders? the command is lockring clean-folders ROOT…", ctx)
    voice = CleanReporter(as_json=as_json, is_verbose=settings.verbose)
    with ExitStack() as stack:
        storages = [_opened(root, settings, stack) for root in roots]
        if settings.dry_run:
            return _show(storages, settings, as_json)
        cluster = client_settings(given)
        ownership = stack.enter_context(_owning(storages, settings, cluster))
        return _clean(storages, ownership, settings, voice, as_json)


def _opened(root: str, settings: CleanSettings, stack: ExitStack) -> Storage:
    storage: Storage
    if not root:
        # The value of an unset variable; the system would take it for the current folder.
        raise InvalidRequest("a root must not be empty: name a folder, or s3://BUCKET/PREFIX")
    if root.startswith(SCHEME):
        storage = S3Storage(root, endpoint_url=settings.endpoint_url)
    elif "://" in root:
        raise InvalidRequest(f"{shown(root)}: only folders and s3:// URLs can be cleaned", name=root)
    else:
        storage = LocalStorage(to_native(root), crosses=settings.cross_filesystems)
    storage.open()
    stack.callback(storage.close)
    return storage


def _policy(settings: CleanSettings) -> Policy:
    more: dict[str, Callable[[str], bool]] = {}
    if settings.keep:
        try:
            import pathspec
        except ImportError as error:
            raise ExtraMissing(f"--keep needs pathspec ({error}): install lockring[cleaner]") from None
        try:
            spec = pathspec.GitIgnoreSpec.from_lines(settings.keep)
        except ValueError as error:
            raise ConfigError(f"--keep: {error}") from None
        more["is_kept"] = lambda folder: bool(spec.match_file(folder + "/"))
    if settings.allow_empty:
        tops = settings.allow_empty
        more["allows_empty"] = lambda top: any(fnmatch.fnmatchcase(top, each) for each in tops)
    return Policy(children=settings.children, markers=settings.delete_markers, **more)


def _show(storages: Sequence[Storage], settings: CleanSettings, as_json: bool) -> int:
    """Print the folders that would be removed."""
    policy = _policy(settings)
    reports = []
    for storage in storages:
        tally = Tally()
        for folder in preview(storage, policy, tally):
            if not as_json:
                print(shown(f"{storage.name.rstrip('/')}/{folder}"))
        reports.append(facts_of(storage, tally, waiting=0, dropped=0, dry_run=True))
    print_report(reports, as_json=as_json)
    return exits.OK


def group_of(storages: Sequence[Storage]) -> str:
    """Return the default name of the group whose workers clean these roots, independent of the roots' order."""
    names = {each.path if isinstance(each, LocalStorage) else each.name.rstrip("/") for each in storages}
    name = "clean-folders:" + ",".join(sorted(names))
    if len(name.encode(errors="surrogateescape")) > LOCK_NAME_BYTES_MAX // 2 or not name.isprintable():
        digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        return f"clean-folders:{digest}"
    return name


@contextmanager
def _owning(
    storages: Sequence[Storage], settings: CleanSettings, cluster: ClientSettings
) -> Iterator[Ownership]:
    worker = settings.worker or f"{from_native(socket.gethostname())}-{os.getpid()}-{secrets.token_hex(4)}"
    if settings.alone:
        yield SoleOwnership(worker)
        return
    with connect(cluster) as client:
        group = client.group(settings.group or group_of(storages))
        ownership = GroupOwnership(
            lambda: group.join(member_id=worker, timeout=cluster.connect_timeout_s), worker
        )
        try:
            yield ownership
        finally:
            ownership.leave()


def _clean(
    storages: Sequence[Storage],
    ownership: Ownership,
    settings: CleanSettings,
    voice: CleanReporter,
    as_json: bool,
) -> int:
    policy = _policy(settings)
    plan = WorkerPlan(
        delay_ns=seconds_to_ns(settings.delay_s),
        scan_interval_ns=seconds_to_ns(settings.scan_interval_s),
        queue_max=settings.queue_max,
        once=settings.once,
    )
    workers = [Worker(each, ownership, policy, plan, voice) for each in storages]
    ended_by: list[int] = []

    rejoining = None
    if isinstance(ownership, GroupOwnership):
        rejoining = _RejoinLoop(ownership, voice, workers[0].storage)

    def tick() -> None:
        progress.update()
        if rejoining is not None:
            rejoining.look()

    def end(number: int, frame: FrameType | None) -> None:
        ended_by.append(number)
        for worker in workers:
            worker.stop()

    with ExitStack() as stack:
        stack.enter_context(_signals(end))
        if settings.events and not settings.once:
            for worker in workers:
                stack.enter_context(_watched(worker, voice))
        progress = stack.enter_context(CleanProgress(workers, is_wanted=not as_json))
        try:
            run_all(workers, tick, tick_s=_TICK_S)
        finally:
            reports = [
                facts_of(
                    each.storage,
                    each.core.tally,
                    waiting=each.core.waiting,
                    dropped=each.core.dropped,
                    dry_run=False,
                )
                for each in workers
            ]
    print_report(reports, as_json=as_json)
    return SignalEnd(ended_by[0]) if ended_by and settings.once else exits.OK


class _RejoinLoop:
    """Checks that the worker is still in its group, and rejoins with growing pauses if it is not."""

    def __init__(self, ownership: GroupOwnership, voice: CleanReporter, storage: Storage) -> None:
        self._ownership = ownership
        self._voice = voice
        self._storage = storage
        self._trouble = RepeatedTrouble()
        self._pause_ns = _REJOIN_NS_MIN
        self._next_at_ns = 0

    def look(self) -> None:
        if monotonic_ns() < self._next_at_ns:
            return
        try:
            has_rejoined = self._ownership.rejoin()
        except LockLost:
            raise
        except LockringError as error:
            now_ns = monotonic_ns()
            if self._trouble.fails(str(error), now_ns=now_ns):
                self._voice.trouble(self._storage, error)
            self._next_at_ns = now_ns + self._pause_ns
            self._pause_ns = min(2 * self._pause_ns, _REJOIN_NS_MAX)
            return
        self._pause_ns = _REJOIN_NS_MIN
        self._trouble.ends(now_ns=monotonic_ns())
        if has_rejoined:
            worker = self._ownership.worker
            self._voice.note("back in the group", {"event": "rejoined", "worker": worker})


@contextmanager
def _watched(worker: Worker, voice: CleanReporter) -> Iterator[None]:
    """Provide a worker with events if possible; otherwise report why, and rely on scans."""
    storage = worker.storage
    if not isinstance(storage, LocalStorage):
        yield
        return

    def fall_back(error: LockringError) -> None:
        text = f"{storage.name}: {error}; changes are found by scans alone"
        voice.note(
            text, {"event": "no-events", "root": storage.name, "error": error.code, "message": str(error)}
        )
        worker.events_lost()

    source = InotifySource(
        storage.path, on_event=worker.told, on_lost=worker.events_lost, on_trouble=fall_back
    )

    def start() -> None:
        source.stop()
        try:
            source.start()
        except LockringError as error:
            fall_back(error)

    def start_again() -> None:
        text = f"{storage.name} is another folder now: it was created or mounted again"
        voice.note(text, {"event": "root-replaced", "root": storage.name})
        worker.events_lost()  # the knowledge about the former folder is void
        start()

    start()
    storage.on_replaced = start_again
    try:
        yield
    finally:
        source.stop()


@contextmanager
def _signals(end: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in _ENDING}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])
