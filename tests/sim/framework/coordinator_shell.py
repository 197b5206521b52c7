"""A coordinator in the simulation: what the real server does around the core, without I/O."""

from __future__ import annotations

import msgspec

from lockring.cluster_state import ClusterState
from lockring.core.coordinator import CandidateCore, CoordinatorCore
from lockring.core.coordinator.leadership import LEAD_MS
from lockring.core.effects import (
    Admit,
    Broadcast,
    Close,
    Effect,
    Fail,
    Note,
    Publish,
    Refuse,
    Send,
    StoreCampaign,
    StoreRead,
    StoreResign,
    StoreWrite,
)
from lockring.core.election import Election
from lockring.core.timing import Timing
from lockring.ids import ConnectionId, TermId
from lockring.protocol import (
    ToCoordinator,
)
from tests.sim.framework.network import End, Network
from tests.sim.framework.shells import Shell
from tests.sim.framework.store import SimStore
from tests.sim.framework.world import MS, Slowness, World

_to_coordinator = msgspec.msgpack.Decoder(ToCoordinator)


LEADS_PER_LEASE = 5
"""How short a lead is beside the coordinator lease, where that is shorter than the default."""


class CoordinatorShell(Shell):
    """A coordinator: the real core, connections, and a store that it shares with its rivals."""

    core: CandidateCore | None

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        *,
        store: SimStore,
        timing: Timing,
        replication: str,
        slowness: Slowness,
        drift: bool,
    ) -> None:
        super().__init__(world, network, name, slowness=slowness, drift=drift)
        self.address = f"{name}:9500"
        self.store = store
        self.timing = timing
        self.replication = replication
        self.new_cluster = True  # for the first start only, unless the world says otherwise
        self.boot = f"boot of {name}'s machine"
        self.core = None

    @property
    def deciding(self) -> CoordinatorCore | None:
        """The machine that decides, None while the process stands by."""
        return None if self.core is None else self.core.deciding

    @property
    def lead_ms(self) -> int:
        """How long a lead lasts that is not renewed."""
        return min(LEAD_MS, self.timing.coordinator_lease_ns // MS // LEADS_PER_LEASE)

    def on_start(self) -> None:
        self._ends: dict[int, End] = {}
        self._admitted: dict[int, None] = {}
        self.core = CandidateCore(
            address=self.address,
            is_shared=self.store.is_shared,
            new_term=lambda: TermId(f"{self.name}-{self.life}-{self.rng.getrandbits(32):x}"),
            make_core=self._make_core,
            lead_ms=self.lead_ms,
            now_ns=self.now_ns(),
            wall_ns=self.wall_ns(),
        )
        self.network.listen(self.address, self, self._accepted)
        self.core.start(now_ns=self.now_ns())

    def _make_core(self, term: TermId, *, now_ns: int, wall_ns: int) -> CoordinatorCore:
        return CoordinatorCore(
            address=self.address,
            term=term,
            cluster_if_new=f"cluster-{self.rng.getrandbits(32):x}",
            timing=self.timing,
            new_cluster=self.new_cluster,
            boot="" if self.store.is_shared else self.boot,
            is_shared=self.store.is_shared,
            replication=self.replication,  # type: ignore[arg-type]
            now_ns=now_ns,
            wall_ns=wall_ns,
        )

    def on_timer(self) -> None:
        assert self.core is not None
        self.core.on_timer(now_ns=self._read_clocks())

    def _read_clocks(self) -> int:
        """The time of this turn; the core learns what the wall clock shows."""
        assert self.core is not None
        self.core.set_wall_clock(wall_ns=self.wall_ns(), now_ns=self.turn_now)
        return self.turn_now

    def _accepted(self, end: End) -> None:
        self._ends[end.number] = end
        end.on_message, end.on_closed = self._message, self._closed
        assert self.core is not None
        self.core.connected(end.number, now_ns=self._read_clocks())

    def _message(self, end: End, payload: bytes) -> None:
        assert self.core is not None
        self.core.receive(end.number, _to_coordinator.decode(payload), now_ns=self._read_clocks())

    def _closed(self, end: End) -> None:
        assert self.core is not None
        if self._ends.pop(end.number, None) is not None:
            self.core.disconnected(end.number, now_ns=self._read_clocks())

    def _store_answer(self, operation: int, ok: bool, state: ClusterState | None) -> None:
        assert self.core is not None
        self.core.store_result(operation, ok=ok, state=state, now_ns=self._read_clocks())

    def _election_answer(self, operation: int, election: Election | None) -> None:
        assert self.core is not None
        problem = "" if election is not None else "the store does not answer"
        self.core.election_result(operation, election, problem=problem, now_ns=self._read_clocks())

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Admit(to, _, welcome):
                assert to not in self._admitted, "a connection has one role"
                self._admitted[to] = None
                if welcome is not None:
                    self.transmit(self._ends.get(to), welcome)
            case Broadcast(connections, message):
                for number in connections:
                    self.transmit(self._ends.get(number), message)
            case Send(to, message):
                assert isinstance(to, int)
                self.transmit(self._ends.get(to), message)
            case Refuse(to, refusal):
                self.transmit(self._ends.get(to), refusal)
                self._close(to, refusal.text)
            case Close(to, reason):
                assert isinstance(to, int)
                self._close(to, reason)
            case Publish():
                pass
            case Fail(reason):
                # The core does nothing more. The process stays, so that the checkers see whether that holds.
                if self.world.story is not None:
                    self.world.tell(self.name, reason)
            case Note(text=text):
                if self.world.story is not None:
                    self.world.tell(self.name, text)
            case StoreRead(operation):
                self.store.read(self, operation, self._store_answer)
            case StoreWrite(operation, expected, state):
                self.store.write(self, operation, expected, state, self._store_answer)
            case StoreCampaign(operation, candidate, ttl_ms):
                self.store.campaign(self, operation, candidate, ttl_ms, self._election_answer)
            case StoreResign(term):
                self.store.resign(self, term)
            case _:
                raise AssertionError(f"a coordinator asks for {effect}")

    def _close(self, connection: ConnectionId, reason: str) -> None:
        end = self._ends.get(connection)
        if end is None:
            return
        if self.world.story is not None:
            self.world.tell(self.name, f"closes the connection to {end.other.process.name}: {reason}")
        end.close()
        self.post(self._closed, end)
