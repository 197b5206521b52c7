"""Which locks and events are wanted: the parameters of pages and commands, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from lockring.core.events import KINDS
from lockring.errors import InvalidRequest
from lockring.names import LOCK_NAME_BYTES_MAX, check_lock_name, utf8_fault
from lockring.protocol import LockSearch, Mode
from lockring.terminals import command

MODES: Final = tuple(each.name.lower() for each in Mode)
SHOW: Final = ("all", "held", "waiting")
LIMITS: Final = (50, 25, 100)
"""Locks on a page; the first one is the usual number. To write a page of a hundred takes some 3 ms."""


class LockFilter(NamedTuple):
    """Which locks are wanted.

    Attributes:
        prefix: how their names begin.
        text: a part of their names.
        owner: a part of the label of a holder or a waiter.
        mode: how they are held, "" for any.
        show: "all", "held" for those with a holder, "waiting" for those with a waiter.
        after: the name behind which the page begins.
        limit: how many there are on a page.
    """

    prefix: str = ""
    text: str = ""
    owner: str = ""
    mode: str = ""
    show: str = "all"
    after: str = ""
    limit: int = LIMITS[0]

    @property
    def is_narrow(self) -> bool:
        """Whether anything but the page was chosen."""
        return self._replace(after="", limit=LIMITS[0]) != LockFilter()

    def search(self) -> LockSearch:
        """Return the search that nodes are asked for."""
        return LockSearch(
            after=self.after,
            text=self.text,
            owner=self.owner,
            mode=MODES.index(self.mode) if self.mode else -1,
            is_held=self.show == "held",
            has_waiters=self.show == "waiting",
        )

    def parameters(self) -> dict[str, str]:
        """Return what a URL says of it: the values that are not the usual ones."""
        usual = LockFilter()._asdict()
        return {name: str(value) for name, value in self._asdict().items() if value != usual[name]}

    def command(self) -> str:
        """Return the command that shows the same."""
        names = [self.prefix] if self.prefix else []
        words = ["--limit", str(self.limit)]
        for flag, value in (("--text", self.text), ("--owner", self.owner), ("--mode", self.mode)):
            words += [flag, value] if value else []
        words += [f"--{self.show}"] if self.show != "all" else []
        words += ["--after", self.after] if self.after else []
        return command("ls", *names, options=words)


def lock_filter(parameters: Mapping[str, str]) -> LockFilter:
    """Return the filter that the parameters of a URL say; others are ignored.

    Raises:
        InvalidRequest: a value is not one of those that there are.
    """
    texts = {
        name: checked_text(parameters.get(name, ""), name) for name in ("prefix", "text", "owner", "after")
    }
    if texts["prefix"]:
        check_lock_name(texts["prefix"])
    return LockFilter(
        **texts,
        mode=_one_of(parameters.get("mode", ""), ("", *MODES), "mode"),
        show=_one_of(parameters.get("show", SHOW[0]), SHOW, "show"),
        limit=int(_one_of(parameters.get("limit", str(LIMITS[0])), tuple(map(str, LIMITS)), "limit")),
    )


class EventFilter(NamedTuple):
    """Which events are wanted.

    Attributes:
        kind: their kind, "" for any.
        prefix: how the name of their lock begins, "" for all events.
    """

    kind: str = ""
    prefix: str = ""

    def command(self) -> str:
        """Return the command that shows the same."""
        words = ["--kind", self.kind] if self.kind else []
        words += ["--prefix", self.prefix] if self.prefix else []
        return command("events", options=words)


def event_filter(parameters: Mapping[str, str]) -> EventFilter:
    """Return the filter that the parameters of a URL say.

    Raises:
        InvalidRequest: there is no such kind, or no name begins so.
    """
    prefix = checked_text(parameters.get("prefix", ""), "prefix")
    if prefix:
        check_lock_name(prefix)
    return EventFilter(_one_of(parameters.get("kind", ""), ("", *KINDS), "kind"), prefix)


def _one_of(value: str, choices: tuple[str, ...], name: str) -> str:
    if value not in choices:
        raise InvalidRequest(
            f"{name} is one of {', '.join(each for each in choices if each)}, not {value[:80]!r}"
        )
    return value


def checked_text(text: str, name: str) -> str:
    """Return a text of a request.

    Raises:
        InvalidRequest: it is too long, or not valid UTF-8.
    """
    fault = utf8_fault(text)
    if fault:
        raise InvalidRequest(f"{name} is not valid UTF-8 text: {fault}")
    if len(text.encode()) > LOCK_NAME_BYTES_MAX:
        raise InvalidRequest(f"{name} has at most {LOCK_NAME_BYTES_MAX} bytes in UTF-8")
    return text
