"""Writes down one scenario: each message in short, with small names for the long numbers of a real cluster.

A reader needs to see which numbers are equal and which is greater, not their 19 digits. So versions become v1, v2, …,
fencing tokens t1, t2, … and lives of processes life 1, life 2, … in the order in which they appear. Fields that have
their default, and those that say nothing in a story, are left out; heartbeats too, since they would drown everything
else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from lockring.cluster_state import ClusterState, Copy, Replica, decode_state
from lockring.core.journal import JournalBatch
from lockring.core.route_differences import slots_in
from lockring.core.state_differences import apply_difference, content_of
from lockring.protocol import (
    HandOver,
    Message,
    Position,
    Replicate,
    ReplicateAck,
    Routes,
    RoutesDifference,
    SlotRequests,
    State,
    StateDifference,
)
from lockring.slots import slot_of
from tests.sim.framework.world import MS, S
from tests.sim.scenarios.scenario import Scenario

_TOKENS: Final = frozenset({"fencing_token", "generation", "highest", "below", "view"})
_VERSIONS: Final = frozenset({"version", "since", "joined", "base", "epoch", "has", "ended_since", "hint"})
_LIVES: Final = frozenset({"incarnation", "to_incarnation", "former"})
_SESSIONS: Final = frozenset({"session", "client"})
_DIGESTS: Final = frozenset({"digest"})
_UNSAID: Final = frozenset(
    {
        "protocol",
        "software",
        "cluster",
        "coordinator",
        "sequence",
        "owner",
        "differences",
        "waited_ms",
        "age_ms",
        "primaries",
        "grpc",
    }
)
_QUIET: Final = ("Heartbeat", "HeartbeatAck")
NOBODY: Final = 0xFFFF
_TICKET: Final = re.compile(r"<Ticket (\S+)/(\d+) '(.*?)' (\w+) g(\d+)>")
_REPLICA: Final = re.compile(r"#(\d+)")
_LONG: Final = re.compile(r"\d{10,}")


class Transcript:
    """Notes what happens in a scenario from now on.

    Args:
        cluster: the scenario, at rest. What concerns other slots than that of its lock is left out.
    """

    def __init__(self, cluster: Scenario) -> None:
        self._world = cluster.world
        self._slot = slot_of(cluster.name)
        self._began_ns = self._world.now
        self._lines: list[str] = []
        self._names: dict[str, dict[Any, str]] = {"v": {}, "t": {}, "life ": {}, "s": {}, "digest ": {}}
        self._told: dict[tuple[type[Message], str], str] = {}
        deciding = cluster.coordinator.deciding
        states = [None if deciding is None else deciding.state]
        states += [node.core.state for node in cluster.simulation.nodes if node.core is not None]
        self._states = {state.version: state for state in states if state is not None}
        self._world.show = self._event
        self._world.heard = self._message

    def end(self) -> str:
        """Stop, and give the text."""
        self._world.show = None
        self._world.heard = None
        return "\n".join(self._lines) + "\n"

    def say(self, text: str) -> None:
        """Add what the story's author says about what comes next."""
        self._lines += ["", f"# {text}"]

    # ------------------------------------------------------------------ what happens

    def _event(self, line: str) -> None:
        text = line[11:]
        if " -> " not in text and not text.startswith("S "):
            self._add(*text.split(maxsplit=1))

    def _message(self, sender: str, receiver: str, message: object) -> None:
        if isinstance(message, JournalBatch):
            self._batch(sender, message)
            return
        assert isinstance(message, Message)
        if isinstance(message, (State, StateDifference, Routes, RoutesDifference)):
            place = self._place(message)
            kind = State if isinstance(message, (State, StateDifference)) else Routes
            if place is None or self._told.get((kind, receiver)) == place:
                return  # it is about other slots
            self._told[kind, receiver] = place
            text = f"{type(message).__name__}({place})"
        else:
            here = self._of_this_slot(message)
            if here is None:
                return
            text = self._struct(here)
        self._add(sender, f"-> {receiver}  {text}")

    def _batch(self, sender: str, batch: JournalBatch) -> None:
        """Add a batch that a node writes into its journal, as far as it is about this slot or about none."""
        kept = [each for each in batch.entries if getattr(each, "slot", self._slot) == self._slot]
        shown = [self._struct(each) for each in kept]
        if batch.ends_rewrite:
            shown.append("end of the rewrite")
        if shown:
            self._add(sender, f"-> its disk  {', '.join(shown)}")

    def _of_this_slot(self, message: Message) -> Message | None:
        """The part of a message that the story is about; None of a heartbeat, and where nothing of it is left."""
        replace = msgspec.structs.replace
        match message:
            case Replicate(streams=streams):
                kept: list[Any] = [each for each in streams if each.slot == self._slot]
                return replace(message, streams=kept) if kept else None
            case ReplicateAck(positions=positions):
                kept = [each for each in positions if each.slot == self._slot]
                return replace(message, positions=kept) if kept else None
            case SlotRequests(items=items):
                kept = [each for each in items if each.slot == self._slot]
                return replace(message, items=kept) if kept else None
            case HandOver(slots=slots):
                kept = [each for each in slots if each.slot == self._slot]
                return replace(message, slots=kept) if kept else None
        return None if type(message).__name__ in _QUIET else message

    def _add(self, sender: str, text: str) -> None:
        at_ms = (self._world.now - self._began_ns) / MS
        self._lines.append(f"{at_ms:9.1f} ms  {sender:3} {self._short(text)}".rstrip())

    # ------------------------------------------------------------------ in short

    def _struct(self, value: object) -> str:
        assert isinstance(value, msgspec.Struct)
        defaults = _defaults(value)
        shown = []
        for field in value.__struct_fields__:
            found = getattr(value, field)
            if field not in _UNSAID and (field not in defaults or found != defaults[field]):
                shown.append(f"{field}={self._value(field, found)}")
        return f"{type(value).__name__}({', '.join(shown)})"

    def _value(self, field: str, value: object) -> str:
        if isinstance(value, msgspec.Struct):
            return self._struct(value)
        if isinstance(value, (list, tuple)):
            if field == "positions":
                return self._positions(value)
            return f"[{', '.join(self._value(field, each) for each in value)}]"
        for kinds, prefix in (
            (_TOKENS, "t"),
            (_VERSIONS, "v"),
            (_LIVES, "life "),
            (_SESSIONS, "s"),
            (_DIGESTS, "digest "),
        ):
            if field in kinds and value:
                return self._name(prefix, value)
        if isinstance(value, str):
            return repr(value)
        return str(getattr(value, "name", value))

    def _positions(self, value: Sequence[Position]) -> str:
        return ", ".join(
            f"slot {each.slot} since {self._name('v', each.since)} joined {self._name('v', each.joined)}"
            f" at {each.reached}"
            for each in value
        )

    def _place(self, news: State | StateDifference | Routes | RoutesDifference) -> str | None:
        """Where the slot is, as a message says; None if it says nothing of the slot."""
        if isinstance(news, Routes):
            place = int.from_bytes(news.primaries[2 * self._slot : 2 * self._slot + 2], "little")
            return f"slot {self._slot}: primary {'none' if place == NOBODY else news.members[place][0]}"
        if isinstance(news, RoutesDifference):
            primaries = dict(slots_in(news))
            if self._slot not in primaries:
                return None
            return f"slot {self._slot}: primary {self._replica(primaries[self._slot])}"
        state = self._state_in(news)
        slot = state.slots[self._slot]
        return (
            f"slot {self._slot}: primary {self._replica(slot.primary)}, backup {self._copy(slot.backup)}, "
            f"learner {self._copy(slot.learner)}, since {self._name('v', slot.since)}"
        )

    def _state_in(self, news: State | StateDifference) -> ClusterState:
        """Return the state that a message brings, or to which it leads."""
        if isinstance(news, State):
            state = decode_state(news.state)
        else:
            before = self._states[news.base]
            state = apply_difference(before, content_of(before), news).state
        return self._states.setdefault(state.version, state)

    def _copy(self, copy: Copy | None) -> str:
        return self._replica(None if copy is None else copy.replica)

    @staticmethod
    def _replica(replica: Replica | None) -> str:
        return "none" if replica is None else replica.node

    def _name(self, prefix: str, value: object) -> str:
        names = self._names[prefix]
        if value not in names:
            names[value] = f"{prefix}{len(names) + 1}"
        return names[value]

    def _ticket(self, found: re.Match[str]) -> str:
        session, acquisition, name, _, generation = found.groups()
        token = "" if generation == "0" else f", token {self._name('t', int(generation))}"
        return f"{name!r} (session {self._name('s', session)}, acquisition {acquisition}{token})"

    def _short(self, text: str) -> str:
        text = _TICKET.sub(self._ticket, text)
        text = _REPLICA.sub("", text)
        for names in self._names.values():
            for value, name in names.items():
                if isinstance(value, int) and value > S:
                    text = text.replace(str(value), name)
        return _LONG.sub("…", text)


def _defaults(value: msgspec.Struct) -> dict[str, object]:
    """The defaults of a struct's fields; those that are made afresh are empty lists."""
    values = value.__struct_defaults__
    fields = value.__struct_fields__[len(value.__struct_fields__) - len(values) :]
    return {
        field: default if isinstance(default, (int, str, bytes, bool)) else []
        for field, default in zip(fields, values, strict=True)
    }
