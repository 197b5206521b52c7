"""Runs a command under locks: starts it, passes on signals, and makes sure that it ends before its locks do.

The guardian (see there) starts the command and, if its locks are at risk, ends it. This side sends the guardian the
locks' deadline, and passes on events in both directions.
"""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Protocol

import msgspec

from lockring.cli.inherited import caught, settle
from lockring.cli.lock.guardian import GuardianPlan, OnLost, start_guardian
from lockring.cli.lock.terminal import Terminal
from lockring.cli.signal_end import SignalEnd
from lockring.clock import monotonic_ns
from lockring.errors import InternalError
from lockring.net.oneshot import Dial, dial_plain
from lockring.units import NS_PER_MS, NS_PER_S

FORWARDED: Final = tuple(
    number
    for number in signal.valid_signals()
    if number
    not in {
        signal.SIGKILL,  # cannot be caught
        signal.SIGSTOP,
        signal.SIGCHLD,  # concerns our own children, not the command
        signal.SIGPIPE,
        signal.SIGTTIN,  # concerns our own use of the terminal
        signal.SIGTTOU,
        signal.SIGSEGV,  # faults of our own
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
    }
)
"""Every signal that can be caught and is meant for the command."""

_TYPED: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
"""Signals of a terminal to its foreground group: for Ctrl-C, for Ctrl-\\, and when it has gone."""

_MARGIN_NS_MAX: Final = 50 * NS_PER_MS


class HeldLock(Protocol):
    """The part of a grant that the supervisor needs; `lockring.Grant` has it."""

    @property
    def name(self) -> str:
        """The lock's name."""

    @property
    def session(self) -> str:
        """Id of the session that holds it."""

    def remaining(self) -> float:
        """Return the seconds for which the lock is surely held; 0 once it is not."""

    def on_lost(self, callback: Callable[..., object], /) -> object:
        """Register a callback for the loss, called from any thread; at once if the lock is lost already."""


class CommandOutcome(msgspec.Struct, frozen=True):
    """The end of a command.

    Attributes:
        returncode: its own, or minus the number of the signal that killed it; None if it could not be started.
        failure: errno of the failure to start it, 0 if it was started.
        lost: whether a lock was lost, or could not be renewed in time, while it ran.
        left: whether processes of its group remain in spite of SIGKILL.
        signals: those passed on to it.
        had_terminal: whether it had the terminal, so that Ctrl-C and the like reached it alone.
    """

    returncode: int | None
    failure: int = 0
    lost: bool = False
    left: bool = False
    signals: tuple[int, ...] = ()
    had_terminal: bool = False

    def ending(self) -> SignalEnd | None:
        """Return the signal that ended the command and must end this process too; None to exit with the command's code.

        That is a signal which this process got and passed on, or which came from the terminal. A signal that was
        sent to the command alone is reported by the exit code.
        """
        number = 0 if self.returncode is None else -self.returncode
        if number <= 0:
            return None
        if number in self.signals:
            return SignalEnd(number)
        if self.had_terminal and number in _TYPED:
            return SignalEnd(number, group=True)
        return None


