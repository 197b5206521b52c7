"""`lockring lock NAME [NAME…] -- COMMAND`: run a command under locks."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click

from lockring import exits
from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import client_options, client_settings, connect, dial_of
from lockring.cli.inherited import caught
from lockring.cli.lock.programs import unusable
from lockring.cli.lock.reporter import StderrReporter
from lockring.cli.lock.separator import COMMAND, LockCommand, about_setting, check_names, hint
from lockring.cli.lock.settings import LockSettings
from lockring.cli.lock.supervisor import CommandOutcome, Supervisor, wait_for_signal_or_loss
from lockring.cli.output import duration, print_json, quoted, token
from lockring.cli.sections import read_settings
from lockring.cli.signal_end import SignalEnd
from lockring.cli.waiting import holders, of_client, telling
from lockring.errors import AcquireTimeout, ConfigError, InvalidRequest, LockLost, LockringError, NotHeld
from lockring.names import check_lock_name
from lockring.terminals import shown

if TYPE_CHECKING:
    from lockring import Client, Grant

_CANCELLING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@click.command(cls=LockCommand, options_metavar="[OPTIONS]")
@click.argument("names", nargs=-1, metavar="NAME… [-- COMMAND ARGS…]")
@client_options(LockSettings)
@click.pass_context
def lock(ctx: click.Context, /, names: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Run a command while holding one or several locks.

    The locks are kept alive while COMMAND runs (no shell: sh -c '…' if you need one) and released when it has ended.
    Processes that it leaves behind in its process group are then ended too (SIGTERM, later SIGKILL), since they
    would go on without the lock; start processes that should live on with setsid.

    If a lock is lost, or cannot be renewed, COMMAND and its whole process group are ended before anyone else can get
    the lock, even if this process itself is stopped or killed in the meantime.

    Without COMMAND, the locks are held until a signal comes, and printed as JSON, one object a line.

    \b
    COMMAND finds in its environment:
      LOCKRING_FENCING_TOKEN  number that grows with each holder; pass it to the resource that the lock protects
      LOCKRING_NAME, LOCKRING_OWNER, LOCKRING_SESSION, LOCKRING_TTL (seconds)
      LOCKRING_MODE           exclusive or shared
      LOCKRING_TOKENS         JSON object of all names and their tokens; the other variables are of the first NAME

    \b
    Exit codes:
      COMMAND's own; 128 + N if signal N ended it (a signal sent to lockring ends lockring too);
      126 or 127 if it could not be started
      75  not acquired in time (-E)        76  a lock was lost (--lost-exit-code)
      64  usage   69  cluster unreachable  77  denied   128 + N  signal N ended the wait
    """  # noqa: D301 - the backslashes are for click, not for Python: backslash b keeps lines as they are
    try:
        settings = read_settings(LockSettings, "lock", given)
    except ConfigError as error:
        raise about_setting(ctx, names, error) from None
    if not names:
        raise click.UsageError("which lock? the command is lockring lock NAME -- COMMAND", ctx)
    for name in names:
        check_lock_name(name)
        if names.count(name) > 1:
            raise InvalidRequest(f"the lock {quoted(name)} is named twice", name=name)
    cluster = client_settings(given)
    say = StderrReporter(as_json, settings.verbose and not settings.quiet, settings.quiet)
    command = ctx.meta.get(COMMAND)
    if command is None:
        if not settings.hold:
            check_names(ctx, names)
            text = hint(names)
            if text:
                say.note(text, {"event": "hint", "message": text}, always=True)
        return _hold(names, settings, cluster, say)
    if settings.hold:
        raise InvalidRequest(
            "--hold is for locks without a command: leave out --hold, or the -- and the command"
        )
    fault = unusable(command[0])
    if fault is not None:
        say.error(InvalidRequest(fault[0]), "command")
        return fault[1]
        # Fork the guardian here, before the client starts its threads.
    with Supervisor(
        command,
        on_lost=settings.on_lost,
        kill_after_s=settings.patience_s,
        ttl_s=settings.ttl_s,
        servers=cluster.addresses,
        dial=dial_of(cluster),
        credential=cluster.credential,
    ) as supervisor:
        return _run(supervisor, command[0], names, settings, cluster=cluster, say=say)


def _run(
    supervisor: Supervisor,
    command: str,
    names: Sequence[str],
    settings: LockSettings,
    *,
    cluster: ClientSettings,
    say: StderrReporter,
) -> int:
    code = None
    try:
        with _cancelled_by_signals(), connect(cluster, tells=False, **_client_options(settings)) as client:
            grants = _acquire(client, names, settings, cluster, say)
            outcome = supervisor.run(grants, _variables(grants, settings))
            code = _finish(outcome, command, grants, settings, say)
            _release(grants, say)
    except AcquireTimeout as error:
        say.error(error)
        return settings.conflict_exit_code
    except _Cancellation as signalled:
        # The wait for the lock or, once the command has ended, for a cluster that does not confirm the release.
        return SignalEnd(signalled.number) if code is None else code
    return code


