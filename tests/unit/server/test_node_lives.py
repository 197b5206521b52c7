"""One life of a node after the other, without a coordinator: the test says what a coordinator would."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lockring.clock import wall_ns
from lockring.cluster_state import ClusterState, Member, encode_state
from lockring.core.effects import Depart, DepartureEnd
from lockring.core.node import JoinFacts
from lockring.errors import DuplicateNode, JournalError, LockringError, Unavailable
from lockring.ids import ClusterId, NodeId, Version
from lockring.journal.incarnations import STEP_MAX
from lockring.journal.journal import Journal
from lockring.net.connection import Outbox
from lockring.protocol import PROTOCOL, Acquire, ClientHello, Message, State, Welcome
from lockring.server import node_lives
from lockring.server.access_gate import AccessGate
from lockring.server.access_settings import OPEN
from lockring.server.coordinator_link import NodePlace
from lockring.server.journal_start import open_journal
from lockring.server.local_client import LocalClients
from lockring.server.node_lives import NodeLives
from lockring.server.request_spans import RequestSpans
from lockring.server.settings import NodeSettings
from lockring.units import NS_PER_US
from tests.unit.net.serving import run


class Process:
    """A node's process without ports: clients are in the process itself."""

    def __init__(self, spans: RequestSpans | None = None) -> None:
        place = NodePlace(weight=100)
        self.locals = LocalClients(lambda: self.lives.present, place)
        self.outbox = Outbox()
        self.lives = NodeLives(
            NodeSettings(id="N1", coordinators=("127.0.0.1:9",)),
            place,
            self.outbox,
            gate=AccessGate(OPEN, server="N1"),
            listener=self,
            spans=spans,
        )
        self.departures: list[Depart] = []
        self.failures: list[LockringError] = []

    def departed(self, depart: Depart) -> None:
        self.departures.append(depart)

    def failed(self, error: LockringError) -> None:
        self.failures.append(error)

    def join(self) -> None:
        """Let the coordinator welcome the present life, and send it the first state."""
        me = self.lives.replica
        state = ClusterState(
            cluster="c", version=me.incarnation, members={NodeId("N1"): Member(me, "here:1")}
        )
        self.lives.joined()
        self.lives.from_coordinator([State(encode_state(state))])
        self.lives.present.pump.flush()


def in_process(test: Callable[[Process], None], spans: RequestSpans | None = None) -> None:
    """Run a test in an event loop, with a node's process that ends after it."""

    async def main() -> None:
        process = Process(spans)
        try:
            test(process)
        finally:
            process.lives.end("the test is over")

    run(main())


def test_another_life_has_a_later_incarnation_and_nothing_of_the_former_one() -> None:
    def main(process: Process) -> None:
        lives = process.lives
        process.join()
        former = lives.present
        assert lives.join_facts().cluster == "c"
        asked = former.core.replica.incarnation + 10**12
        lives.begin_life(asked)
        assert lives.replica.node == "N1"
        assert asked <= lives.replica.incarnation < asked + STEP_MAX
        assert lives.join_facts() == JoinFacts(ClusterId(""), Version(0), (), Version(0))
        assert lives.present is not former
        assert lives.has_joined, "one of its lives has"

    in_process(main)


def test_another_life_begins_at_the_wall_clock_if_that_is_later_than_the_coordinator_asks() -> None:
    def main(process: Process) -> None:
        before_us = wall_ns() // NS_PER_US
        process.lives.begin_life(7)
        assert process.lives.replica.incarnation >= before_us

    in_process(main)


@pytest.mark.parametrize(("address", "has_others"), [("127.0.0.1:9", False), ("127.0.0.1:10", True)])
def test_a_leader_that_is_none_of_its_coordinators_shows_that_there_are_others(
    address: str, has_others: bool
) -> None:
    """It may be of a release that does not say so by itself."""

    def main(process: Process) -> None:
        life = process.lives.replica
        welcome = Welcome(
            PROTOCOL, ClusterId("c"), "coordinator", life.node, life.incarnation, Version(1), address
        )
        process.lives.greet_coordinator(welcome, address)
        assert process.lives.present.core._coordinator.has_others == has_others

    in_process(main)


