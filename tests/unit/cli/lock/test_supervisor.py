"""A command under a lock ends when it should, with real processes and a lock that needs no network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.processes import PATIENCE_S, eventually, is_running, last_seen_s, session_of, written

PROGRAM = Path(__file__).with_name("supervised.py")


class Run:
    """A supervised command under way, and how it ended."""

    def __init__(self, folder: Path, options: list[str], script: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(PROGRAM),
                "--outcome",
                str(folder / "outcome"),
                *options,
                "--",
                "sh",
                "-c",
                script,
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def outcome(self) -> dict[str, Any]:
        self.process.communicate(timeout=PATIENCE_S)
        found = json.loads((self.folder / "outcome").read_text())
        assert isinstance(found, dict)
        return found

    def number(self, name: str) -> int:
        """The number that the command wrote to a file."""
        return int(written(self.folder / name))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(script: str, *options: str) -> Run:
        runs.append(Run(tmp_path, list(options), script))
        return runs[-1]

    yield start
    for each in runs:
        each.process.kill()
        each.process.wait()
        for stream in (each.process.stdout, each.process.stderr):
            stream.close()
        for pid in session_of(each.process.pid):  # nothing, unless a test failed, or what is just ending
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


FOREVER = "while :; do sleep 0.05; done"
STUBBORN = f"trap '' TERM; echo $$ > pid; {FOREVER}"


def test_the_childs_own_exit_code_is_passed_on(run):
    assert run("exit 3").outcome()["returncode"] == 3


def test_a_signal_that_kills_the_child_is_passed_on(run):
    assert run("kill -USR1 $$").outcome()["returncode"] == -signal.SIGUSR1


def test_a_missing_command_is_a_failure_to_start(tmp_path):
    outcome = tmp_path / "outcome"
    subprocess.run([sys.executable, PROGRAM, "--outcome", outcome, "--", "/no/such/command"], check=True)
    assert json.loads(outcome.read_text())["failure"] == 2


def test_the_child_is_in_a_group_of_its_own(run):
    under_way = run("echo $$ > pid; exec sleep 60")
    pid = under_way.number("pid")
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == os.getsid(under_way.process.pid)


def test_input_output_and_variables_reach_the_child(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            PROGRAM,
            "--outcome",
            tmp_path / "o",
            "--",
            "sh",
            "-c",
            "cat; echo $LOCKRING_NAME >&2",
        ],
        input="in and out",
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LOCKRING_NAME": "an outer lock"},
    )
    assert (done.stdout, done.stderr) == ("in and out", "local\n")


def test_the_guardian_does_not_hold_the_output_open(run):
    under_way = run(f"trap '' TERM; echo out; exec >&- 2>&-; echo $$ > pid; {FOREVER}", "--kill-after", "20")
    pid = under_way.number("pid")
    under_way.process.kill()  # now only the guardian is left, which waits for the command to end
    assert under_way.process.stdout.read() == "out\n"
    assert is_running(pid)
    os.killpg(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "ALRM", "CONT"])
def test_a_signal_is_forwarded_to_the_whole_group(run, name):
    inner = f"trap 'echo 1 > inner; exit' {name}; echo 1 > ready; {FOREVER}"
    under_way = run(f'trap : {name}; sh -c "{inner}"; test -e inner && exit 9')
    under_way.number("ready")
    under_way.process.send_signal(signal.Signals[f"SIG{name}"])
    outcome = under_way.outcome()
    assert outcome["returncode"] == 9
    assert outcome["signals"] == [signal.Signals[f"SIG{name}"]]
    assert not outcome["lost"]


def test_a_signal_that_was_ignored_stays_ignored(run, tmp_path):
    program = [
        sys.executable,
        PROGRAM,
        "--outcome",
        tmp_path / "outcome",
        "--",
        "sh",
        "-c",
        "kill -HUP $$; exit 5",
    ]
    subprocess.run(["nohup", *program], check=True, capture_output=True)
    assert json.loads((tmp_path / "outcome").read_text())["returncode"] == 5


def test_a_lock_that_is_renewed_never_ends_its_command(run):
    # Two TTLs; each is as long as a busy machine may keep the one that renews from running.
    outcome = run("sleep 4; exit 4", "--ttl", "2", "--kill-after", "0.1").outcome()
    assert (outcome["returncode"], outcome["lost"]) == (4, False)


def test_loss_ends_the_whole_group_with_sigterm(run):
    inner = f"trap 'echo 1 > told; exit' TERM; echo 1 > ready; {FOREVER}"
    under_way = run(f"trap 'exit 6' TERM; sh -c \"{inner}\" & wait", "--lost-when", "ready")
    outcome = under_way.outcome()
    assert (outcome["returncode"], outcome["lost"]) == (6, True)
    assert under_way.number("told") == 1


def test_a_group_that_ignores_sigterm_is_killed(run):
    under_way = run(STUBBORN, "--lost-when", "pid", "--kill-after", "0.2")
    outcome = under_way.outcome()
    assert (outcome["returncode"], outcome["lost"], outcome["left"]) == (-signal.SIGKILL, True, False)


def test_a_stopped_command_is_ended_too(run):
    under_way = run("echo $$ > pid; kill -STOP $$; exit 0", "--lost-when", "pid")
    assert under_way.outcome()["returncode"] == -signal.SIGTERM


def test_a_lock_that_is_not_renewed_ends_its_command_before_its_deadline(run):
    ttl_s, renewed_for_s = 4.0, 0.5  # long enough for the command to begin on any machine
    under_way = run(STUBBORN, "--ttl", str(ttl_s), "--renewed-for", str(renewed_for_s), "--kill-after", "0.5")
    pid = under_way.number("pid")
    seen_at_s = time.monotonic()  # the lock began before, so its deadline is earlier than counted from here
    # a server waits that long at least
    assert last_seen_s(pid) < seen_at_s + renewed_for_s + ttl_s * 1.05
    assert under_way.outcome()["lost"]


def test_a_command_is_ended_in_time_while_lockring_itself_is_stopped(run):
    under_way = run(STUBBORN, "--ttl", "3", "--kill-after", "0.4")
    pid = under_way.number("pid")
    under_way.process.send_signal(signal.SIGSTOP)
    stopped_at_s = time.monotonic()
    assert last_seen_s(pid) < stopped_at_s + 3 * 1.05
    under_way.process.send_signal(signal.SIGCONT)
    outcome = under_way.outcome()
    assert (outcome["returncode"], outcome["lost"]) == (-signal.SIGKILL, True)


def test_a_command_is_ended_when_lockring_itself_is_killed(run):
    under_way = run(
        f"sh -c \"trap '' TERM; echo \\$\\$ > inner; {FOREVER}\" & {STUBBORN}", "--kill-after", "0.3"
    )
    pids = under_way.number("pid"), under_way.number("inner")
    under_way.process.kill()
    eventually(lambda: not any(map(is_running, pids)))


def test_a_command_that_had_sigterm_before_lockring_was_killed_gets_no_second_delay(run):
    under_way = run(
        f"trap 'echo 1 > told' TERM; echo $$ > pid; {FOREVER}", "--ttl", "60", "--kill-after", "3"
    )
    pid = under_way.number("pid")
    under_way.process.terminate()
    told_at_s = time.monotonic()
    under_way.number("told")
    time.sleep(2.5)  # of the three seconds; the rest is left
    under_way.process.kill()
    assert last_seen_s(pid) - told_at_s < 5  # not 2.5 and 3 more


def test_a_command_is_killed_when_the_guardian_is_killed(run):
    under_way = run(f"echo $PPID > guardian; {STUBBORN}")
    pid = under_way.number("pid")
    os.kill(under_way.number("guardian"), signal.SIGKILL)
    eventually(lambda: not is_running(pid))
    assert "was killed" in under_way.process.communicate(timeout=PATIENCE_S)[1]


def test_a_command_is_killed_when_the_guardian_is_killed_while_lockring_is_stopped(run):
    under_way = run(f"echo $PPID > guardian; {STUBBORN}")
    pid = under_way.number("pid")
    under_way.process.send_signal(signal.SIGSTOP)
    os.kill(under_way.number("guardian"), signal.SIGKILL)
    eventually(lambda: not is_running(pid))


def test_with_kill_there_is_no_sigterm(run):
    after_sigterm = ("--kill-after", str(10 * PATIENCE_S), "--ttl", str(30 * PATIENCE_S))
    script = f"trap 'echo 1 > told' TERM; echo 1 > ready; {FOREVER}"
    under_way = run(script, "--on-lost", "kill", "--lost-when", "ready", *after_sigterm)
    assert under_way.outcome()["returncode"] == -signal.SIGKILL
    assert not (under_way.folder / "told").exists()


def test_with_ignore_the_command_goes_on(run):
    script = "echo 1 > ready; until test -e ready.lost; do sleep 0.01; done; sleep 0.6; exit 7"
    outcome = run(script, "--on-lost", "ignore", "--lost-when", "ready", "--ttl", "0.5").outcome()
    assert (outcome["returncode"], outcome["lost"]) == (7, True)


def test_the_rest_of_the_group_is_ended_after_the_command(run):
    under_way = run("sleep 60 & echo $! > left; exit 5")
    outcome = under_way.outcome()
    assert (outcome["returncode"], outcome["lost"], outcome["left"]) == (5, False, False)
    assert not is_running(under_way.number("left"))


def test_the_rest_of_the_group_is_killed_if_it_ignores_sigterm(run):
    under_way = run(
        "sh -c \"trap '' TERM; echo 1 > ready; while :; do sleep 0.05; done\" & "
        "echo $! > left; while ! test -e ready; do sleep 0.01; done; exit 5",
        "--kill-after",
        "0.3",
    )
    assert under_way.outcome()["returncode"] == 5
    assert not is_running(under_way.number("left"))


def test_a_process_that_left_the_group_is_left_alone(run):
    under_way = run(
        "setsid sleep 60 >&- 2>&- & echo $! > left; while ! ps -o sid= -p $! | grep -qw $!; do :; done; exit 5"
    )
    assert under_way.outcome()["returncode"] == 5
    pid = under_way.number("left")
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)
