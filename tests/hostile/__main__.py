"""Run hostile inputs or overload against real processes: `python -m tests.hostile fuzz --inputs 200000`."""

from __future__ import annotations

import argparse
import random
import sys

from tests.hostile.fuzz import fuzz
from tests.hostile.handshakes import handshakes
from tests.hostile.overload import overload
from tests.hostile.processes import Failed, Report


def _at_least_one(text: str) -> int:
    """A number of 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _range(text: str) -> range:
    """FIRST..LAST, or one number."""
    first, _, last = text.partition("..")
    last = last or first
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor FIRST..LAST")
    return range(int(first), int(last) + 1)


def main() -> int:
    """Run what the arguments say; 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fuzzer = commands.add_parser("fuzz", help="send hostile inputs to every port")
    fuzzer.add_argument("--inputs", type=_at_least_one, default=200_000, help="how many to send")
    fuzzer.add_argument("--seed", type=int, help="what they follow from; drawn if it is not given")
    fuzzer.add_argument(
        "--tls", action="store_true", help="to ports with TLS and rights, and to those with gRPC"
    )
    fuzzer.add_argument("--only", type=_range, help="hold only the conversations FIRST..LAST")
    heavy = commands.add_parser("overload", help="wait, connect and keep from reading in great numbers")
    heavy.add_argument("--waiters", type=_at_least_one, default=10_000, help="for one lock")
    heavy.add_argument("--connections", type=_at_least_one, default=5_000, help="to one node")
    heavy.add_argument("--deaf", type=_at_least_one, default=30, help="clients that never read")
    slow = commands.add_parser("handshakes", help="begin TLS handshakes and finish none")
    slow.add_argument("--connections", type=_at_least_one, default=10_000, help="how many")
    arguments = parser.parse_args()
    try:
        if arguments.command == "fuzz":
            report = _fuzz(arguments)
        elif arguments.command == "handshakes":
            report = handshakes(connections=arguments.connections)
        else:
            report = overload(
                waiters=arguments.waiters, connections=arguments.connections, deaf=arguments.deaf
            )
    except Failed as error:
        print(error)
        return 1
    print("\n".join(report.lines))
    return 0


def _fuzz(arguments: argparse.Namespace) -> Report:
    seed = random.randrange(2**31) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    return fuzz(inputs=arguments.inputs, seed=seed, only=arguments.only, tls=arguments.tls)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
