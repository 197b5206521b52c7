"""The output of commands on real terminals of several widths, and into pipes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

import lockring
from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S

pytestmark = pytest.mark.cluster

NAMES = ("backups/of/the/whole/warehouse/every/night/and/then/some/more", "倉庫の鍵" * 6, "short")
COLOUR = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "COLUMNS", "LINES")


class Printed:
    """Runs commands against a cluster in which some locks are held."""

    def __init__(self, servers: str, tokens: dict[str, int]) -> None:
        self.tokens = tokens
        self._environ = {name: value for name, value in os.environ.items() if name not in COLOUR}
        self._environ |= {"LOCKRING_SERVER": servers, "TERM": "xterm-256color", "PYTHONUTF8": "1"}

    def on_terminal(self, width: int, *arguments: str, **environ: str) -> str:
        """Return the output to a terminal of this width, including standard error."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        command = [sys.executable, "-m", "lockring", *arguments]
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env={**self._environ, **environ}
        )
        os.close(theirs)
        sent = b""
        try:
            while chunk := os.read(ours, 65_536):
                sent += chunk
        except OSError:  # EIO: the other side has closed it
            pass
        finally:
            os.close(ours)
            process.wait(PATIENCE_S)
        return sent.decode().replace("\r\n", "\n")

    def into_pipe(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lockring", *arguments]
        environ = {**self._environ, **environ}
        return subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )


@pytest.fixture(scope="module")
def printed() -> Iterator[Printed]:
    with (
        LocalCluster(nodes=1) as cluster,
        lockring.Client(cluster.servers, owner="root@web-17:4711") as client,
    ):
        grants = {name: client.lock(name).acquire(timeout=PATIENCE_S) for name in NAMES}
        yield Printed(cluster.servers, {name: grant.fencing_token for name, grant in grants.items()})


def lines_of(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


@pytest.mark.parametrize("width", [40, 80, 132])
def test_ls_has_one_line_a_lock_with_its_whole_token(printed: Printed, width: int) -> None:
    lines = lines_of(printed.on_terminal(width, "ls"))
    assert all(cells(line) <= width for line in lines), lines
    tokens = list(printed.tokens.values())  # of locks in different slots, so two may be equal
    for token in tokens:
        assert sum(bool(re.search(rf"\b{token}\b", line)) for line in lines) == tokens.count(token)
    assert lines[0].startswith("NAME")
    assert any(line.startswith("short ") for line in lines)


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize(
    "arguments", [("status",), ("describe", "short"), ("groups",), ("ring",), ("ls", "nothing/here")]
)
def test_no_line_is_longer_than_the_terminal_is_wide(
    printed: Printed, width: int, arguments: tuple[str, ...]
) -> None:
    lines = lines_of(printed.on_terminal(width, *arguments))
    assert lines
    assert all(cells(line) <= width for line in lines), lines


def test_describe_on_a_narrow_terminal_breaks_neither_token_nor_time(printed: Printed) -> None:
    lines = lines_of(printed.on_terminal(40, "describe", "short"))
    text = "\n".join(lines)
    assert re.search(rf"\b{printed.tokens['short']}$", text, re.MULTILINE)
    assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", text)


def test_a_pipe_gets_all_columns_and_no_escapes(printed: Printed) -> None:
    done = printed.into_pipe("ls", COLUMNS="40")
    heading, *lines = done.stdout.splitlines()
    assert heading.split() == [
        "NAME",
        "OWNER",
        "MODE",
        "TOKEN",
        "HELD",
        "FOR",
        "TTL",
        "LEFT",
        "WAITERS",
        "PRIMARY",
    ]
    assert {line.split()[0] for line in lines} == set(NAMES)
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
@pytest.mark.parametrize("command", ["ls", "ring", "status"])
def test_who_wants_no_colour_gets_none(printed: Printed, command: str, environ: dict[str, str]) -> None:
    assert "\x1b" in printed.on_terminal(80, command)
    assert "\x1b" not in printed.on_terminal(80, command, **environ)


def test_colour_can_be_had_in_a_pipe(printed: Printed) -> None:
    assert "\x1b" not in printed.into_pipe("ring").stdout
    assert "\x1b" in printed.into_pipe("ring", FORCE_COLOR="1").stdout


def test_an_empty_list_says_so_where_it_is_not_in_the_way(printed: Printed) -> None:
    done = printed.into_pipe("ls", "nothing/here")
    assert done.stdout.split()[:2] == ["NAME", "OWNER"], "a program still finds its headings"
    assert done.stdout.count("\n") == 1
    assert done.stderr == "lockring: no lock whose name starts with 'nothing/here' is held or waited for\n"
    searched = printed.into_pipe("ls", "--owner", "nobody/here", "--limit", "5")
    assert searched.stderr == "lockring: no lock is found by this search\n", "others may be held"
    assert "no group has members" in printed.into_pipe("groups").stderr
    empty = printed.into_pipe("ls", "nothing/here", "--json")
    assert (json.loads(empty.stdout), empty.stderr) == ([], "")
    (line,) = lines_of(printed.on_terminal(120, "ls", "nothing/here"))
    assert line.startswith("lockring: no lock whose name")
