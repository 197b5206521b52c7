"""A real cluster on this machine, for tests: a coordinator and nodes, each a process of its own, and their faults.

with LocalCluster(nodes=3) as cluster:
    client = lockring.Client(cluster.servers)
    …
    cluster.kill(cluster.primary_of("nightly"))
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import msgspec

from lockring.addresses import TLS_SCHEME, split_address
from lockring.cluster_state import ClusterState, Replica
from lockring.errors import LockringError
from lockring.ids import NodeId
from lockring.net.oneshot import ServerView, ask_drain, ask_state, ask_status, ask_undrain, dial_plain
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.server.local.children import command_of, variables_of
from lockring.server.logs import LogLevel
from lockring.server.settings import CoordinatorSettings, Durability, NodeSettings
from lockring.server.tls_settings import ClientAuthChoice
from lockring.slots import SLOTS, slot_of
from lockring.testing.network import Loopback, Network, Place
from lockring.testing.process import TestedProcess

if TYPE_CHECKING:
    from lockring.testing.certificates import ClusterCertificates

COORDINATOR: Final = "coordinator"
"""Name of the coordinator's process."""

_PATIENCE_S: Final = 60.0
"""A start takes about two seconds: the rest is for a machine that is busy, or stands still for a while."""
_POLL_S: Final = 0.05
_SETTLED_S: Final = 0.5
_ANSWER_S_MAX: Final = 2.0
_LOG_LINES: Final = 60
_START_ATTEMPTS: Final = 3
_SHARE_TOLERANCE: Final = 0.06


class ClusterFailed(RuntimeError):
    """The cluster did not reach the expected state; the text ends with the processes' last log lines."""


