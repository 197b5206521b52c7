"""`lockring up`: a whole cluster on one machine, each part a real process, supervised by this one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from lockring.addresses import TLS_SCHEME, format_address, split_address
from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState
from lockring.errors import CannotListen, Denied, LockringError, OutputFailed
from lockring.log_events import event
from lockring.net.oneshot import Dial, ask_state, ask_status, dial_plain
from lockring.ring_picture import draw
from lockring.security.credential_source import CredentialSource
from lockring.security.tls_files import TlsPaths
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.server.directory_use import CERTIFICATES_PART, refuse_another_use
from lockring.server.local.children import command_of, free_ports, variables_of, why_not_free
from lockring.server.local.supervised import LinePrinter, SupervisedChild
from lockring.server.local.up_tls import DevelopmentCertificates
from lockring.server.open_ports import OpenPort, is_loopback
from lockring.server.settings import GRPC_PORT_OFFSET, CoordinatorSettings, NodeSettings, UpSettings
from lockring.server.state_dir import StatePlace, kept_by_up, parts_of_up
from lockring.server.tls import ServerTls, dial_of, make_tls
from lockring.slots import SLOTS
from lockring.terminals import takes_colour
from lockring.troubles import RepeatedTrouble

_POLL_S: Final = 0.2
_DRAIN_S_MAX: Final = 10.0
_STOP_S_MAX: Final = 5.0
_WIDTH_MAX: Final = 100

log = logging.getLogger("lockring.up")


class UpServer:
    """The supervisor. Lives in one event loop.

    Args:
        settings: see `UpSettings`.
        access: see `AccessSettings`; each process gets them.
    """

    def __init__(self, settings: UpSettings, *, access: AccessSettings = OPEN) -> None:
        self._settings = settings
        self._access = access
        self._temporary_dir = self._certificates_dir = ""
        self._tls: ServerTls | None = None
        self._client_files: TlsPaths | None = None
        self._coordinators: list[SupervisedChild] = []
        self._nodes: list[SupervisedChild] = []
        self._announcement: asyncio.Task[None] | None = None
        self._credential: CredentialSource | None = None
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Check that the ports are free, and start the processes.

        Raises:
            CannotListen: one of the ports is taken.
            ConfigError: a file of TLS or the token of this process cannot be used, or a package for --tls is missing.
            StoreError: the default data directory cannot be used, or the directory belongs to another command.
        """
        settings = self._settings
        self._credential = CredentialSource()  # of any client here, before there is anything to end
        leaders = [f"C{number}" for number in range(1, settings.coordinators + 1)]
        if settings.coordinators == 1:
            leaders = ["coordinator"]
        names = [*leaders, *(f"N{number}" for number in range(1, settings.nodes + 1))]
        addresses = dict(zip(names, self._addresses(names, len(leaders)), strict=True))
        kept = kept_by_up(settings)
        if kept.data_dir is not None:
            refuse_another_use(kept.data_dir, "up")
        coordinator = self._coordinator(kept)
        # After the coordinator's directory, for which it counts whether the one around it was there.
        certificates = self._certificates(kept)
        in_colour = takes_colour(sys.stderr)
        printer = LinePrinter(names, in_colour=in_colour, is_json=settings.log_format == "json")
        for name in leaders:
            own = msgspec.structs.replace(
                coordinator,
                listen=addresses[name],
                http_listen=settings.http_listen_of(addresses[name]),
                **settings.http_fields(),
                **self._tls_fields(certificates, name),
            )
            self._tls = self._tls or make_tls(own)
            command = command_of("coordinator", own, self._access)
            child = SupervisedChild(
                name, command, printer, self._hopeless, variables=variables_of(coordinator)
            )
            self._coordinators.append(child)
            child.start()
        for name in names[len(leaders) :]:
            node = NodeSettings(
                id=name,
                listen=addresses[name],
                coordinators=tuple(addresses[each] for each in leaders),
                grpc=settings.grpc,
                data_dir=None if kept.data_dir is None else os.path.join(kept.data_dir, name),
                durability=settings.durability,
                metrics_prefixes=settings.metrics_prefixes,
                log_level=settings.log_level,
                log_format=settings.log_format,
                http_listen=settings.http_listen_of(addresses[name]),
                **settings.http_fields(),
                **self._tls_fields(certificates, name),
            )
            child = SupervisedChild(name, command_of("node", node, self._access), printer, self._hopeless)
            self._nodes.append(child)
            child.start()
        self._client_files = None if certificates is None else certificates.client_files()
        self._announcement = asyncio.get_running_loop().create_task(self._announce(addresses))
        self._announcement.add_done_callback(self._announced)

    def _certificates(self, kept: StatePlace) -> DevelopmentCertificates | None:
        """Return the certificates that this command makes, None if it is not asked to."""
        if not self._settings.tls:
            return None
        if kept.data_dir is None:
            self._certificates_dir = tempfile.mkdtemp(prefix="lockring-up-certs-")
        where = self._certificates_dir or os.path.join(kept.data_dir or "", CERTIFICATES_PART)
        host = self._settings.host
        is_open = self._access.auth != "enforcing" and not is_loopback(OpenPort("--host", host, host))
        return DevelopmentCertificates(
            Path(where).absolute(), host, client_auth="required" if is_open else "optional"
        )

    def _tls_fields(self, certificates: DevelopmentCertificates | None, name: str) -> dict[str, Any]:
        return self._settings.tls_fields() if certificates is None else certificates.settings_of(name)

    def _coordinator(self, kept: StatePlace) -> CoordinatorSettings:
        settings = self._settings
        if settings.store:
            return CoordinatorSettings(
                store=settings.store,
                new_cluster=settings.new_cluster,
                log_level=settings.log_level,
                log_format=settings.log_format,
            )
        return CoordinatorSettings(
            data_dir=self._temporary(kept) if kept.data_dir is None else str(parts_of_up(kept.data_dir)),
            new_cluster=kept.is_new and kept.data_dir is not None,
            log_level=settings.log_level,
            log_format=settings.log_format,
        )

    async def finished(self) -> int:
        """Wait until a child has ended in a way that makes it pointless to go on."""
        return await asyncio.shield(self._end)

    def leave(self) -> bool:
        """Return False: nothing has to happen before `stop`."""
        return False

    def reload(self) -> bool:
        """Have the processes read their files of TLS and the ACL file again now. False without any."""
        if self._tls is None and self._access.acl_file is None:
            return False
        for child in [*self._coordinators, *self._nodes]:
            child.notify(signal.SIGHUP)
        return True

    async def stop(self) -> None:
        """End all processes; first drain a cluster that keeps its state, so that the next start can serve at once."""
        if self._announcement is not None:
            self._announcement.cancel()
        keeps_state = not self._temporary_dir
        if self._nodes:
            log.info("ending all processes", extra=event("ending"))
        for node in self._nodes:
            node.tell(signal.SIGTERM if keeps_state else signal.SIGQUIT)
        timeout_s = _DRAIN_S_MAX if keeps_state else _STOP_S_MAX
        await asyncio.gather(*(node.ended(timeout_s=timeout_s) for node in self._nodes))
        for coordinator in self._coordinators:
            coordinator.tell(signal.SIGTERM)
        await asyncio.gather(*(each.ended(timeout_s=_STOP_S_MAX) for each in self._coordinators))
        for directory in filter(None, (self._temporary_dir, self._certificates_dir)):
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    # ----------------------------------------------------------------------- inner

    def _temporary(self, kept: StatePlace) -> str:
        """Return the place of the state while this process lives, so that a restarted coordinator finds it.

        If the coordinator has to make the directory, it assumes a new cluster; over an empty one it waits.
        """
        self._temporary_dir = tempfile.mkdtemp(prefix="lockring-up-")
        if self._settings.in_memory:
            log.warning(
                "the cluster's state is kept until this process ends: the next one will not know the locks that are held"
                " then. To keep it, leave out --in-memory, or name a directory with --data-dir",
                extra=event("state-not-kept"),
            )
        return os.path.join(self._temporary_dir, "state") if kept.is_new else self._temporary_dir

    def _addresses(self, names: list[str], coordinators: int) -> list[str]:
        host, port = self._settings.host, self._settings.port
        if port == 0:
            if why := why_not_free(host, 0):
                raise CannotListen(f"cannot listen on {host}: {why}; choose another address with --host")
            try:
                return [format_address(host, free) for free in free_ports(host, len(names))]
            except OSError as error:
                raise CannotListen(f"cannot listen on {host}: {error}; choose ports with --port") from error
        for place, name in enumerate(names):
            self._require_free(port + place, name, "")
            if http := self._settings.http_listen_of(format_address(host, port + place)):
                self._require_free(split_address(http)[1], f"HTTP of {name}", ", or --no-http")
            if place >= coordinators and self._settings.grpc:
                self._require_free(port + place + GRPC_PORT_OFFSET, f"gRPC of {name}", ", or --no-grpc")
        return [format_address(host, port + place) for place in range(len(names))]

    def _require_free(self, port: int, name: str, more: str) -> None:
        """Raise an error if a port is not free; `more` says what else to do than to choose others."""
        host = self._settings.host
        if why := why_not_free(host, port):
            raise CannotListen(
                f"cannot listen on {format_address(host, port)} ({name}): {why}; choose others with --host or --port{more}"
            )

    def _exports(self, servers: str) -> str:
        """Return the lines by which a shell's commands reach the cluster."""
        exports = {"LOCKRING_SERVER": f"{TLS_SCHEME if self._tls is not None else ''}{servers}"}
        if self._client_files is not None:
            files = self._client_files
            exports |= {"LOCKRING_CA": files.ca, "LOCKRING_CERT": files.cert, "LOCKRING_KEY": files.key}
        return "".join(f"    export {name}={shlex.quote(value)}\n" for name, value in exports.items())

    def _announced(self, announcement: asyncio.Task[None]) -> None:
        """End everything if the announcement has met an error that it does not know, so that it is not silent."""
        if announcement.cancelled() or self._end.done():
            return
        error = announcement.exception()
        if error is not None:
            self._end.set_exception(error)

    def _hopeless(self, name: str, code: int) -> None:
        if not self._end.done():
            log.error(
                "%s cannot run (exit code %d, see above): ending everything",
                name,
                code,
                extra=event("process-cannot-run", process=name, exit_code=code),
            )
            self._end.set_result(code)

    async def _announce(self, addresses: dict[str, str]) -> None:
        """Wait until the cluster serves, and print how to reach it."""
        count = self._settings.coordinators
        coordinators, nodes = list(addresses.values())[:count], list(addresses.values())[count:]
        state: ClusterState | None = None
        trouble = RepeatedTrouble()
        assert self._credential is not None
        while state is None:
            await asyncio.sleep(_POLL_S)
            try:
                state = await asyncio.to_thread(
                    state_if_served,
                    coordinators,
                    nodes,
                    dial=dial_of(self._tls),
                    credential=self._credential(),
                )
            except Denied as error:
                log.warning(
                    "the processes run, and this one may not see their state: %s. Start it with LOCKRING_TOKEN_FILE",
                    error,
                    extra=event("state-unseen"),
                )
                return
            except LockringError as error:
                text = trouble.fails(str(error), now_ns=monotonic_ns())
                if text:
                    log.debug("not up yet: %s", text)
        servers = ",".join(nodes)
        colour = takes_colour(sys.stdout)
        drawing = draw(state, width=min(shutil.get_terminal_size().columns, _WIDTH_MAX), colour=colour)
        apis = ",".join(member.grpc for _, member in sorted(state.members.items()) if member.grpc)
        grpc = f"; the gRPC API is at {apis}" if apis else ""
        leaders = ", ".join(coordinators)
        where = f"the coordinator is at {leaders}" if count == 1 else f"the coordinators are at {leaders}"
        ready = "1 node" if self._settings.nodes == 1 else f"{self._settings.nodes} nodes"
        text = (
            f"\n{drawing}\n\n{ready} ready; {where}{grpc}. In another terminal:\n\n"
            f"{self._exports(servers)}"
            f"    lockring lock demo -- sh -c 'echo token $LOCKRING_FENCING_TOKEN; sleep 5'\n"
            f"    lockring status\n\n"
            f"Ctrl-C ends everything.\n"
        )
        with contextlib.suppress(OSError, OutputFailed):  # the reader has gone; the cluster runs all the same
            print(text, flush=True)


def state_if_served(
    coordinators: Sequence[str], nodes: Sequence[str], *, dial: Dial = dial_plain, credential: str = ""
) -> ClusterState | None:
    """Return the cluster state once the nodes serve every slot, each with a backup if there are nodes for it. Blocks.

    The state alone only says which nodes should serve. After a restart those are the earlier ones, which wait for the
    end of the earlier leases.
    """
    views = [ask_state(each, dial=dial, credential=credential) for each in coordinators]
    state = max((view.state for view in views), key=lambda state: state.version)
    if len(nodes) > 1 and any(slot.backup is None for slot in state.slots):
        return None
    serving = sum(ask_status(each, dial=dial, credential=credential).serving for each in nodes)
    return state if serving == SLOTS else None
