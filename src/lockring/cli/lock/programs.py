"""Finds and starts programs as POSIX says for `execvp`: by PATH, and by `sh` if a file is a script, not a program."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from typing import Final, NoReturn

from lockring import exits
from lockring.native import to_native
from lockring.terminals import shown

_SHELL: Final = b"/bin/sh"
_LOOKED_AT_BYTES: Final = 256
_GOES_ON: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT})
"""Errors after which a later folder of PATH may have the program."""


def is_program(word: str) -> bool:
    """Return whether a word is a path to a program or the name of one in PATH."""
    return bool(word) and shutil.which(to_native(word)) is not None


def is_file(word: str) -> bool:
    """Return whether a word is the path of an existing entry other than a directory."""
    try:
        path = to_native(word)
        return os.path.exists(path) and not os.path.isdir(path)
    except ValueError:  # a NUL
        return False


def unusable(command: str) -> tuple[str, int] | None:
    """Return why a command cannot be run, and the exit code; None if it can. Called before the wait, to fail early."""
    if "\0" in command:
        return f"{shown(command)}: a command must not contain a NUL byte", exits.USAGE
    if is_program(command):
        return None
    path = to_native(command)
    if os.path.dirname(path) and os.path.exists(path):
        what = "is a directory" if os.path.isdir(path) else "is not executable"
        return f"{shown(command)}: {what}", exits.CANNOT_EXECUTE
    text = f"{shown(command)}: command not found"
    if command.startswith("-"):
        text += "; the command is what follows --"
    return text, exits.NOT_FOUND


def replace_process(argv: Sequence[str], variables: dict[str, str]) -> NoReturn:
    """Become the program, in this process's environment with the variables added. All text is UTF-8 in every locale.

    Raises:
        OSError: it cannot be started.
        ValueError: an argument has a NUL byte.
    """
    arguments = [_bytes(each) for each in argv]
    environ = {**os.environb, **{_bytes(name): _bytes(value) for name, value in variables.items()}}
    refused: OSError | None = None
    for path in _places(arguments[0]):
        try:
            _execute(path, arguments, environ)
        except OSError as error:
            if error.errno == errno.EACCES:
                refused = error  # a later folder may have an executable one; otherwise this is the error
            elif error.errno not in _GOES_ON:
                raise
    raise refused or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _places(command: bytes) -> list[bytes]:
    if b"/" in command:
        return [command]
    if not command:
        return []
    return [os.path.join(os.fsencode(folder), command) for folder in os.get_exec_path()]


def _execute(path: bytes, arguments: list[bytes], environ: dict[bytes, bytes]) -> None:
    try:
        os.execve(path, arguments, environ)
    except OSError as error:
        if error.errno != errno.ENOEXEC or _is_binary(path):
            raise
    script = b"./" + path if path.startswith(b"-") else path
    os.execve(_SHELL, [b"sh", script, *arguments[1:]], environ)


def _is_binary(path: bytes) -> bool:
    """Return whether a file that the system cannot run is not for a shell either: its first line has a NUL."""
    with open(path, "rb") as file:
        start = file.read(_LOOKED_AT_BYTES)
    return b"\0" in start.split(b"\n")[0]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
