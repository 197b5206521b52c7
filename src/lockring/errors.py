"""Every error that lockring raises or sends, as one tree.

Each class has a `code`, which is the same on the wire and in `--json` output, and says whether repeating the
call may help (`retryable`). A server answers a bad request with a `Refusal`, which carries the code and the text;
`from_code` turns it back into the exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # `import lockring` takes 6 ms less without dataclasses
    from lockring.holders import Holder


class LockringError(Exception):
    """Root of all lockring errors.

    Attributes:
        code: a short, stable identifier, as sent on the wire.
        retryable: whether the same call may succeed later, unchanged.
        name: the lock, node or session that the error is about, "" if there is none.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, text: str, *, name: str = "") -> None:
        super().__init__(text)
        self.name = name


class InvalidRequest(LockringError, ValueError):
    """A malformed argument, option, setting or message."""

    code = "invalid"


class ConfigError(InvalidRequest):
    """A setting that is unknown, malformed, or contradicts another one."""

    code = "config"


class ExtraMissing(ConfigError):
    """A setting that needs packages which are not installed."""

    code = "extra"


class AcquireTimeout(LockringError, TimeoutError):
    """The lock was not granted within the timeout of the call.

    Attributes:
        holders: the first holders of the lock at the end of the wait, at most 8; none if there were none, or if the
            node does not say. Ids, hosts and processes are left out where the caller has no right to them.
        waited_s: how long the call has waited, in seconds.
        position: its place in the lock's queue at the end, from 1, or the one that it would have had; None if the node
            does not say.
    """

    code = "timeout"

    def __init__(
        self,
        text: str,
        *,
        name: str = "",
        holders: Iterable[Holder] = (),
        waited_s: float = 0.0,
        position: int | None = None,
    ) -> None:
        super().__init__(text, name=name)
        self.holders = tuple(holders)
        self.waited_s = waited_s
        self.position = position


class NotHeld(LockringError, RuntimeError):
    """A release or a check of a lock that is no longer held, or never was."""

    code = "not-held"


class LockLost(LockringError):
    """A grant ended although its holder did not release it.

    Attributes:
        reason: "local-deadline" (the client could not renew in time), "denied" and "unauthenticated" (it was not let:
            its rights were removed, or its credential has ended), "expired" (the node ended the session), "broken"
            (an operator broke it), "session-ended" (the client was closed), "forked", "replaced" (of a group member:
            another process joined under its id), "other-cluster" (the addresses of the client's servers belong to
            another cluster now).
    """

    code = "lost"

    def __init__(self, text: str, *, name: str = "", reason: str = "expired") -> None:
        super().__init__(text, name=name)
        self.reason = reason

    @staticmethod
    def explained(reason: str) -> str:
        """Return the words for a reason, as the end of a sentence: "the lock 'x' was lost: …"."""
        return _EXPLAINED.get(reason, reason)


_EXPLAINED: dict[str, str] = {
    "broken": "an operator broke it",
    "denied": "its holder may not keep it any more, since its rights were removed",
    "expired": "its lease expired at the node",
    "forked": "the process was forked",
    "local-deadline": "it could not be renewed before its lease ended",
    "other-cluster": "its servers' addresses belong to another cluster now, which does not know it",
    "replaced": "another process joined under its id",
    "session-ended": "the client was closed",
    "unauthenticated": "its holder's credential has ended, or is not accepted any more",
}


class Unavailable(LockringError, ConnectionError):
    """No server could be reached, or none may serve the lock at present. Says nothing about whether the lock is held.

    Attributes:
        reason: the cause, for programs: "unreachable" (no server answers), "silent" (a server is connected and does
            not answer), "no-coordinator" (the coordinator has been gone for longer than its lease), "no-primary"
            (no node serves the lock's slot), "leases" (the slot is assigned once the leases of the time before have
            surely ended: after a start, or after the loss of both copies), "journal" (the lock's node cannot write its
            journal to disk), "failover" (its primary is about to
            serve it), "" if unknown.
        since_s: how long the cause has lasted, in seconds; None if unknown.
    """

    code = "unavailable"
    retryable = True

    def __init__(self, text: str, *, name: str = "", reason: str = "", since_s: float | None = None) -> None:
        super().__init__(text, name=name)
        self.reason = reason
        self.since_s = since_s


class Moved(LockringError):
    """The node is not the lock's primary. Clients handle it themselves by following newer routes."""

    code = "moved"
    retryable = True


class Overloaded(LockringError):
    """A limit (waiters, connections, memory, the caller's own) is reached; the request was not carried out.

    Attributes:
        retry_after_s: when to come again, in seconds; None if the server does not say.
        limit: at the server, the limit of the identity that is reached, as the ACL file names it; "" for another.
    """

    code = "overloaded"
    retryable = True

    def __init__(
        self, text: str, *, name: str = "", retry_after_s: float | None = None, limit: str = ""
    ) -> None:
        super().__init__(text, name=name)
        self.retry_after_s = retry_after_s
        self.limit = limit


