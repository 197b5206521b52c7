"""A forgotten `--` holds no locks by mistake, and the error says what to type."""

from __future__ import annotations

import re
import shlex

import pytest

from lockring import exits
from lockring.cli.app import main

NOBODY = ["--server", "127.0.0.1:1", "--connect-timeout", "0.1"]
"""Where no server is: what gets so far that it connects ends with exit code 69."""


@pytest.fixture(autouse=True)
def _a_folder_with_a_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, mode in (("backup.sh", 0o755), ("plain.sh", 0o644)):
        (tmp_path / name).write_text("exit 0\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "folder").mkdir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nightly ./backup.sh", "'./backup.sh' is a path: .*: lockring lock nightly -- ./backup.sh; "),
        ("nightly backup.sh", "'backup.sh' is a file: .*: lockring lock nightly -- backup.sh; "),
        ("nightly plain.sh now", "'plain.sh' is a file: .*: lockring lock nightly -- plain.sh now; "),
        ("nightly folder/../backup.sh", "is a program"),
        ("nightly ./missing.sh", "is a path"),
        ("nightly sleep 10", "'sleep' is a program: .*: lockring lock nightly -- sleep 10; "),
        ("x true", "'true' is a program"),
        ("a b true", "lockring lock a b -- true; "),
        ("-n nightly rsync-like true -s", "lockring lock -n nightly rsync-like -- true -s; "),
        ("--ttl 5 nightly ls -n", "lockring lock --ttl 5 nightly -- ls -n; "),
        ("true sleep", "'sleep' is a program: .*: lockring lock true -- sleep; "),
        ("nightly ./backup.sh --full", "no such option '--full'; if it belongs to a command, put -- before that: lockring lock nightly -- ./backup.sh --full"),
        ("nightly make -j4 all", "lockring lock nightly -- make -j4 all"),
        ("-w 3 nightly unheard-of --full=1", "lockring lock -w 3 nightly -- unheard-of --full=1"),
        ("nightly --tmeout 3", "no such option '--tmeout'; did you mean --timeout"),
        ("nightly job --tmeout 3", "lockring lock nightly -- job --tmeout 3; otherwise, did you mean --timeout"),
        ("nightly --frobnicate", "no such option '--frobnicate'"),
        ("-n nightly -c 'make report'", "no shell is started unless you ask for one: lockring lock -n nightly -- sh -c 'make report'"),
        ("nightly bash -c 'echo hi'", "put -- before that: lockring lock nightly -- bash -c 'echo hi'"),
        ("nightly ./backup.sh -c conf", "lockring lock nightly -- ./backup.sh -c conf"),
        ("nightly sort -u f", "lockring lock nightly -- sort -u f"),
        ("nightly sh -ec x", "lockring lock nightly -- sh -ec x"),
        ("nightly ./backup.sh --wait 5", "lockring lock nightly -- ./backup.sh --wait 5"),
        ("nightly find . -name x", "no such option '-a' (in '-name'); if it belongs to a command, put -- before that: lockring lock nightly -- find . -name x"),
        ("-w 5 nightly rsync -n a b", "-n and -w contradict each other: give one of them; if one belongs to a command, put -- before that: lockring lock -w 5 nightly -- rsync -n a b"),
        ("-x nightly true", "no such option '-x'; a lock is exclusive unless -s is given"),
        ("-F nightly true", "no such option '-F'; the command is always a child"),
    ],
)  # fmt: skip
def test_words_that_look_like_a_command_are_refused_with_the_line_to_type(words, said, capsys):
    assert main(["lock", *shlex.split(words)]) == exits.USAGE
    err = capsys.readouterr().err
    assert re.search(said if ".*" in said else re.escape(said), err), err
    assert err.count("\n") == 1


def test_an_error_about_a_missing_name_says_where_the_name_goes(capsys):
    assert main(["lock", "--", "true"]) == exits.USAGE
    assert "which lock? the command is lockring lock NAME -- COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["a", "b", "c"],
        ["sleep"],
        ["prod/db", "prod/web", "folder"],
        ["deploy", "test", "--hold"],
        ["nightly", "backup.sh", "--hold"],
        ["deploy", "test", "--", "true"],
        ["nightly", "./backup.sh", "--", "true", "--full"],
    ],
)
def test_names_of_locks_are_names(words, capsys):
    at = words.index("--") if "--" in words else len(words)
    assert main(["lock", *words[:at], *NOBODY, *words[at:]]) == exits.UNAVAILABLE


def test_a_notice_about_several_names_is_given_unless_they_are_intended(capsys):
    hint = "lockring: 3 locks are requested: 'a', 'b', 'c'; to run a command, put -- before it\n"
    assert main(["lock", "a", "b", "c", *NOBODY]) == exits.UNAVAILABLE
    assert capsys.readouterr().err.startswith(hint)
    for quiet in ("--hold", "-q"):
        assert main(["lock", "a", "b", "c", quiet, *NOBODY]) == exits.UNAVAILABLE
        assert "to run a command" not in capsys.readouterr().err


def test_a_notice_is_given_if_the_only_name_is_a_program(capsys):
    assert main(["lock", "./backup.sh", *NOBODY]) == exits.UNAVAILABLE
    assert "'./backup.sh' is the lock's name, and no command runs" in capsys.readouterr().err


def test_hold_and_a_command_contradict_each_other(capsys):
    assert main(["lock", "x", "--hold", "--", "true"]) == exits.USAGE
    assert "--hold is for locks without a command" in capsys.readouterr().err


def test_an_error_about_a_command_that_looks_like_an_option_says_where_commands_go(capsys):
    assert main(["lock", "nightly", "./backup.sh", "--", "--full"]) == exits.NOT_FOUND
    assert "--full: command not found; the command is what follows --" in capsys.readouterr().err