def _hold(names: Sequence[str], settings: LockSettings, cluster: ClientSettings, say: StderrReporter) -> int:
    """Hold the locks until a signal, which is the normal end, or until one is lost."""
    code = None
    try:
        with _cancelled_by_signals(), connect(cluster, tells=False, **_client_options(settings)) as client:
            grants = _acquire(client, names, settings, cluster, say)
            if wait_for_signal_or_loss(grants, _CANCELLING, lambda: _announce(grants, settings)) is None:
                say.error(_loss(grants, ""))
                code = settings.lost_exit_code
            else:
                code = exits.OK
            _release(grants, say)
    except AcquireTimeout as error:
        say.error(error)
        return settings.conflict_exit_code
    except _Cancellation as signalled:
        return SignalEnd(signalled.number) if code is None else code
    return code


def _announce(grants: Sequence[Grant], settings: LockSettings) -> None:
    for grant in grants:
        print_json(
            {
                "name": grant.name,
                "fencing_token": grant.fencing_token,
                "mode": _mode(grant),
                "owner": grant.owner,
                "session": grant.session,
                "ttl_s": settings.ttl_s,
            }
        )


def _acquire(
    client: Client, names: Sequence[str], settings: LockSettings, cluster: ClientSettings, say: StderrReporter
) -> list[Grant]:
    began_s = time.monotonic()
    with telling(of_client(client, cluster.connect_timeout_s, names, settings.wait_s), say):
        try:
            if len(names) > 1:
                grants = list(client.acquire_all(names, timeout=settings.wait_s, shared=settings.shared))
            else:
                both = client.rwlock(names[0])
                one = both.read() if settings.shared else both.write()
                grants = [one.acquire(timeout=settings.wait_s)]
        except AcquireTimeout as error:
            others = holders(client, names)
            raise AcquireTimeout("; ".join(others) if others else str(error), name=error.name) from error
    for grant in grants:
        waited_s = time.monotonic() - began_s
        say.note(
            f"acquired {quoted(grant.name)} ({token(grant.fencing_token, grant.shared)}) after {duration(waited_s)}",
            {
                "event": "acquired",
                "name": grant.name,
                "fencing_token": grant.fencing_token,
                "mode": _mode(grant),
                "waited_s": round(waited_s, 3),
            },
        )
    return grants


def _variables(grants: Sequence[Grant], settings: LockSettings) -> dict[str, str]:
    first = grants[0]
    return {
        "LOCKRING_NAME": first.name,
        "LOCKRING_FENCING_TOKEN": str(first.fencing_token),
        "LOCKRING_OWNER": first.owner,
        "LOCKRING_SESSION": first.session,
        "LOCKRING_TTL": f"{settings.ttl_s:g}",
        "LOCKRING_MODE": _mode(first),
        "LOCKRING_TOKENS": json.dumps({grant.name: grant.fencing_token for grant in grants}),
    }


def _mode(grant: Grant) -> str:
    return "shared" if grant.shared else "exclusive"


def _finish(
    outcome: CommandOutcome,
    command: str,
    grants: Sequence[Grant],
    settings: LockSettings,
    say: StderrReporter,
) -> int:
    """Report how the command ended, and return the exit code."""
    if outcome.returncode is None:
        error = OSError(outcome.failure, os.strerror(outcome.failure))
        say.error(InvalidRequest(f"{shown(command)}: cannot be run: {error.strerror}"), "command")
        return exits.exit_code_of_exec(error)
    if outcome.left:
        say.error(
            InvalidRequest(
                f"{shown(command)} left processes that could not be ended; they run without the lock"
            ),
            "left",
        )
    if outcome.lost:
        ended = "it was left running" if settings.on_lost == "ignore" else "it was ended"
        say.error(_loss(grants, f"; while {shown(command)} ran: {ended}"))
        return settings.lost_exit_code
    ending = outcome.ending()
    return exits.exit_code_of_child(outcome.returncode) if ending is None else ending


def _loss(grants: Sequence[Grant], what: str) -> LockLost:
    """Return an error that says which lock was lost, and why."""
    for grant in grants:
        try:
            grant.check()
        except LockLost as error:
            return LockLost(f"{error}{what}", name=grant.name, reason=error.reason)
    name = grants[0].name
    text = f"{quoted(name)} could not be renewed in time{what}"
    return LockLost(text, name=name, reason="local-deadline")


def _release(grants: Sequence[Grant], say: StderrReporter) -> None:
    for grant in grants:
        try:
            grant.release()
        except (LockLost, NotHeld):
            continue  # nothing is left to release; an important loss was reported before
        except LockringError as error:
            say.warn(
                f"{quoted(grant.name)} could not be released, so it is free when its TTL has passed: {error}",
                {"event": "not-released", "name": grant.name, "message": str(error)},
            )


def _client_options(settings: LockSettings) -> dict[str, Any]:
    return {"ttl": settings.ttl_s, "owner": settings.owner or None}


class _Cancellation(KeyboardInterrupt):
    """A signal that ends a wait."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _cancelled_by_signals() -> Iterator[None]:
    """Raise `_Cancellation` in the main thread on a signal that would end the process."""

    def cancel(number: int, frame: FrameType | None) -> None:
        raise _Cancellation(number)

    before = {number: signal.signal(number, cancel) for number in caught(_CANCELLING)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
