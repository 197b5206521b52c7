"""The modules that are compiled: all of the packages on the hot path, but for those named here with the reason.

A new module of these packages is compiled from its first day, and a house test checks what it may not contain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parents[1] / "src" / "lockring"

PACKAGES: Final = (
    "core",
    "core/node",
    "core/client",
    "journal",
    "net",
    "client",
    "client/aio",
    "client/blocking",
)
"""The packages, without those within them: the coordinator's core decides a few times per second, at most."""

SINGLE: Final = (
    "addresses",
    "clock",
    "ids",
    "names",
    "security/tls_layer",
    "security/tls_protocol",
    "server/journal_writer",
    "server/node_life",
    "server/node_lives",
    "server/node_port",
    "slots",
    "troubles",
    "units",
)
"""Modules of other packages."""

STRUCTS: Final = (
    "its structs are encoded and decoded, or refer to each other: msgspec has compiled them already"
)
PUBLIC: Final = (
    "its objects are the program's: it may subclass them, refer to them weakly, and end up in `__del__`"
)
DRIVER: Final = "grants, loops and forks refer to it weakly, which compiled objects do not support"
LIST: Final = "it has a subclass of list, which the compiler does not support"
HANDLERS: Final = (
    "Python runs the handlers of signals in interpreted functions alone, and this is one for that"
)
GENERATOR: Final = "it has an asynchronous generator, which the compiler does not support"

INTERPRETED: Final = {
    "client/aio/client": PUBLIC,
    "client/aio/driver": DRIVER,
    "client/aio/event_loops": GENERATOR,
    "client/aio/grants": PUBLIC,
    "client/aio/groups": PUBLIC,
    "client/aio/locks": PUBLIC,
    "client/aio/loss_notices": PUBLIC,
    "client/aio/threaded_driver": DRIVER,
    "client/aio/watching": PUBLIC,
    "client/arguments": LIST,
    "client/blocking/client": PUBLIC,
    "client/blocking/driver": DRIVER,
    "client/blocking/grants": PUBLIC,
    "client/blocking/groups": PUBLIC,
    "client/blocking/handlers": HANDLERS,
    "client/blocking/locks": PUBLIC,
    "client/blocking/loss_notices": PUBLIC,
    "client/blocking/threading_lock": PUBLIC,
    "client/blocking/watching": PUBLIC,
    "client/blocks": PUBLIC,
    "client/decorators": PUBLIC,
    "client/grant_state": PUBLIC,
    "client/group_state": PUBLIC,
    "client/lock_info": PUBLIC,
    "client/process_bound": PUBLIC,
    "client/watch_updates": PUBLIC,
    "core/client/effects": STRUCTS,
    "core/client/group_view": STRUCTS,
    "core/client/queries": STRUCTS,
    "core/journal": STRUCTS,
    "core/node/status": STRUCTS,
    "core/state_differences": STRUCTS,
    "core/timing": STRUCTS,
    "journal/codec": STRUCTS,
}
"""The modules of `PACKAGES` that stay interpreted, each with the reason."""


def compiled_modules() -> list[str]:
    """Return the compiled modules, such as "core/node/core", in the order of their names."""
    inner = [
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for package in PACKAGES
        for path in (PACKAGE / package).glob("*.py")
        if path.stem != "__init__"
    ]
    return sorted(set(inner) - set(INTERPRETED) | set(SINGLE))


def path_of(module: str) -> Path:
    """Return a module's source, from the root of the sources."""
    return Path("src", "lockring", f"{module}.py")
