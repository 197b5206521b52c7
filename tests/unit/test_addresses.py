"""Servers as clients are given them: addresses, with or without a scheme that says whether they speak TLS."""

from __future__ import annotations

import pytest

from lockring.addresses import (
    PLAIN_SCHEME,
    TLS_SCHEME,
    ServerNames,
    check_host,
    names_of,
    split_address,
    split_scheme,
)
from lockring.errors import InvalidRequest


@pytest.mark.parametrize(
    ("servers", "addresses", "scheme"),
    [
        (["a:1", "b:2", "a:1"], ("a:1", "b:2"), ""),
        (["lockrings://a:1", "b:2"], ("a:1", "b:2"), TLS_SCHEME),
        (["lockrings://a:1", "lockrings://b:2"], ("a:1", "b:2"), TLS_SCHEME),
        (["lockring://a:1/", "b:2"], ("a:1", "b:2"), PLAIN_SCHEME),
        (["lockrings://[::1]:9501"], ("[::1]:9501",), TLS_SCHEME),
        (["lockrings://[fe80::1%25eth0]:1"], ("[fe80::1%eth0]:1",), TLS_SCHEME),
        (["lockring://[fe80::1%25en%2D1]:1/"], ("[fe80::1%en-1]:1",), PLAIN_SCHEME),
        (["lockrings://[fe80::1%25]:1"], ("[fe80::1%25]:1",), TLS_SCHEME),
        (["lockrings://[fe80::1%eth0]:1"], ("[fe80::1%eth0]:1",), TLS_SCHEME),
        (["[fe80::1%eth0]:1"], ("[fe80::1%eth0]:1",), ""),
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


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "10.0.0.11",
        "0.0.0.0",
        "::",
        "::ffff:10.0.0.1",
        "fe80::1%eth0",
        "db_1.docker",
        "bücher.example",
        "name.",
        "a" * 63,
        ".".join(["a" * 63] * 3 + ["b" * 61]),
    ],
)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert check_host(host) == host
    assert split_address(f"[{host}]:1" if ":" in host else f"{host}:1") == (host, 1)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("a..b", "a part of the host's name is empty"),
        (".a", "a part of the host's name is empty"),
        (".", "a part of the host's name is empty"),
        ("ä..b", "cannot be written as an international name"),
        ("a" * 64, "too long"),
        ("ä" * 60, "cannot be written as an international name"),
        (".".join(["a" * 63] * 4), "too long"),
        ("a" * 100_000, "too long"),
        ("\udc80", "cannot be written as an international name"),
        ("a b", "other characters"),
        ("a\0b", "other characters"),
        ("a/b", "other characters"),
        ("a%25eth0", "other characters"),
        ("zz::1", "is not an IPv6 address"),
        ("fe80::1%", "is not an IPv6 address"),
        ("fe80::1%e th", "is not an IPv6 address"),
        ("1:2:3", "is not an IPv6 address"),
    ],
)
def test_a_name_that_no_host_can_have_is_refused_wherever_it_is_read(host: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        check_host(host)
    with pytest.raises(InvalidRequest, match=f"(?s)invalid address .*{why}.*; expected HOST:PORT"):
        split_address(f"[{host}]:1" if ":" in host else f"{host}:1")


@pytest.mark.parametrize("port", ["", "65536", "-1", "1" * 5000, "²"])
def test_a_port_is_a_number_from_0_to_65535(port: str) -> None:
    with pytest.raises(InvalidRequest, match="expected HOST:PORT") as caught:
        split_address(f"a:{port}")
    assert len(str(caught.value)) < 300


def test_another_scheme_is_named_with_those_that_there_are() -> None:
    with pytest.raises(
        InvalidRequest, match=r"https:// is not a scheme of lockring; .*lockrings://HOST:PORT for TLS"
    ):
        split_scheme("https://a:1")


@pytest.mark.parametrize(
    "server",
    [
        "lockrings://user:hidden@a:1",
        "https://user:hidden@a:1",
        f"lockrings://lr_web-1_hidden{'x' * 37}",
        "eyJhidden.eyJhidden.hidden",
    ],
)
def test_a_credential_in_an_address_is_not_shown(server: str) -> None:
    with pytest.raises(InvalidRequest, match="a credential may be in it") as caught:
        split_scheme(server)
    assert "hidden" not in str(caught.value)
