"""Every error that lockring raises or sends, as one tree.

Each class has a `code`, the same on the wire and in `--json` output, and says whether trying the same
thing again may help (`retryable`). A server answers a bad request with `Refused(code, text)`;
`from_code` turns that back into the exception here.
"""

from __future__ import annotations

from typing import ClassVar


class LockringError(Exception):
    """Root of all lockring errors.

    Attributes:
        code: short stable identifier, as sent on the wire.
        retryable: whether the same call may succeed later without any change by the caller.
        name: the lock, node or session that the error is about, "" where there is none.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, text: str, *, name: str = "") -> None:
        super().__init__(text)
        self.name = name


class InvalidRequest(LockringError, ValueError):
    """An argument, option, setting or message is not of the form it must have."""

    code = "invalid"


class ConfigError(InvalidRequest):
    """A setting is unknown, malformed, or contradicts another one."""

    code = "config"


class AcquireTimeout(LockringError, TimeoutError):
    """The lock was not granted within the time that the caller was ready to wait."""

    code = "timeout"


class NotHeld(LockringError, RuntimeError):
    """A release, or a check, of something that is not held any more, or never was."""

    code = "not-held"


class LockLost(LockringError):
    """The lock was held and is not any more, though its holder did not release it.

    Attributes:
        reason: "local-deadline" (the client could not renew in time), "expired" (the node ended the
            session), "broken" (an operator broke it), "session-ended" (the client was closed), "forked", "replaced" (of a
            group's member: another one took its id over).
    """

    code = "lost"

    def __init__(self, text: str, *, name: str = "", reason: str = "expired") -> None:
        super().__init__(text, name=name)
        self.reason = reason


class Unavailable(LockringError, ConnectionError):
    """No server could be reached, or none may serve the lock at present."""

    code = "unavailable"
    retryable = True


class Moved(LockringError):
    """The node asked is not the lock's primary; clients follow their newer routes by themselves."""

    code = "moved"
    retryable = True


class Overloaded(LockringError):
    """A bound (waiters, connections, memory) is reached; the request was not carried out."""

    code = "overloaded"
    retryable = True


class Denied(LockringError, PermissionError):
    """The caller may not do this."""

    code = "denied"


class ProtocolError(LockringError):
    """The other side sent something that is no lockring message, or not one for this state or role."""

    code = "protocol"


class WrongCluster(LockringError):
    """The two sides belong to different clusters."""

    code = "wrong-cluster"


class WrongRole(LockringError):
    """The server reached is of another kind: a node where a coordinator was wanted, or the reverse."""

    code = "wrong-role"


class DuplicateNode(LockringError):
    """A node of this id is already running in the cluster."""

    code = "duplicate-node"


class UnknownNode(LockringError):
    """The cluster has no member of this id."""

    code = "unknown-node"


class LastNode(LockringError):
    """The node is the last one that can serve, so what it has cannot be moved."""

    code = "last-node"


class StaleVersion(LockringError):
    """A cluster state or a claim that is older than what the receiver already has."""

    code = "stale"
    retryable = True


class NotCoordinator(LockringError):
    """This coordinator is not the one that may write the cluster state at present."""

    code = "not-coordinator"
    retryable = True


class StoreError(LockringError):
    """The coordinator's store cannot be opened, read or written."""

    code = "store"


class RootMissing(LockringError):
    """A folder or bucket that is to be cleaned does not exist."""

    code = "no-root"


class ClientClosed(LockringError, RuntimeError):
    """The client was closed, or belongs to another process (it was used after a fork)."""

    code = "closed"


class NotCopyable(LockringError, TypeError):
    """A client, or what works through one, was to be copied, pickled, or sent to another process."""

    code = "not-copyable"


class ReentrantCall(LockringError, RuntimeError):
    """A signal handler or a finalizer called the client while its thread was in the middle of the client's own work, and the
    call cannot be left to the end of that; nothing was done."""

    code = "reentrant"
    retryable = True


class InternalError(LockringError):
    """A broken invariant: a bug in lockring, please report it."""

    code = "internal"


def _tree(root: type[LockringError]) -> list[type[LockringError]]:
    return [root] + [leaf for child in root.__subclasses__() for leaf in _tree(child)]


_BY_CODE: dict[str, type[LockringError]] = {each.code: each for each in _tree(LockringError)}


def from_code(code: str, text: str, *, name: str = "") -> LockringError:
    """Build the exception that a code from the wire stands for; unknown codes give the root class."""
    return _BY_CODE.get(code, LockringError)(text, name=name)
