"""Incomplete lists say that they are incomplete, to people and by the exit code."""

from __future__ import annotations

import json

import pytest

import lockring
from lockring.cli.app import main
from lockring.slots import SLOTS
from tests.processes import address
from tests.unit.client.lock_server import LockServer


@pytest.mark.parametrize("command", ["ls", "groups"])
def test_an_incomplete_list_is_printed_and_ends_with_an_error(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with LockServer() as server, lockring.Client(server.address) as client:
        server.unserved = 7
        with client.lock("x"):
            assert main([command, "--server", server.address]) == 69
            out, err = capsys.readouterr()
            assert ("x" in out) == (command == "ls")
            assert f"7 of {SLOTS} slots" in err
            assert main([command, "--server", server.address, "--json"]) == 69
            out, err = capsys.readouterr()
            assert [each["name"] for each in json.loads(out)] == (["x"] if command == "ls" else [])
            assert json.loads(err)["reason"] == "no-primary"
            assert client.locks().unserved_slots == 7
            assert client.groups().unserved_slots == 7


def test_whole_lists_are_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with LockServer() as server:
        assert main(["ls", "--server", server.address]) == 0
        assert "incomplete" not in capsys.readouterr().err


def test_a_server_that_cannot_be_reached_is_named_with_where_its_address_comes_from_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = address()
    for command in (["ls", "--connect-timeout", "0.3"], ["status", "--connect-timeout", "0.3"]):
        assert main([*command, "--server", nowhere]) == 69
        err = capsys.readouterr().err
        assert nowhere in err
        assert "--server names it" in err
        monkeypatch.setenv("LOCKRING_SERVER", nowhere)
        assert main(command) == 69
        assert "the address is that of LOCKRING_SERVER" in capsys.readouterr().err
        monkeypatch.delenv("LOCKRING_SERVER")
