"""`lockring top`: a cluster live in the terminal, until it is ended by a key or a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Annotated, Any, Final

import click
import msgspec
from rich.console import Console

from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import client_options, client_settings
from lockring.cli.output import print_json, width_of_terminal
from lockring.cli.sections import read_settings
from lockring.cli.top import keys
from lockring.cli.top.choice import Choice, after_key
from lockring.cli.top.looks import Looker, Subject
from lockring.cli.top.model import Absences, LiveLook, Sort, as_builtins, merged, ordered, silent_servers
from lockring.cli.top.pictures import Sight, picture, whole_picture
from lockring.cli.top.screen import Screen, can_show
from lockring.clock import monotonic_ns
from lockring.config import setting
from lockring.names import check_lock_name
from lockring.terminals import takes_colour
from lockring.units import NS_PER_S

_DRAW_S_MAX: Final = 1.0
"""How long a picture stays, whether or not there is an answer: it says for how long there has been none."""
_SEQUENCE_S: Final = 0.1
"""How long the parts of an escape sequence may be apart."""
_KEYS_BYTES: Final = 1024
_TYPED_AHEAD_MAX: Final = 8 * 1024
"""Bytes of keys that may wait; others are dropped."""


class TopSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring top`."""

    interval_s: Annotated[
        float,
        setting(
            "How long to wait between two looks at the cluster.",
            unit="seconds",
            minimum=0.5,
            maximum=60,
            variable=False,
            file=False,
        ),
    ] = 2.0
    prefix: Annotated[
        str, setting("Show locks alone whose name starts with this.", variable=False, file=False)
    ] = ""
    sort: Annotated[
        Sort,
        setting(
            "The order of locks: the longest queues first, the oldest holders first, or by name.",
            variable=False,
            file=False,
        ),
    ] = "waiters"
    once: Annotated[bool, setting("Show one picture, and exit.", variable=False, file=False)] = False


@click.command()
@client_options(TopSettings)
def top(as_json: bool, **given: Any) -> None:
    """Show the cluster live: members, slots, locks with waiters first, and events; q ends it, ? shows the keys.

    It goes on while servers are away, and says for how long. One picture is printed with --once, if the output is not a
    terminal, and if TERM is dumb; with --json its values are printed. Exits with 77 if you may see nothing of it; where
    there is only one picture, with 69 if no node answers.
    """
    settings = read_settings(TopSettings, "top", given)
    if settings.prefix:
        check_lock_name(settings.prefix)
    cluster = client_settings(given)
    choice = Choice(prefix=settings.prefix, sort=settings.sort)
    if as_json or settings.once or not can_show():
        _show_once(asyncio.run(_one_look(cluster, choice)), choice, as_json=as_json)
        return
    screen = Screen()
    with screen.taken():
        asyncio.run(_Top(cluster, choice, screen, settings.interval_s).run())


async def _one_look(cluster: ClientSettings, choice: Choice) -> LiveLook:
    looker = Looker(cluster)
    try:
        return await looker.look(Subject(choice.prefix))
    finally:
        await looker.close()


def _show_once(look: LiveLook, choice: Choice, *, as_json: bool) -> None:
    error = look.denied or look.no_answer
    if error is not None:
        raise error
    if as_json:
        print_json(as_builtins(look, choice.sort))
        return
    now_s = _now_s()
    sight = Sight(
        look.view,
        tuple(look.errors.items()),
        away=Absences().note(silent_servers(look), now_s=now_s),
        now_s=now_s,
    )
    width = width_of_terminal()
    console = Console(
        file=sys.stdout,
        color_system="auto" if takes_colour(sys.stdout) else None,
        force_terminal=takes_colour(sys.stdout),
        highlight=False,
        markup=False,
        emoji=False,
    )
    for line in whole_picture(sight, choice, width=width):
        console.print(line, soft_wrap=True)


