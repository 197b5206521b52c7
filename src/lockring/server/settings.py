"""The settings of the server processes, each declared once (see `lockring.config`)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from lockring.addresses import PORT_MAX, check_host, format_address, split_address
from lockring.config import setting, shown_without_secrets
from lockring.core.timing import HEARTBEATS_PER_LEASE, Timing
from lockring.errors import CannotListen, ConfigError, InvalidRequest
from lockring.names import check_node_id
from lockring.server.http_settings import (
    HTTP_PORT_OFFSET,
    LOOPBACK,
    HttpSettings,
    MetricsPrefixes,
    check_metrics_prefixes,
)
from lockring.server.logs import LogFormat, LogLevel, LogStyle
from lockring.server.tls_settings import check_tls
from lockring.store.urls import check_store_url
from lockring.units import NS_PER_S, seconds_to_ns

Durability = Literal["none", "process", "disk"]
"""When a grant is kept, before its answer: never, written to the system, or synced to the disk."""

WILDCARDS: Final = frozenset({"0.0.0.0", "::"})
"""Hosts to listen on that no client can connect to."""

GRPC_PORT_OFFSET: Final = 100
"""Distance of a node's default gRPC port from its lock port."""

_LISTEN_CLIENTS: Final = "Address that clients and other nodes connect to. Port 0 takes a free one."
_LISTEN_COORDINATOR: Final = "Address that nodes and clients connect to. Port 0 takes a free one."
_ADVERTISE: Final = "Address to advertise, if not the one listened on."
_GRPC: Final = "Whether to serve the gRPC API."
_GRPC_LISTEN: Final = (
    "Address that gRPC clients connect to; by default the host of --listen, and its port + 100."
)
_GRPC_ADVERTISE: Final = "gRPC address to advertise, if not the one listened on."
_HTTP_LISTEN: Final = (
    "Address for HTTP; by default 127.0.0.1, and the port of --listen + 200. With port 0 a free one."
)
_WEIGHT: Final = "The node's share of slots, relative to the other nodes."
_DRAIN: Final = "How long a stopping node waits for its slots to move before it leaves anyway."
_DATA_DIR: Final = (
    "Directory of the coordinator's state (SQLite). Without it the state is in memory: each start then waits until every "
    "earlier lease must have ended."
)
_DATA_DIR_KEPT: Final = (
    "Directory of the coordinator's state (SQLite) and of the locks. By default one named after the command and the port,"
    " in $STATE_DIRECTORY or the user's directory for state."
)
_DATA_DIR_NODE: Final = "Directory in which the node keeps its locks, so that they outlive the process. Each node needs one of its own."
_DURABILITY: Final = (
    "Answer a grant once it is written to the data directory (process: it survives the death of every process), or"
    " synced to the disk (disk: it survives power loss too). Without a data directory none, with one process."
)
_STORE: Final = (
    "Store that several coordinators share, instead of --data-dir: etcd://HOST,HOST,HOST/PREFIX or"
    " postgresql://USER@HOST/DATABASE#CLUSTER. One of them leads, and the others stand by."
)
_DATA_DIR_OF: Final = "Directory that has the coordinator's state, or takes it (SQLite)."
_STORE_OF: Final = "Store that has the coordinators' state, or takes it, instead of a directory."
_STORE_OF_UP: Final = (
    "Store that the coordinators share: etcd://HOST,HOST,HOST/PREFIX or postgresql://USER@HOST/DATABASE#CLUSTER."
    " A --data-dir beside it keeps the nodes' locks alone."
)
_TLS_OF_UP: Final = "Make certificates for development, and speak TLS with them on all ports. They stay in the directory of the state."
_IN_MEMORY: Final = "Keep no state: each start waits until every earlier lease must have ended, unless --new-cluster is given."
_NEW_CLUSTER: Final = (
    "Declare that there was no cluster here before: if no state is found, do not wait for earlier leases."
)
_REPLICATION: Final = "Answer a grant once its backup has it (sync), or at once (async: faster, a crash may lose the newest grants)."
_BACKUP_LEASE: Final = (
    "How long a primary serves after an acknowledgement by its backup, and so how long a failover takes. Lower values "
    "cost traffic and tolerate shorter pauses. Fixed when the cluster is made."
)
_COORDINATOR_LEASE: Final = (
    "How long nodes work without the coordinator, and the longest TTL of a lock. Locks that lose both copies stay "
    "blocked for as long. Fixed when the cluster is made."
)
_STABILIZATION: Final = "How long membership must be quiet before slots are reassigned."
_MEMBER_LEASE: Final = "How long a node may be silent before it counts as failed."
_LOG: Final = "How much to log."
_LOG_FORMAT: Final = (
    "How to log: a sentence a line (text), or an object of JSON a line, with names and fields (json)."
)


