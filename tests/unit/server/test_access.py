"""A server that checks identities, over real sockets: which clients it lets in, and what happens to those inside."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

import lockring
from lockring.errors import Denied, Overloaded, Unauthenticated
from lockring.ids import SessionId
from lockring.net.oneshot import ask_state, end_session
from lockring.security.tokens import hash_of, new_token
from lockring.server.access_settings import AccessSettings
from lockring.server.settings import ServeSettings
from lockring.server.standalone import StandaloneServer
from tests.processes import PATIENCE_S
from tests.unit.net.serving import run, until

T = TypeVar("T")


class Server:
    """A coordinator and a node in this process, with an ACL file and tokens."""

    def __init__(self, directory: Path) -> None:
        self.acl = directory / "acl.toml"
        self.log = directory / "audit.log"
        self.directory = directory
        self.tokens: dict[str, str] = {}
        self.rules: dict[str, Sequence[str]] = {}
        self.server: StandaloneServer
        self._loop, self._thread = asyncio.get_running_loop(), threading.current_thread()
        self.give("web-1", "acquire jobs/*", "read jobs/*")
        self.give("root", "admin")

    def give(self, who: str, *rules: str) -> Path:
        """Give an identity rights and a token of its own, which any it had is replaced by. Returns the token's file."""
        self.tokens[who], self.rules[who] = new_token(who), rules
        file = self.directory / f"{who}.token"
        file.write_text(self.tokens[who])
        self.write()
        return file

    def write(self) -> None:
        """Write the ACL file."""
        self.acl.write_text(
            "".join(
                f'[[role]]\nname = "{who}"\nrules = {json.dumps(rules)}\n'
                f'[[token]]\nid = "{who}"\nsha256 = "{hash_of(self.tokens[who]).hex()}"\nroles = ["{who}"]\n'
                for who, rules in self.rules.items()
            )
        )

    def reload(self) -> None:
        """Let the server read the ACL file now; from another thread, wait for that."""
        if threading.current_thread() is self._thread:
            assert self.server.reload()
            return
        done = threading.Event()
        self._loop.call_soon_threadsafe(self.server.reload)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(PATIENCE_S)

    def file(self, who: str) -> Path:
        return self.directory / f"{who}.token"

    @property
    def address(self) -> str:
        node = self.server._node
        assert node is not None
        return node.address

    @property
    def coordinator(self) -> str:
        return self.server._coordinator.address

    def client(self, who: str = "web-1", **more: Any) -> lockring.Client:
        """A client with the token of an identity."""
        return lockring.Client(self.address, token_file=self.file(who), connect_timeout=PATIENCE_S, **more)


def with_server(
    directory: Path,
    test: Callable[[Server], Awaitable[None]],
    *,
    auth: str = "enforcing",
    grpc_listen: str = "",
) -> None:
    """Run a test's coroutine with a server that checks rights."""

    async def main() -> None:
        made = Server(directory)
        access = AccessSettings(auth=auth, acl_file=str(made.acl), audit_log=str(made.log))  # type: ignore[arg-type]
        settings = ServeSettings(
            listen="127.0.0.1:0",
            coordinator_listen="127.0.0.1:0",
            in_memory=True,
            new_cluster=True,
            grpc=bool(grpc_listen),
            grpc_listen=grpc_listen,
        )
        made.server = StandaloneServer(settings, access=access)
        try:
            await made.server.start()
            node = made.server._node
            assert node is not None
            await until(lambda: node._lives.present.core.status().serving_slots == 4096)
            await test(made)
        finally:
            await made.server.stop()

    run(main())


@pytest.mark.parametrize("of", ["node", "coordinator"])
def test_a_client_without_a_token_or_with_a_wrong_one_is_refused(tmp_path: Path, of: str) -> None:
    async def test(server: Server) -> None:
        address = server.address if of == "node" else server.coordinator
        for credential, text in (
            ("", "lets in no client without credentials"),
            (new_token("web-1"), "the token web-1 is not known here"),
            (new_token("web-9"), "the token web-9 is not known here"),
            ("nonsense", "accepts no JWTs"),
        ):
            with pytest.raises(Unauthenticated, match=text):
                await asyncio.to_thread(ask_state, address, credential=credential)
        state = await asyncio.to_thread(ask_state, address, credential=server.tokens["root"])
        assert state.role == of

    with_server(tmp_path, test)


def test_a_client_whose_token_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        server.file("web-1").write_text(new_token("web-1"))

        def acquire() -> None:
            with server.client() as client, pytest.raises(Unauthenticated, match="is not known here"):
                client.lock("jobs/1").acquire()

        await asyncio.to_thread(acquire)

    with_server(tmp_path, test)


