"""Run hostile inputs or overload against real processes: `python -m tests.hostile fuzz --inputs 200000`."""

from __future__ import annotations

import argparse
import random
import sys

from tests.hostile.fuzz import Failed, Report, fuzz


def main() -> int:
    """Run what the arguments say; 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fuzzer = commands.add_parser("fuzz", help="send hostile inputs to every port")
    fuzzer.add_argument("--inputs", type=int, default=200_000, help="how many to send")
    fuzzer.add_argument("--seed", type=int, help="what they follow from; drawn if it is not given")
    fuzzer.add_argument("--only", default="", help="hold only the conversations FIRST..LAST")
    arguments = parser.parse_args()
    try:
        report = _fuzz(arguments)
    except Failed as error:
        print(error)
        return 1
    print("\n".join(report.lines))
    return 0


def _fuzz(arguments: argparse.Namespace) -> Report:
    seed = random.randrange(2**31) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    only = None
    if arguments.only:
        first, _, last = arguments.only.partition("..")
        only = range(int(first), int(last or first) + 1)
    return fuzz(inputs=arguments.inputs, seed=seed, only=only)


if __name__ == "__main__":
    sys.exit(main())
