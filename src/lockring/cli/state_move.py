"""`lockring coordinator export` and `import`: the move of a cluster's state from one store to another."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from lockring.cli.inherited import output_was_closed
from lockring.cli.options import setting_options
from lockring.cli.output import duration, print_json, say
from lockring.cli.sections import read_settings
from lockring.clock import wall_ns
from lockring.config import load
from lockring.errors import OutputFailed, StoreError
from lockring.exits import OK
from lockring.native import to_native
from lockring.server.settings import StorePlaceSettings
from lockring.server.state_move import ImportOutcome, copy_state, described, export_state, import_state
from lockring.store.export_file import FILE_BYTES_MAX, Export, decode_export, encode_export
from lockring.system_errors import reason_of

_STDIO: Final = "-"
"""Stands for standard output or input in the place of a file."""

_F = TypeVar("_F", bound=Callable[..., Any])


def _move_options(command: _F) -> _F:
    command = click.option("--json", "as_json", is_flag=True, help="Print JSON, including errors.")(command)
    return setting_options(StorePlaceSettings)(command)


@click.command()
@click.argument("file")
@click.option(
    "--copy",
    is_flag=True,
    help="Leave the store as it is: coordinators may start on it again, and nowhere else.",
)
@_move_options
def export(file: str, copy: bool, as_json: bool, **given: Any) -> int:
    """Move the state of a stopped cluster's coordinators to a FILE, for an import into another store.

    Stop every coordinator first; nodes go on for the coordinator lease. FILE must not exist; - is standard output. No
    coordinator starts on the store any more, until a state is imported into it.
    """
    place = _place(given)
    if copy:
        exported = copy_state(place, wall_ns=wall_ns())
        _write(file, encode_export(exported))
    else:
        exported = _moved(place, file)
    if file == _STDIO:
        return OK
    if as_json:
        print_json(_facts(exported) | {"file": file})
        return OK
    say(f"exported {described(exported.state)}, from {exported.source} to {file}")
    if exported.is_move:
        say(
            "import it into the other store, and start the coordinators there: none starts on the old store any more."
            f" Nodes go on for {duration(exported.state.coordinator_lease_ms / 1_000)} without a coordinator"
        )
    else:
        say(
            f"this is a copy. Once it is imported elsewhere, do not start a coordinator on {exported.source} again: there"
            " would be two clusters"
        )
    return OK


def _moved(place: StorePlaceSettings, file: str) -> Export:
    """Export a state to a file, which is gone again if the store could not be marked."""
    is_written = False

    def keep(exported: Export) -> None:
        nonlocal is_written
        _write(file, encode_export(exported))
        is_written = True

    target = "standard output" if file == _STDIO else f"the file {Path(file).absolute()}"
    try:
        return export_state(place, keep, target=target, wall_ns=wall_ns())
    except StoreError:
        if is_written and file != _STDIO:
            with suppress(OSError):
                Path(to_native(file)).unlink()
        raise


@click.command("import")
@click.argument("file")
@click.option("--force", is_flag=True, help="Replace another state that the store has. It is then lost.")
@click.option(
    "--as-left",
    is_flag=True,
    help="Declare that no coordinator has run since the export, however long ago that was.",
)
@_move_options
def import_(file: str, force: bool, as_left: bool, as_json: bool, **given: Any) -> int:
    """Write the state in a FILE of `lockring coordinator export` into a store; - is standard input.

    Stop every coordinator first. The locks that are held stay held if coordinators are started on the new store within
    the coordinator lease.
    """
    place = _place(given)
    data = _read(file)
    try:
        export_ = decode_export(data)
    except StoreError as error:
        raise StoreError(f"{_named(file)} cannot be imported: {error}") from error
    outcome = import_state(place, export_, force=force, as_left=as_left, wall_ns=wall_ns())
    if as_json:
        print_json(_outcome(outcome, export_))
        return OK
    _warn(outcome, export_)
    if outcome.is_unchanged:
        say(f"{outcome.place} has the state already: {described(outcome.state)}")
    else:
        say(f"imported {described(outcome.state)}, from {export_.source} into {outcome.place}")
    return OK


def _place(given: Mapping[str, Any]) -> StorePlaceSettings:
    """Return the store that a flag names; without one, that of the variables or the settings file.

    A move has two stores, so the variable of one must not stand in the way of the other.
    """
    flags = {name: value for name in ("store", "data_dir") if (value := given.get(name)) is not None}
    if flags:
        return load(StorePlaceSettings, "coordinator", flags=flags, environ={})
    return read_settings(StorePlaceSettings, "coordinator", given)


def _warn(outcome: ImportOutcome, export_: Export) -> None:
    """Report on standard error what is lost, and what the operator has to see to."""
    if outcome.is_unchanged:
        return
    lines = []
    if not export_.is_move and export_.source != outcome.place:
        lines.append(
            f"the file is a copy: do not start a coordinator on {export_.source} again, as there would be two clusters"
        )
    if outcome.overruled:
        lines.append(
            f"{outcome.place} was left: {outcome.overruled}. If a coordinator has run on another store since, or runs there"
            " after an import of this file, there are two clusters: start none there any more"
        )
    if outcome.replaced is not None:
        lines.append(f"the state that {outcome.place} had is lost: {described(outcome.replaced)}")
    if outcome.why_forgotten:
        lines.append(
            f"{outcome.why_forgotten}: locks that were held are not taken over, and the next start waits until every earlier"
            f" lease must have ended, {duration(outcome.state.coordinator_lease_ms / 1_000)} and a little more"
        )
    for line in lines:
        print(f"lockring: warning: {line}", file=sys.stderr, flush=True)


def _facts(export_: Export) -> dict[str, Any]:
    state = export_.state
    return {
        "cluster": state.cluster,
        "version": str(state.version),
        "members": sorted(state.members),
        "source": export_.source,
        "copy": not export_.is_move,
    }


def _outcome(outcome: ImportOutcome, export_: Export) -> dict[str, Any]:
    replaced = outcome.replaced if not outcome.is_unchanged else None
    return _facts(export_) | {
        "version": str(outcome.state.version),
        "store": outcome.place,
        "unchanged": outcome.is_unchanged,
        "replaced_cluster": None if replaced is None else replaced.cluster,
        "replaced_version": None if replaced is None else str(replaced.version),
        "waits": outcome.why_forgotten or None,
        "was_left": outcome.overruled or None,
    }


def _named(file: str) -> str:
    return "standard input" if file == _STDIO else file


def _read(file: str) -> bytes:
    try:
        if file == _STDIO:
            data = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
        else:
            with Path(to_native(file)).open("rb") as stream:
                data = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise StoreError(f"{_named(file)} cannot be read: {reason_of(error)}") from error
    if len(data) > FILE_BYTES_MAX:
        raise StoreError(
            f"{_named(file)} has more than {FILE_BYTES_MAX} bytes, so it is not an export of lockring"
        )
    return data


def _write(file: str, data: bytes) -> None:
    """Write a new file durably, whole or not at all; or standard output, as durably as that is."""
    if file == _STDIO:
        _write_output(data)
        return
    path = Path(to_native(file))
    try:
        stream = path.open("xb")
    except FileExistsError as error:
        way = "name another file, or remove it"
        if not path.is_file():
            way = "name a file that does not exist, in a directory, or - for standard output"
        what = "a directory" if path.is_dir() else "there already" if path.is_file() else "no file"
        raise StoreError(f"{file} is {what}; {way}") from error
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {reason_of(error)}") from error
    try:
        with stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise StoreError(f"{file} cannot be written: {reason_of(error)}") from error


def _write_output(data: bytes) -> None:
    """Write to standard output, all of it: what follows is done in the belief that it is there.

    Raises:
        OutputFailed: it cannot be written.
    """
    if output_was_closed():
        raise OutputFailed("the output cannot be written: it is closed")
    sys.stdout.write(data.decode())
    sys.stdout.flush()
    try:
        os.fsync(sys.stdout.fileno())
    except OSError as error:
        # Pipes and terminals cannot be synced, nor can an output that the system does not know.
        if error.errno not in (None, errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            text = f"the output cannot be written: {reason_of(error)}"
            raise OutputFailed(text, errno=error.errno) from error