class LocalCluster:
    """A coordinator and some nodes on free loopback ports. Not thread-safe.

    Processes are named "coordinator", "N1", "N2", …, and coordinators that share a store "C1", "C2", ….
    They never outlive the test, whatever happens to it.

    Args:
        nodes: how many nodes to start with.
        replication: "sync" or "async".
        backup_lease_s: see the coordinator's settings; shorter ones make failovers, and tests, faster.
        coordinator_lease_s: the same; the longest TTL.
        stabilization_s: the same.
        member_lease_s: the same.
        log_level: of all processes.
        directory: for logs and the coordinator's state; by default a temporary one, removed at the end.
        network: gives the processes their addresses; by default free ports of the loopback interface.
        grpc: whether the nodes serve the gRPC API, each at a free port: see `grpc_address_of`.
        http: whether all servers serve HTTP, each at a free port: see `http_address_of`.
        store: URL of a store that the coordinators share, "" for a directory.
        coordinators: how many there are; more than one need a store.
        durability: what the nodes keep in journals of their own, each in its directory (see `data_dir_of`): nothing,
            what a crash of the process leaves ("process"), or what the loss of power leaves ("disk").
        tls: whether all ports speak TLS, by certificates that the cluster makes: see `certificates`. Clients need one.
            It needs the extra `certs`.
        access: identities and rights, for all servers. The cluster's own client, the certificate `test`, or else any
            client that shows nothing, needs the right to read every name, and to drain.
        client_auth: whether clients need certificates, with `tls`.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        replication: Literal["sync", "async"] = "sync",
        backup_lease_s: float = 2.0,
        coordinator_lease_s: float = 30.0,
        stabilization_s: float = 1.0,
        member_lease_s: float = 5.0,
        log_level: LogLevel = "info",
        directory: str | os.PathLike[str] | None = None,
        network: Network | None = None,
        grpc: bool = False,
        http: bool = False,
        store: str = "",
        coordinators: int = 1,
        durability: Durability = "none",
        tls: bool = False,
        access: AccessSettings = OPEN,
        client_auth: ClientAuthChoice = "required",
    ) -> None:
        assert store or coordinators == 1, "several coordinators need a store that they share"
        self._nodes_at_start = nodes
        self._is_own_directory = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="lockring-") if directory is None else directory)
        self._loopback = Loopback()
        self._network: Network = self._loopback if network is None else network
        self.certificates = _certificates(self.directory / "certs") if tls else None
        """The certificates, None without TLS. A client gets in by `**cluster.certificates.client_files`."""
        self._dial = dial_plain if self.certificates is None else self.certificates.dial
        self._access = access
        self._client_auth: ClientAuthChoice = client_auth
        self._log_level: LogLevel = log_level
        self._durability: Durability = durability
        self._grpc_places: dict[str, Place] | None = {} if grpc else None
        self._http_places: dict[str, Place] | None = {} if http else None
        self._coordinator_settings = CoordinatorSettings(
            data_dir=None if store else str(self.directory / "data"),
            store=store,
            replication=replication,
            backup_lease_s=backup_lease_s,
            coordinator_lease_s=coordinator_lease_s,
            stabilization_s=stabilization_s,
            member_lease_s=member_lease_s,
            log_level=log_level,
        )
        self.coordinators = (
            [f"C{number}" for number in range(1, coordinators + 1)] if store else [COORDINATOR]
        )
        """The names of the coordinators."""
        self._processes: dict[str, TestedProcess] = {}
        # The system ends a child with the *thread* that started it: so a thread that lives as long as the cluster does.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lockring-cluster")

    def __enter__(self) -> Self:
        """Start, and wait until every slot has its primary and its backup."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, ClusterFailed):
            print(self.logs(), file=sys.stderr)
        self.close()

    def start(self, *, timeout_s: float = _PATIENCE_S) -> None:
        """Start all processes and wait until the cluster is stable.

        Raises:
            ClusterFailed: it is not in time.
        """
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._start_all()
                self.wait_until_stable(timeout_s=timeout_s)
                return
            except ClusterFailed:
                # Another process may have taken one of the ports since they were found free.
                if attempt == _START_ATTEMPTS or "already taken" not in self.logs():
                    raise
                self._end_all()

    def _start_all(self) -> None:
        for name in self.coordinators:
            place = self._network.place(name)
            # There was no cluster before, even if a first attempt has left an empty directory.
            command = self._coordinator_command(name, place, new_cluster=True)
            variables = variables_of(self._coordinator_settings)
            self._add(name, TestedProcess(place, command, self._log(name), variables))
        for number in range(1, self._nodes_at_start + 1):
            self._add_node(f"N{number}", 1)

    def close(self) -> None:
        """Kill all processes and remove temporary files. Closing twice is harmless."""
        self._end_all()
        self._spawner.shutdown()
        if self._is_own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _end_all(self) -> None:
        for process in self._processes.values():
            process.kill()
        self._processes.clear()
        if self._grpc_places is not None:
            self._grpc_places.clear()
        if self._http_places is not None:
            self._http_places.clear()
        self._loopback.close()

    # ----------------------------------------------------------------------- inspection

    @property
    def servers(self) -> str:
        """The nodes' addresses, in the form that a client takes."""
        addresses = [
            process.place.public for name, process in self._processes.items() if name not in self.coordinators
        ]
        return ("" if self.certificates is None else TLS_SCHEME) + ",".join(addresses)

    @property
    def nodes(self) -> list[str]:
        """The names of all nodes ever started, running or not."""
        return [name for name in list(self._processes) if name not in self.coordinators]

    @property
    def leader(self) -> str:
        """The name of the coordinator that leads, by the word of any of them; "" if none is known."""
        addresses = {self._process(name).place.public: name for name in self.coordinators}
        for name in self.coordinators:
            process = self._process(name)
            if process.is_running and not process.is_frozen:
                with contextlib.suppress(LockringError):
                    status = ask_status(process.address, timeout_s=_ANSWER_S_MAX, dial=self._dial)
                    return addresses.get(status.leader, "")
        return ""

    def address_of(self, name: str) -> str:
        """Return HOST:PORT that a process listens on, the same after a restart."""
        return self._process(name).address

    def data_dir_of(self, name: str) -> Path:
        """Return a node's own directory, the same after a restart. It holds something only with a durability."""
        return self.directory / f"{name}.data"

    def grpc_address_of(self, name: str) -> str:
        """Return HOST:PORT of a node's gRPC API, the same after a restart.

        Raises:
            ClusterFailed: the cluster was started without `grpc`.
        """
        if self._grpc_places is None or name not in self._grpc_places:
            raise ClusterFailed(f"{name} has no gRPC API: make the cluster with grpc=True")
        return self._grpc_places[name].public

    def http_address_of(self, name: str) -> str:
        """Return HOST:PORT of a server's HTTP, the same after a restart.

        Raises:
            ClusterFailed: the cluster was started without `http`.
        """
        if self._http_places is None or name not in self._http_places:
            raise ClusterFailed(f"{name} has no HTTP: make the cluster with http=True")
        return self._http_places[name].public

    def pid_of(self, name: str) -> int:
        """Return the process id of a running process.

        Raises:
            ClusterFailed: it is not running.
        """
        process = self._process(name)
        if not process.is_running:
            raise ClusterFailed(f"{name} is not running")
        return process.pid

    def is_running(self, name: str) -> bool:
        """Return whether a process has been started and has not ended; a frozen one is running."""
        return self._process(name).is_running

    def state(self) -> ClusterState:
        """Return the newest cluster state of any process."""
        views = [view for name in self._processes if (view := self._view(name)) is not None]
        return max((view.state for view in views), key=lambda state: state.version, default=ClusterState())

    def primary_of(self, lock: str) -> str:
        """Return the primary of a lock's slot; "" if there is none."""
        primary = self.state().slots[slot_of(lock)].primary
        return "" if primary is None else primary.node

    def backup_of(self, lock: str) -> str:
        """Return the node with the backup of a lock's slot; "" if there is none."""
        backup = self.state().slots[slot_of(lock)].backup
        return "" if backup is None else backup.replica.node

    def logs(self, *, lines_max: int = _LOG_LINES) -> str:
        """Return the last log lines of every process, for the report of a failure."""
        parts = []
        for name, process in self._processes.items():
            lines = process.log().splitlines()[-lines_max:]
            parts.append("\n".join([f"--- {name} at {process.address}, {process.condition}", *lines]))
        return "\n".join(parts)

    def log_of(self, name: str) -> str:
        """Return everything that a process has logged since the cluster was started."""
        return self._process(name).log()

    # ----------------------------------------------------------------------- faults and changes

    def kill(self, name: str) -> None:
        """Kill a process at once, like a crash (SIGKILL)."""
        self._process(name).kill()

    def terminate(self, name: str) -> None:
        """Ask a process to end (SIGTERM): a node drains first. Does not wait; see `wait_for_exit`."""
        self._process(name).send(signal.SIGTERM)

    def freeze(self, name: str) -> None:
        """Stop a process in the middle of its work (SIGSTOP), until `thaw`."""
        self._process(name).freeze()

    def thaw(self, name: str) -> None:
        """Continue a frozen process (SIGCONT)."""
        self._process(name).thaw()

    def restart(self, name: str, *, weight: int | None = None) -> None:
        """Start a process again at the same address, killing it first if it is running.

        Args:
            name: of the process.
            weight: a node's new weight, None to keep the old one.
        """
        process = self._process(name)
        process.kill()
        if name in self.coordinators:
            process.command = self._coordinator_command(name, process.place, new_cluster=False)
            process.variables = variables_of(self._coordinator_settings)
        elif weight is not None:
            process.command = self._node_command(name, process.place, weight)
        self._spawn(process)

    def use_store(self, url: str = "", *, data_dir: str | None = None) -> None:
        """Let coordinators use another store from their next start on: a shared one by its URL, or a directory."""
        self._coordinator_settings = msgspec.structs.replace(
            self._coordinator_settings, store=url, data_dir=data_dir
        )

    def add_node(self, *, weight: int = 1) -> str:
        """Start one more node, and return its name. Does not wait; see `wait_until_stable`."""
        name = f"N{1 + max((int(each[1:]) for each in self.nodes), default=0)}"
        self._add_node(name, weight)
        return name

    def drain(self, name: str) -> None:
        """Ask the coordinator to move everything off a node. Does not wait; see `wait_until_stable`."""
        ask_drain(self.address_of(self.leader or COORDINATOR), NodeId(name), dial=self._dial)
        self._process(name).is_draining = True

    def undrain(self, name: str) -> None:
        """Ask the coordinator to let a drained node have slots again. Does not wait; see `wait_until_stable`."""
        ask_undrain(self.address_of(self.leader or COORDINATOR), NodeId(name), dial=self._dial)
        self._process(name).is_draining = False

    def wait_for_exit(self, name: str, *, timeout_s: float = _PATIENCE_S) -> int:
        """Wait until a process has ended, and return its exit code (negative: the signal that killed it).

        Raises:
            ClusterFailed: it has not ended in time.
        """
        try:
            return self._process(name).wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ClusterFailed(f"{name} has not ended within {timeout_s:g} s\n{self.logs()}") from None

    def wait_until_stable(self, *, timeout_s: float = _PATIENCE_S, poll_s: float = _POLL_S) -> ClusterState:
        """Wait until the cluster is stable.

        That is: the running, unfrozen nodes have all slots, each with a backup in sync if there are two nodes or
        more; the other nodes are no longer members; and nothing moves. The coordinator must be running.

        Args:
            timeout_s: how long to wait.
            poll_s: how often to look. A look costs the cluster some milliseconds per process.

        Returns:
            The state then.

        Raises:
            ClusterFailed: the cluster is not stable in time.
        """
        end_s = time.monotonic() + timeout_s
        version, since_s = 0, time.monotonic()
        while True:
            what, state = self._unstable()
            now_s = time.monotonic()
            if what or state.version != version:
                version, since_s = state.version, now_s
            elif now_s - since_s >= _SETTLED_S:
                return state
            if now_s >= end_s:
                raise ClusterFailed(
                    f"not stable within {timeout_s:g} s: {what or 'it changes all the time'}\n{self.logs()}"
                )
            time.sleep(poll_s)

    def _unstable(self) -> tuple[str, ClusterState]:
        """Return what keeps the cluster from being stable, "" if nothing; and the coordinator's state."""
        nobody = ClusterState()
        views = [view for name in self.coordinators if (view := self._view(name)) is not None]
        if not views:
            return "no coordinator answers", nobody
        coordinator = next((view for view in views if not view.note), views[0])
        state = coordinator.state
        if coordinator.note:
            return coordinator.note, state
        expected: dict[Replica, int] = {}
        for name in self.nodes:
            process = self._process(name)
            if not process.is_running or process.is_frozen:
                if name in state.members:
                    return f"{name} is still a member", state
                continue
            view = self._view(name)
            if view is None:
                return f"{name} does not answer", state
            if view.state.version != state.version:
                return f"{name} does not have the newest state", state
            member = state.members.get(NodeId(name))
            if member is None or member.replica != view.replica:
                return f"{name} is not a member", state
            if member.condition == "joining":
                return f"{name} has no slots yet", state
            if member.condition == "active" and not process.is_draining:
                expected[view.replica] = member.weight
        return _unsettled(state, expected), state

    # ----------------------------------------------------------------------- inner

    def _process(self, name: str) -> TestedProcess:
        if name not in self._processes:
            raise ClusterFailed(f"there is no process {name!r}; there are {', '.join(self._processes)}")
        return self._processes[name]

    def _view(self, name: str) -> ServerView | None:
        process = self._process(name)
        if not process.is_running or process.is_frozen:
            return None
        with contextlib.suppress(LockringError):
            return ask_state(process.address, timeout_s=_ANSWER_S_MAX, dial=self._dial)
        return None

    def _add_node(self, name: str, weight: int) -> None:
        place = self._network.place(name)
        self._add(name, TestedProcess(place, self._node_command(name, place, weight), self._log(name)))

    def _coordinator_command(self, name: str, place: Place, *, new_cluster: bool) -> list[str]:
        settings = msgspec.structs.replace(
            self._coordinator_settings,
            listen=place.listen,
            advertise=place.advertise,
            new_cluster=new_cluster,
            **self._http_settings(name),
            **self._tls_settings(name, place),
        )
        return command_of("coordinator", settings, self._access_at(place))

    def _node_command(self, name: str, place: Place, weight: int) -> list[str]:
        grpc_listen = grpc_advertise = ""
        if self._grpc_places is not None:
            if name not in self._grpc_places:
                self._grpc_places[name] = self._network.place(name)
            grpc = self._grpc_places[name]
            grpc_listen, grpc_advertise = grpc.listen, grpc.advertise
        settings = NodeSettings(
            id=name,
            grpc=self._grpc_places is not None,
            grpc_listen=grpc_listen,
            grpc_advertise=grpc_advertise,
            listen=place.listen,
            advertise=place.advertise,
            coordinators=tuple(self._process(each).place.public for each in self.coordinators),
            weight=weight,
            log_level=self._log_level,
            data_dir=None if self._durability == "none" else str(self.data_dir_of(name)),
            durability=None if self._durability == "none" else self._durability,
            **self._http_settings(name),
            **self._tls_settings(name, place),
        )
        return command_of("node", settings, self._access_at(place))

    def _http_settings(self, name: str) -> dict[str, Any]:
        if self._http_places is None:
            return {"http": False}
        if name not in self._http_places:
            self._http_places[name] = self._network.place(name)
        return {"http_listen": self._http_places[name].listen}

    def _access_at(self, place: Place) -> AccessSettings:
        return msgspec.structs.replace(self._access, insecure=self._access.insecure or place.insecure)

    def _tls_settings(self, name: str, place: Place) -> dict[str, Any]:
        if self.certificates is None:
            return {}
        settings = self.certificates.server_settings(name, split_address(place.public)[0])
        return {**settings, "tls_client_auth": self._client_auth}

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _add(self, name: str, process: TestedProcess) -> None:
        self._processes[name] = process
        self._spawn(process)

    def _spawn(self, process: TestedProcess) -> None:
        self._spawner.submit(process.spawn).result()


def _certificates(directory: Path) -> ClusterCertificates:
    from lockring.testing.certificates import ClusterCertificates  # needs an extra

    return ClusterCertificates(directory)


def _unsettled(state: ClusterState, expected: dict[Replica, int]) -> str:
    """Return what the slots lack, given exactly these nodes and weights; "" if nothing."""
    if not expected:
        return "no node is active"
    counts = dict.fromkeys(expected, 0)
    for number, slot in enumerate(state.slots):
        if slot.learner is not None:
            return f"slot {number} is being copied"
        if slot.primary is None or slot.primary not in counts:
            return f"slot {number} has the primary {slot.primary}"
        counts[slot.primary] += 1
        if slot.backup is None:
            if len(expected) > 1:
                return f"slot {number} has no backup"
        elif slot.backup.replica not in counts:
            return f"slot {number} has its backup on {slot.backup.replica}"
    total = sum(expected.values())
    for replica, weight in expected.items():
        share = SLOTS * weight / total
        if abs(counts[replica] - share) > 1 + share * _SHARE_TOLERANCE:
            return f"{replica.node} has {counts[replica]} slots, its share is {share:.0f}"
    return ""