def test_clients_of_a_life_that_ends_hear_why_and_may_come_back() -> None:
    def main(process: Process) -> None:
        heard: list[Message] = []
        ended: list[str] = []
        former = process.lives.replica
        line = process.locals.connect_local(heard.append, ended.append)
        line.ask(ClientHello(PROTOCOL, "", "client", 1))
        process.lives.present.pump.flush()
        process.lives.begin_life(1)
        assert ended == ["this node begins a new life"]
        line = process.locals.connect_local(heard.append, ended.append)
        line.ask(ClientHello(PROTOCOL, "", "client", 2))
        process.lives.present.pump.flush()
        welcomes = [message.incarnation for message in heard if isinstance(message, Welcome)]
        assert welcomes == [former.incarnation, process.lives.replica.incarnation]

    in_process(main)


def test_spans_of_requests_end_with_the_life_that_would_have_answered_them() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = RequestSpans(provider.get_tracer("test"), NodeId("N1"))

    def main(process: Process) -> None:
        line = process.locals.connect_local(lambda message: None, lambda reason: None)
        line.ask(ClientHello(PROTOCOL, "", "client", 1))
        process.lives.present.pump.flush()
        (number,) = process.lives.present.guests
        traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
        spans.arrived(number, [Acquire(1, "s", 1000, "o", 1, "nightly", traceparent=traceparent)])
        process.lives.begin_life(1)
        assert spans.count == 0
        (span,) = exporter.get_finished_spans()
        assert (span.attributes or {})["lockring.outcome"] == "disconnected"

    in_process(main, spans)


def test_the_log_reports_what_a_life_has_learned_before_the_next_one_begins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "lockring.node")

    def main(process: Process) -> None:
        log = process.lives.log
        process.join()
        assert caplog.messages == [], "changes are collected for a moment"
        process.lives.begin_life(1)
        assert any("N1 joined" in line for line in caplog.messages)
        caplog.clear()
        process.join()
        assert process.lives.log is log
        log.flush()
        assert any("N1 joined" in line for line in caplog.messages), "the next life knows no former state"

    in_process(main)


def test_an_order_to_leave_outlasts_a_life_and_the_next_one_has_nothing_to_hand_over() -> None:
    def main(process: Process) -> None:
        process.join()
        process.lives.leave(60)
        process.lives.present.pump.flush()
        assert process.departures == []
        process.lives.begin_life(1)
        process.lives.present.pump.flush()
        assert [depart.end for depart in process.departures] == [DepartureEnd.NEW_LIFE]

    in_process(main)


def test_a_life_without_an_order_to_leave_stays() -> None:
    def main(process: Process) -> None:
        process.join()
        process.lives.begin_life(1)
        process.lives.present.pump.flush()
        assert process.departures == []
        assert not process.lives.present.core.is_leaving

    in_process(main)


def test_an_error_that_waiting_cannot_mend_ends_the_process() -> None:
    def main(process: Process) -> None:
        error = DuplicateNode("a node N1 is running already")
        process.lives.fail(error)
        assert process.failures == [error]

    in_process(main)


def test_a_node_whose_next_life_cannot_begin_refuses_clients_and_may_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_full, open_as_always = threading.Event(), open_journal

    def open_if_there_is_room(settings: NodeSettings) -> Journal | None:
        if is_full.is_set():
            raise JournalError("the journal in /data cannot be written; free some space there")
        return open_as_always(settings)

    monkeypatch.setattr(node_lives, "open_journal", open_if_there_is_room)

    def main(process: Process) -> None:
        process.join()
        is_full.set()
        process.lives.begin_life(1)
        why = "no new life can begin yet: the journal in /data cannot be written; free some space there"
        ended: list[str] = []
        process.locals.connect_local(lambda message: None, ended.append)
        assert ended == [why]
        with pytest.raises(Unavailable, match=why):
            process.lives.present.greet(None, ClientHello(PROTOCOL, "", "client", 1))  # type: ignore[arg-type]
        process.lives.leave(60)
        assert [depart.end for depart in process.departures] == [DepartureEnd.NEW_LIFE]
        is_full.clear()
        process.lives.begin_life(1)
        process.locals.connect_local(lambda message: None, ended.append)
        assert ended == [why]

    in_process(main)
