"""A door with TLS before a lock server, which can break the rules of TLS on a connection that works."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Self

from lockring.addresses import split_address
from lockring.security.certs import CertMaker
from lockring.security.tls_errors import TlsError
from lockring.security.tls_files import TlsPaths
from lockring.security.tls_layer import TlsLayer
from lockring.security.tls_policy import TlsPolicy
from tests.processes import PATIENCE_S
from tests.unit.client.lock_server import LockServer

PLAIN = b"\0\0\0\5hello"
"""A frame without TLS, as a side sends it that does not speak TLS."""


class TlsDoor:
    """Passes plain bytes between clients with TLS and a lock server. Use it as a context manager.

    Args:
        server: the server behind it, whose routes lead to this door from now on.
        directory: for its certificates.
        breaks_at_once: whether it breaks each connection right after the handshake.

    Attributes:
        address: HOST:PORT.
        ca: the file with its authority.
    """

    def __init__(self, server: LockServer, directory: Path, *, breaks_at_once: bool = False) -> None:
        maker = CertMaker(directory)
        maker.authorities()
        files = maker.server(["127.0.0.1"])
        self.ca = str(directory / "ca.pem")
        self._policy = TlsPolicy(TlsPaths(str(files.cert), str(files.key), ""), None)
        self._behind = split_address(server.address)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = server.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._breaks_at_once = breaks_at_once
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._clients):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def say_without_tls(self, data: bytes = PLAIN) -> None:
        """Send bytes past the TLS on all open connections."""
        for sock in self._clients:
            with contextlib.suppress(OSError):
                sock.sendall(data)

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        layer, lock = TlsLayer.accept(self._policy.port_contexts), threading.Lock()
        with client, socket.create_connection(self._behind) as server:
            self._run(self._answer, client, server, layer, lock)
            with contextlib.suppress(OSError, TlsError):
                while data := client.recv(65_536):
                    with lock:
                        plain = layer.receive(data)
                        out = layer.take_output()
                    client.sendall(out)
                    if self._breaks_at_once and layer.is_ready:
                        client.sendall(PLAIN)
                        break
                    server.sendall(plain)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)

    def _answer(
        self, client: socket.socket, server: socket.socket, layer: TlsLayer, lock: threading.Lock
    ) -> None:
        with contextlib.suppress(OSError, TlsError):
            while data := server.recv(65_536):
                with lock:
                    out = layer.seal(data)
                client.sendall(out)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
