"""Settings of access control that contradict each other are refused: no server is open by mistake."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.errors import ConfigError
from lockring.server.access_settings import OPEN, AccessSettings

JWT = {"jwt_jwks": "keys.json", "jwt_issuer": "https://issuer", "jwt_audience": "lockring"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"acl_file": "acl.toml"}, "--acl-file acl.toml is not used with --auth off"),
        ({"auth": "enforcing"}, "--auth enforcing needs --acl-file FILE"),
        ({"auth": "permissive"}, "--auth permissive needs --acl-file FILE"),
        (
            {"auth": "enforcing", "acl_file": "a", "jwt_jwks": "k"},
            "JWTs need --jwt-issuer and --jwt-audience too",
        ),
        ({"auth": "enforcing", "acl_file": "a", "jwt_ca": "k"}, "JWTs need --jwt-jwks and --jwt-issuer"),
        (JWT, "--jwt-jwks is not used with --auth off"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        AccessSettings(**given)


def test_settings_that_fit_are_accepted() -> None:
    assert OPEN.auth == "off"
    assert AccessSettings(audit_log="-").audit_log == "-"
    assert AccessSettings(auth="enforcing", acl_file="acl.toml", **JWT).auth == "enforcing"  # type: ignore[arg-type]
