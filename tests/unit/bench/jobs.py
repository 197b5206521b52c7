"""Jobs for clients' processes, without a library: any Python can run them."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys

from bench.children import Inbox


def where(inbox: Inbox) -> str:
    """Return the environment of this process."""
    return sys.prefix


def echo(inbox: Inbox, times: int) -> int:
    """Say back what is heard, and return this process's id."""
    for _ in range(times):
        inbox.say(inbox.hear())
    return os.getpid()


def marked(inbox: Inbox) -> None:
    """Work between two signals, as often as is heard."""

    def work(rounds: int) -> None:
        for number in range(rounds):
            abs(number)

    for _ in range(1000):  # Python replaces instructions by special ones as they are repeated
        work(3)
    inbox.say("ready")
    while True:
        rounds = inbox.hear()
        signal.raise_signal(signal.SIGUSR1)
        work(rounds)
        signal.raise_signal(signal.SIGUSR1)
        inbox.say("done")


def echo_on_socket(inbox: Inbox) -> None:
    """Listen, and send back what comes over one connection, with a wait for each message."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inbox.say(listener.getsockname()[1])
        sock, _ = listener.accept()
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while poll.poll() and (data := sock.recv(4096)):
        for number in range(len(data)):
            abs(number)
        sock.sendall(data)


def fail(inbox: Inbox) -> None:
    """Raise an error."""
    raise LookupError("nothing here")


def vanish(inbox: Inbox) -> None:
    """End this process without notice."""
    os._exit(3)
