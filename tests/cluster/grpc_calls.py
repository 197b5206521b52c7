"""gRPC calls for tests: a caller with a session of its own, and what a refusal says."""

from __future__ import annotations

import uuid
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.grpc_api.v1 import lockring_pb2_grpc
from tests.processes import eventually

PATIENCE_S = 60.0
WAIT_S = 3 * PATIENCE_S
"""Deadline of a `Lock` that waits: while a test looks for its place in a queue, it must not end and leave it."""

TTL_MS = 30_000
"""Of a lock, unless a test is about its lease: nothing renews it, and it must outlast a pause of a busy machine."""


class Caller:
    """A client of one node's gRPC API, on a channel of its own.

    Args:
        address: HOST:PORT of the API.
        session: its session, a random one by default.
        credentials: for TLS, None for none.
        token: shown with each call, "" for none. Needs TLS.
    """

    def __init__(
        self,
        address: str,
        *,
        session: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        token: str = "",
    ) -> None:
        self.session = session or str(uuid.uuid4())
        if credentials is not None and token:
            credentials = grpc.composite_channel_credentials(
                credentials, grpc.access_token_call_credentials(token)
            )
        self.channel = (
            grpc.insecure_channel(address)
            if credentials is None
            else grpc.secure_channel(address, credentials)
        )
        self.stub: Any = lockring_pb2_grpc.LockServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()

    def request(self, name: str, key: str, **fields: Any) -> pb.LockRequest:
        values: dict[str, Any] = {"owner": key, "ttl_ms": TTL_MS} | fields
        return pb.LockRequest(name=name, session=self.session, idempotency_key=key, **values)

    def lock(self, name: str, key: str, **fields: Any) -> Any:
        return self.stub.Lock(self.request(name, key, **fields), timeout=PATIENCE_S)

    def begin_lock(self, name: str, key: str, **fields: Any) -> Any:
        """A `Lock` that waits, as a future."""
        return self.stub.Lock.future(self.request(name, key, **fields), timeout=WAIT_S)

    def unlock(self, name: str, key: str) -> None:
        self.stub.Unlock(
            pb.UnlockRequest(name=name, session=self.session, idempotency_key=key), timeout=PATIENCE_S
        )

    def find(self, name: str) -> Any:
        return self.stub.FindLockOwner(pb.FindLockOwnerRequest(name=name), timeout=PATIENCE_S)

    def drain(self, node: str) -> None:
        self.stub.DrainNode(pb.DrainNodeRequest(node=node), timeout=PATIENCE_S)

    def undrain(self, node: str) -> None:
        self.stub.UndrainNode(pb.UndrainNodeRequest(node=node), timeout=PATIENCE_S)

    def waiters(self, name: str) -> list[str]:
        return [each.owner for each in self.find(name).lock.waiters]

    def see_waiters(self, name: str, *owners: str) -> None:
        """Wait until just these wait, in this order."""
        eventually(lambda: self.waiters(name) == list(owners), lambda: f"{owners}, not {self.waiters(name)}")

    def held(self, name: str, key: str, **fields: Any) -> pb.HeldLock:
        values: dict[str, Any] = {"ttl_ms": TTL_MS} | fields
        return pb.HeldLock(name=name, session=self.session, idempotency_key=key, **values)

    def keep(self, *locks: pb.HeldLock) -> list[pb.KeptLock]:
        """Renew once, on a stream of its own."""
        request = pb.KeepAliveRequest(sequence=7, locks=locks)
        responses = list(self.stub.KeepAlive(iter([request]), timeout=PATIENCE_S))
        assert all(response.sequence in (0, 7) for response in responses)
        return [kept for response in responses for kept in response.locks]


class Refusal(NamedTuple):
    """Return the status that a call ended with."""

    code: grpc.StatusCode
    text: str
    reason: str
    retry_ms: int
    moved_to: pb.MovedTo | None


def refusal(error: Any) -> Refusal:
    """The status of a failed call with its details."""
    status = rpc_status.from_call(error)
    reason, retry_ms, moved = "", 0, None
    for packed in () if status is None else status.details:
        info, retry, where = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), pb.MovedTo()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(retry):
            retry_ms = retry.retry_delay.ToMilliseconds()
        elif packed.Unpack(where):
            moved = where
    return Refusal(error.code(), error.details(), reason, retry_ms, moved)