def _address(text: str) -> None:
    split_address(text)


def _host(text: str) -> None:
    """Check that this is a host alone: the name of one, or an address without brackets and a port."""
    try:
        check_host(text)
    except InvalidRequest as error:
        raise InvalidRequest(
            f"expected a host or an address without a port, such as 127.0.0.1, got {text[:80]!r}: {error}"
        ) from None


def _directory(text: str) -> None:
    if not text:
        raise InvalidRequest("expected the path of a directory, got ''")
    if "://" in text:
        # It may have a password, so it is not shown.
        raise InvalidRequest("expected the path of a directory, got a URL, which --store takes")


def _store_url(text: str) -> None:
    if not text:
        raise InvalidRequest("expected a URL, got ''")
    check_store_url(text)


class _Server(HttpSettings, frozen=True, kw_only=True):
    log_level: Annotated[LogLevel, setting(_LOG)] = "info"
    log_format: Annotated[LogFormat, setting(_LOG_FORMAT)] = "text"

    def __repr__(self) -> str:
        return shown_without_secrets(self)

    @property
    def log_style(self) -> LogStyle:
        """The level and the format of the log."""
        return LogStyle(self.log_level, self.log_format)


class PortSettings(_Server, frozen=True, kw_only=True):
    """The settings of a server that chooses its HTTP port alone; `http_listen` is "" for the default."""

    http_listen: Annotated[str, setting(_HTTP_LISTEN, metavar="HOST:PORT", check=_address)] = ""

    def http_address(self, listening: str) -> str:
        """Return HOST:PORT to listen on for HTTP.

        Args:
            listening: HOST:PORT of the port for clients, with the actual port.

        Raises:
            CannotListen: none is configured, and that port is too high for the default.
        """
        if self.http_listen:
            return self.http_listen
        port = split_address(listening)[1] + HTTP_PORT_OFFSET
        if port > PORT_MAX:
            raise CannotListen(
                f"there is no port {port} for HTTP (that of --listen + {HTTP_PORT_OFFSET}); name one with --http-listen"
            )
        return format_address(LOOPBACK, port)


class CoordinatorSettings(PortSettings, frozen=True, kw_only=True):
    """The settings of `lockring coordinator`. Durations are seconds; `advertise` is "" for the address listened on."""

    listen: Annotated[str, setting(_LISTEN_COORDINATOR, metavar="HOST:PORT", check=_address)] = (
        "127.0.0.1:9500"
    )
    advertise: Annotated[str, setting(_ADVERTISE, metavar="HOST:PORT", check=_address)] = ""
    data_dir: Annotated[str | None, setting(_DATA_DIR, metavar="DIR", check=_directory)] = None
    store: Annotated[str, setting(_STORE, metavar="URL", check=_store_url, secret=True)] = ""
    new_cluster: Annotated[bool, setting(_NEW_CLUSTER)] = False
    replication: Annotated[Literal["sync", "async"], setting(_REPLICATION)] = "sync"
    backup_lease_s: Annotated[float, setting(_BACKUP_LEASE, unit="seconds", minimum=0.2, maximum=60)] = 2.0
    coordinator_lease_s: Annotated[
        float, setting(_COORDINATOR_LEASE, unit="seconds", minimum=1, maximum=3600)
    ] = 30.0
    stabilization_s: Annotated[float, setting(_STABILIZATION, unit="seconds", minimum=0, maximum=60)] = 1.0
    member_lease_s: Annotated[float, setting(_MEMBER_LEASE, unit="seconds", minimum=0.5, maximum=600)] = 5.0

    def __post_init__(self) -> None:
        check_tls(self)
        _check_http(self)
        _check_apart(self)
        _check_reachable(self.listen, self.advertise, "--advertise")
        _check_leases(self.backup_lease_s, self.coordinator_lease_s, self.member_lease_s)
        _check_one_place(self.store, self.data_dir)

    def timing(self) -> Timing:
        """Return the durations as the coordinator core takes them."""
        return _timing(self)


class StorePlaceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The place of a coordinator's state, for commands that move it. At most one of the two is given."""

    data_dir: Annotated[str | None, setting(_DATA_DIR_OF, metavar="DIR", check=_directory)] = None
    store: Annotated[str, setting(_STORE_OF, metavar="URL", check=_store_url, secret=True)] = ""

    def __post_init__(self) -> None:
        _check_one_place(self.store, self.data_dir)

    def __repr__(self) -> str:
        return shown_without_secrets(self)


class NodeSettings(PortSettings, frozen=True, kw_only=True):
    """The settings of `lockring node`. Durations are seconds; `advertise` is "" for the address listened on."""

    id: Annotated[
        str,
        setting("The node's name, unique in the cluster and the same after a restart.", check=check_node_id),
    ]
    listen: Annotated[str, setting(_LISTEN_CLIENTS, metavar="HOST:PORT", check=_address)] = "127.0.0.1:9501"
    advertise: Annotated[str, setting(_ADVERTISE, metavar="HOST:PORT", check=_address)] = ""
    coordinators: Annotated[
        tuple[str, ...],
        setting(
            "The coordinator's address; several, separated by commas, are tried in turn.",
            metavar="HOST:PORT",
            check=_address,
            key="coordinator",
        ),
    ] = ("127.0.0.1:9500",)
    grpc: Annotated[bool, setting(_GRPC)] = True
    grpc_listen: Annotated[str, setting(_GRPC_LISTEN, metavar="HOST:PORT", check=_address)] = ""
    grpc_advertise: Annotated[str, setting(_GRPC_ADVERTISE, metavar="HOST:PORT", check=_address)] = ""
    data_dir: Annotated[str | None, setting(_DATA_DIR_NODE, metavar="DIR", check=_directory)] = None
    durability: Annotated[Durability | None, setting(_DURABILITY)] = None
    weight: Annotated[int, setting(_WEIGHT, minimum=1, maximum=100)] = 1
    drain_timeout_s: Annotated[float, setting(_DRAIN, unit="seconds", minimum=0, maximum=86_400)] = 60.0
    metrics_prefixes: MetricsPrefixes = ()

    def __post_init__(self) -> None:
        check_tls(self)
        check_metrics_prefixes(self.metrics_prefixes)
        _check_http(self)
        _check_reachable(self.listen, self.advertise, "--advertise")
        _check_grpc(self)
        _check_apart(self)
        if self.data_dir is None:
            _check_durability(self.durability, "")

    @property
    def keeps(self) -> Durability:
        """How durable the locks are kept: what was asked for, or what follows from the data directory."""
        if self.data_dir is None:
            return "none"
        return self.durability or "process"

    def grpc_addresses(self, listening: str, advertised: str) -> tuple[str, str]:
        """Return the gRPC address to listen on, and the one to advertise, "" for the one listened on.

        Args:
            listening: HOST:PORT of the lock port, with the actual port.
            advertised: HOST:PORT of the lock port as advertised to others.

        Raises:
            CannotListen: none is configured, and the lock port is too high for the default.
        """
        if self.grpc_listen:
            return self.grpc_listen, self.grpc_advertise
        host, port = split_address(listening)
        if port + GRPC_PORT_OFFSET > PORT_MAX:
            raise CannotListen(
                f"there is no port {port + GRPC_PORT_OFFSET} for gRPC (that of --listen + {GRPC_PORT_OFFSET}); name one with --grpc-listen"
            )
        listen = format_address(host, port + GRPC_PORT_OFFSET)
        if self.grpc_advertise or not self.advertise:
            return listen, self.grpc_advertise
        return listen, format_address(split_address(advertised)[0], port + GRPC_PORT_OFFSET)


