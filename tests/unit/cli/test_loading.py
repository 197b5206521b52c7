"""The modules that a short command loads: most of its time is its start, so it does without those it does not need."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.unit.client.lock_server import LockServer

_CODE = """
import sys
before = set(sys.modules)
from lockring.cli.app import main
code = main(sys.argv[1:])
print(code, *sorted(set(sys.modules) - before), file=sys.stderr)
"""


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a command loads, beyond those of the interpreter."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LOCKRING_")}
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *arguments], capture_output=True, text=True, check=True, env=environ
    )
    code, *modules = done.stderr.splitlines()[-1].split()
    assert code == "0", done.stderr
    return set(modules)


UNNEEDED = {
    # Parts of the client.
    *("lockring.client.aio", "lockring.client.blocking.groups", "lockring.client.group_state"),
    *("lockring.client.blocking.watching", "lockring.client.watch_updates", "lockring.security.tls_policy"),
    # Other commands.
    "lockring.cli.locks",
    # Tables of international names, for hosts that are text.
    *("encodings.idna", "stringprep", "unicodedata"),
    # Other large modules of the standard library, and some that these load.
    *("asyncio", "concurrent.futures", "json", "logging", "ssl", "string", "tomllib", "traceback"),
    *("pathlib", "fnmatch", "ipaddress", "ntpath", "urllib.parse"),
    # Libraries.
    *("rich", "jinja2", "uvloop"),
}


def test_a_list_of_locks_loads_nothing_that_it_does_not_need() -> None:
    with LockServer() as server:
        assert not UNNEEDED & loaded_by("ls", "--server", server.address)