class _Top:
    """The live picture. Lives in one event loop, of the main thread.

    Args:
        cluster: names the cluster.
        choice: the viewer's choice at the start.
        screen: the terminal.
        interval_s: between two looks, in seconds.
    """

    def __init__(self, cluster: ClientSettings, choice: Choice, screen: Screen, interval_s: float) -> None:
        self._looker = Looker(cluster)
        self._choice = choice
        self._screen = screen
        self._interval_s = interval_s
        self._sight = Sight(is_first=True)
        self._absences = Absences()
        self._keys = keys.KeyReader()
        self._typed = bytearray()
        self._has_hung_up = False
        self._stirred = asyncio.Event()  # there is something to draw
        self._wanted = asyncio.Event()  # there is something else to look at

    async def run(self) -> None:
        """Show the cluster until the viewer has had enough.

        Raises:
            Denied: the viewer may see nothing of it.
            OutputFailed: the terminal takes no output.
            LockringError: the first look has failed in a way that another one does not mend.
        """
        loop = asyncio.get_running_loop()
        if self._screen.has_keys:
            loop.add_reader(0, self._read)
        loop.add_signal_handler(signal.SIGWINCH, self._stirred.set)
        loop.add_signal_handler(signal.SIGCONT, self._go_on)
        looking = loop.create_task(self._look_on())
        looking.add_done_callback(lambda _: self._stirred.set())
        try:
            while not self._choice.is_over and not self._has_hung_up:
                self._draw()
                await self._next()
                if looking.done():
                    looking.result()
        finally:
            loop.remove_signal_handler(signal.SIGCONT)
            self._screen.give_back()  # the rest may take a moment
            looking.cancel()
            if self._screen.has_keys:
                loop.remove_reader(0)
            await asyncio.gather(looking, return_exceptions=True)
            await self._looker.close()

    def _read(self) -> None:
        try:
            data = os.read(0, _KEYS_BYTES)
        except OSError:  # the terminal has hung up
            data = b""
        if not data:
            self._has_hung_up = True
            asyncio.get_running_loop().remove_reader(0)
        elif len(self._typed) < _TYPED_AHEAD_MAX:
            self._typed += data
        self._stirred.set()

    def _go_on(self) -> None:
        """Take the terminal again: another process may have had it since this one was stopped."""
        self._screen.take()
        self._stirred.set()

    async def _next(self) -> None:
        """Wait for a reason to draw, and take in the keys."""
        wait_s = _SEQUENCE_S if self._keys.is_waiting else min(_DRAW_S_MAX, self._interval_s)
        typed: list[str] = []
        try:
            async with asyncio.timeout(wait_s):
                await self._stirred.wait()
        except TimeoutError:
            typed = self._keys.flush()
        self._stirred.clear()
        if self._typed:
            data, self._typed = bytes(self._typed), bytearray()
            typed += self._keys.feed(data)
        for key in typed:
            self._press(key)

    def _press(self, key: str) -> None:
        if key == keys.REDRAW:
            self._screen.take()
            return
        view = self._sight.view
        rows = () if view.locks is None else ordered(view.locks.rows, self._choice.sort)
        waiters = 0 if view.lock is None else len(view.lock.waiters)
        before = self._choice
        self._choice = after_key(
            before, key, names=[each.name for each in rows], waiters=waiters, now_s=_now_s()
        )
        resumed = before.paused_at_s is not None and self._choice.paused_at_s is None
        if resumed or _subject_of(before) != _subject_of(self._choice):
            self._wanted.set()

    async def _look_on(self) -> None:
        """Look at the cluster again and again, and at once if something else is wanted."""
        while True:
            self._wanted.clear()
            wanted = _subject_of(self._choice)
            look = await self._looker.look(wanted)
            if wanted == _subject_of(self._choice):
                self._take_in(look)
                self._stirred.set()
            else:
                continue
            while not self._wanted.is_set():
                try:
                    async with asyncio.timeout(self._interval_s):
                        await self._wanted.wait()
                except TimeoutError:
                    if self._choice.paused_at_s is None:
                        break

    def _take_in(self, look: LiveLook) -> None:
        before, now_s = self._sight, _now_s()
        error = look.denied or look.no_answer
        if error is not None and before.is_first and not error.retryable:
            raise error
        no_answer = look.no_answer
        since_s = before.no_answer_since_s if before.no_answer is not None else now_s
        away = (
            before.away if no_answer is not None else self._absences.note(silent_servers(look), now_s=now_s)
        )
        self._sight = Sight(
            merged(before.view, look),
            tuple(look.errors.items()),
            no_answer,
            since_s,
            away=away,
            is_first=before.is_first and no_answer is not None,
            now_s=now_s,
        )

    def _draw(self) -> None:
        self._sight = self._sight._replace(now_s=_now_s())
        size = self._screen.size
        lines = picture(self._sight, self._choice, width=size.columns, height=size.lines)
        self._screen.draw(lines, size)


def _subject_of(choice: Choice) -> Subject:
    return Subject(choice.prefix, choice.opened)


def _now_s() -> float:
    return monotonic_ns() / NS_PER_S
