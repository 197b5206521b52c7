"""Errors as the refusals that carry them over the wire, and back."""

from __future__ import annotations

from lockring.errors import AcquireTimeout, Denied, LockringError, NotCoordinator, Overloaded, from_code
from lockring.holders import Holder
from lockring.ids import NO_REQUEST, RequestNumber
from lockring.protocol import HolderRecord, Refusal

_MS_PER_S = 1000


def refusal_of(
    error: LockringError, request: RequestNumber = NO_REQUEST, *, name: str = "", hint: int = 0
) -> Refusal:
    """Return the refusal that carries an error.

    Args:
        error: the error.
        request: the request that is refused, `NO_REQUEST` for a connection.
        name: the lock or node that the request is about, where the error names none.
        hint: see `Refusal`.
    """
    retry_after_s = error.retry_after_s if isinstance(error, Overloaded) else None
    return Refusal(
        request,
        code=error.code,
        text=str(error),
        name=error.name or name,
        hint=hint,
        leader=error.leader if isinstance(error, NotCoordinator) else "",
        right=error.right if isinstance(error, Denied) else "",
        # Rounded up: a client that came a moment too early would be refused again.
        retry_after_ms=0 if retry_after_s is None else int(retry_after_s * _MS_PER_S) + 1,
    )


def holder_of(record: HolderRecord) -> Holder:
    """Return a holder in its public form."""
    return Holder(
        owner=record.owner,
        session=record.session,
        fencing_token=record.generation,
        held_s=record.held_ms / _MS_PER_S,
        ttl_s=record.ttl_ms / _MS_PER_S,
        ttl_left_s=record.left_ms / _MS_PER_S,
        renewed_s=None if record.renewed_ms < 0 else record.renewed_ms / _MS_PER_S,
        host=record.host,
        pid=record.pid,
        away_s=None if record.away_ms < 0 else record.away_ms / _MS_PER_S,
        broken=record.broken,
    )


def error_of(refusal: Refusal, *, name: str = "") -> LockringError:
    """Return the error that a refusal carries.

    Args:
        refusal: the refusal.
        name: the lock or node that the request was about, where the refusal names none.
    """
    if refusal.code == AcquireTimeout.code:
        return AcquireTimeout(
            refusal.text,
            name=refusal.name or name,
            holders=map(holder_of, refusal.holders),
            position=refusal.position or None,
        )
    return from_code(
        refusal.code,
        refusal.text,
        name=refusal.name or name,
        leader=refusal.leader,
        right=refusal.right,
        retry_after_s=refusal.retry_after_ms / _MS_PER_S if refusal.retry_after_ms else None,
    )
