"""Whether output is coloured, and commands that are shown."""

from __future__ import annotations

import io
import shutil
import subprocess

import pytest

from lockring.terminals import command, takes_colour


class Stream(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize(
    ("environ", "on_a_terminal", "elsewhere"),
    [
        ({"TERM": "xterm"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"CLICOLOR_FORCE": "1", "TERM": "dumb"}, True, True),
        ({"CLICOLOR": "0"}, False, False),
    ],
)
def test_the_conventions_of_the_environment_are_kept(
    environ: dict[str, str], on_a_terminal: bool, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert takes_colour(Stream(is_terminal=True)) is on_a_terminal
    assert takes_colour(Stream(is_terminal=False)) is elsewhere


NAMES = [
    "plain/1",
    "x; touch PWNED #",
    "$(id)",
    "`id`",
    "a'b\\c",
    "-x",
    "--",
    "--help",
    "two\nlines",
    "\x1b[2J\x03'\\",
    "\u202eb",
    "é ü",
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("name", NAMES)
def test_a_shell_reads_each_name_in_a_command_as_one_name_and_a_terminal_only_shows_it(name: str) -> None:
    text = command("break", name, options=("--token", "7"))
    assert text.isprintable()
    script = f"lockring() {{ printf '%s\\0' \"$@\"; }}; {text}"
    read = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.decode()
    words = read.removesuffix("\0").split("\0")
    dashed = ["break", "--token", "7", "--", name]
    assert words == (dashed if name.startswith("-") else ["break", name, "--token", "7"])
