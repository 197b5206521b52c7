"""Every message, as it looks on the wire."""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockring import protocol
from lockring.protocol import Message

MESSAGES: list[type[Message]] = [
    each
    for each in vars(protocol).values()
    if inspect.isclass(each) and issubclass(each, Message) and each is not Message
]
UNIONS: dict[str, Any] = {
    name: getattr(protocol, name)
    for name in ("ToNode", "ToCoordinator", "ToClient", "FromCoordinator", "FromPeer")
}
few_examples = settings(max_examples=settings.default.max_examples // 4)
"""For tests of the fields that a message has, of any values."""

each_message = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)


@each_message
def test_annotations_are_no_text_that_each_process_has_to_compile(kind: type[Message]) -> None:
    assert not [each for each in inspect.get_annotations(kind).values() if isinstance(each, str)]


def strategy_of(kind: Any) -> st.SearchStrategy[Any]:
    """Draw any value that a field of this type may have."""
    if isinstance(kind, typing.NewType):
        return strategy_of(kind.__supertype__)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([strategy_of(each) for each in args])
    if origin is list:
        return st.lists(strategy_of(args[0]), max_size=3)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is tuple and args[-1] is Ellipsis:
        return st.lists(strategy_of(args[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*[strategy_of(each) for each in args])
    if isinstance(kind, type) and issubclass(kind, tuple):
        return st.builds(
            kind, **{name: strategy_of(each) for name, each in typing.get_type_hints(kind).items()}
        )
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        return st.builds(kind, **{field.encode_name: strategy_of(field.type) for field in fields})
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(min_value=-(2**63), max_value=2**64 - 1),
        str: st.text(max_size=20),
        bytes: st.binary(max_size=20),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return plain[kind]


def tag_of(kind: type[Message]) -> int:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def test_every_message_has_a_tag_of_its_own() -> None:
    tags = [tag_of(kind) for kind in MESSAGES]
    assert len(set(tags)) == len(tags) > 30


def test_every_message_has_a_receiver() -> None:
    accepted = {kind for union in UNIONS.values() for kind in typing.get_args(union)}
    assert set(MESSAGES) == accepted


@each_message
@given(data=st.data())
def test_a_message_comes_back_as_it_was_sent(kind: type[Message], data: st.DataObject) -> None:
    """For each receiver that accepts it, whatever the values, as an array that starts with its tag."""
    message = data.draw(strategy_of(kind))
    frame = msgspec.msgpack.encode(message)
    assert msgspec.msgpack.decode(frame)[0] == tag_of(kind)
    for union in UNIONS.values():
        if kind in typing.get_args(union):
            back = msgspec.msgpack.decode(frame, type=union)
            assert type(back) is kind
            assert back == message


@each_message
@few_examples
@given(data=st.data())
def test_a_message_of_an_older_sender_is_read_with_the_defaults(
    kind: type[Message], data: st.DataObject
) -> None:
    """An older sender leaves off the fields at the end that it does not know."""
    fields = msgspec.structs.fields(kind)
    required = sum(field.required for field in fields)
    assert all(field.required for field in fields[:required]), "fields with a default come last"
    frame: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(data.draw(strategy_of(kind))))
    old = msgspec.msgpack.decode(msgspec.msgpack.encode(frame[: 1 + required]), type=kind)
    for field in fields[required:]:
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        assert getattr(old, field.name) == default


@each_message
@few_examples
@given(data=st.data())
def test_a_message_of_a_newer_sender_is_read_without_what_is_new(
    kind: type[Message], data: st.DataObject
) -> None:
    message = data.draw(strategy_of(kind))
    frame: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    newer = msgspec.msgpack.encode([*frame, "a field from the future", 7])
    assert msgspec.msgpack.decode(newer, type=kind) == message


@each_message
def test_a_message_that_lacks_a_field_is_refused(kind: type[Message]) -> None:
    with pytest.raises(msgspec.ValidationError, match="length"):
        msgspec.msgpack.decode(msgspec.msgpack.encode([tag_of(kind)]), type=kind)


@pytest.mark.parametrize("role", UNIONS)
def test_a_message_for_another_receiver_is_refused(role: str) -> None:
    union = UNIONS[role]
    foreign = [kind for kind in MESSAGES if kind not in typing.get_args(union)]
    assert foreign
    for kind in foreign:
        with pytest.raises(msgspec.ValidationError, match="Invalid value"):
            msgspec.msgpack.decode(msgspec.msgpack.encode([tag_of(kind)]), type=union)


@pytest.mark.parametrize("role", UNIONS)
@given(frame=st.binary(max_size=60))
def test_garbage_gives_an_error_and_nothing_else(role: str, frame: bytes) -> None:
    try:
        message = msgspec.msgpack.decode(frame, type=UNIONS[role])
    except (msgspec.MsgspecError, ValueError):  # ValueError: text that is not UTF-8
        return
    assert isinstance(message, Message)


def test_the_values_of_modes_verdicts_and_asks_are_part_of_the_protocol() -> None:
    assert [mode.value for mode in protocol.Mode] == [0, 1, 2]
    assert {verdict.name: verdict.value for verdict in protocol.Verdict} == {
        "HELD": 0,
        "LOST": 1,
        "WAITING": 2,
        "MOVED": 3,
        "RETRY": 4,
        "DIFFERS": 5,
    }
    assert [kind.value for kind in protocol.SlotRequestKind] == [0, 1, 2, 3]
