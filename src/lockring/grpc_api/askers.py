"""The identity on whose behalf a gRPC call is served, as the call's task and the tasks that it begins see it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from lockring.protocol.identities import Identity

ASKER: Final[ContextVar[Identity | None]] = ContextVar("lockring-asker", default=None)
"""The identity of the present call, None where identities are not checked."""
