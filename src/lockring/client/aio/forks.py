"""The drivers of a forked child: their loop, their connections and their locks are the parent's."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """A driver that must learn of a fork."""

    def after_fork(self) -> None:
        """Give up everything, in the child."""


_drivers: weakref.WeakSet[Forkable] = weakref.WeakSet()


def expect_forks(driver: Forkable) -> None:
    """Have a driver learn of forks for as long as it lives."""
    _drivers.add(driver)


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
