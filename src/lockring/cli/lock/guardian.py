"""The process between `lockring lock` and its command. It ends the command when the lock is at risk.

    lockring lock ──socket── guardian ──fork, exec── command and its children (a process group of their own)

`lockring lock` has threads that keep the lock; it may be stopped, killed or starved. So the command is the
child of a second, tiny process, forked before any thread was started, which knows only a deadline:

1. The lock cannot be granted to another client before the last deadline received. The guardian sends SIGTERM to the
   command's group `kill_after` before it, and SIGKILL a margin before it, whatever the condition of `lockring lock`
   (stopped, hung, cut off).
2. If it hears that the lock is lost, or finds that `lockring lock` is gone, it does so at once: SIGTERM, and
   SIGKILL after `kill_after`, or a margin before the deadline if that is earlier. If `lockring lock` had passed on a
   SIGTERM before it was killed, the time counts from then.
3. When the command has ended, the rest of its group is ended in the same way. Only then does the guardian report the
   end, after which the lock is released. If `lockring lock` is gone, the guardian itself closes its session, so that no
   client has to wait for the end of a lease that protects nothing.
4. If the guardian itself is killed, the kernel kills the command (Linux), and `lockring lock` the group.

Limits: a process that leaves the group (`setsid`, a daemon) is not followed; a process of another user cannot be
signalled; SIGKILL takes effect late on a process that hangs in the kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, Literal, NoReturn

import msgspec

from lockring.cli.inherited import Inheritance
from lockring.cli.lock.programs import replace_process
from lockring.clock import monotonic_ns
from lockring.errors import LockringError
from lockring.ids import SessionId
from lockring.net.oneshot import Dial, dial_plain, end_session
from lockring.units import NS_PER_MS, NS_PER_S

OnLost = Literal["term", "kill", "ignore"]

_LOOK_AT_CLOCK_NS: Final = 250 * NS_PER_MS
"""Longest sleep while a deadline runs: `poll` does not count time in suspension, but the deadline does."""
_LOOK_AT_GROUP_NS: Final = 10 * NS_PER_MS
_KILL_TAKES_NS: Final = NS_PER_S
"""How long the group may take to vanish after SIGKILL until it is reported as left behind."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36


class GuardianPlan(msgspec.Struct, frozen=True):
    """The facts that are known before the lock is acquired.

    Attributes:
        argv: the command and its arguments; found by PATH, no shell.
        on_lost: "term" first and kill later, "kill" at once, or "ignore" the loss.
        kill_after_ns: time between SIGTERM and SIGKILL.
        margin_ns: the least time between SIGKILL and the deadline.
        foreground: whether the command's group becomes the foreground group of the terminal on standard input.
        inherited: the state in which `lockring lock` was started: ignored and blocked signals, and closed streams.
        servers: HOST:PORT of servers of the cluster.
        dial: opens connections to them.
        credential: returns the token or JWT to show to them, "" for none.
    """

    argv: tuple[str, ...]
    on_lost: OnLost
    kill_after_ns: int
    margin_ns: int
    foreground: bool = False
    inherited: Inheritance = Inheritance(frozenset(), frozenset(), ())
    servers: tuple[str, ...] = ()
    dial: Dial = dial_plain
    credential: Callable[[], str] = str  # which returns ""


def start_guardian(plan: GuardianPlan) -> tuple[int, socket.socket]:
    """Fork the guardian. Call it before any thread is started.

    Returns:
        Its process id, and the socket to talk to it: JSON lines.

        To it: `{"spawn": variables, "sessions": ids, "deadline_ns": …}` once, then any of `{"deadline_ns": …}`,
        `{"signal": number}`, `{"lost": true}`. Deadlines are on `clock.monotonic_ns`.

        From it: `{"started": pid}` or `{"failed": errno}`; `{"stopped": signal}`; `{"ending": why}` when it ends
        the group because of the lock; last `{"exited": returncode, "left": bool}`, `left` if processes of the group
        remain.
    """
    ours, theirs = socket.socketpair()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None if it was closed, and not replaced
            stream.flush()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    code = 1
    try:
        ours.close()
        _Guardian(theirs, plan).run()
        code = 0
    except BaseException as error:  # noqa: BLE001 - the outermost frame: report to the other process, then leave
        _tell(theirs, {"crashed": repr(error)})
    finally:
        os._exit(code)