class ServeSettings(PortSettings, frozen=True, kw_only=True):
    """The settings of `lockring serve`: a coordinator and one node in one process. Durations are seconds."""

    id: Annotated[str, setting("The node's name in the cluster.", check=check_node_id)] = "node-1"
    listen: Annotated[str, setting(_LISTEN_CLIENTS, metavar="HOST:PORT", check=_address)] = "127.0.0.1:9501"
    advertise: Annotated[str, setting(_ADVERTISE, metavar="HOST:PORT", check=_address)] = ""
    coordinator_listen: Annotated[
        str,
        setting(
            "Address at which further nodes reach the coordinator in this process.",
            metavar="HOST:PORT",
            check=_address,
        ),
    ] = "127.0.0.1:9500"
    coordinator_advertise: Annotated[
        str,
        setting(
            "The coordinator's address to advertise, if not the one listened on.",
            metavar="HOST:PORT",
            check=_address,
        ),
    ] = ""
    data_dir: Annotated[str | None, setting(_DATA_DIR_KEPT, metavar="DIR", check=_directory)] = None
    durability: Annotated[Durability | None, setting(_DURABILITY)] = None
    in_memory: Annotated[bool, setting(_IN_MEMORY)] = False
    new_cluster: Annotated[bool, setting(_NEW_CLUSTER)] = False
    grpc: Annotated[bool, setting(_GRPC)] = True
    grpc_listen: Annotated[str, setting(_GRPC_LISTEN, metavar="HOST:PORT", check=_address)] = ""
    grpc_advertise: Annotated[str, setting(_GRPC_ADVERTISE, metavar="HOST:PORT", check=_address)] = ""
    weight: Annotated[int, setting(_WEIGHT, minimum=1, maximum=100)] = 1
    drain_timeout_s: Annotated[float, setting(_DRAIN, unit="seconds", minimum=0, maximum=86_400)] = 60.0
    metrics_prefixes: MetricsPrefixes = ()
    replication: Annotated[Literal["sync", "async"], setting(_REPLICATION)] = "sync"
    backup_lease_s: Annotated[float, setting(_BACKUP_LEASE, unit="seconds", minimum=0.2, maximum=60)] = 2.0
    coordinator_lease_s: Annotated[
        float, setting(_COORDINATOR_LEASE, unit="seconds", minimum=1, maximum=3600)
    ] = 30.0
    stabilization_s: Annotated[float, setting(_STABILIZATION, unit="seconds", minimum=0, maximum=60)] = 1.0
    member_lease_s: Annotated[float, setting(_MEMBER_LEASE, unit="seconds", minimum=0.5, maximum=600)] = 5.0

    def __post_init__(self) -> None:
        check_tls(self)
        check_metrics_prefixes(self.metrics_prefixes)
        _check_http(self)
        _check_reachable(self.listen, self.advertise, "--advertise")
        _check_grpc(self)
        _check_apart(self)
        _check_reachable(self.coordinator_listen, self.coordinator_advertise, "--coordinator-advertise")
        _check_leases(self.backup_lease_s, self.coordinator_lease_s, self.member_lease_s)
        ports = [split_address(each)[1] for each in (self.listen, self.coordinator_listen)]
        _check_kept(self, is_nameless=not any(ports))

    def coordinator(self, data_dir: str | None, *, new_cluster: bool) -> CoordinatorSettings:
        """Return the settings of the coordinator in this process.

        Args:
            data_dir: directory of its state, None for memory.
            new_cluster: whether there was no cluster before.
        """
        return CoordinatorSettings(
            listen=self.coordinator_listen,
            advertise=self.coordinator_advertise,
            data_dir=data_dir,
            new_cluster=new_cluster,
            replication=self.replication,
            backup_lease_s=self.backup_lease_s,
            coordinator_lease_s=self.coordinator_lease_s,
            stabilization_s=self.stabilization_s,
            member_lease_s=self.member_lease_s,
            http=False,  # the process has one HTTP port for both
            log_level=self.log_level,
            log_format=self.log_format,
            **self.tls_fields(),
        )

    def node(self, coordinator: str, data_dir: str | None) -> NodeSettings:
        """Return the settings of the node in this process.

        Args:
            coordinator: HOST:PORT at which the coordinator in this process listens.
            data_dir: directory of its locks, None for memory.
        """
        return NodeSettings(
            id=self.id,
            listen=self.listen,
            advertise=self.advertise,
            coordinators=(coordinator,),
            grpc=self.grpc,
            grpc_listen=self.grpc_listen,
            grpc_advertise=self.grpc_advertise,
            data_dir=data_dir,
            durability=self.durability,
            weight=self.weight,
            drain_timeout_s=self.drain_timeout_s,
            metrics_prefixes=self.metrics_prefixes,
            http=False,  # the process has one HTTP port for both
            log_level=self.log_level,
            log_format=self.log_format,
            **self.tls_fields(),
        )


