"""Hostile inputs and overload against real processes, in the small: `make fuzz` and `make overload` do it in the
large."""

from __future__ import annotations

import itertools
import random
from typing import get_args

import msgspec
import pytest

from lockring.cluster_state import ClusterState, Member, Replica
from lockring.protocol import ClientHello, Drain, GetState, Join, Message
from tests.hostile.conversations import KINDS, converse
from tests.hostile.fuzz import fuzz
from tests.hostile.guarded import CALLS, HANDSHAKE, RENEGOTIATION, TAMPERED, Language, converse_guarded
from tests.hostile.guises import Guise
from tests.hostile.handshakes import handshakes
from tests.hostile.overload import overload
from tests.hostile.samples import TYPES, Facts, Sampler, frame, is_command, packed, understood

INPUTS = 8_000
GUARDED_INPUTS = 3_000
CONVERSATIONS = 1_500

MEMBERS = {name: Member(Replica(name, 1_000_000), "127.0.0.1:1") for name in ("N1", "N2")}
FACTS = Facts(ClusterState("c", 7, members=MEMBERS), MEMBERS["N1"].replica, ("honest/0",))


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_hostile_inputs_change_nothing_and_end_nothing() -> None:
    report = fuzz(inputs=INPUTS, seed=1)
    print("\n".join(report.lines))


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_strangers_at_locked_doors_change_nothing_and_end_nothing() -> None:
    report = fuzz(inputs=GUARDED_INPUTS, seed=1, tls=True)
    print("\n".join(report.lines))


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_handshakes_that_never_finish_are_ended_and_keep_nobody_out() -> None:
    report = handshakes(connections=400)
    print("\n".join(report.lines))


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_crowds_are_served_in_their_order_and_cost_bounded_memory() -> None:
    report = overload(waiters=1_000, connections=500, deaf=6)
    print("\n".join(report.lines))


def test_a_conversation_follows_from_its_seed_and_number() -> None:
    for number in range(200):
        assert converse(1, number, FACTS) == converse(1, number, FACTS)
    assert converse(1, 0, FACTS) != converse(2, 0, FACTS)


def test_conversations_are_of_every_kind_and_send_every_message() -> None:
    conversations = [converse(3, number, FACTS) for number in range(CONVERSATIONS)]
    assert {each.kind for each in conversations} == set(KINDS)
    tags = {data[5] for each in conversations for data in each.inputs if len(data) > 5}
    assert {each.tag for each in TYPES} <= tags


@pytest.mark.parametrize("language", ["frames", "calls"])
def test_a_conversation_with_a_locked_door_follows_from_its_seed_and_number(language: Language) -> None:
    facts = msgspec.structs.replace(FACTS, tokens=("lr_a_b",), is_guarded=True)
    conversations = [converse_guarded(1, number, facts, language) for number in range(300)]
    assert conversations == [converse_guarded(1, number, facts, language) for number in range(300)]
    kinds = {each.kind for each in conversations}
    assert kinds >= {HANDSHAKE, TAMPERED, RENEGOTIATION} | (
        {CALLS} if language == "calls" else {"client", "join"}
    )
    assert {each.shown.guise for each in conversations} == {*get_args(Guise)}


def test_orders_are_given_at_a_locked_door() -> None:
    facts = msgspec.structs.replace(FACTS, is_guarded=True)
    inputs = [data for number in range(1500) for data in converse(4, number, facts).inputs]
    read = [message for data in inputs for message in understood(data)]
    assert [each for each in read if is_command(each, FACTS)], "which without rights would be followed"


def test_no_conversation_gives_an_order_that_would_rightly_be_followed() -> None:
    read: list[Message] = list(
        itertools.chain.from_iterable(
            understood(data) for number in range(CONVERSATIONS) for data in converse(4, number, FACTS).inputs
        )
    )
    assert len(read) > CONVERSATIONS, "most of what is sent can be read"
    assert not [each for each in read if is_command(each, FACTS)]
    assert any(isinstance(each, Join) for each in read), "though joins that must be refused are among it"


def test_orders_are_distinguished_from_messages_that_must_be_refused() -> None:
    def join(node: str, incarnation: int, cluster: str = "c") -> Join:
        return Join(1, cluster, node, incarnation, "127.0.0.1:1", 1, 0)

    assert is_command(join("N9", 5), FACTS), "a new node may join"
    assert is_command(join("N1", 1_000_001), FACTS), "a later life may, once the former is gone"
    assert not is_command(join("N1", 999_999), FACTS), "an earlier one may not"
    assert not is_command(join("N9", 5, "another"), FACTS)
    assert is_command(Drain(1, "N1"), FACTS)
    assert not is_command(Drain(1, "N9"), FACTS)
    assert not is_command(GetState(1), FACTS)


def test_samples_are_what_servers_read() -> None:
    sampler = Sampler(random.Random(1), FACTS)
    for kind in TYPES:
        data = frame(packed(sampler.message(kind)))
        assert data[5] == kind.tag
    (hello,) = understood(frame(packed([1, 1, "c", "client", 1])))
    assert hello == ClientHello(1, "c", "client", 1)
