"""Conversations of strangers with ports that speak TLS and demand rights.

Some attack the handshake, others damage the records after it. Most shake hands, as one or another, and then say what
they would say without TLS; also the orders that a port without rights would rightly follow.
"""

from __future__ import annotations

import random
from typing import Final, Literal

from tests.hostile.calls import Calls
from tests.hostile.conversations import Conversation, Ending, drawn
from tests.hostile.guises import Guise, Shown
from tests.hostile.samples import Facts, frame, packed
from tests.hostile.tls_bytes import hello, hostile_bytes, record
from tests.hostile.tls_stranger import RAW

Language = Literal["frames", "calls"]
"""The language of a port above TLS: frames of lockring's own, or gRPC."""

HANDSHAKE: Final = "handshake"
TAMPERED: Final = "tampered"
RENEGOTIATION: Final = "renegotiation"
CALLS: Final = "calls"

_GUISES: Final[dict[Guise, float]] = {
    "rights": 45,
    "few": 20,
    "none": 12,
    "unknown": 8,
    "foreign": 4,
    "peer": 5,
    "": 6,
}
"""The guises of strangers, each with how often it is put on relative to the others."""

_ENDINGS: Final[tuple[Ending, ...]] = ("pause", "pause", "pause", "close", "reset")


def converse_guarded(seed: int, number: int, facts: Facts, language: Language) -> Conversation:
    """The conversation of this number, at a port with these facts."""
    rng = random.Random(f"{seed}/{number}/tls")
    above = _Above(rng, number, facts, language)
    match rng.random():
        case chance if chance < 0.22:
            made = hostile_bytes(rng, above.one)
            return Conversation(number, HANDSHAKE, b"", made.inputs, made.ending, made.byte_pause_s)
        case chance if chance < 0.30:
            shown = Shown(_guise(rng), rng.random() < 0.5, f"{seed}/{number}/tamper")
            inputs = [above.one() for _ in range(rng.randint(1, 8))]
            return Conversation(number, TAMPERED, b"", inputs, rng.choice(_ENDINGS), shown=shown)
        case chance if chance < 0.33:
            return _renegotiation(rng, number, above)
    shown = Shown(_guise(rng), rng.random() < 0.2)
    return above.conversation(shown)


class _Above:
    """The words of a stranger above TLS."""

    def __init__(self, rng: random.Random, number: int, facts: Facts, language: Language) -> None:
        self._rng = rng
        self._number = number
        self._facts = facts
        self._language = language

    def conversation(self, shown: Shown) -> Conversation:
        """Return a whole conversation."""
        if self._language == "frames":
            made = drawn(self._rng, self._number, self._facts)
            if not shown.guise and made.kind != "slow":
                # A port with TLS answers at once, and may take the rest for a part of a record.
                made = made._replace(ending=self._rng.choice(("close", "reset")))
            return made._replace(shown=shown)
        inputs = Calls(self._rng, self._facts, self._facts.tokens).inputs()
        return Conversation(self._number, CALLS, b"", inputs, self._rng.choice(_ENDINGS), shown=shown)

    def one(self) -> bytes:
        """Return one input."""
        if self._language == "calls":
            return Calls(self._rng, self._facts, self._facts.tokens).one()
        made = drawn(self._rng, self._number, self._facts)
        return self._rng.choice(made.inputs) if made.inputs else frame(packed([1]))


def _guise(rng: random.Random) -> Guise:
    return rng.choices(list(_GUISES), list(_GUISES.values()))[0]


def _renegotiation(rng: random.Random, number: int, above: _Above) -> Conversation:
    """Begin a second handshake on a connection with TLS, unencrypted, as a record of data, or as one of the first's."""
    again = hello(rng)
    second = record(again) if rng.random() < 0.7 else record(again, kind=23)
    shown = Shown(_guise(rng) or "rights", is_old=rng.random() < 0.7)
    return Conversation(
        number, RENEGOTIATION, b"", [above.one(), second], "pause", shown=shown._replace(tamper=RAW)
    )
