"""`lockring certs`: certificates for development and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from lockring.cli.output import print_json, say
from lockring.exits import OK
from lockring.native import to_native
from lockring.security.cert_making import cert_maker
from lockring.terminals import shown

if TYPE_CHECKING:
    from lockring.security.certs import CertFiles, CertMaker

_DIRECTORY: Final = "certs"
_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def certs() -> None:
    """Make certificates for development and tests: an authority, then servers, clients and nodes.

    Keys lie unencrypted in files that their owner alone may read. Use an authority of your own in production.
    """


def _options(default_days: int) -> Callable[[_F], _F]:
    def decorate(command: _F) -> _F:
        command = click.option("--json", "as_json", is_flag=True, help="Print JSON, including errors.")(
            command
        )
        command = click.option("--force", is_flag=True, help="Replace files that are there.")(command)
        command = click.option(
            "--days",
            type=int,
            metavar="N",
            default=default_days,
            help=f"How long it is valid.  [default: {default_days}]",
        )(command)
        return click.option(
            "--dir",
            "directory",
            metavar="DIR",
            default=_DIRECTORY,
            help=f"Where the files are.  [default: {_DIRECTORY}]",
        )(command)

    return decorate


@certs.command("ca")
@_options(3650)
def ca(directory: str, days: int, force: bool, as_json: bool) -> int:
    """Make two authorities: one for clients and the servers that they talk to, one for servers among themselves."""
    _report(_maker(directory, force).authorities(days=days), as_json)
    return OK


@certs.command("server")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST…")
@click.option(
    "--name", default="server", metavar="NAME", help="The first part of the files' names.  [default: server]"
)
@_options(365)
def server(hosts: tuple[str, ...], name: str, directory: str, days: int, force: bool, as_json: bool) -> int:
    """Make the certificate that a server shows to clients, for the names and addresses by which they reach it."""
    _report([_maker(directory, force).server(hosts, stem=name, days=days)], as_json)
    return OK


@certs.command("client")
@click.argument("identity", metavar="ID")
@_options(365)
def client(identity: str, directory: str, days: int, force: bool, as_json: bool) -> int:
    """Make a client's certificate. ID is its name in the ACL file, such as web-1, or a URI."""
    _report([_maker(directory, force).client(identity, days=days)], as_json)
    return OK


@certs.command("node")
@click.argument("node", metavar="ID")
@click.argument("hosts", nargs=-1, metavar="[HOST…]")
@_options(365)
def node(node: str, hosts: tuple[str, ...], directory: str, days: int, force: bool, as_json: bool) -> int:
    """Make the certificate that a server shows to other servers. ID is its node id; a coordinator may have any."""
    _report([_maker(directory, force).node(node, hosts, days=days)], as_json)
    return OK


def _maker(directory: str, force: bool) -> CertMaker:
    return cert_maker(Path(to_native(directory)), replace=force, asked_by="lockring certs")


def _report(made: Sequence[CertFiles], as_json: bool) -> None:
    if as_json:
        print_json([{"cert": str(each.cert), "key": str(each.key)} for each in made])
        return
    for each in made:
        say(f"made {shown(str(each.cert))}, and its key {shown(str(each.key))}")