class Supervisor:
    """Runs one command. Made before the locks are acquired, and before any thread is started.

    Not thread-safe: it handles signals, which only the main thread can.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        on_lost: OnLost,
        kill_after_s: float,
        ttl_s: float,
        servers: Sequence[str] = (),
        dial: Dial = dial_plain,
        credential: Callable[[], str] = str,  # which returns ""
    ) -> None:
        """Fork the guardian, which waits for `run`.

        Args:
            argv: the command and its arguments.
            on_lost: what happens to it when a lock is lost.
            kill_after_s: time between SIGTERM and SIGKILL, in seconds.
            ttl_s: of the locks, in seconds; determines how often to check the deadline.
            servers: HOST:PORT of servers of the cluster, at which the guardian releases the locks if this process
                is killed.
            dial: opens connections to them.
            credential: returns the token or JWT to show to them, "" for none.
        """
        self._terminal = Terminal()
        ttl_ns = round(ttl_s * NS_PER_S)
        self._look_ms = max(5, min(500, ttl_ns // 20 // NS_PER_MS))
        inherited = settle()
        self._caught = caught(FORWARDED)
        plan = GuardianPlan(
            argv=tuple(argv),
            on_lost=on_lost,
            kill_after_ns=round(kill_after_s * NS_PER_S),
            margin_ns=min(_MARGIN_NS_MAX, ttl_ns // 20),
            foreground=self._terminal.lend_at_start,
            inherited=inherited,
            servers=tuple(servers),
            dial=dial,
            credential=credential,
        )
        self._guardian, self._channel = start_guardian(plan)
        self._deadline_ns = 0
        self._received = b""
        self._group: int | None = None
        self._lost = False
        self._signals: list[int] = []
        self._outcome: CommandOutcome | None = None

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        os.waitpid(self._guardian, 0)

    def run(self, grants: Sequence[HeldLock], variables: dict[str, str]) -> CommandOutcome:
        """Start the command and wait for its end, and that of its group.

        Args:
            grants: the locks that it needs.
            variables: added to the inherited environment.

        Raises:
            InternalError: the guardian was killed, and so was the command.
        """
        with _Wakeups(self._caught) as wakeups:
            for grant in grants:
                grant.on_lost(wakeups.poke)
            self._deadline_ns = _deadline_ns(grants)
            sessions = sorted({grant.session for grant in grants})
            self._tell({"deadline_ns": self._deadline_ns, "sessions": sessions, "spawn": variables})
            try:
                self._loop(grants, wakeups)
            finally:
                outcome = self._outcome
                killed = outcome is None or (outcome.returncode is not None and outcome.returncode < 0)
                self._terminal.take_back(repair=killed)
        assert self._outcome is not None
        return self._outcome

    def _loop(self, grants: Sequence[HeldLock], wakeups: _Wakeups) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(wakeups.fd, select.POLLIN)
        while self._outcome is None:
            ready = {fd for fd, _ in poll.poll(self._look_ms)}
            if wakeups.fd in ready:
                for number in wakeups.read():
                    if number:
                        self._signals.append(number)
                        self._tell({"signal": number})
                    elif not self._lost:
                        self._lost = True
                        self._tell({"lost": True})
            deadline_ns = _deadline_ns(grants)
            if deadline_ns > self._deadline_ns and not self._lost:
                self._deadline_ns = deadline_ns
                self._tell({"deadline_ns": deadline_ns})
            if self._channel.fileno() in ready:
                self._receive()

    def _receive(self) -> None:
        try:
            data = self._channel.recv(65_536)
        except ConnectionError:
            data = b""
        if not data:
            if self._group is not None:
                os.killpg(self._group, signal.SIGKILL)
            raise InternalError("the process that watches the command was killed, and so was the command")
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))

    def _handle(self, message: dict[str, Any]) -> None:
        if "started" in message:
            self._group = group = message["started"]
            self._terminal.child_started(group)
        elif "failed" in message:
            self._outcome = CommandOutcome(None, failure=message["failed"])
        elif "ending" in message:
            self._lost = True
        elif "stopped" in message:
            assert self._group is not None
            if self._terminal.child_stopped(self._group, message["stopped"]):
                self._tell({"signal": signal.SIGCONT})
        elif "exited" in message:
            self._outcome = CommandOutcome(
                message["exited"],
                lost=self._lost,
                left=message["left"],
                signals=tuple(self._signals),
                had_terminal=self._group is not None and self._terminal.is_lent_to(self._group),
            )
        elif "crashed" in message:
            self._kill_group()
            raise InternalError(f"the process that watches the command failed: {message['crashed']}")

    def _kill_group(self) -> None:
        """Kill the command, and wait until it is gone: then the locks may be released."""
        end_ns = monotonic_ns() + NS_PER_S
        with suppress(ProcessLookupError):  # no process of it is left
            while self._group is not None and monotonic_ns() < end_ns:
                os.killpg(self._group, signal.SIGKILL)
                time.sleep(0.005)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except ConnectionError:
            return  # the guardian's last message, or its end, is read next


def _deadline_ns(grants: Sequence[HeldLock]) -> int:
    # Read the clock first: a pause between the two readings then shortens the result.
    now_ns = monotonic_ns()
    return now_ns + round(min(grant.remaining() for grant in grants) * NS_PER_S)


class _Wakeups:
    """Signals and losses as bytes on a pipe, which a poll can wait for together with other events.

    A signal is its number, a loss is 0. `poke` may be called by any thread, even after the end.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self._lock = threading.Lock()
        self.fd, self._wake = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._wake, False)
        self._is_open = True

    def __enter__(self) -> _Wakeups:
        self._wakeup_before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _noted) for number in self._numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup_before)
        with self._lock:
            self._is_open = False
            os.close(self.fd)
            os.close(self._wake)

    def poke(self, *_: object) -> None:
        with self._lock:
            if self._is_open:
                with suppress(BlockingIOError):  # full: the reader wakes up anyway
                    os.write(self._wake, b"\0")

    def read(self) -> bytes:
        return os.read(self.fd, 4096)


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: the byte on the pipe is enough."""


def wait_for_signal_or_loss(
    grants: Sequence[HeldLock], ending: Sequence[int], announce: Callable[[], None]
) -> int | None:
    """Hold locks until a signal or a loss.

    Args:
        grants: the locks held.
        announce: reports that they are held. A signal in response finds its handler in place.
        ending: the signals that end the wait, unless they were ignored when this process was started; others keep their
            effect.

    Returns:
        The signal, or None if a lock was lost.
    """
    with _Wakeups(caught(ending)) as wakeups:
        for grant in grants:
            grant.on_lost(wakeups.poke)
        announce()
        poll = select.poll()
        poll.register(wakeups.fd, select.POLLIN)
        while not poll.poll():
            continue
        return next((number for number in wakeups.read() if number), None)
