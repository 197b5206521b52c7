"""Whatever the user does wrong is one line and an exit code, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from lockring import exits
from lockring._version import __version__
from lockring.build_kind import BUILD
from lockring.cli.app import main, root
from lockring.errors import (
    AcquireTimeout,
    ConfigError,
    Denied,
    LockLost,
    LockringError,
    NotHeld,
    Overloaded,
    Unauthenticated,
    Unavailable,
    UnknownNode,
)
from tests.processes import PATIENCE_S, address


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("LOCKRING_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lok", "x"], "there is no command 'lok'; did you mean 'lock'?"),
        (["zzzzz"], "there is no command 'zzzzz'; see lockring --help"),
        (["lock"], "which lock?"),
        (["lock", "x", "--"], "no command after --"),
        (["lock", "x", "--frob", "--", "true"], "no such option '--frob'"),
        (["lock", "", "--", "true"], "a lock name must not be empty"),
        (["lock", "x" * 1025, "--", "true"], "too long: 1025 bytes in UTF-8, the limit is 1024"),
        (["lock", "\udcff", "--", "true"], "is not valid UTF-8"),
        (["lock", "a", "b", "a", "--", "true"], "the lock 'a' is named twice"),
        (["lock", "x", "-n", "-w", "1", "--", "true"], "-n and -w contradict each other"),
        *[
            (
                ["lock", "x", "--ttl", value, "--", "true"],
                "--ttl: expected a number of seconds from 0.1 to 3600",
            )
            for value in ("0", "-1", "nan", "inf", "99999", "abc", "")
        ],
        (
            ["lock", "x", "--ttl", "3", "--kill-after", "1.6", "--", "true"],
            "--kill-after (1.6 s) must be at most half",
        ),
        (["lock", "x", "-w", "nan", "--", "true"], "--timeout: expected a number of seconds"),
        (
            ["lock", "x", "-E", "256", "--", "true"],
            "--conflict-exit-code: expected a whole number from 0 to 255",
        ),
        (
            ["lock", "x", "--owner", "o" * 257, "--", "true"],
            "is too long: 257 bytes in UTF-8, the limit is 256",
        ),
        (["lock", "x", "--on-lost", "fly", "--", "true"], "--on-lost: expected one of term, kill, ignore"),
        (["lock", "x", "--server", "nowhere", "--", "true"], "--server: invalid address"),
        (["lock", "x", "--server", "a:1,b:99999", "--", "true"], "--server: invalid address"),
        (["lock", "x", "--server", "a..b:1", "--", "true"], "--server: invalid address 'a..b:1': a part of"),
        (["status", "--server", f"lockrings://{'a' * 64}:1"], "the host's name is too long"),
        (["status", "--server-name", "a..b"], "--server-name: a part of the host's name is empty"),
        (
            ["status", "--server-name", "ä..b"],
            "--server-name: the host cannot be written as an international",
        ),
        *[
            ([*server, flag, f"{host}:1"], f"{flag}: invalid address")
            for host in ("a..b", "a" * 64, "ä..b")
            for server, flag in (
                (["node", "--id", "n1"], "--listen"),
                (["node", "--id", "n1"], "--advertise"),
                (["node", "--id", "n1"], "--grpc-listen"),
                (["node", "--id", "n1"], "--coordinator"),
                (["coordinator"], "--listen"),
                (["serve"], "--coordinator-listen"),
            )
        ],
        (["up", "--host", "a..b"], "a part of the host's name is empty"),
        (["ls", "\udcff"], "is not valid UTF-8"),
        (["describe"], "missing argument 'NAME'"),
        (["describe", ""], "a lock name must not be empty"),
        (["break", "x"], "--token is required"),
        (["break", "x", "--token", "0"], "--token: expected a whole number from 1"),
        (["break", "x", "--token", "all"], "--token: expected a whole number from 1"),
        (["drain", "a/b"], "invalid node id"),
        (["drain", "n1", "--timeout", "-1"], "--timeout: expected a number of seconds, 0 or more"),
        (["events", "--since", "1e300"], "--since: expected a number of seconds from 0 to 315360000"),
        (["status", "extra"], "unexpected extra argument"),
        (["node"], "--id is required (or the variable LOCKRING_ID)"),
        (["node", "--id", "n 1"], "--id: invalid node id 'n 1'"),
        (["node", "--id", "n1", "--listen", "0.0.0.0:9501"], "needs --advertise"),
        (["node", "--id", "n1", "--weight", "0"], "--weight: expected a whole number from 1 to 100"),
        (["coordinator", "--coordinator-lease", "3"], "must be at least twice --backup-lease"),
        (["coordinator", "--member-lease", "0.5"], "--member-lease (0.5 s) must be at least 1.5 s"),
        (["serve", "--coordinator-lease", "4", "--member-lease", "0.9"], "must be at least 1 s"),
        (["up", "--nodes", "50", "--port", "65530"], "leaves no room"),
        *[
            ([server, "--data-dir", ""], "--data-dir: expected the path of a directory")
            for server in ("coordinator", "serve", "up")
        ],
        (["up", "--config", "/no/such/file"], "/no/such/file: cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_the_exit_code_for_usage(arguments, said, capsys):
    assert main(arguments) == exits.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lockring: ")
    assert said in err
    assert err.count("\n") == 1


def test_with_json_a_mistake_is_an_object(capsys):
    assert main(["lock", "--json", "", "--", "true"]) == exits.USAGE
    error = json.loads(capsys.readouterr().err)
    assert error == {"error": "invalid", "message": "a lock name must not be empty", "name": None}


def test_json_for_the_command_is_not_json_for_lockring(capsys):
    assert main(["lock", "", "--", "true", "--json"]) == exits.USAGE
    assert capsys.readouterr().err.startswith("lockring: ")


def test_a_missing_command_is_reported_before_the_wait(capsys):
    assert main(["lock", "x", "--", "/no/such/command"]) == exits.NOT_FOUND
    assert capsys.readouterr().err == "lockring: /no/such/command: command not found\n"


def test_a_command_that_is_not_a_program_is_reported_before_the_wait(capsys, tmp_path):
    assert main(["lock", "x", "--", str(tmp_path)]) == exits.CANNOT_EXECUTE
    assert "is a directory" in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lockring {__version__}\n"
    assert main(["version", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["lockring"], facts["build"]) == (__version__, BUILD)
    assert main(["version"]) == 0
    assert capsys.readouterr().out.endswith(f", {BUILD})\n")


@pytest.mark.parametrize(
    "command",
    [
        "lock",
        "status",
        "ls",
        "describe",
        "watch",
        "break",
        "ring",
        "drain",
        "undrain",
        "coordinator",
        "node",
        "serve",
        "up",
    ],
)
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert "Usage: lockring" in capsys.readouterr().out


def commands_of(command: click.Command) -> Iterator[click.Command]:
    """A command and all below it."""
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands_of(found)


def test_no_command_has_two_flags_of_one_name():
    for command in commands_of(root):
        flags = [
            each for parameter in command.params for each in (*parameter.opts, *parameter.secondary_opts)
        ]
        assert len(flags) == len(set(flags)), command.name


def test_run_is_another_name_for_lock(capsys):
    assert main(["run", "--help"]) == 0
    assert "COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(""), 64),
        (Unavailable(""), 69),
        (AcquireTimeout(""), 75),
        (LockLost(""), 76),
        (Denied(""), 77),
        (Unauthenticated(""), 77),
        (NotHeld(""), 1),
        (UnknownNode(""), 1),
        (Overloaded(""), 69),
        (LockringError(""), 1),
    ],
)
def test_every_error_has_its_exit_code(error, code):
    assert exits.exit_code_of(error) == code


def test_a_childs_end_is_passed_on_as_shells_do():
    assert [exits.exit_code_of_child(code) for code in (0, 7, -9, -15)] == [0, 7, 137, 143]


def test_a_settings_file_is_read_for_every_command(tmp_path, capsys):
    path = tmp_path / "lockring.toml"
    path.write_text("[lock]\nttl = 'soon'\n")
    assert main(["lock", "x", "--config", str(path), "--", "true"]) == exits.USAGE
    assert f"{path}, line 2: [lock] ttl: expected a number of seconds" in capsys.readouterr().err


def test_an_address_without_a_server_is_unreachable(capsys):
    nobody = address()
    assert main(["status", "--server", nobody]) == exits.UNAVAILABLE
    assert nobody in capsys.readouterr().err


def test_starting_imports_nothing_that_the_command_does_not_need():
    """Lock is used in scripts: what takes long to import must not be imported for it."""
    code = "import sys; from lockring.cli import main; main(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    unneeded = {"asyncio", "dataclasses", "rich", "sqlite3", "uvloop", "msgspec", "lockring.client"}
    assert not unneeded & set(loaded)


def test_a_server_does_not_import_what_only_other_commands_need():
    """The start of a cluster on one machine is bound by what all of its processes do."""
    code = (
        "import sys, lockring.server; lockring.server.run_node = lambda settings, access: 0; from lockring.cli import main; "
        "code = main(['node', '--id', 'a', '--coordinator', '127.0.0.1:1']); print(code, *sys.modules)"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LOCKRING_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    ended, *loaded = done.stdout.split()
    assert ended == "0"
    others = {"lockring.cli.lock.settings", "lockring.cli.clean.settings", "lockring.cli.client_settings"}
    assert not (others | {"lockring.cli.output", "lockring.store.url_parts"}) & set(loaded)


_END = """
import atexit, os, sys, threading
import lockring.cli
{}
atexit.register(os.write, 2, b"bye")
sys.argv = ["lockring", "version"]
sys.exit(lockring.cli.command())
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("", "bye"),
        (
            "threading.Thread(target=lambda: [threading.main_thread().join(), os.write(2, b'done')]).start()",
            "donebye",
        ),
    ],
    ids=["alone", "with a thread"],
)
def test_a_command_leaves_no_function_of_the_end_and_no_thread_out(before: str, said: str) -> None:
    command = [sys.executable, "-c", _END.format(before)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout.startswith(f"lockring {__version__}")
    assert done.stderr == said


def test_a_misspelt_variable_is_hinted_at_before_the_settings_are_refused_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCKRING_DURABILITY", "disk")
    monkeypatch.setenv("LOCKRING_DATADIR", "/data")
    assert main(["node", "--id", "n1"]) == 64
    first, second = capsys.readouterr().err.splitlines()
    assert first == "lockring: unknown variable LOCKRING_DATADIR; did you mean LOCKRING_DATA_DIR?"
    assert "--durability disk needs a directory" in second
    assert second.endswith("(--durability is set by the variable LOCKRING_DURABILITY)")
