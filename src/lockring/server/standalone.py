"""A coordinator and one node in one process: all that one machine needs."""

from __future__ import annotations

import logging

from lockring.ids import NodeId
from lockring.log_events import event
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.server.coordinator import CoordinatorServer
from lockring.server.directory_use import refuse_another_use
from lockring.server.http_start import HttpServer, http_place, start_http
from lockring.server.node import NodeServer
from lockring.server.settings import ServeSettings
from lockring.server.state_dir import kept_by_serve
from lockring.server.tls import make_tls

log = logging.getLogger("lockring.server")


class StandaloneServer:
    """The two servers in one event loop; the node joins over the loopback interface like any other.

    Args:
        settings: see `ServeSettings`.
        access: see `AccessSettings`.

    Raises:
        ConfigError: a file of TLS cannot be used, the ACL file is malformed, or the audit log cannot be written.
        StoreError: the default data directory cannot be used.
    """

    def __init__(self, settings: ServeSettings, *, access: AccessSettings = OPEN) -> None:
        self._settings = settings
        self._access = access
        self._tls = make_tls(settings)
        self._kept = kept = kept_by_serve(settings)
        self._coordinator = CoordinatorServer(
            settings.coordinator(kept.data_dir, new_cluster=kept.is_new),
            access=access,
            ports=2,
            tls=self._tls,
        )
        self._node: NodeServer | None = None
        self._http: HttpServer | None = None

    async def start(self) -> None:
        """Start the coordinator, then the node. Raises what either of them does.

        Raises:
            StoreError: the data directory belongs to another command or node.
        """
        if self._kept.data_dir is not None:
            refuse_another_use(self._kept.data_dir, "serve", node=NodeId(self._settings.id))
        await self._coordinator.start()
        # After the coordinator, for which a directory is new if it has to make it.
        node = self._settings.node(self._coordinator.address, self._kept.data_dir)
        self._node = NodeServer(node, access=self._access, ports=2, tls=self._tls)
        await self._node.start()
        self._http = await start_http(
            self._settings,
            self._node.listening,
            [self._node.http_part, self._coordinator.http_part],
            gate=self._node.gate,
            tls=self._tls,
            advertised=self._settings.advertise,
        )
        for each in (self._node, self._coordinator):
            each.note_http(http_place(self._http))
        log.info(
            "clients reach it with LOCKRING_SERVER=%s%s; further nodes join with --coordinator %s",
            "lockrings://" if self._tls is not None else "",
            self._node.address,
            self._coordinator.address,
            extra=event("ready", address=self._node.address, coordinator=self._coordinator.address),
        )

    async def finished(self) -> int:
        """Wait until the node has drained."""
        assert self._node is not None
        return await self._node.finished()

    def leave(self) -> bool:
        """Drain the node, to the nodes that have joined later, if any."""
        return self._node is not None and self._node.leave()

    def reload(self) -> bool:
        """Have both read the files of TLS and the ACL file again now. False without any."""
        is_node_done = self._node is not None and self._node.reload()
        return self._coordinator.reload() or is_node_done

    async def stop(self) -> None:
        """End both."""
        if self._http is not None:
            await self._http.stop()
        if self._node is not None:
            await self._node.stop()
        await self._coordinator.stop()