class _Guardian:
    def __init__(self, channel: socket.socket, plan: GuardianPlan) -> None:
        self._channel = channel
        self._plan = plan
        self._parent_gone = False
        self._received = b""
        self._sessions: list[str] = []
        self._pid: int | None = None
        self._returncode: int | None = None  # of the command, once it has ended
        self._deadline_ns: int | None = None
        self._told_at_ns: int | None = None  # to end, by a SIGTERM that was passed on
        self._ending_since_ns: int | None = None
        self._killed_at_ns: int | None = None

    def run(self) -> None:
        # Signals are for `lockring lock`, which passes them on. None of them may end the guardian.
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {signal.SIGCHLD})
        self._prctl = _find_prctl()
        self._prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans of the group become ours to reap
        self._prctl(_PR_SET_NAME, b"lockring-guard")
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while not self._is_done():
            ready = {fd for fd, _ in poll.poll(self._sleep_ms())}
            if woken in ready:
                os.read(woken, 4096)
            if self._channel.fileno() in ready:
                self._receive()
                if self._parent_gone:
                    poll.unregister(self._channel)
            self._reap()
            self._act()
        if self._parent_gone and self._pid is not None and not self._group_exists():
            self._give_up_sessions()

    def _give_up_sessions(self) -> None:
        """Close the sessions of a `lockring lock` that is gone."""
        for session in self._sessions:
            for server in self._plan.servers:
                with contextlib.suppress(
                    LockringError
                ):  # try the next server; otherwise the lease ends by itself
                    end_session(
                        server,
                        SessionId(session),
                        dial=self._plan.dial,
                        credential=self._plan.credential(),
                    )
                    break

    def _is_done(self) -> bool:
        if self._pid is None:
            return self._parent_gone
        if self._returncode is None:
            return self._parent_gone and self._plan.on_lost == "ignore"
        left = self._group_exists()
        killed = self._killed_at_ns
        if left and (killed is None or monotonic_ns() < killed + _KILL_TAKES_NS):
            return False
        _tell(self._channel, {"exited": self._returncode, "left": left})
        return True

    # ------------------------------------------------------------------- messages

    def _receive(self) -> None:
        try:
            data = self._channel.recv(65_536)
        except ConnectionError:
            data = b""
        if not data:
            self._parent_gone = True
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "deadline_ns" in message:
                self._deadline_ns = message["deadline_ns"]
            if "spawn" in message:
                self._sessions = message["sessions"]
                self._spawn(message["spawn"])
            if "signal" in message:
                self._signal_group(message["signal"])
                if message["signal"] == signal.SIGTERM and self._told_at_ns is None:
                    self._told_at_ns = monotonic_ns()
            if "lost" in message:
                self._end("lost")

    def _spawn(self, variables: dict[str, str]) -> None:
        failure, report = os.pipe()
        guardian = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._exec(variables, report, guardian)
        os.close(report)
        found = os.read(failure, 16)
        os.close(failure)
        if found:
            os.waitpid(pid, 0)
            _tell(self._channel, {"failed": int(found)})
            return
        self._pid = pid
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):  # the reader of the command's output must see its end
            os.dup2(null, fd)
        _tell(self._channel, {"started": pid})

    def _exec(self, variables: dict[str, str], report: int, guardian: int) -> NoReturn:
        try:
            os.setpgid(0, 0)
            if self._plan.foreground:
                os.tcsetpgrp(0, os.getpid())  # allowed from the background, as SIGTTOU is blocked here
            if self._plan.on_lost != "ignore":
                self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != guardian:
                    os._exit(1)
            inherited = self._plan.inherited
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN if number in inherited.ignored else signal.SIG_DFL)
            for fd in inherited.closed:
                os.close(fd)
            signal.pthread_sigmask(signal.SIG_SETMASK, inherited.mask)
            replace_process(self._plan.argv, variables)
        except OSError as error:
            os.write(report, str(error.errno).encode())
        except ValueError:  # an argument with a NUL byte
            os.write(report, b"22")
        finally:
            os._exit(1)

    # ------------------------------------------------------------------- the command

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid != self._pid:
                continue
            if os.WIFSTOPPED(status):
                _tell(self._channel, {"stopped": os.WSTOPSIG(status)})
            else:
                self._returncode = os.waitstatus_to_exitcode(status)

    def _act(self) -> None:
        if self._pid is None:
            return
        if self._returncode is not None:
            if self._ending_since_ns is None and self._group_exists():
                self._ending_since_ns = monotonic_ns()
                self._signal_group(signal.SIGTERM)
                self._signal_group(signal.SIGCONT)
        elif self._plan.on_lost == "ignore":
            return
        elif self._parent_gone:
            self._end("parent gone", since_ns=self._told_at_ns)
        elif self._risk_at_ns() <= monotonic_ns():
            self._end("deadline")
        kill_at_ns = self._kill_at_ns()
        if kill_at_ns is not None and self._killed_at_ns is None and kill_at_ns <= monotonic_ns():
            self._killed_at_ns = monotonic_ns()
            self._signal_group(signal.SIGKILL)

    def _end(self, why: str, *, since_ns: int | None = None) -> None:
        """Start to end the command's group because of the lock, or continue what began at `since_ns`."""
        if self._pid is None or self._returncode is not None or self._ending_since_ns is not None:
            return
        if self._plan.on_lost == "ignore":
            return
        self._ending_since_ns = monotonic_ns() if since_ns is None else since_ns
        if self._plan.on_lost == "term":
            self._signal_group(signal.SIGTERM)
            self._signal_group(signal.SIGCONT)  # a stopped process acts on SIGTERM only once continued
        _tell(self._channel, {"ending": why})

    def _risk_at_ns(self) -> int:
        """Return when to start to end a command whose lock has not been renewed."""
        assert self._deadline_ns is not None
        before = self._plan.kill_after_ns if self._plan.on_lost == "term" else 0
        return self._deadline_ns - max(before, self._plan.margin_ns)

    def _kill_at_ns(self) -> int | None:
        if self._ending_since_ns is None:
            return None
        assert self._deadline_ns is not None
        patience = self._plan.kill_after_ns
        if self._plan.on_lost == "kill" and self._returncode is None:
            patience = 0
        soft = self._ending_since_ns + patience
        # If the loss of the lock is ignored, its deadline cannot shorten the time.
        return soft if self._plan.on_lost == "ignore" else min(soft, self._deadline_ns - self._plan.margin_ns)

    def _sleep_ms(self) -> int | None:
        if self._pid is None:
            return None
        if self._returncode is not None or self._killed_at_ns is not None:
            return _LOOK_AT_GROUP_NS // NS_PER_MS
        if self._plan.on_lost == "ignore":
            return None
        until_ns = self._kill_at_ns() or self._risk_at_ns()
        return -(-min(max(0, until_ns - monotonic_ns()), _LOOK_AT_CLOCK_NS) // NS_PER_MS)

    def _signal_group(self, number: int) -> None:
        if self._pid is None:
            return
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            return  # no process left to signal
        except PermissionError:
            return  # only processes of other users remain: see the limits above; `left` reports them

    def _group_exists(self) -> bool:
        assert self._pid is not None
        try:
            os.killpg(self._pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def _tell(channel: socket.socket, message: dict[str, Any]) -> None:
    try:
        channel.sendall(json.dumps(message).encode() + b"\n")
    except ConnectionError:
        return  # `lockring lock` is gone, as the loop will find out


def _find_prctl() -> Any:
    """Return Linux's `prctl`, or elsewhere a function that does nothing: the guardian's own watch remains."""
    if sys.platform != "linux":
        return lambda *_: 0
    import ctypes  # only in the guardian, while the client starts

    return ctypes.CDLL(None, use_errno=True).prctl
