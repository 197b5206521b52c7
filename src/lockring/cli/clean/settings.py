"""The settings of `lockring clean-folders`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from lockring.config import setting
from lockring.errors import ConfigError
from lockring.names import check_lock_name
from lockring.units import DURATION_S_MAX


class CleanSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring clean-folders`. Durations are seconds."""

    delay_s: Annotated[
        float,
        setting(
            "How long a folder must stay empty before it goes.",
            unit="seconds",
            minimum=0,
            maximum=DURATION_S_MAX,
            variable=False,
        ),
    ] = 120.0
    scan_interval_s: Annotated[
        float,
        setting(
            "Pause between the end of one scan and the next. Scans find what events miss.",
            unit="seconds",
            minimum=0.1,
            maximum=DURATION_S_MAX,
            variable=False,
        ),
    ] = 300.0
    once: Annotated[bool, setting("Scan, remove what stays empty, and end.", variable=False, file=False)] = (
        False
    )
    dry_run: Annotated[
        bool,
        setting(
            "Print the folders that would be removed if they stayed empty, and remove nothing.",
            variable=False,
            file=False,
        ),
    ] = False
    keep: Annotated[
        tuple[str, ...],
        setting(
            "Folders to keep, with everything in them; patterns as in a .gitignore.",
            metavar="PATTERN",
            variable=False,
        ),
    ] = ()
    allow_empty: Annotated[
        tuple[str, ...],
        setting(
            "Top folders (direct children of a root) in which folders may be empty; * and ? may be used.",
            metavar="TOP",
            variable=False,
        ),
    ] = ()
    children: Annotated[bool, setting("Remove direct children of a root too.", variable=False)] = False
    delete_markers: Annotated[
        bool,
        setting("In buckets: also delete the markers that empty folders consist of.", variable=False),
    ] = False
    cross_filesystems: Annotated[
        bool, setting("Clean folders on other file systems than their root's too.", variable=False)
    ] = False
    events: Annotated[
        bool, setting("Learn of changes by inotify if available; otherwise by scans alone.", variable=False)
    ] = True
    queue_max: Annotated[
        int,
        setting(
            "How many folders may wait at a time, at about 300 bytes each. The next scan finds the rest.",
            minimum=1,
            maximum=100_000_000,
            variable=False,
        ),
    ] = 100_000
    endpoint_url: Annotated[
        str, setting("The endpoint of the buckets, if not Amazon's.", metavar="URL", variable=False)
    ] = ""
    alone: Annotated[
        bool, setting("Be the only worker: own every folder, and need no cluster.", variable=False)
    ] = False
    group: Annotated[
        str,
        setting(
            "The group of the workers that share the folders. By default named after the roots; name it "
            "if machines mount them at different places.",
            check=check_lock_name,
            variable=False,
        ),
    ] = ""
    worker: Annotated[
        str, setting("This worker's name in the group. By default a random one.", variable=False)
    ] = ""
    verbose: Annotated[bool, setting("Report removed folders on standard error.", short="-v", file=False)] = (
        False
    )

    def __post_init__(self) -> None:
        if self.alone and self.group:
            raise ConfigError("--alone and --group contradict each other: give one of them")
