"""Servers as clients are given them: addresses, with or without a scheme that says whether they speak TLS."""

from __future__ import annotations

import pytest

from lockring.addresses import PLAIN_SCHEME, TLS_SCHEME, ServerNames, names_of, split_scheme
from lockring.errors import InvalidRequest


@pytest.mark.parametrize(
    ("servers", "addresses", "scheme"),
    [
        (["a:1", "b:2", "a:1"], ("a:1", "b:2"), ""),
        (["lockrings://a:1", "b:2"], ("a:1", "b:2"), TLS_SCHEME),
        (["lockrings://a:1", "lockrings://b:2"], ("a:1", "b:2"), TLS_SCHEME),
        (["lockring://a:1/", "b:2"], ("a:1", "b:2"), PLAIN_SCHEME),
        (["lockrings://[::1]:9501"], ("[::1]:9501",), TLS_SCHEME),
        ([], (), ""),
    ],
)
def test_the_first_scheme_is_for_all_servers(
    servers: list[str], addresses: tuple[str, ...], scheme: str
) -> None:
    assert names_of(servers) == ServerNames(addresses, scheme)


@pytest.mark.parametrize(
    "servers",
    [
        ["lockrings://a:1", "lockring://b:2"],
        ["a:1", "lockrings://b:2"],
        ["lockring://a:1", "b:2", "lockrings://c:3"],
    ],
)
def test_servers_of_one_cluster_all_speak_tls_or_none_does(servers: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="contradicts the server before it"):
        names_of(servers)


@pytest.mark.parametrize(
    "server", ["https://a:1", "lockrings://", "lockrings://a", "a:1/", "lockrings://a:1/x", "a"]
)
def test_anything_else_is_refused(server: str) -> None:
    with pytest.raises(InvalidRequest, match="expected HOST:PORT"):
        split_scheme(server)
