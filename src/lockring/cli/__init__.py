"""The `lockring` command. One module per family of commands, imported when its command runs."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import threading
from collections.abc import Sequence
from typing import Final, NoReturn

_EXIT_CONFIG: Final = 78
"""The value of `exits.CONFIG`, repeated because the packages that `exits` needs may be missing."""

_ALLOCATIONS_PER_COLLECTION: Final = 50_000
"""More than the imports of most commands make."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see `lockring.cli.app.main`.

    The package alone is a client library. If the packages of its command are missing, one line says what to install.

    Args:
        arguments: the words after the command's name; by default those of this process, which this then prepares for a
            command: Python looks for garbage less often, and not at its exit.

    Returns:
        The exit code, 78 if packages are missing.
    """
    if arguments is None:
        # Most of a short command's time is its start and its end. Modules are no garbage: without collections that look
        # at them, a list takes 30 ms less.
        gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
        atexit.register(gc.freeze)
    try:
        from lockring.cli.app import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("click", "rich"):
            raise
        print(
            f"lockring: the command line needs the package {error.name}, which is not installed: install lockring[cli], "
            "or lockring[server] to run servers as well",
            file=sys.stderr,
        )
        return _EXIT_CONFIG
    return run(arguments)


def command() -> int:
    """Run the command line of this process, and end it as `sys.exit` does, but 3 ms sooner: without freeing the memory.

    Only for the command `lockring`: nothing of the program around it would run any more. See `main`.

    Returns:
        The exit code, if threads are left for which the interpreter waits at its end.
    """
    code = main()
    if not _has_threads():
        _leave(code)
    return code


def _has_threads() -> bool:
    """Return whether threads are left for which the interpreter waits at its end."""
    return any(not each.daemon for each in threading.enumerate() if each is not threading.main_thread())


def _leave(code: int) -> NoReturn:
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a failure to write was reported before, or cannot be
            stream.flush()
    os._exit(code)
