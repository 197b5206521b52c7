"""Calls to the members of an etcd cluster: one channel a member, a deadline for each call, no outcome that is hidden.

- *A call either may be repeated, or is made once.* `repeat` asks one member after the other until one answers.
  `once` asks the member that answered last, and says if the outcome is unknown. gRPC repeats nothing by itself.
- *A channel that failed is closed.* The next call makes another one.
  So nothing waits for a back-off of gRPC's, and no call is put into a connection that is known to be broken.
- *New certificates, new channels.* gRPC reads certificates once. So each call looks whether the files have changed.
  Files that do not fit together, as halfway through a replacement, leave the former ones in use.
- *A token is renewed when it is refused.* etcd forgets tokens: after some minutes without a call, and with a restart.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import grpc
from google.protobuf.message import Message

from lockring.errors import StoreError
from lockring.store.etcd.etcd_pb2 import (
    AuthenticateRequest,
    AuthenticateResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from lockring.store.etcd.place import EtcdPlace, TlsFiles
from lockring.system_errors import reason_of

ROUNDS: Final = 2
"""How often each member is asked at most, if all refuse at once."""
_FIRST_S_MAX: Final = 1.0
"""How long a member is waited for before others are asked: far less than a lead lasts, since a renewal of the lead may
wait behind the call."""
_ROUND_PAUSE_S: Final = 0.2
_CALL_S_MIN: Final = 0.05
_TEXT_MAX: Final = 300

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    (
        "grpc.use_local_subchannel_pool",
        1,
    ),  # else a new channel would inherit the back-off of the one it replaces
    ("grpc.enable_http_proxy", 0),
)

_CARRIED_OUT_BY_NO_MEMBER: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""Codes by which etcd refuses a call. All others leave open whether it was carried out, and may differ by member."""

# etcd tells its errors apart by their texts alone.
_TOKEN_REFUSED: Final = ("invalid auth token", "user name is empty", "revision of auth store is old")
_NO_USERS: Final = "authentication is not enabled"
_WRONG_PASSWORD: Final = "invalid user ID or password"
_NO_SPACE: Final = "database space exceeded"
_TOO_LARGE: Final = "request is too large"
_LEASE_GONE: Final = "lease not found"

_PAIR_MISMATCH: Final = "KEY_VALUES_MISMATCH"
# So does gRPC with those of TLS.
_REFUSED_AFTER_HANDSHAKE: Final = "Unwrap failed"
"""With TLS 1.3, a member looks at a client's certificate only after the client's handshake is over."""
_NO_TRUST: Final = "CERTIFICATE_VERIFY_FAILED"
_NO_TLS: Final = "Handshake read failed"
_CLOSED_IN_THE_CLEAR: Final = "Socket closed"

RequestT = TypeVar("RequestT", bound=Message)
AnswerT = TypeVar("AnswerT", bound=Message)


class Method(NamedTuple, Generic[RequestT, AnswerT]):
    """A method of etcd's API.

    Attributes:
        path: its name.
        request: its requests.
        answer: its answers.
        is_stream: whether a call takes and gives several; the first of each is used.
    """

    path: str
    request: type[RequestT]
    answer: type[AnswerT]
    is_stream: bool = False