def test_a_client_whose_token_is_replaced_comes_back_with_the_new_one(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        with server.client() as client:
            first = await asyncio.to_thread(lambda: client.lock("jobs/1").acquire())
            server.give("web-1", "acquire jobs/*", "read jobs/*")
            server.reload()
            second = await asyncio.to_thread(lambda: client.lock("jobs/2").acquire(timeout=PATIENCE_S))
            assert await asyncio.to_thread(first.verify)
            await asyncio.to_thread(first.release)
            await asyncio.to_thread(second.release)

    with_server(tmp_path, test)


def test_a_client_whose_token_is_revoked_loses_its_connection_and_gets_none_again(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        with server.client(ttl=1) as client:
            grant = await asyncio.to_thread(lambda: client.lock("jobs/1").acquire())
            del server.rules["web-1"]
            server.write()
            server.reload()
            with pytest.raises(Unauthenticated):
                await asyncio.to_thread(lambda: client.lock("jobs/2").acquire(timeout=PATIENCE_S))
            await until(lambda: not grant.held)

    with_server(tmp_path, test)


def test_a_client_may_do_what_its_rules_allow_and_is_told_which_right_is_missing(tmp_path: Path) -> None:
    def work(client: lockring.Client) -> None:
        with client.lock("jobs/1").acquire():
            holder = client.owner_of("jobs/1")
            assert holder is not None
            assert holder.owner == client.owner
            assert [lock.name for lock in client.locks()] == ["jobs/1"]
        for call, right in (
            (lambda: client.lock("other").acquire(timeout=PATIENCE_S), "acquire"),
            (lambda: client.describe("other"), "read"),
            (lambda: client.break_lock("jobs/1", 1), "break"),
            (lambda: client.drain("node-1"), "drain"),
        ):
            with pytest.raises(Denied) as caught:
                call()
            assert caught.value.right == right
            assert "token web-1 may not" in str(caught.value)

    async def test(server: Server) -> None:
        with server.client() as client:
            await asyncio.to_thread(work, client)

    with_server(tmp_path, test)


def test_a_supervisor_ends_a_session_with_the_rights_of_its_client(tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        with server.client() as client:
            grant = await asyncio.to_thread(lambda: client.lock("jobs/1").acquire())
            session = SessionId(grant._ticket.session.id)
            await asyncio.to_thread(end_session, server.address, session, credential=server.tokens["web-1"])
            assert not await asyncio.to_thread(grant.verify)

    with_server(tmp_path, test)


def test_a_limit_is_waited_for_by_the_client_and_named_in_its_error(tmp_path: Path) -> None:
    def work(client: lockring.Client) -> None:
        refused = pytest.raises(Overloaded, match="token web-1 has 1 locks at this server, and may have 1")
        with client.lock("jobs/1").acquire(), refused:
            client.lock("jobs/2").acquire(timeout=1)
        for _ in range(25):
            client.describe("jobs/1")  # five of them come too soon, and are asked again in time

    async def test(server: Server) -> None:
        text = server.acl.read_text().replace(
            "\n[[token]]", "\nlimits = { locks = 1, requests_per_s = 20 }\n[[token]]", 1
        )
        server.acl.write_text(text)
        server.reload()
        with server.client() as client:
            await asyncio.to_thread(work, client)

    with_server(tmp_path, test)


def test_what_connects_and_what_joins_is_audited(tmp_path: Path) -> None:
    def work(client: lockring.Client) -> None:
        with client.lock("jobs/1").acquire():
            pass

    async def test(server: Server) -> None:
        await asyncio.to_thread(ask_state, server.address, credential=server.tokens["root"])
        with server.client() as client:
            await asyncio.to_thread(work, client)

    with_server(tmp_path, test)
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    acts = {(line["server"], line["act"], line.get("how"), line.get("who")) for line in lines}
    assert ("coordinator", "join", "node", "node-1") in acts
    assert ("node-1", "connect", "token", "root") in acts
    held = [line for line in lines if line["act"] in ("acquire", "release")]
    assert [(line["act"], line["who"], line["name"], line.get("rule", "")) for line in held] == [
        ("acquire", "web-1", "jobs/1", "acquire jobs/*"),
        ("release", "web-1", "jobs/1", ""),
    ]
    assert held[0]["fencing_token"] == held[1]["fencing_token"] > 0
    assert held[0]["from"].startswith("127.0.0.1:")
