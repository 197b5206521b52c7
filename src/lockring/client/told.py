"""What both clients tell of locks and of their own waits, as the cores have it."""

from __future__ import annotations

from lockring.core.outlook import Wait
from lockring.views import LockList

__all__ = ["LockList", "Wait"]
