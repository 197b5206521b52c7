"""The ids of sessions as others see them: where rights are not checked, an id is all that it takes to use a session."""

from __future__ import annotations

import hashlib

from lockring.ids import SessionId

HIDDEN_CHARS = 16


def hidden_id(session: SessionId) -> SessionId:
    """Return what is shown in the place of a session's id: the same for the same session, and of no use as an id."""
    return SessionId(hashlib.sha256(session.encode()).hexdigest()[:HIDDEN_CHARS])
