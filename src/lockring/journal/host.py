"""The machine that a journal is written on, and its boot: what a directory's lock proves depends on both.

A lock that is free shows that no process *of this kernel* has it. On a volume that was moved, or on a network file
system, the process that wrote the journal may run on elsewhere. So a former life is over for certain only if it ran in
this boot, or in an earlier boot of this very machine.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final, NamedTuple

from lockring.clock import boot_id

_MACHINE_ID: Final = Path("/etc/machine-id")
_MACHINE_ID_LENGTH: Final = 32
_SIGNS_OF_A_CONTAINER: Final = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_VARIABLES_OF_A_CONTAINER: Final = ("container", "KUBERNETES_SERVICE_HOST")


class Host(NamedTuple):
    """A machine in one of its boots.

    Attributes:
        boot: id of the boot, "" if unknown.
        machine: id of the machine, "" if unknown.
    """

    boot: str
    machine: str


def this_host() -> Host:
    """Return the machine that this process runs on."""
    return Host(boot_id(), _machine_id())


def _machine_id() -> str:
    """Return the machine's id, "" if unknown.

    In a container it is unknown: the file came with the image, and is the same on every machine that runs it.
    """
    if any(os.path.exists(sign) for sign in _SIGNS_OF_A_CONTAINER):
        return ""
    if any(variable in os.environ for variable in _VARIABLES_OF_A_CONTAINER):
        return ""
    with contextlib.suppress(OSError):
        found = _MACHINE_ID.read_text(errors="replace").strip()
        if len(found) == _MACHINE_ID_LENGTH:  # not "uninitialized", as in an image before its first boot
            return found
    return ""