RANGE: Final = Method("/etcdserverpb.KV/Range", RangeRequest, RangeResponse)
TXN: Final = Method("/etcdserverpb.KV/Txn", TxnRequest, TxnResponse)
LEASE_GRANT: Final = Method("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest, LeaseGrantResponse)
LEASE_KEEP_ALIVE: Final = Method(
    "/etcdserverpb.Lease/LeaseKeepAlive", LeaseKeepAliveRequest, LeaseKeepAliveResponse, is_stream=True
)
LEASE_REVOKE: Final = Method("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeRequest, LeaseRevokeResponse)
_AUTHENTICATE: Final = Method("/etcdserverpb.Auth/Authenticate", AuthenticateRequest, AuthenticateResponse)


class Unanswered(StoreError):
    """No member has answered, or none could; a call that was sent may have been carried out."""


class OutOfSpace(StoreError):
    """A member has no room for a write. The one that uses up the room is carried out all the same."""


class LeaseGone(StoreError):
    """The lease of a call has ended."""


class EtcdCalls:
    """Calls to one cluster. Not safe for use by several threads.

    Args:
        place: the members, and how to reach them.
    """

    def __init__(self, place: EtcdPlace) -> None:
        self._place = place
        self._channels: dict[str, grpc.Channel] = {}
        self._credentials = None if place.tls is None else _Credentials(place.tls, place.shown)
        self._turn = 0
        self._token = ""

    def repeat(self, method: Method[RequestT, AnswerT], request: RequestT, *, until_s: float) -> AnswerT:
        """Make a call that does no harm if it is carried out twice, at whichever member answers.

        Args:
            method: what to call.
            request: its argument.
            until_s: when to give up, by the monotonic clock, in seconds.

        Raises:
            StoreError: it was refused, or no member has answered.
        """
        count = len(self._place.endpoints)
        failures: dict[str, Unanswered] = {}
        for attempt in range(count * ROUNDS):
            if attempt == count:
                time.sleep(max(0.0, min(_ROUND_PAUSE_S, until_s - time.monotonic())))
            left_s = until_s - time.monotonic()
            if attempt and left_s < _CALL_S_MIN:
                break
            # A member that stands still leaves the others their share of the time.
            share_s = max(_CALL_S_MIN, left_s / (count - attempt % count))
            if attempt < count - 1:
                share_s = min(share_s, _FIRST_S_MAX)
            try:
                return self.once(method, request, time.monotonic() + share_s)
            except Unanswered as error:
                failures[self._endpoint] = error
                self._turn += 1
        raise Unanswered("; ".join(str(error) for error in failures.values()))

    def once(self, method: Method[RequestT, AnswerT], request: RequestT, until_s: float) -> AnswerT:
        """Make a call at the member that answered last; a call whose token is refused is made again with a new one.

        Raises:
            Unanswered: it may have been carried out.
            OutOfSpace: the same.
            StoreError: it was refused, and not carried out.
        """
        try:
            if self._place.user and not self._token:
                self._authenticate(until_s)
            try:
                return self._call(method, request, until_s)
            except grpc.RpcError as error:
                if not self._place.user or not _says(error, *_TOKEN_REFUSED):
                    raise
            self._authenticate(until_s)
            return self._call(method, request, until_s)
        except grpc.RpcError as error:
            raise self._translated(error) from None

    def pass_over(self) -> None:
        """Turn to the next member."""
        self._turn += 1

    def close(self) -> None:
        """Close all channels."""
        while self._channels:
            self._channels.popitem()[1].close()

    # ----------------------------------------------------------------------- one call

    @property
    def _endpoint(self) -> str:
        return self._place.endpoints[self._turn % len(self._place.endpoints)]

    def _authenticate(self, until_s: float) -> None:
        self._token = ""
        request = AuthenticateRequest(name=self._place.user, password=self._place.password())
        try:
            self._token = self._call(_AUTHENTICATE, request, until_s).token
        except grpc.RpcError as error:
            if not _says(error, _NO_USERS):
                raise

    def _call(self, method: Method[RequestT, AnswerT], request: RequestT, until_s: float) -> AnswerT:
        channel = self._channel()
        metadata = (("token", self._token),) if self._token else None
        left_s = max(_CALL_S_MIN, until_s - time.monotonic())
        if not method.is_stream:
            call = channel.unary_unary(
                method.path,
                request_serializer=_serialized,
                response_deserializer=method.answer.FromString,
            )
            return call(request, timeout=left_s, metadata=metadata)
        stream = channel.stream_stream(
            method.path,
            request_serializer=_serialized,
            response_deserializer=method.answer.FromString,
        )(iter((request,)), timeout=left_s, metadata=metadata)
        try:
            for answer in stream:
                return answer
        finally:
            stream.cancel()
        raise Unanswered(f"{self._endpoint} ended a call without an answer")

    def _channel(self) -> grpc.Channel:
        credentials = None
        if self._credentials is not None:
            credentials, is_new = self._credentials.current()
            if is_new:
                self.close()
        endpoint = self._endpoint
        channel = self._channels.get(endpoint)
        if channel is None:
            if credentials is None:
                channel = grpc.insecure_channel(endpoint, options=_OPTIONS)
            else:
                channel = grpc.secure_channel(endpoint, credentials, options=_OPTIONS)
            self._channels[endpoint] = channel
        return channel

    # ----------------------------------------------------------------------- errors

    def _translated(self, error: grpc.RpcError) -> StoreError:
        """Return an error as a clause for people, after the place and what could not be done."""
        code, text = _code_of(error), self._place.secrets.scrubbed(_text_of(error))
        if _says(error, _NO_SPACE):
            return OutOfSpace(
                f"{self._endpoint} has no space left: its database has reached its quota, and takes no writes until an"
                " operator frees space (etcdctl compact, etcdctl defrag) and then ends the alarm (etcdctl alarm disarm)"
            )
        if code not in _CARRIED_OUT_BY_NO_MEMBER:
            channel = self._channels.pop(self._endpoint, None)
            if channel is not None:
                channel.close()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                text = "it does not answer in time"
            return Unanswered(f"{self._endpoint}: {text}{self._advice(text)}")
        user = self._place.user
        if _says(error, _LEASE_GONE):
            return LeaseGone(f"{self._endpoint}: {text}")
        if _says(error, _WRONG_PASSWORD):
            return StoreError(f"{self._endpoint} refuses the user {user} with this password")
        if _says(error, *_TOKEN_REFUSED) and not user:
            return StoreError(
                f"{self._endpoint} lets no client in without a user; name one in the URL of the store, as in etcd://USER@HOST"
            )
        if code is grpc.StatusCode.PERMISSION_DENIED:
            prefix = f"{self._place.prefix}/"
            return StoreError(
                f"{self._endpoint} denies {f'the user {user}' if user else 'this coordinator'} the keys below {prefix}; grant"
                f" a role: etcdctl role grant-permission ROLE --prefix=true readwrite {prefix}"
            )
        if _says(error, _TOO_LARGE):
            return StoreError(
                f"{self._endpoint} does not take a request that large; raise its --max-request-bytes, to 1572864 or more"
            )
        return StoreError(f"{self._endpoint}: {text}")

    def _advice(self, text: str) -> str:
        """Return what is likely wrong with the way to a member, and what to check, as the end of a sentence."""
        tls = self._place.tls
        if tls is None:
            return (
                " (if it expects TLS, write etcds:// instead of etcd://)"
                if _CLOSED_IN_THE_CLEAR in text
                else ""
            )
        if _NO_TLS in text:
            return " (it may not speak TLS: then write etcd:// instead of etcds://)"
        if _REFUSED_AFTER_HANDSHAKE in text and not tls.cert:
            return ": it most likely asks for a certificate of this coordinator; name one with cert=FILE&key=FILE in the URL"
        if _REFUSED_AFTER_HANDSHAKE in text:
            return (
                f": it most likely does not take the certificate {tls.cert}, which has expired or is of an authority that it"
                f" does not trust; look with: openssl x509 -in {tls.cert} -noout -dates -issuer"
            )
        if _NO_TRUST in text:
            trusted = (
                f"those in {tls.ca}" if tls.ca else "the well-known ones; name others with ca=FILE in the URL"
            )
            return f" (its certificate has expired, or is of an authority that is not one of {trusted})"
        return ""


class _Credentials:
    """Credentials for TLS, read again whenever a file of theirs has changed.

    Args:
        files: the files.
        shown: the URL of the store, for people.
    """

    def __init__(self, files: TlsFiles, shown: str) -> None:
        self._files = files
        self._shown = shown
        self._seen: tuple[Any, ...] | None = None
        self._current: grpc.ChannelCredentials | None = None

    def current(self) -> tuple[grpc.ChannelCredentials, bool]:
        """Return the credentials, and whether they are other ones than at the last call.

        Raises:
            StoreError: the files cannot be used, and there are no earlier ones.
        """
        try:
            seen = tuple(_identity(path) for path in self._paths())
            if self._current is not None and seen == self._seen:
                return self._current, False
            ca, cert, key = self._read()
        except (OSError, UnicodeDecodeError) as error:
            if self._current is not None:
                return self._current, False
            raise StoreError(
                f"the files for TLS of {self._shown} ({', '.join(self._paths())}) cannot be used: {self._reason_of(error)}"
            ) from error
        self._seen = seen
        self._current = grpc.ssl_channel_credentials(ca, key, cert)
        return self._current, True

    def _reason_of(self, error: Exception) -> str:
        if isinstance(error, _HasPassphrase):
            key = self._files.key or self._files.cert
            return (
                f"the key {key} is encrypted with a passphrase, for which a coordinator cannot ask; store it without, readable"
                f" by the coordinator's user alone: openssl pkey -in {key} -out FILE"
            )
        if isinstance(error, ssl.SSLError) and error.reason == _PAIR_MISMATCH:
            return f"the key {self._files.key} is not that of the certificate {self._files.cert}"
        if isinstance(error, ssl.SSLError):
            return f"one of them is not what it should be, in PEM form: {reason_of(error)}"
        return reason_of(error)

    def _paths(self) -> Iterator[str]:
        return filter(None, (self._files.ca, self._files.cert, self._files.key))

    def _read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return what the files hold, once it fits together: gRPC would only notice at a handshake."""
        files = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if files.ca:
            context.load_verify_locations(files.ca)
        if files.cert:
            context.load_cert_chain(files.cert, files.key, password=_refuse_passphrase)
        ca, cert, key = (
            Path(path).read_bytes() if path else None for path in (files.ca, files.cert, files.key)
        )
        return ca, cert, key


class _HasPassphrase(OSError):
    """A key cannot be read without a passphrase."""


def _refuse_passphrase() -> str:
    """Stand for the question for a passphrase, which OpenSSL would put to the terminal, and wait there."""
    raise _HasPassphrase


def _identity(path: str) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _code_of(error: object) -> grpc.StatusCode:
    return error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN


def _details_of(error: object) -> str:
    return error.details() or "" if isinstance(error, grpc.Call) else ""


def _text_of(error: object) -> str:
    """Return what etcd or gRPC says, in one line, without what gRPC says of itself."""
    text = " ".join(_details_of(error).split())
    text = text.rpartition("last error: ")[2].removeprefix("UNKNOWN: ").removeprefix("etcdserver: ")
    # The address follows the endpoint's name, which is shown in any case.
    text = re.sub(r"^(?:[A-Z_]+: )?ipv[46]:\S+: ", "", text)
    return text[:_TEXT_MAX] or str(_code_of(error).value[1])


def _says(error: object, *texts: str) -> bool:
    return any(text in _details_of(error) for text in texts)
