"""The failures of TLS on a connection. This loads nothing else, so that a client without TLS may import it."""

from __future__ import annotations

from typing import Final, Literal

TlsFault = Literal["not-tls", "refused", "untrusted", ""]
"""The kind of a failure: the other side does not speak TLS, it does not accept this side's certificate, or its own
certificate is not accepted here; "" for any other."""

NOT_TLS: Final = "it does not speak TLS"


class TlsError(ConnectionError):
    """The handshake has failed, or the connection is not TLS any more. The text says why, as a clause.

    Attributes:
        fault: see `TlsFault`.
    """

    def __init__(self, text: str, fault: TlsFault = "") -> None:
        super().__init__(text)
        self.fault: Final = fault