class UpSettings(_Server, frozen=True, kw_only=True):
    """The settings of `lockring up`: coordinators and `nodes` nodes on one machine, on consecutive ports."""

    nodes: Annotated[int, setting("How many nodes to start.", minimum=1, maximum=50)] = 3
    host: Annotated[str, setting("Address that all of them listen on.", metavar="HOST", check=_host)] = (
        "127.0.0.1"
    )
    port: Annotated[
        int,
        setting(
            "The first coordinator's port; the others and the nodes take the next ones. With 0, all take free ones.",
            minimum=0,
            maximum=PORT_MAX,
        ),
    ] = 9500
    coordinators: Annotated[
        int, setting("How many coordinators to start; more than one need --store.", minimum=1, maximum=9)
    ] = 1
    store: Annotated[str, setting(_STORE_OF_UP, metavar="URL", check=_store_url, secret=True)] = ""
    data_dir: Annotated[str | None, setting(_DATA_DIR_KEPT, metavar="DIR", check=_directory)] = None
    durability: Annotated[Durability | None, setting(_DURABILITY)] = None
    in_memory: Annotated[bool, setting(_IN_MEMORY)] = False
    new_cluster: Annotated[bool, setting(_NEW_CLUSTER)] = False
    grpc: Annotated[bool, setting("Whether the nodes serve the gRPC API, each at its own port + 100.")] = True
    tls: Annotated[bool, setting(_TLS_OF_UP)] = False
    metrics_prefixes: MetricsPrefixes = ()

    def __post_init__(self) -> None:
        check_tls(self)
        check_metrics_prefixes(self.metrics_prefixes)
        if self.tls and self.has_tls:
            raise ConfigError("--tls contradicts --tls-cert: leave one of them out")
        if self.coordinators > 1 and not self.store:
            raise ConfigError(
                f"--coordinators {self.coordinators} needs a store that they share: name one with --store URL"
            )
        if self.store and self.in_memory:
            raise ConfigError("--store contradicts --in-memory: leave one of them out")
        last = self.port + self.coordinators - 1 + self.nodes
        offset = HTTP_PORT_OFFSET if self._has_http_there else GRPC_PORT_OFFSET * self.grpc
        if self.port and last + offset > PORT_MAX:
            raise ConfigError(
                f"--port {self.port} leaves no room for {self.coordinators} coordinators and {self.nodes} nodes on the ports from it on; choose a lower one"
            )
        if self.host in WILDCARDS:
            raise ConfigError(
                f"--host {self.host} is not an address that clients can connect to; name one that is"
            )
        _check_kept(self, is_nameless=bool(self.store) or not self.port)

    def http_listen_of(self, listen: str) -> str:
        """Return the HTTP address of a server that listens at HOST:PORT: on the same host; "" for the default."""
        if not self._has_http_there:
            return ""
        host, port = split_address(listen)
        return format_address(host, port + HTTP_PORT_OFFSET if self.port else 0)

    @property
    def _has_http_there(self) -> bool:
        """Whether HTTP has the host of the other ports; on loopback a server chooses its port by itself."""
        return self.http and self.host != LOOPBACK


def _check_reachable(listen: str, advertise: str, flag: str) -> None:
    host, _ = split_address(listen)
    if advertise:
        host, port = split_address(advertise)
        if port == 0 or host in WILDCARDS:
            raise ConfigError(
                f"{flag} {advertise} is not an address that clients can connect to; name one that is"
            )
    elif host in WILDCARDS:
        raise ConfigError(
            f"listening on {listen} needs {flag} HOST:PORT, the address at which others reach this process"
        )


