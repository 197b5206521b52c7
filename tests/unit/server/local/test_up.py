"""`lockring up`: what its children hear of a signal."""

from __future__ import annotations

import io
import signal
import sys

from lockring.server.access_settings import OPEN, AccessSettings
from lockring.server.local.supervised import LinePrinter, SupervisedChild
from lockring.server.local.up import UpServer
from lockring.server.settings import UpSettings
from tests.processes import PATIENCE_S
from tests.unit.net.serving import run, until

HEARS = """
import signal, time
signal.signal(signal.SIGHUP, lambda *_: print("heard", flush=True))
print("here", flush=True)
time.sleep(600)
"""


def test_processes_hear_that_their_files_may_have_changed_and_live_on() -> None:
    async def main() -> None:
        stream = io.StringIO()
        up = UpServer(UpSettings(), access=AccessSettings(auth="enforcing", acl_file="acl.toml"))
        for children in (up._coordinators, up._nodes):
            command = [sys.executable, "-c", HEARS]
            child = SupervisedChild("P", command, LinePrinter(["P"], stream=stream), lambda name, code: None)
            children.append(child)
            child.start()
        await until(lambda: stream.getvalue().count("here") == 2)
        assert up.reload()
        await until(lambda: stream.getvalue().count("heard") == 2)
        for child in (*up._coordinators, *up._nodes):
            child.tell(signal.SIGKILL)
            await child.ended(timeout_s=PATIENCE_S)

    run(main())


def test_without_files_there_is_nothing_to_read_again() -> None:
    async def main() -> None:
        assert not UpServer(UpSettings(), access=OPEN).reload()

    run(main())
