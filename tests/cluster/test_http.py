"""HTTP at real servers: health through a cluster's life, TLS, identities, and a port that is taken."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import lockring
from lockring.addresses import split_address
from lockring.client.tls import ClientFiles
from lockring.server.access_settings import AccessSettings
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.conftest import CALM
from tests.cluster.guarded import Guarded
from tests.cluster.running import running
from tests.processes import PATIENCE_S, address, eventually


class Answer(NamedTuple):
    status: int
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    where: str, path: str, *, method: str = "GET", files: ClientFiles | None = None, token: str = ""
) -> Answer:
    """One request to HOST:PORT, with TLS if there are files for it, offering HTTP/2 as browsers and Prometheus do."""
    host, port = split_address(where)
    connection: http.client.HTTPConnection
    if files is None:
        connection = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
    else:
        context = ssl.create_default_context(cafile=files.ca)
        context.set_alpn_protocols(["h2", "http/1.1"])
        if files.cert:
            context.load_cert_chain(files.cert, files.key)
        connection = http.client.HTTPSConnection(host, port, timeout=PATIENCE_S, context=context)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
        if isinstance(connection.sock, ssl.SSLSocket):
            assert connection.sock.selected_alpn_protocol() == "http/1.1"
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode())
    finally:
        connection.close()


QUICK = {"stabilization_s": 0.3, "backup_lease_s": 0.5, "coordinator_lease_s": 3.0, "member_lease_s": 2.0}


def test_probes_follow_a_cluster_through_a_drain_and_the_loss_of_its_coordinator() -> None:
    with LocalCluster(nodes=2, http=True, **QUICK) as cluster:
        node, leader = cluster.http_address_of("N1"), cluster.http_address_of(COORDINATOR)
        assert ask(node, "/livez").status == 200
        assert ask(node, "/readyz").status == ask(leader, "/readyz").status == 200
        assert ask(leader, "/leader").status == 200
        assert ask(node, "/leader").status == 503
        cluster.drain("N1")
        drained = eventually(lambda: (a := ask(node, "/readyz")).status == 503 and a, lambda: "a drain")
        assert "[-] node not-draining" in drained.body
        assert ask(node, "/livez").status == 200
        cluster.undrain("N1")
        eventually(lambda: ask(node, "/readyz").status == 200, lambda: "the end of the drain")
        cluster.kill(COORDINATOR)
        lost = eventually(lambda: (a := ask(node, "/readyz")).status == 503 and a, lambda: "the lease's end")
        assert "[-] node coordinator-lease" in lost.body


def test_http_has_the_certificates_the_tokens_and_the_rights_of_every_port(tmp_path: Path) -> None:
    access = AccessSettings(
        auth="enforcing", acl_file=str(tmp_path / "acl.toml"), audit_log=str(tmp_path / "audit.log")
    )
    cluster = LocalCluster(nodes=1, tls=True, http=True, access=access, client_auth="optional", **CALM)
    guarded = Guarded(cluster, tmp_path)
    with cluster:
        where = cluster.http_address_of("N1")
        bare = guarded.bare
        assert ask(where, "/livez", files=bare).status == 200
        assert ask(where, "/readyz", files=guarded.files("web-1")).status == 200
        plain = ask(where, "/livez")
        assert (plain.status, "https://" in plain.body) == (400, True), plain


def test_events_of_names_that_an_identity_may_not_read_are_refused_with_the_missing_right(
    tmp_path: Path,
) -> None:
    access = AccessSettings(auth="enforcing", acl_file=str(tmp_path / "acl.toml"))
    cluster = LocalCluster(nodes=2, tls=True, http=True, access=access, client_auth="optional", **CALM)
    guarded = Guarded(cluster, tmp_path)
    with cluster:
        files = ClientFiles(ca=guarded.files("test").ca)
        where, token = cluster.http_address_of("N1"), guarded.tokens["web-1"]
        for prefix in ("secret", "plan"):  # the server knows the other ones from the first answer on
            denied = ask(where, f"/events?prefix={prefix}", files=files, token=token)
            assert denied.status == 403
            assert "web-1" in denied.body
            assert "read" in denied.body
            assert ask(where, "/events?prefix=jobs/", files=files, token=token).status == 200


def test_serve_has_one_http_port_for_its_node_and_its_coordinator() -> None:
    where = address()
    places = ("--listen", address(), "--coordinator-listen", address(), "--http-listen", where)
    with running("serve", *places, "--no-grpc", "--in-memory", "--new-cluster") as process:
        process.wait_for(f"HTTP at {where}")
        eventually(lambda: ask(where, "/readyz").status == 200)
        names = {each["server"] for each in ask(where, "/readyz?format=json").json["checks"]}
        assert names == {"node", "coordinator"}
        assert ask(where, "/leader").status == 200


def test_the_stacks_of_a_server_are_shown_by_a_page_and_by_a_signal() -> None:
    where = address()
    places = ("--listen", address(), "--coordinator-listen", address(), "--http-listen", where)
    with running("serve", *places, "--no-grpc", "--in-memory", "--new-cluster") as process:
        process.wait_for(f"HTTP at {where}")
        assert "in finished" in ask(where, "/debug/tasks").body
        assert all(each["stack"] for each in ask(where, "/debug/tasks?format=json").json["tasks"])
        process.popen.send_signal(signal.SIGUSR1)
        process.wait_for("most recent call first")
        assert ask(where, "/livez").status == 200


def test_a_default_port_that_is_taken_keeps_no_server_from_its_work_and_a_configured_one_does() -> None:
    listen = address()
    host, port = split_address(listen)
    with socket.create_server((host, port + 200)) as taken:
        arguments = (
            "serve",
            "--listen",
            listen,
            "--coordinator-listen",
            address(),
            "--no-grpc",
            "--in-memory",
        )
        with running(*arguments, "--new-cluster") as process:
            process.wait_for("no HTTP: cannot listen on")
            with lockring.Client(listen, connect_timeout=PATIENCE_S) as client, client.lock("x"):
                pass
        configured = f"{host}:{taken.getsockname()[1]}"
        with running(*arguments, "--new-cluster", "--http-listen", configured) as process:
            assert process.wait() == 69
            assert f"cannot listen on {configured} for HTTP: the port is already taken" in process.text


def test_an_http_port_that_other_machines_reach_needs_tls_and_identities() -> None:
    arguments = ("coordinator", "--listen", address(), "--http-listen", "0.0.0.0:0")
    with running(*arguments) as process:
        assert process.wait() == 64
        assert "--http-listen 0.0.0.0:0 can be reached from other machines" in process.text
    with running(*arguments, "--insecure", "--no-new-cluster") as process:
        process.wait_for("HTTP at 0.0.0.0:")
