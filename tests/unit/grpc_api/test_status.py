"""Every error has its status, with the details that a program needs."""

from __future__ import annotations

import base64
from urllib.parse import unquote

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from lockring.errors import (
    AcquireTimeout,
    CannotListen,
    Denied,
    InvalidRequest,
    LockringError,
    Moved,
    NotHeld,
    Overloaded,
    Unauthenticated,
    Unavailable,
)
from lockring.grpc_api.host import SlotPlace
from lockring.grpc_api.status import (
    MESSAGE_BYTES_MAX,
    RETRY_MS,
    STATUS_OF,
    TRAILERS_BYTES_MAX,
    status_of,
    trailers_of,
)
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.holders import Holder
from tests.unit.house.rules import ROOT

HERE = SlotPlace("N2", "10.0.0.2:9501", "10.0.0.2:9601", 17)


def codes_of(kind: type[LockringError]) -> set[str]:
    # The errors of applications do not occur in a node's process: applications are built on the client.
    children = [child for child in kind.__subclasses__() if not child.__module__.startswith("lockring.apps")]
    return {kind.code} | {code for child in children for code in codes_of(child)}


def details_of(error: LockringError, place: SlotPlace | None = None) -> dict[str, object]:
    found: dict[str, object] = {}
    for packed in status_of(error, place).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, pb.MovedTo):
            if packed.Is(kind.DESCRIPTOR):
                found[kind.DESCRIPTOR.name] = kind()
                packed.Unpack(found[kind.DESCRIPTOR.name])
    return found


def test_every_error_has_a_status() -> None:
    assert CannotListen.code in codes_of(LockringError)
    assert codes_of(LockringError) - set(STATUS_OF) == set()


def test_the_page_has_the_same_table() -> None:
    page = (ROOT / "docs" / "grpc.md").read_text(encoding="utf-8")
    for code in (
        "invalid",
        "timeout",
        "not-held",
        "unavailable",
        "moved",
        "overloaded",
        "denied",
        "unauthenticated",
        "internal",
    ):
        assert f"| `{code}` | `{code_pb2.Code.Name(STATUS_OF[code])}` |" in page


def test_the_reason_is_the_code_of_the_error_and_the_message_its_text() -> None:
    status = status_of(NotHeld("no client holds it", name="x"), HERE)
    assert (status.code, status.message) == (code_pb2.FAILED_PRECONDITION, "no client holds it")
    info = details_of(NotHeld("no client holds it", name="x"), HERE)["ErrorInfo"]
    assert (info.reason, info.domain, dict(info.metadata)) == ("not-held", "lockring", {"name": "x"})


def test_what_may_be_tried_again_says_after_what_time() -> None:
    for error in (Unavailable("later"), Moved("elsewhere"), Overloaded("too many")):
        assert details_of(error)["RetryInfo"].retry_delay.nanos == RETRY_MS * 1_000_000
    assert "RetryInfo" not in details_of(InvalidRequest("never"))


def test_what_has_moved_says_where_to() -> None:
    moved = details_of(Moved("elsewhere"), HERE)["MovedTo"]
    assert SlotPlace(moved.node, moved.address, moved.grpc_address, moved.version) == HERE
    assert "MovedTo" not in details_of(NotHeld("no client holds it"), HERE)
    assert "MovedTo" not in details_of(Unavailable("nothing in particular"))


def test_a_refused_right_is_named_in_the_details() -> None:
    status = status_of(Denied("no", name="jobs/7", right="acquire"), HERE)
    assert status.code == code_pb2.PERMISSION_DENIED
    info = details_of(Denied("no", name="jobs/7", right="acquire"))["ErrorInfo"]
    assert (info.reason, dict(info.metadata)) == ("denied", {"name": "jobs/7", "right": "acquire"})
    status = status_of(Unauthenticated("who are you?"), None)
    assert status.code == code_pb2.UNAUTHENTICATED
    assert details_of(Unauthenticated("who are you?"))["ErrorInfo"].reason == "unauthenticated"


def test_a_throttled_call_says_when_to_come_again() -> None:
    delay = details_of(Overloaded("too fast", retry_after_s=1.25))["RetryInfo"].retry_delay
    assert (delay.seconds, delay.nanos) == (1, 250_000_000)


def test_a_wait_that_is_over_names_the_holders_the_position_and_the_time() -> None:
    holders = [Holder(owner, "s", 7, 1.0, 10.0, 9.0) for owner in ("one", "two")]
    info = details_of(AcquireTimeout("held", name="x", holders=holders, waited_s=1.5, position=3))[
        "ErrorInfo"
    ]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {"name": "x", "holders": "one, two", "position": "3", "waited_ms": "1500"}
    info = details_of(AcquireTimeout("held by a node of an older version", waited_s=1.5))["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {"waited_ms": "1500"}


@pytest.mark.parametrize("character", ["a", "%", "\x01", "\u00e9", "\u6f22", "\U0001f512"])
@pytest.mark.parametrize("times", [1, 100, 1_000, 3_000])
def test_trailers_fit_and_keep_all_but_the_last_holders_and_the_end_of_the_message(
    character: str, times: int
) -> None:
    size = len(character.encode())
    name = character * (1_020 // size)
    owners = [character * (250 // size) + str(number) for number in range(8)]
    holders = [Holder(owner, "s", 7, 1.0, 10.0, 9.0) for owner in owners]
    error = AcquireTimeout(character * times, name=name, holders=holders, waited_s=1.5, position=3)
    status = status_of(error, HERE)
    found = dict(trailers_of(status.code, status.message, status.SerializeToString()))
    assert sum(len(value) for key, value in found.items() if key != "grpc-status") <= TRAILERS_BYTES_MAX
    packed = found["grpc-status-details-bin"]
    read = status_pb2.Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
    assert read.message == unquote(found["grpc-message"]), "libraries refuse details with another message"
    assert str(error).startswith(read.message.removesuffix("..."))
    info = error_details_pb2.ErrorInfo()
    assert read.details[0].Unpack(info)
    assert (info.metadata["name"], info.metadata["position"], info.metadata["waited_ms"]) == (
        name,
        "3",
        "1500",
    )
    listed = info.metadata["holders"].split(", ")
    assert listed == owners[: len(listed)]
    assert listed


def test_a_long_place_leaves_room_for_itself() -> None:
    place = SlotPlace("n" * 200, "h" * 250 + ":9501", "h" * 250 + ":9601", 17)
    status = status_of(Moved("x" * 5_000, name="y" * 1_020), place)
    found = dict(trailers_of(status.code, status.message, status.SerializeToString()))
    assert "grpc-status-details-bin" in found
    assert found["grpc-message"].endswith("x...")


def test_a_long_sentence_without_details_is_cut_at_a_whole_character() -> None:
    message = dict(trailers_of(8, "\u6f22" * 5_000))["grpc-message"]
    assert len(message) <= MESSAGE_BYTES_MAX
    assert unquote(message, errors="strict").removesuffix("...").strip("\u6f22") == ""
