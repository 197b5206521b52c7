"""The same bytes on the command line are the same lock, whatever the locale of the process says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lockring
from lockring.testing import LocalCluster
from tests.locales import environments
from tests.processes import PATIENCE_S, written

pytestmark = [pytest.mark.cluster]

NAME = "job-é-日本"
BYTES = NAME.encode()
LOCALES = ("ascii", "latin-1")
PAIRS = (("utf-8", "latin-1"), ("latin-1", "C"), ("ascii", "latin-1"), ("C", "ascii"))


class Terminal:
    """Runs the command with arguments that are bytes, as a shell does, each time in a locale of one's choice."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self.environments = environments(folder)
        self.servers = cluster.servers
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, locale: str, *arguments: bytes | str, **variables: bytes) -> subprocess.Popen[bytes]:
        if locale not in self.environments:
            pytest.skip(f"this machine has no locale for {locale}")
        environ: dict[bytes, bytes] = {
            **{os.fsencode(name): os.fsencode(value) for name, value in self.environments[locale].items()},
            b"LOCKRING_SERVER": self.servers.encode(),
            **{name.encode(): value for name, value in variables.items()},
        }
        command = [os.fsencode(each) for each in (sys.executable, "-m", "lockring", *arguments)]
        process = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(
        self, locale: str, *arguments: bytes | str, **variables: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        process = self.start(locale, *arguments, **variables)
        out, err = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def terminal(steady: LocalCluster, tmp_path: Path) -> Iterator[Terminal]:
    folder = tmp_path / "locales"
    folder.mkdir()
    made = Terminal(steady, folder)
    yield made
    made.close()


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_commands_of_two_locales_exclude_each_other(terminal, tmp_path, first, second):
    terminal.start(first, "lock", BYTES, "--", "sh", "-c", f"echo 1 > {tmp_path}/on; exec sleep 300")
    written(tmp_path / "on")
    done = terminal.run(second, "lock", "-n", BYTES, "--", "true")
    assert done.returncode == 75, done.stderr
    with lockring.Client(terminal.servers) as client:  # and a program that names the same text
        assert client.owner_of(NAME) is not None


@pytest.mark.parametrize("locale", LOCALES)
def test_names_and_labels_are_the_same_from_arguments_and_variables(terminal, locale):
    show = b'printf "%s|%s|%s" "$LOCKRING_NAME" "$LOCKRING_OWNER" "$LOCKRING_TOKENS"; printf "|%s" "$0"'
    done = terminal.run(
        locale, "lock", BYTES, "--owner", "größe Ω".encode(), "--", "sh", "-c", show, "argument-é".encode()
    )
    assert done.returncode == 0, done.stderr
    name, owner, tokens, argument = done.stdout.split(b"|")
    assert (name, owner, argument) == (BYTES, "größe Ω".encode(), "argument-é".encode())
    assert list(json.loads(tokens)) == [NAME]
    done = terminal.run(
        locale, "lock", "labelled", "--json", "-w", "0", "--", "true", LOGNAME="jürgen".encode()
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("locale", LOCALES)
def test_a_default_owner_has_the_user_s_name_as_it_is_written(terminal, locale):
    show = 'printf %s "$LOCKRING_OWNER"'
    done = terminal.run(locale, "lock", "by-name", "--", "sh", "-c", show, LOGNAME="jürgen".encode())
    assert done.stdout.startswith("jürgen@".encode()), (done.stdout, done.stderr)


@pytest.mark.parametrize("locale", LOCALES)
def test_what_looks_at_locks_and_groups_names_them_by_bytes_too(terminal, steady, locale):
    name = f"{NAME}-{locale}"
    with lockring.Client(steady.servers) as client, client.lock(name), client.group(name).join(member_id="é"):
        for arguments in (["describe", name.encode()], ["ls", "job-é".encode()]):
            done = terminal.run(locale, *arguments, "--json")
            assert (done.returncode, name in done.stdout.decode("unicode_escape")) == (0, True), done
            done = terminal.run(locale, *arguments)
            assert (done.returncode, done.stderr) == (0, b"")
        found = json.loads(
            terminal.run(locale, "group", name.encode(), "--owner-of", "ключ".encode(), "--json").stdout
        )
        assert (found["key"], found["key_owner"]) == ("ключ", "é")


@pytest.mark.parametrize("locale", LOCALES)
def test_bytes_that_are_no_utf_8_are_refused_with_the_byte(terminal, locale):
    for arguments in (["lock", b"job-\xe9", "--", "true"], ["describe", b"job-\xe9"], ["ls", b"job-\xe9"]):
        done = terminal.run(locale, *arguments)
        assert done.returncode == 64
        assert re.fullmatch(rb"lockring: .*not valid UTF-8 text: it has the byte 0xe9.*\n", done.stderr)
    done = terminal.run(locale, "lock", "x", "--owner", b"\xe9", "--", "true")
    assert (done.returncode, b"0xe9" in done.stderr) == (64, True)


@pytest.mark.parametrize("locale", LOCALES)
def test_a_file_of_any_bytes_is_found(terminal, tmp_path, locale):
    folder = os.fsencode(tmp_path) + b"/caf\xe9-\xc3\xa9"
    os.mkdir(folder)
    config = folder + "/ë.toml".encode()
    with open(config, "w", encoding="utf-8") as file:
        file.write(f'[lock]\nowner = "{NAME}"\n')
    program = folder + b"/pr\xe9"
    with open(program, "w") as file:
        file.write('#!/bin/sh\nprintf %s "$LOCKRING_OWNER"\n')
    os.chmod(program, 0o755)
    done = terminal.run(locale, "lock", "files", "--config", config, "--", program)
    assert (done.returncode, done.stdout) == (0, BYTES), done.stderr


def test_composed_and_decomposed_letters_are_different_locks(terminal, tmp_path):
    composed, decomposed = "é".encode(), "e\u0301".encode()
    terminal.start("utf-8", "lock", composed, "--", "sh", "-c", f"echo 1 > {tmp_path}/on; exec sleep 300")
    written(tmp_path / "on")
    assert terminal.run("utf-8", "lock", "-n", composed, "--", "true").returncode == 75
    assert terminal.run("utf-8", "lock", "-n", decomposed, "--", "true").returncode == 0
