"""The settings of a server's access control, which all of its ports share."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from lockring.config import setting
from lockring.errors import ConfigError

AuthMode = Literal["off", "permissive", "enforcing"]
"""Whether rights are checked: not at all, only to report what would be refused, or to refuse."""

_AUTH: Final = (
    "Whether to check identities and rights: off, permissive (report what would be refused, and let it pass), or"
    " enforcing."
)
_ACL_FILE: Final = "ACL file with roles, and the identities that have them. It is read again as it changes."
_AUDIT_LOG: Final = "File that gets a line of JSON for each act, or - for standard error."
_JWT_JWKS: Final = "Accept JWTs that are signed with the keys in this file, or at this https:// URL."
_JWT_ISSUER: Final = "Issuer that a JWT must name."
_JWT_AUDIENCE: Final = "Audience that a JWT must name."
_JWT_CA: Final = "Authorities that the server of --jwt-jwks is checked against; by default the system's."
_JWT_TOKEN_FILE: Final = "File with a token to show to the server of --jwt-jwks."
_INSECURE: Final = (
    "Start even if other machines can reach a port without TLS, or without proving what they are. For networks that are"
    " trusted alone."
)


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the table `[access]`, for every command that runs a server."""

    auth: Annotated[AuthMode, setting(_AUTH)] = "off"
    acl_file: Annotated[str | None, setting(_ACL_FILE, metavar="FILE")] = None
    audit_log: Annotated[str | None, setting(_AUDIT_LOG, metavar="FILE")] = None
    jwt_jwks: Annotated[str, setting(_JWT_JWKS, metavar="FILE|URL")] = ""
    jwt_issuer: Annotated[str, setting(_JWT_ISSUER)] = ""
    jwt_audience: Annotated[str, setting(_JWT_AUDIENCE)] = ""
    jwt_ca: Annotated[str | None, setting(_JWT_CA, metavar="FILE")] = None
    jwt_token_file: Annotated[str | None, setting(_JWT_TOKEN_FILE, metavar="FILE")] = None
    insecure: Annotated[bool, setting(_INSECURE)] = False

    def __post_init__(self) -> None:
        if self.auth == "off" and self.acl_file is not None:
            # Left as it is, the server would be open, and its operator would think that it is not.
            raise ConfigError(
                f"--acl-file {self.acl_file} is not used with --auth off; choose --auth permissive or --auth enforcing"
            )
        if self.auth != "off" and self.acl_file is None:
            raise ConfigError(f"--auth {self.auth} needs --acl-file FILE, which gives identities their roles")
        needed = {
            "--jwt-jwks": self.jwt_jwks,
            "--jwt-issuer": self.jwt_issuer,
            "--jwt-audience": self.jwt_audience,
        }
        missing = [flag for flag, value in needed.items() if not value]
        has_any = len(missing) < len(needed) or self.jwt_ca is not None or self.jwt_token_file is not None
        if has_any and missing:
            raise ConfigError(f"JWTs need {' and '.join(missing)} too")
        if has_any and self.auth == "off":
            raise ConfigError(
                "--jwt-jwks is not used with --auth off; choose --auth permissive or --auth enforcing"
            )


def danger_of(*, has_tls: bool, has_identities: bool) -> str:
    """Return what any process may do that reaches a server, "" if it has to prove what it is.

    Args:
        has_tls: whether the ports speak TLS, so that only a certificate of the servers' own CA makes a node.
        has_identities: whether clients have to prove what they are.
    """
    if has_tls:
        return "" if has_identities else "any client may do everything there"
    if has_identities:
        return "any process may join as a node there, and read tokens on their way"
    return "any process may do everything there, and even join as a node"


OPEN: Final = AccessSettings()
"""The settings of a server that checks nothing."""
