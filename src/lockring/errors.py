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
            group's member: another one took its id over), "other-cluster" (another cluster answers at its servers' addresses).
    """

    code = "lost"

    def __init__(self, text: str, *, name: str = "", reason: str = "expired") -> None:
        super().__init__(text, name=name)
        self.reason = reason

    @staticmethod
    def explained(reason: str) -> str:
        """A reason as the end of a sentence for people."""
        return _EXPLAINED.get(reason, reason)


_EXPLAINED: dict[str, str] = {
    "other-cluster": "another cluster answers at the addresses of its servers, which knows nothing of it (other-cluster)",
}


class Unavailable(LockringError, ConnectionError):
    """No server could be reached, or none may serve the lock at present. It says nothing of whether the lock is held.

    Attributes:
        reason: why, for programs: "unreachable" (no server answers), "silent" (a server is connected and does not answer),
            "no-coordinator" (the coordinator has been gone for longer than its lease), "no-primary" (the lock's slot is
            served by no node), "leases" (it is assigned once leases of before have surely ended: after a start, or since both copies
            are gone), "failover" (its primary is about to serve it), "" if that is not known.
        since_s: for how long that has been so, in seconds; None if that is not known.
    """

    code = "unavailable"
    retryable = True

    def __init__(self, text: str, *, name: str = "", reason: str = "", since_s: float | None = None) -> None:
        super().__init__(text, name=name)
        self.reason = reason
        self.since_s = since_s


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


class NodeLeaving(LockringError):
    """The node was told to stop, and leaves the cluster by itself: it cannot be made active again."""

    code = "node-leaving"


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


class OutputFailed(LockringError):
    """What was to be printed could not be: whoever reads it has gone, the disk is full, the terminal was hung up.

    Attributes:
        errno: the system's number for it.
    """

    code = "output"

    def __init__(self, text: str, *, name: str = "", errno: int = 0) -> None:
        super().__init__(text, name=name)
        self.errno = errno


class SystemRefused(LockringError):
    """The operating system refused what a command needs: no descriptor, process or memory is left, say."""

    code = "system"


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
