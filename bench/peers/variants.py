"""The names of lockring's own figures: how its nodes and clients are built, how many they are, how they are set up."""

from __future__ import annotations

from itertools import product
from typing import Final, NamedTuple, Self

from lockring.testing import Durability

_COMPILED: Final = "compiled"
_TITLES: Final = {
    "": "",
    "process": ", `process`",
    "disk": ", `disk`",
    "tls": ", TLS",
    "rights": ", TLS and rights",
}
"""The set-ups. With rights, each acquire is judged by a hundred rules."""


class Variant(NamedTuple):
    """One of lockring's figures.

    Attributes:
        nodes: how many nodes there are; with three, each grant is on two of them before it is answered.
        is_compiled: whether the modules of the hot path are compiled, at the nodes and their clients.
        setup: the durability other than "none", or "tls" or "rights", or "".
    """

    nodes: int = 1
    is_compiled: bool = False
    setup: str = ""

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the variant of this name, such as `lockring-3+compiled+process`."""
        base, *parts = name.split("+")
        setups = [part for part in parts if part in _TITLES]
        return cls(3 if base.endswith("-3") else 1, _COMPILED in parts, setups[0] if setups else "")

    @property
    def name(self) -> str:
        """The name of its figures."""
        parts = ["lockring" if self.nodes == 1 else f"lockring-{self.nodes}"]
        return "+".join([*parts, *([_COMPILED] if self.is_compiled else []), *filter(None, [self.setup])])

    @property
    def title(self) -> str:
        """The same in words."""
        nodes = "one node" if self.nodes == 1 else "three nodes, `sync`"
        return f"lockring, {nodes}{_TITLES[self.setup]}{', compiled' if self.is_compiled else ''}"

    @property
    def durability(self) -> Durability:
        """How its nodes keep their locks on disk."""
        return "process" if self.setup == "process" else "disk" if self.setup == "disk" else "none"

    @property
    def has_tls(self) -> bool:
        """Whether all ports speak TLS."""
        return self.setup in {"tls", "rights"}

    @property
    def has_rights(self) -> bool:
        """Whether acquires are judged."""
        return self.setup == "rights"


VARIANTS: Final = tuple(
    Variant(nodes, is_compiled, setup)
    for nodes, is_compiled, setup in product((1, 3), (False, True), _TITLES)
    if nodes == 1 or setup not in {"tls", "rights"}
)
"""All that are measured; the first one is that with which all others are compared."""
