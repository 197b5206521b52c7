"""Mistakes of a new user before a server with TLS and rights: one error of lockring in each client and command."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

import lockring
import lockring.aio
from lockring import exits
from lockring.cli.app import main
from lockring.errors import (
    ConfigError,
    InvalidRequest,
    LockringError,
    Unauthenticated,
    Unavailable,
)
from lockring.security.tokens import new_token
from tests.cluster.guarded import LEADER, LOCK, Guarded, guarded
from tests.processes import PATIENCE_S, address

pytestmark = pytest.mark.cluster

TRY_S = 2.0
"""How long a client tries what may pass."""

TOKEN = new_token("hidden")


class Given(NamedTuple):
    """The words of a user.

    Attributes:
        server: as it is typed.
        files: arguments of `Client`, which are flags of commands too.
    """

    server: str
    files: dict[str, str]


class Wrong(NamedTuple):
    """A mistake.

    Attributes:
        make: what is given, by a user who has the right token file and authority.
        kinds: of the error; the second one where that of commands differs.
        said: a part of its text.
        is_retried: whether clients and `lockring lock` try on for a while, since the fault may pass.
    """

    make: Callable[[Guarded, str, dict[str, str]], Given]
    kinds: tuple[type[LockringError], ...]
    said: str
    is_retried: bool = False


def _with(**changes: str) -> Callable[[Guarded, str, dict[str, str]], Given]:
    return lambda doors, where, right: Given(f"lockrings://{where}", right | changes)


def _at(form: str) -> Callable[[Guarded, str, dict[str, str]], Given]:
    return lambda doors, where, right: Given(form.format(where), right)


def _of_client(files: Callable[[Guarded], Any]) -> Callable[[Guarded, str, dict[str, str]], Given]:
    return lambda doors, where, right: Given(f"lockrings://{where}", files(doors)._asdict())


def _key_of_another(doors: Guarded, where: str, right: dict[str, str]) -> Given:
    own, other = doors.files("web-1"), doors.files("web-2")
    return Given(f"lockrings://{where}", own._replace(key=other.key)._asdict())


WRONG = {
    "another scheme": Wrong(_at("https://{}"), (InvalidRequest, ConfigError), "https:// is not a scheme"),
    "plain scheme": Wrong(_at("lockring://{}"), (Unauthenticated,), "demands TLS"),
    "no port": Wrong(_at("lockrings://127.0.0.1"), (InvalidRequest, ConfigError), "expected HOST:PORT"),
    "path": Wrong(_at("lockrings://{}/x"), (InvalidRequest, ConfigError), "expected HOST:PORT"),
    "no host": Wrong(_at("lockrings://a..b:9501"), (InvalidRequest, ConfigError), "is empty"),
    "long host": Wrong(_at(f"lockrings://{'a' * 64}:9501"), (InvalidRequest, ConfigError), "is too long"),
    "token before the host": Wrong(
        _at(f"lockrings://{TOKEN}@{{}}"), (InvalidRequest, ConfigError), "a credential may be in it"
    ),
    "no ca": Wrong(_with(ca=""), (Unavailable,), "name the authority of its certificate with --ca", True),
    "missing ca": Wrong(_with(ca="missing.pem"), (ConfigError,), "missing.pem cannot be read: no such file"),
    "directory as ca": Wrong(_with(ca="."), (ConfigError,), "is a directory"),
    "ca that has no certificate": Wrong(
        _with(ca=__file__), (ConfigError,), "has no certificate of an authority in PEM form"
    ),
    "key without certificate": Wrong(_with(key="k.pem"), (ConfigError,), "--key needs --cert"),
    "certificate without key": Wrong(_with(cert="c.pem"), (ConfigError,), "--cert needs --key"),
    "key of another certificate": Wrong(_key_of_another, (ConfigError,), "do not fit together"),
    "certificate of another authority": Wrong(
        _of_client(Guarded.foreign), (Unauthenticated,), "it comes from another authority"
    ),
    "expired certificate": Wrong(_of_client(Guarded.expired), (Unauthenticated,), "it has expired"),
    "another server name": Wrong(_with(server_name="other"), (Unavailable,), "not valid for 'other'", True),
    "impossible server name": Wrong(_with(server_name="a..b"), (ConfigError,), "is empty"),
    "no credential": Wrong(_with(token_file=""), (Unauthenticated,), "without credentials"),
    "missing token file": Wrong(_with(token_file="missing"), (ConfigError,), "token file missing cannot be"),
    "token in place of its file": Wrong(
        _with(token_file=TOKEN), (ConfigError,), "in the place of the name of its file"
    ),
    "expired token": Wrong(
        lambda doors, where, right: Given(
            f"lockrings://{where}", right | {"token_file": str(doors.token_file("late"))}
        ),
        (Unauthenticated,),
        "has expired; ask for a new one",
    ),
    "unknown token": Wrong(
        lambda doors, where, right: Given(f"lockrings://{where}", right | {"token_file": _unknown(doors)}),
        (Unauthenticated,),
        "is not known here",
    ),
    "no server": Wrong(
        lambda doors, where, right: Given(f"lockrings://{address()}", right),
        (Unavailable,),
        "connection refused",
        True,
    ),
}


def _unknown(doors: Guarded) -> str:
    file = doors.directory / "unknown.token"
    file.write_text(TOKEN)
    return str(file)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded"), nodes=1, client_auth="optional") as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("place"))
        for name in [name for name in os.environ if name.startswith("LOCKRING_")]:
            patch.delenv(name)
        yield


def given(doors: Guarded, wrong: Wrong, port: str = LOCK) -> Given:
    right = {"ca": str(doors.certs / "ca.pem"), "token_file": str(doors.token_file("web-1"))}
    return wrong.make(doors, doors.address(port), right)


def check(error: BaseException, kind: type[LockringError], said: str) -> None:
    assert type(error) is kind, repr(error)
    assert said in str(error)
    assert TOKEN not in str(error)


def error_of_blocking(what: Given) -> LockringError:
    with (
        pytest.raises(LockringError) as caught,
        lockring.Client(what.server, connect_timeout=TRY_S, **what.files) as client,
    ):
        client.lock("jobs/1").acquire()
    return caught.value


def error_of_asyncio(what: Given) -> LockringError:
    async def work() -> None:
        async with lockring.aio.Client(what.server, connect_timeout=TRY_S, **what.files) as client:
            await client.lock("jobs/1").acquire()

    with pytest.raises(LockringError) as caught:
        asyncio.run(work())
    return caught.value


CLIENTS = {"blocking": error_of_blocking, "asyncio": error_of_asyncio}

COMMANDS = {"lock": ("jobs/1", "--", "true"), "status": ()}
"""Commands, with their words behind the flags."""


def words_of(command: str, what: Given) -> list[str]:
    flags = [
        part for name, value in what.files.items() if value for part in (f"--{name.replace('_', '-')}", value)
    ]
    return [
        *(command, "--server", what.server, "--connect-timeout", f"{TRY_S:g}"),
        *flags,
        *COMMANDS[command],
    ]


class Said(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


def said_by_process(words: list[str]) -> Said:
    command = [sys.executable, "-m", "lockring", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


class Retried(NamedTuple):
    """The outcomes of a mistake that is retried.

    Attributes:
        clients: the error of each kind of client.
        lock: the words of `lockring lock`, by the port that it is given.
    """

    clients: dict[str, Future[LockringError]]
    lock: dict[str, Future[Said]]


@pytest.fixture(scope="module")
def retried(doors: Guarded, place: None) -> dict[str, Retried]:
    """The outcomes of all mistakes that are retried, tried at the same time: each is a wait of its own."""
    # All before the first try, since each writes the token file again.
    tries = {
        mistake: {port: given(doors, wrong, port) for port in (LOCK, LEADER)}
        for mistake, wrong in WRONG.items()
        if wrong.is_retried
    }
    with ThreadPoolExecutor(4 * len(tries)) as pool:
        return {
            mistake: Retried(
                {kind: pool.submit(error_of, at[LOCK]) for kind, error_of in CLIENTS.items()},
                {port: pool.submit(said_by_process, words_of("lock", what)) for port, what in at.items()},
            )
            for mistake, at in tries.items()
        }


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("mistake", WRONG)
def test_a_client_of_either_kind_raises_one_error(
    doors: Guarded, retried: dict[str, Retried], mistake: str, kind: str
) -> None:
    wrong = WRONG[mistake]
    if wrong.is_retried:
        error = retried[mistake].clients[kind].result()
    else:
        error = CLIENTS[kind](given(doors, wrong))
    check(error, wrong.kinds[0], wrong.said)


@pytest.mark.parametrize("port", [LOCK, LEADER])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("mistake", WRONG)
def test_a_command_says_it_in_one_line(
    doors: Guarded,
    retried: dict[str, Retried],
    mistake: str,
    command: str,
    port: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = WRONG[mistake]
    if wrong.is_retried and command == "lock":
        code, out, err = retried[mistake].lock[port].result()
    else:
        code = main(words_of(command, given(doors, wrong, port)))
        out, err = capsys.readouterr()
    kind = wrong.kinds[-1]
    assert code == exits.exit_code_of(kind("x")), err
    # A fault that may pass is waited for, and a line says so.
    lines = [line for line in err.splitlines() if not line.startswith("lockring: waiting: ")]
    assert (out, len(lines)) == ("", 1), err
    assert lines[0].startswith("lockring: ")
    assert wrong.said in lines[0]
    assert TOKEN not in err


@pytest.mark.parametrize(
    "words",
    [("--token", TOKEN), (f"--token={TOKEN}",), ("jobs/1", TOKEN)],
    ids=["after a flag", "in a flag", "as a name"],
)
def test_a_token_on_a_command_line_is_not_repeated(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", *words]) == exits.USAGE
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert TOKEN not in err


def test_a_token_in_a_variable_is_checked_before_the_first_connection(
    doors: Guarded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCKRING_TOKEN", TOKEN[:-1])
    flags = ("--server", f"lockrings://{doors.address(LOCK)}", "--ca", str(doors.certs / "ca.pem"))
    for command in (["status", *flags], ["lock", "x", *flags, "--", "true"]):
        assert main(command) == exits.USAGE
        err = capsys.readouterr().err
        assert err.startswith("lockring: LOCKRING_TOKEN is of no use: the token is malformed")
        assert err.count("\n") == 1
        assert TOKEN[:-1] not in err
