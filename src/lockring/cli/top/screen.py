"""The terminal while `lockring top` has it, and how it gets it back.

Rules:

- The screen and the modes of the terminal are given back on every way out: at the end, after an error, before a signal
  ends or stops this process. A signal that ends it ends it at once, whatever else goes on, and its parent sees it.
- A picture is one write that overwrites the one before, so that nothing flickers.
- A signal that the caller ignores stays ignored.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.control import Control
from rich.text import Text

from lockring.cli.signal_end import SignalEnd, leave
from lockring.errors import OutputFailed
from lockring.system_errors import reason_of
from lockring.terminals import takes_colour

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_IN, _OUT = 0, 1
_ERASE_LINE: Final = "\x1b[K"
_RESET: Final = "\x1b[0m"
_GIVE_BACK_MS: Final = 500
"""How long a terminal that takes nothing may keep this process from its end."""
_SIZE_UNKNOWN: Final = os.terminal_size((80, 24))


def can_show(stream_in: int = _IN, stream_out: int = _OUT) -> bool:
    """Return whether the output is a terminal on which a picture can be overwritten."""
    return os.environ.get("TERM", "dumb") != "dumb" and os.isatty(stream_out)


class Screen:
    """The terminal of this process. Only the main thread may use it."""

    def __init__(self) -> None:
        self._modes: list[Any] | None = None
        self._has_screen = False
        self._drawn_size = _SIZE_UNKNOWN
        self._before: dict[signal.Signals, Any] = {}
        self._file = io.StringIO()
        self._console = Console(
            file=self._file,
            force_terminal=True,
            color_system="auto" if takes_colour(sys.stdout) else None,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
        )

    @property
    def has_keys(self) -> bool:
        """Whether there is a keyboard: standard input is a terminal."""
        return self._modes is not None

    @property
    def size(self) -> os.terminal_size:
        """The columns and lines of the terminal, 80 and 24 if it does not say."""
        try:
            size = os.get_terminal_size(_OUT)
        except OSError:  # it has hung up: the next write says so
            return _SIZE_UNKNOWN
        return size if size.columns > 0 and size.lines > 0 else _SIZE_UNKNOWN

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Have the terminal inside of the context.

        Raises:
            OutputFailed: the terminal takes no output.
        """
        sys.stdout.flush()
        if os.isatty(_IN):
            self._modes = termios.tcgetattr(_IN)
        handlers = dict.fromkeys(_ENDING, self._end) | {signal.SIGTSTP: self._stop}
        try:
            for number, handler in handlers.items():
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, handler)
            self.take()
            yield
        finally:
            self.give_back()
            for number, before in self._before.items():
                signal.signal(number, before)

    def take(self) -> None:
        """Set the modes of the terminal, even if another process has had it meanwhile.

        In the background, the system stops this process here, until its shell gives it the terminal.

        Raises:
            OutputFailed: the terminal takes no output.
        """
        if self._modes is not None:
            _set_modes(_raw(self._modes))
        self._has_screen = True
        _write(f"{Control.alt_screen(True)}{Control.show_cursor(False)}{Control.clear()}")

    def draw(self, lines: Sequence[Text], size: os.terminal_size) -> None:
        """Show the lines of a picture.

        Args:
            lines: at most as many as the terminal has, and none wider than that.
            size: the size for which they were made.

        Raises:
            OutputFailed: the terminal takes no output.
        """
        # A terminal that has another size now may show remains of the last picture anywhere.
        parts = [] if size == self._drawn_size else [str(Control.clear())]
        self._drawn_size = size
        for row, text in enumerate(lines):
            parts.append(str(Control.move_to(0, row)))
            parts.append(self._rendered(text))
            # At the right margin, erasing would take the last character with it.
            parts.append(_ERASE_LINE if text.cell_len < size.columns else "")
        _write("".join(parts))

    def _rendered(self, text: Text) -> str:
        self._console.print(text, end="", soft_wrap=True)
        rendered = self._file.getvalue()
        self._file.seek(0)
        self._file.truncate()
        return rendered

    def give_back(self) -> None:
        """Give the terminal back, if it was taken. Fails silently: it may have hung up."""
        if not self._has_screen:
            return
        self._has_screen = False
        with contextlib.suppress(OutputFailed):
            _write(f"{_RESET}{Control.show_cursor(True)}{Control.alt_screen(False)}", _GIVE_BACK_MS)
        if self._modes is not None and _is_in_foreground():
            with contextlib.suppress(termios.error):
                termios.tcsetattr(_IN, termios.TCSANOW, self._modes)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.give_back()
        leave(SignalEnd(number))
        os._exit(
            SignalEnd(number)
        )  # as process 1 of a container it survives any signal with its default action

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # and here it goes on
        signal.signal(signal.SIGTSTP, self._stop)
        self.take()


def _raw(modes: list[Any]) -> list[Any]:
    """Return modes in which each key is read at once and not echoed. Ctrl-C and Ctrl-Z stay signals."""
    raw = [*modes[:6], list(modes[6])]
    raw[tty.LFLAG] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    raw[tty.IFLAG] &= ~(termios.IXON | termios.ICRNL)  # Ctrl-S would stop the picture
    raw[tty.CC][termios.VMIN], raw[tty.CC][termios.VTIME] = 1, 0
    return raw


def _set_modes(modes: list[Any]) -> None:
    while True:
        try:
            termios.tcsetattr(_IN, termios.TCSANOW, modes)
            return
        except termios.error as error:
            if error.args[0] == errno.EINTR:  # it was stopped in the background, and goes on
                continue
            if error.args[0] == errno.EIO:  # the terminal has hung up: the next write says so
                return
            raise


def _is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(_IN) == os.getpgrp()
    except OSError:
        return False


def _write(text: str, wait_ms: int | None = None) -> None:
    """Write to the terminal, past any buffer: a signal may end this process at any time.

    Args:
        text: to be written.
        wait_ms: how long the terminal may take nothing, None for any time.

    Raises:
        OutputFailed: it cannot be written.
    """
    data = memoryview(text.encode(errors="backslashreplace"))
    poll = select.poll()
    poll.register(_OUT, select.POLLOUT)
    while data:
        if not poll.poll(wait_ms):
            raise OutputFailed("the terminal takes no output", errno=errno.EAGAIN)
        try:
            data = data[os.write(_OUT, data) :]
        except BlockingIOError:
            continue
        except OSError as error:
            text = f"the terminal takes no output: {reason_of(error)}"
            raise OutputFailed(text, errno=error.errno or 0) from error
