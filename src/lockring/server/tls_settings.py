"""The settings of a server's TLS, which all commands that run servers have: the tables `[tls]` and `[peer_tls]`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from lockring.config import setting
from lockring.errors import ConfigError

ClientAuthChoice = Literal["none", "optional", "required"]

_CERT: Final = "Certificate that clients are shown, with those between it and its authority (PEM). Needs --peer-tls-cert."
_KEY: Final = "Its private key, unencrypted (PEM)."
_CA: Final = "Authorities whose certificates are accepted from clients (PEM)."
_AUTH: Final = "Whether clients are asked for certificates, and refused without. By default required where --tls-ca is given, else none."
_PEER_CERT: Final = "Certificate that other servers are shown (PEM); it must be made for both ends of a connection. Needs --tls-cert."
_PEER_KEY: Final = "Its private key, unencrypted (PEM)."
_PEER_CA: Final = (
    "Authorities whose certificates are accepted from servers (PEM). None of them may be in --tls-ca."
)


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of certificates, keys and authorities, "" for none. All files may be replaced while servers run."""

    tls_cert: Annotated[str, setting(_CERT, metavar="FILE", table="tls")] = ""
    tls_key: Annotated[str, setting(_KEY, metavar="FILE", table="tls")] = ""
    tls_ca: Annotated[str, setting(_CA, metavar="FILE", table="tls")] = ""
    tls_client_auth: Annotated[ClientAuthChoice | None, setting(_AUTH, table="tls")] = None
    peer_tls_cert: Annotated[str, setting(_PEER_CERT, metavar="FILE", table="peer_tls")] = ""
    peer_tls_key: Annotated[str, setting(_PEER_KEY, metavar="FILE", table="peer_tls")] = ""
    peer_tls_ca: Annotated[str, setting(_PEER_CA, metavar="FILE", table="peer_tls")] = ""

    @property
    def has_tls(self) -> bool:
        """Whether the ports speak TLS."""
        return bool(self.tls_cert)

    @property
    def client_auth(self) -> ClientAuthChoice:
        """Whether clients need certificates: what was asked for, or what follows from the authorities."""
        if self.tls_client_auth is not None:
            return self.tls_client_auth
        return "required" if self.tls_ca else "none"

    def tls_fields(self) -> dict[str, Any]:
        """Return these settings by field, for the settings of another server with the same."""
        return {field: getattr(self, field) for field in TlsSettings.__struct_fields__}


def check_tls(settings: TlsSettings) -> None:
    """Check that the files that are named are all that are needed.

    Raises:
        ConfigError: one is missing, or only one of the two sides is given.
    """
    needed = ["tls_cert", "tls_key", "peer_tls_cert", "peer_tls_key", "peer_tls_ca"]
    if settings.client_auth != "none":
        needed.append("tls_ca")
    given = [_flag(field) for field, value in settings.tls_fields().items() if value]
    missing = [_flag(field) for field in needed if not getattr(settings, field)]
    if given and missing:
        raise ConfigError(
            f"{given[0]} needs {_listed(missing)} too: clients and other servers come to the same ports, each with"
            " certificates of their own"
        )


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
