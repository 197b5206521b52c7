"""`lockring version`."""

from __future__ import annotations

import json
import platform

import click

from lockring._version import __version__
from lockring.build_kind import BUILD
from lockring.protocol import PROTOCOL


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def version(as_json: bool) -> None:
    """Print the version of lockring, of its wire protocol and of Python, and which build of lockring runs."""
    facts = {
        "lockring": __version__,
        "protocol": PROTOCOL,
        "python": platform.python_version(),
        "build": BUILD,
    }
    print(
        json.dumps(facts)
        if as_json
        else f"lockring {__version__} (protocol {PROTOCOL}, Python {facts['python']}, {BUILD})"
    )