def _check_apart(settings: CoordinatorSettings | NodeSettings | ServeSettings) -> None:
    """Check that the ports of one process are different ones."""
    named = {"--listen": settings.listen}
    if isinstance(settings, ServeSettings):
        named["--coordinator-listen"] = settings.coordinator_listen
    if settings.http_listen:  # the default is left out where it is taken
        named["--http-listen"] = settings.http_listen
    if not isinstance(settings, CoordinatorSettings) and settings.grpc:
        host, port = split_address(settings.listen)
        if settings.grpc_listen:
            named["--grpc-listen"] = settings.grpc_listen
        elif 0 < port <= PORT_MAX - GRPC_PORT_OFFSET:
            named["the gRPC port, that of --listen + 100"] = format_address(host, port + GRPC_PORT_OFFSET)
    flags: dict[tuple[str, int], str] = {}
    for flag, address in named.items():
        place = split_address(address)
        other = flags.setdefault(place, flag)
        if place[1] and other != flag:
            raise ConfigError(f"{address} is both {other} and {flag}: give each a port of its own")


def _check_grpc(settings: NodeSettings | ServeSettings) -> None:
    if not settings.grpc:
        if settings.grpc_listen or settings.grpc_advertise:
            raise ConfigError(
                "--no-grpc contradicts --grpc-listen and --grpc-advertise: leave one of them out"
            )
        return
    if settings.grpc_listen:
        _check_reachable(settings.grpc_listen, settings.grpc_advertise, "--grpc-advertise")
    elif settings.grpc_advertise:
        _check_reachable("127.0.0.1:0", settings.grpc_advertise, "--grpc-advertise")


def _check_http(settings: PortSettings) -> None:
    if not settings.http and settings.http_listen:
        raise ConfigError("--no-http contradicts --http-listen: leave one of them out")


def _check_kept(settings: ServeSettings | UpSettings, *, is_nameless: bool) -> None:
    """Check what is kept, given whether there is no directory by default."""
    if settings.in_memory and settings.data_dir is not None:
        raise ConfigError(f"--in-memory contradicts --data-dir {settings.data_dir}: leave one of them out")
    if settings.in_memory:
        _check_durability(settings.durability, ", and leave out --in-memory")
    elif settings.data_dir is None and is_nameless:
        _check_durability(settings.durability, "")


def _check_durability(durability: Durability | None, more: str) -> None:
    """Refuse to keep locks without a directory; `more` says what else to do than to name one."""
    if durability not in (None, "none"):
        raise ConfigError(
            f"--durability {durability} needs a directory to keep the locks in: name one with --data-dir DIR{more}"
        )


def _check_one_place(store: str, data_dir: str | None) -> None:
    if store and data_dir is not None:
        raise ConfigError(f"--store contradicts --data-dir {data_dir}: leave one of them out")


def _check_leases(backup_lease_s: float, coordinator_lease_s: float, member_lease_s: float) -> None:
    if coordinator_lease_s < 2 * backup_lease_s:
        raise ConfigError(
            f"--coordinator-lease ({coordinator_lease_s:g} s) must be at least twice "
            f"--backup-lease ({backup_lease_s:g} s)"
        )
    silence_s = 1.5 * min(Timing().heartbeat_ns / NS_PER_S, coordinator_lease_s / HEARTBEATS_PER_LEASE)
    if member_lease_s < silence_s:
        raise ConfigError(
            f"--member-lease ({member_lease_s:g} s) must be at least {silence_s:g} s: a node that lives is silent for"
            f" {silence_s / 1.5:g} s at a time"
        )


def _timing(settings: CoordinatorSettings) -> Timing:
    return Timing(
        backup_lease_ns=seconds_to_ns(settings.backup_lease_s),
        coordinator_lease_ns=seconds_to_ns(settings.coordinator_lease_s),
        stabilization_ns=seconds_to_ns(settings.stabilization_s),
        member_lease_ns=seconds_to_ns(settings.member_lease_s),
    )