class Denied(LockringError, PermissionError):
    """The caller lacks the permission for the operation.

    Attributes:
        right: the right that is missing, such as "acquire" or "drain"; "" if none would help or none is known.
    """

    code = "denied"

    def __init__(self, text: str, *, name: str = "", right: str = "") -> None:
        super().__init__(text, name=name)
        self.right = right


class Unauthenticated(Denied):
    """The caller has not proven who it is: no certificate or token, or one that is unknown, expired or malformed."""

    code = "unauthenticated"


class ProtocolError(LockringError):
    """The other side sent bytes that are not a lockring message, or a message that does not fit its state or role."""

    code = "protocol"


class WrongCluster(LockringError):
    """The two sides of a connection belong to different clusters."""

    code = "wrong-cluster"


class WrongRole(LockringError):
    """The server is of the other kind: a node where a coordinator was expected, or the reverse."""

    code = "wrong-role"


class DuplicateNode(LockringError):
    """A node with this id is already running in the cluster."""

    code = "duplicate-node"


class UnknownNode(LockringError):
    """The cluster has no member with this id."""

    code = "unknown-node"


class LastNode(LockringError):
    """The node is the last one that can serve, so its slots cannot move."""

    code = "last-node"


class NodeLeaving(LockringError):
    """The node is stopping and leaves the cluster by itself, so it cannot become active again."""

    code = "node-leaving"


class StaleVersion(LockringError):
    """A cluster state or a claim that is older than the one the receiver already has."""

    code = "stale"
    retryable = True


class NotCoordinator(LockringError):
    """The coordinator does not have the right to write the cluster state at present.

    Attributes:
        leader: HOST:PORT of the coordinator that leads, "" if it is unknown.
    """

    code = "not-coordinator"
    retryable = True

    def __init__(self, text: str, *, name: str = "", leader: str = "") -> None:
        super().__init__(text, name=name)
        self.leader = leader


class StoreError(LockringError):
    """The coordinator's store cannot be opened, read or written."""

    code = "store"


class JournalError(LockringError):
    """A node's journal cannot be opened or written, or its directory belongs to another node or release."""

    code = "journal"


class RootMissing(LockringError):
    """The folder or bucket to clean does not exist."""

    code = "no-root"


class OutputFailed(LockringError):
    """Output could not be written: its reader has gone, the disk is full, or the terminal hung up.

    Attributes:
        errno: the system's error number.
    """

    code = "output"

    def __init__(self, text: str, *, name: str = "", errno: int = 0) -> None:
        super().__init__(text, name=name)
        self.errno = errno


class SystemRefused(LockringError):
    """The operating system refused a resource that a command needs, such as a descriptor, a process or memory."""

    code = "system"


class CannotListen(LockringError):
    """A port cannot be listened on."""

    code = "cannot-listen"


class ClientClosed(LockringError, RuntimeError):
    """The client was closed, or was made before a fork and so belongs to the parent process."""

    code = "closed"


class NotCopyable(LockringError, TypeError):
    """An attempt to copy or pickle a client or an object that works through one, or to send it to another process."""

    code = "not-copyable"


class ReentrantCall(LockringError, RuntimeError):
    """A signal handler or a finalizer called the client in the middle of the client's own work on the same thread.

    The call could not be deferred, and nothing was done.
    """

    code = "reentrant"
    retryable = True


class InternalError(LockringError):
    """A broken invariant, which is a bug in lockring. Please report it."""

    code = "internal"


def _tree(root: type[LockringError]) -> list[type[LockringError]]:
    return [root] + [leaf for child in root.__subclasses__() for leaf in _tree(child)]


_BY_CODE: dict[str, type[LockringError]] = {each.code: each for each in _tree(LockringError)}


def from_code(
    code: str,
    text: str,
    *,
    name: str = "",
    leader: str = "",
    right: str = "",
    retry_after_s: float | None = None,
) -> LockringError:
    """Build the exception for a code from the wire; an unknown code gives the root class.

    Args:
        code: see `LockringError.code`.
        text: the sentence.
        name: the lock, node or session that it is about.
        leader: for `NotCoordinator`.
        right: for `Denied`.
        retry_after_s: for `Overloaded`, in seconds.
    """
    kind = _BY_CODE.get(code, LockringError)
    if issubclass(kind, NotCoordinator):
        return kind(text, name=name, leader=leader)
    if issubclass(kind, Denied):
        return kind(text, name=name, right=right)
    if issubclass(kind, Overloaded):
        return kind(text, name=name, retry_after_s=retry_after_s)
    return kind(text, name=name)
