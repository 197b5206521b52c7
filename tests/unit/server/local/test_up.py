"""`lockring up`: what its children hear of a signal."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lockring.errors import CannotListen, ConfigError
from lockring.security.tls_files import TlsPaths
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.server.http_settings import HTTP_PORT_OFFSET
from lockring.server.local import up as up_module
from lockring.server.local.supervised import LinePrinter, SupervisedChild
from lockring.server.local.up import UpServer
from lockring.server.open_ports import checked_access
from lockring.server.settings import NodeSettings, UpSettings
from lockring.server.state_dir import StatePlace
from tests.processes import PATIENCE_S
from tests.unit.net.serving import run, until

HEARS = """
import signal, time
signal.signal(signal.SIGHUP, lambda *_: print("heard", flush=True))
print("here", flush=True)
time.sleep(600)
"""


def test_processes_hear_that_their_files_may_have_changed_and_live_on() -> None:
    async def main() -> None:
        stream = io.StringIO()
        up = UpServer(UpSettings(), access=AccessSettings(auth="enforcing", acl_file="acl.toml"))
        for children in (up._coordinators, up._nodes):
            command = [sys.executable, "-c", HEARS]
            child = SupervisedChild("P", command, LinePrinter(["P"], stream=stream), lambda name, code: None)
            children.append(child)
            child.start()
        await until(lambda: stream.getvalue().count("here") == 2)
        assert up.reload()
        await until(lambda: stream.getvalue().count("heard") == 2)
        for child in (*up._coordinators, *up._nodes):
            child.tell(signal.SIGKILL)
            await child.ended(timeout_s=PATIENCE_S)

    run(main())


def test_a_token_that_cannot_be_read_is_an_error_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKRING_TOKEN_FILE", str(tmp_path / "gone"))

    async def main() -> None:
        up = UpServer(UpSettings(port=0, in_memory=True), access=OPEN)
        with pytest.raises(ConfigError, match="gone"):
            await up.start()
        assert up._coordinators == up._nodes == []
        await up.stop()

    run(main())


def test_an_error_that_the_announcement_does_not_know_ends_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(up_module, "state_if_served", fails)

    async def main() -> None:
        up = UpServer(UpSettings(port=0, in_memory=True, nodes=1, grpc=False), access=OPEN)
        try:
            await up.start()
            with pytest.raises(ZeroDivisionError):
                await up.finished()
        finally:
            await up.stop()

    run(main())


def test_a_port_for_http_that_is_taken_is_named_before_anything_is_started_where_it_is_no_default() -> None:
    host = "127.0.77.1"
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]

        async def main() -> None:
            settings = UpSettings(host=host, port=port - HTTP_PORT_OFFSET - 1, nodes=1, grpc=False)
            with pytest.raises(CannotListen, match=rf"{host}:{port} \(HTTP of N1\): .* or --no-http"):
                UpServer(settings, access=OPEN)._addresses(["coordinator", "N1"], 1)
            without = msgspec.structs.replace(settings, http=False)
            assert len(UpServer(without, access=OPEN)._addresses(["coordinator", "N1"], 1)) == 2

        run(main())


def test_what_a_shell_is_given_to_paste_is_quoted() -> None:
    lines: list[str] = []

    async def main() -> None:
        up = UpServer(UpSettings(), access=OPEN)
        up._client_files = TlsPaths("/a b/it's.pem", "$(key)", "/plain/ca.pem")
        lines.append(up._exports("127.0.0.1:9501,127.0.0.1:9502"))

    run(main())
    names = ("CERT", "KEY", "CA", "SERVER")
    shown = "".join(f'printf "%s\\n" "$LOCKRING_{name}"\n' for name in names)
    shell = subprocess.run(["sh", "-c", lines[0] + shown], capture_output=True, text=True, check=True)
    assert shell.stdout.splitlines() == [
        "/a b/it's.pem", "$(key)", "/plain/ca.pem", "127.0.0.1:9501,127.0.0.1:9502",
    ]  # fmt: skip
    assert "LOCKRING_CA=/plain/ca.pem\n" in lines[0], "without need, nothing is quoted"


@pytest.mark.parametrize(
    ("host", "auth", "expected"),
    [
        ("127.0.0.1", "off", "optional"),
        ("localhost", "off", "optional"),
        ("192.0.2.7", "off", "required"),
        ("192.0.2.7", "permissive", "required"),
        ("192.0.2.7", "enforcing", "optional"),
    ],
)
def test_clients_need_certificates_where_other_machines_reach_the_ports_and_no_right_is_enforced(
    host: str, auth: str, expected: str, tmp_path: Path
) -> None:
    async def main() -> None:
        access = AccessSettings(auth=auth, acl_file=None if auth == "off" else "acl.toml")  # type: ignore[arg-type]
        settings = UpSettings(host=host, tls=True, data_dir=str(tmp_path))
        up = UpServer(settings, access=access)
        certificates = up._certificates(StatePlace(str(tmp_path), is_new=True))
        assert certificates is not None
        node = NodeSettings(id="N1", listen=f"{host}:9501", **certificates.settings_of("N1"))
        assert node.tls_client_auth == expected
        assert not checked_access(node, access).insecure, "a node starts with these"

    run(main())


def test_without_files_there_is_nothing_to_read_again() -> None:
    async def main() -> None:
        assert not UpServer(UpSettings(), access=OPEN).reload()

    run(main())
