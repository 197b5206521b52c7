"""Faults that a journal is there for: several nodes killed at once, and directories that are lost or damaged.

Nodes that are killed together come back soon enough for every client to keep its locks, or after every client's lease:
the clients must have noticed then, and tokens must grow nevertheless. A directory is touched only while another node
has a copy of all that its node had.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lockring.errors import LockringError
from lockring.net.oneshot import ask_state
from tests.chaos.faults import CUT_S, DOWN_S, Fault, FaultFailed, Faults

DOWN_SHORT_S: Final = (0.0, 1.0)
"""With the start of the processes far less than the part of a client's lease that is left at any time (6.7 s)."""

DOWN_LONG_S: Final = (9.0, 14.0)
"""Longer than a client's lease lasts after its last renewal, and shorter than the cluster's memory of the nodes."""

DOWN_FOR_GOOD_S: Final = (33.0, 40.0)
"""Longer than the longest lease."""

AGAIN_S: Final = (0.05, 2.0)
OLD_S: Final = (0.5, 3.0)
_UP_S_MAX: Final = 60.0
_LOOK_S: Final = 0.05
_BIT: Final = 0x10
_SPACE_BYTES: Final = 4096


def kill_two_nodes(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault:
    """SIGKILL of two nodes at once, which are primary and backup of some slots, and a restart."""
    nodes = sorted(faults.rng.sample(faults.running(), 2))
    return _kill_together(faults, kind, nodes, [], DOWN_SHORT_S)


def kill_all_nodes(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault:
    """SIGKILL of all nodes at once, and a restart."""
    return _kill_together(faults, kind, faults.running(), [], DOWN_SHORT_S)


def kill_all_nodes_for_long(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault:
    """SIGKILL of all nodes at once, and a restart when the clients' leases are over, or even the longest lease."""
    bounds_s = faults.rng.choice((DOWN_LONG_S, DOWN_LONG_S, DOWN_FOR_GOOD_S))
    return _kill_together(faults, kind, faults.running(), [], bounds_s)


def kill_everything(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault:
    """SIGKILL of all nodes and coordinators at once, and a restart."""
    return _kill_together(faults, kind, faults.running(), faults.cluster.coordinators, DOWN_SHORT_S)


def kill_node_twice(faults: Faults, kind: str, spared: frozenset[str]) -> Fault:
    """SIGKILL, a restart, and the same again at once: the journal has two lives then."""
    node, cluster = faults.node(spared), faults.cluster
    again_s = faults.rng.uniform(*AGAIN_S)

    def kill() -> None:
        cluster.kill(node)
        cluster.restart(node)

    return Fault(
        kind, f"kill {node}, restart it, kill it again {again_s:.1f} s later, and restart it", again_s,
        kill, lambda: cluster.restart(node), frozenset({node}),
    )  # fmt: skip


def lose_directory(faults: Faults, kind: str, spared: frozenset[str]) -> Fault:
    """SIGKILL, and a restart without the data directory."""
    return _harm(faults, kind, spared, "lose its directory", shutil.rmtree)


def damage_journal(faults: Faults, kind: str, spared: frozenset[str]) -> Fault:
    """SIGKILL, a flipped bit or a torn tail in the journal, and a restart."""
    share = faults.rng.random()
    if faults.rng.random() < 0.5:
        return _harm(faults, kind, spared, "tear its journal", lambda directory: _tear(directory, share))
    return _harm(faults, kind, spared, "flip a bit of its journal", lambda directory: _flip(directory, share))


def put_back_older_directory(faults: Faults, kind: str, spared: frozenset[str]) -> Fault:
    """A copy of the data directory is taken, and put back in place of the directory some seconds later."""
    node, cluster = faults.node(spared), faults.cluster
    lasts_s = faults.rng.uniform(*OLD_S)
    directory = cluster.data_dir_of(node)
    copy = directory.with_suffix(".copy")

    def put_back() -> None:
        cluster.kill(node)
        shutil.rmtree(directory)
        copy.rename(directory)
        cluster.restart(node)

    return Fault(
        kind, f"kill {node} and put back its directory of {lasts_s:.1f} s before", lasts_s,
        lambda: _copy(directory, copy), put_back, frozenset({node}),
    )  # fmt: skip


def fill_disk(faults: Faults, kind: str, spared: frozenset[str]) -> Fault:
    """A node cannot write beyond the first pages of any file, its log included, as if its disk were full."""
    node, cluster = faults.node(spared), faults.cluster
    pid = cluster.pid_of(node)
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    lasts_s = faults.rng.uniform(*CUT_S)
    return Fault(
        kind, f"no space for {node} for {lasts_s:.1f} s", lasts_s,
        lambda: _limit_files(pid, (_SPACE_BYTES, most)), lambda: _limit_files(pid, (most, most)), frozenset({node}),
    )  # fmt: skip


def _limit_files(pid: int, limits: tuple[int, int]) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def _kill_together(
    faults: Faults, kind: str, nodes: list[str], coordinators: list[str], bounds_s: tuple[float, float]
) -> Fault:
    cluster = faults.cluster
    down_s = faults.rng.uniform(*bounds_s)

    def kill() -> None:
        for name in (*coordinators, *nodes):
            cluster.kill(name)

    def restart() -> None:
        for name in (*coordinators, *nodes):
            cluster.restart(name)
        _wait_until_up(faults, nodes)

    return Fault(
        kind, f"kill {', '.join((*coordinators, *nodes))} at once, restart them after {down_s:.1f} s", down_s,
        kill, restart, frozenset(nodes), faults.everyone, is_alone=True,
    )  # fmt: skip


def _wait_until_up(faults: Faults, nodes: list[str]) -> None:
    """Wait until nodes answer and a coordinator leads: until then, clients are cut off by the fault itself."""
    end_s = time.monotonic() + _UP_S_MAX
    left = list(nodes)
    while left or not faults.cluster.leader:
        if time.monotonic() > end_s:
            raise FaultFailed(
                f"{', '.join(left) or 'a leader'} is not there {_UP_S_MAX:g} s after the restart"
            )
        left = [node for node in left if not _answers(faults.cluster.address_of(node))]
        time.sleep(_LOOK_S)


def _answers(address: str) -> bool:
    with contextlib.suppress(LockringError):
        ask_state(address, timeout_s=1.0)
        return True
    return False


def _harm(faults: Faults, kind: str, spared: frozenset[str], what: str, do: Callable[[Path], None]) -> Fault:
    node, cluster = faults.node(spared), faults.cluster
    down_s = faults.rng.uniform(*DOWN_S)

    def kill() -> None:
        cluster.kill(node)
        do(cluster.data_dir_of(node))

    return Fault(
        kind, f"kill {node}, {what}, restart it after {down_s:.1f} s", down_s,
        kill, lambda: cluster.restart(node), frozenset({node}),
    )  # fmt: skip


def _copy(directory: Path, copy: Path) -> None:
    """Copy a directory that is in use: a file that is deleted meanwhile is left out, as in a backup."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(mode=0o700)
    for path in sorted(directory.rglob("*")):
        target = copy / path.relative_to(directory)
        if path.is_dir():
            target.mkdir(mode=0o700, exist_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(path, target)


def _segments(directory: Path) -> list[Path]:
    found = sorted(path for path in directory.rglob("*.log") if path.stat().st_size)
    if not found:
        raise FaultFailed(f"there is no journal in {directory}")
    return found


def _tear(directory: Path, share: float) -> None:
    """Cut the last segment at a part of its length."""
    last = _segments(directory)[-1]
    with last.open("r+b") as file:
        file.truncate(int(last.stat().st_size * share))


def _flip(directory: Path, share: float) -> None:
    """Flip one bit in a segment, at a part of its length."""
    segments = _segments(directory)
    path = segments[int(share * len(segments))]
    at = int((share * 997) % 1 * path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ _BIT]))
