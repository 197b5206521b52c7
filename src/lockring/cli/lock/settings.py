"""The settings of `lockring lock`."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from lockring import exits
from lockring.cli.lock.guardian import OnLost
from lockring.config import setting
from lockring.errors import ConfigError
from lockring.names import TTL_MS_MIN, check_owner
from lockring.units import DURATION_S_MAX

KILL_AFTER_S_MAX: Final = 5.0
TTL_S_MAX: Final = 3600.0
"""The cluster's own limit, its coordinator lease, is usually lower; the cluster reports it."""


class LockSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring lock`. Durations are seconds; similarly named variables are for the command."""

    nonblock: Annotated[
        bool,
        setting("Do not wait: give up at once if the lock is held.", short="-n", variable=False, file=False),
    ] = False
    timeout_s: Annotated[
        float | None,
        setting(
            "How long to wait at most; 0 is the same as -n. By default without limit.",
            unit="seconds",
            minimum=0,
            maximum=DURATION_S_MAX,
            short="-w",
            variable=False,
            file=False,
        ),
    ] = None
    shared: Annotated[
        bool,
        setting(
            "Hold the lock as a reader, together with other readers. Exclusive holders are kept out.",
            short="-s",
            variable=False,
            file=False,
        ),
    ] = False
    ttl_s: Annotated[
        float,
        setting(
            "The lease: how long the lock stays held if this process dies or is cut off. Renewed continuously.",
            unit="seconds",
            minimum=TTL_MS_MIN / 1000,
            maximum=TTL_S_MAX,
            variable=False,
        ),
    ] = 10.0
    owner: Annotated[
        str,
        setting(
            "The holder's name as others see it. By default user@host:pid.",
            check=check_owner,
            variable=False,
        ),
    ] = ""
    on_lost: Annotated[
        OnLost,
        setting(
            "How to end the command if a lock is lost: SIGTERM and then SIGKILL, SIGKILL at once, or not at all."
        ),
    ] = "term"
    kill_after_s: Annotated[
        float | None,
        setting(
            "Time between SIGTERM and SIGKILL, at most half of the TTL. By default a fifth of it, but at most "
            f"{KILL_AFTER_S_MAX:g} s.",
            unit="seconds",
            minimum=0,
            maximum=TTL_S_MAX,
        ),
    ] = None
    conflict_exit_code: Annotated[
        int,
        setting("Exit code if the lock could not be acquired in time.", minimum=0, maximum=255, short="-E"),
    ] = exits.NOT_ACQUIRED
    lost_exit_code: Annotated[
        int, setting("Exit code if the lock was lost, whatever the command's own.", minimum=0, maximum=255)
    ] = exits.LOST
    verbose: Annotated[
        bool,
        setting("Report waits, holders and acquires on standard error.", short="-v", file=False),
    ] = False
    quiet: Annotated[
        bool,
        setting(
            "Report only failures on standard error, no waits and no hints. Wins over -v.",
            short="-q",
            variable=False,
            file=False,
        ),
    ] = False
    hold: Annotated[
        bool,
        setting(
            "Take all words as names of locks, even one that is also a program's: hold them until a signal.",
            variable=False,
            file=False,
        ),
    ] = False

    def __post_init__(self) -> None:
        if self.nonblock and self.timeout_s:
            raise ConfigError("-n and -w contradict each other: give one of them")
        # A lock is renewed every third of its TTL. With a longer time, SIGTERM would be due before a renewal is.
        if self.kill_after_s is not None and self.kill_after_s > self.ttl_s / 2:
            raise ConfigError(
                f"--kill-after ({self.kill_after_s:g} s) must be at most half of --ttl ({self.ttl_s:g} s)"
            )

    @property
    def wait_s(self) -> float | None:
        """How long to wait for the lock, None without limit."""
        return 0.0 if self.nonblock else self.timeout_s

    @property
    def patience_s(self) -> float:
        """Time between SIGTERM and SIGKILL."""
        return min(KILL_AFTER_S_MAX, self.ttl_s / 5) if self.kill_after_s is None else self.kill_after_s
