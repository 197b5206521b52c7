"""One run: a cluster, clients that work, faults one after the other, and in the end the verdict."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from lockring.clock import monotonic_ns
from lockring.testing import ClusterFailed, Durability, LocalCluster, Place
from lockring.testing.process import TestedProcess
from lockring.units import NS_PER_MS, NS_PER_S
from tests.chaos import prober, visits
from tests.chaos.checker import Checker, Interval, Loss, Problem
from tests.chaos.faults import Fault, FaultFailed, Faults
from tests.chaos.history import Pen, Tail
from tests.chaos.kinds import KINDS, SECOND, draw, possible, rounds
from tests.chaos.links import choose
from tests.chaos.register import Register
from tests.chaos.report import Done, Report, count_faults, unavailable
from tests.chaos.starvation import StarvationWatch
from tests.chaos.store import SharedStore, installed_stores, start_store
from tests.stores.servers import ServerFailed

TTL_S: Final = 10.0
"""Lease of everything that clients acquire: the client's default."""

STABLE_S_MAX: Final = 150.0
"""Bound for a cluster to re-form, on a slow machine."""

BEGIN_S_MAX: Final = 60.0
END_S_MAX: Final = 90.0
CONTENDED: Final = tuple(f"shared/{number}" for number in range(10))
PAGES: Final = ("page/1", "page/2", "page/3")
"""Locks that are mostly read."""
HELD_EACH: Final = 8
PROBED: Final = tuple(f"probe/{number}" for number in range(16))
GROUPS: Final[dict[str, set[str]]] = {"work/1": {"c1", "c2", "c3", "c4"}, "work/2": {"c1", "c2"}}
"""Which clients share which work."""

KEYS: Final = tuple(f"key-{number}" for number in range(8))
SETTLE_S_MAX: Final = 60.0
"""Bound for the groups to settle after the faults: a lease that was lost in the last one, its view, and all again on
a slow machine."""

_LOOK_S: Final = 0.2
_STABLE_LOOK_S: Final = 0.25
_JUDGE_S: Final = 5.0
COORDINATORS: Final = 3
"""How many share a store."""

PROBER: Final = "prober"
ROOT: Final = Path(__file__).parents[2]


class Options(NamedTuple):
    """Of a run.

    Attributes:
        minutes: how long to do faults; the last one is healed first.
        seed: of everything that is drawn.
        links: "netns", "proxy" or "auto".
        nodes: to begin with.
        kinds: of faults to do.
        overlap: share of the faults that get a second one on top.
        store: what the coordinators share: "etcd" or "postgresql", "none" for one coordinator with a directory, or
            "auto" for one of the first two that the seed draws among those installed.
        durability: what the nodes keep in journals: "none", "process", "disk", or "auto" for one of the last two that
            the seed draws.
        directory: where logs and histories go; None for a temporary one, which is kept if something was found.
        say: called with a line for people now and then.
    """

    minutes: float
    seed: int
    links: str = "auto"
    nodes: int = 4
    kinds: tuple[str, ...] = tuple(KINDS)
    overlap: float = 0.25
    store: str = "auto"
    durability: Durability | Literal["auto"] = "auto"
    directory: Path | None = None
    say: Callable[[str], None] = print


class Run:
    """Use it once: `with Run(options) as run: report = run.run()`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._rng = random.Random(f"chaos/{options.seed}")
        self._store_kind = _store_kind(options)
        self._durability = _durability(options)
        self._store: SharedStore | None = None
        self._stack = ExitStack()
        self._keep = options.directory is not None
        self._directory = options.directory or Path(tempfile.mkdtemp(prefix="lockring-chaos-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        self._checker = Checker(ttl_ns=int(TTL_S * NS_PER_S))
        self._tails: list[Tail] = []
        self._done: list[Done] = []
        self._found: list[str] = []
        self._clients: dict[str, TestedProcess] = {}
        self._cluster: LocalCluster
        self._began_ns = monotonic_ns()
        self._judged_at_s = time.monotonic()
        self._known: list[Problem] = []

    def __enter__(self) -> Run:
        """Start the cluster and the clients, and wait until these hold what they are to hold all the while."""
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and remove what was made."""
        self._stack.close()
        if not self._keep:
            shutil.rmtree(self._directory, ignore_errors=True)

    # ----------------------------------------------------------------------- beginning

    def _start(self) -> None:
        options, directory = self._options, self._directory
        self._links = choose(options.links, self._pids)
        self._stack.callback(self._links.close)
        self._links.enter()
        Register.create(directory / "register.db")
        if self._store_kind != "none":
            self._store = start_store(self._store_kind, self._links, directory)
            self._stack.callback(self._store.remove)
        self._cluster = LocalCluster(
            nodes=options.nodes,
            directory=directory,
            network=self._links,
            durability=self._durability,
            store="" if self._store is None else self._store.url,
            coordinators=1 if self._store is None else COORDINATORS,
        )
        self._stack.callback(self._cluster.close)
        self._cluster.start(timeout_s=STABLE_S_MAX)
        self._stack.callback(self._end_clients)
        for number in range(1, 5):
            name = f"c{number}"
            task = visits.Task(
                name=name,
                flavour="threads" if number % 2 else "tasks",
                servers=self._cluster.servers,
                history=self._history(name),
                register=str(directory / "register.db"),
                seed=f"{options.seed}/{name}",
                locks=CONTENDED,
                pages=PAGES,
                held=tuple(f"held/{name}/{each}" for each in range(HELD_EACH)),
                groups=tuple(group for group, clients in GROUPS.items() if name in clients),
                keys=KEYS,
                hands=3,
                ttl_s=TTL_S,
            )
            self._start_client(name, "tests.chaos.worker", msgspec.json.encode(task).decode())
        probe = prober.Task(PROBER, self._cluster.servers, self._history(PROBER), PROBED, TTL_S)
        self._start_client(PROBER, "tests.chaos.prober", msgspec.json.encode(probe).decode())
        watch = StarvationWatch(self._pids, Pen(Path(self._history("machine"))))
        self._stack.callback(watch.close)
        watch.start()
        self._wait_for_clients()
        workers = {name: each for name, each in self._clients.items() if name != PROBER}
        self._faults = Faults(
            self._cluster,
            self._links,
            workers,
            self._rng,
            everyone=frozenset(self._clients),
            ttl_s=TTL_S,
            store=self._store,
        )

    def _history(self, name: str) -> str:
        path = self._directory / f"{name}.history"
        self._tails.append(Tail(path))
        return str(path)

    def _start_client(self, name: str, module: str, argument: str) -> None:
        prefix = (*self._links.prefix(name), "env", f"PYTHONPATH={ROOT}")
        command = [sys.executable, "-m", module, argument]
        process = TestedProcess(Place("", "", prefix), command, self._directory / f"{name}.log")
        self._clients[name] = process
        process.spawn()

    def _wait_for_clients(self) -> None:
        end_s = time.monotonic() + BEGIN_S_MAX
        wanted = HELD_EACH * (len(self._clients) - 1)
        while self._checker.held("held/") < wanted or not self._checker.counts["probes"]:
            if time.monotonic() > end_s or not all(each.is_running for each in self._clients.values()):
                logs = "\n".join(each.log() for each in self._clients.values())
                raise ClusterFailed(f"the clients have not begun within {BEGIN_S_MAX:g} s\n{logs}")
            time.sleep(_LOOK_S)
            self._read()

    def _pids(self) -> dict[str, int]:
        """The process id of every process that is running. May be called by other threads."""
        found = {name: each.pid for name, each in list(self._clients.items()) if each.is_running}
        if self._store is not None:
            found.update(self._store.pids())
        if hasattr(self, "_cluster"):  # the store is started before, and links look at who opens a connection
            for name in (*self._cluster.coordinators, *self._cluster.nodes):
                if self._cluster.is_running(name):
                    found[name] = self._cluster.pid_of(name)
        return found

    # ----------------------------------------------------------------------- faults

    def run(self) -> Report:
        """Inject faults for the time of the plan, let all processes end, and judge. Call this once."""
        self._began_ns = monotonic_ns()
        end_s = time.monotonic() + 60 * self._options.minutes
        kinds = rounds(
            possible(
                self._options.kinds,
                has_store=self._store is not None,
                has_journals=self._durability != "none",
            ),
            self._options.seed,
        )
        try:
            while time.monotonic() < end_s and not self._problems():
                self._pause(self._rng.uniform(0.5, 2.0))
                fault = draw(self._faults, next(kinds))
                if fault is not None:
                    self._do(fault, self._second(fault))
        except (ClusterFailed, FaultFailed, ServerFailed) as error:
            self._found.append(f"P7: {error}")
        ended_ns = monotonic_ns()
        settled_ms = self._settle_groups()
        self._let_clients_end()
        return self._report(ended_ns, settled_ms)

    def _second(self, first: Fault) -> Fault | None:
        """Return the fault that comes on top of another one, None if there is none."""
        is_wanted = self._rng.random() < self._options.overlap
        kind = self._rng.choice(SECOND)
        if not is_wanted or first.is_alone or kind == first.kind:
            return None
        return draw(self._faults, kind, spared=first.nodes)

    def _do(self, first: Fault, second: Fault | None) -> None:
        """Do and undo a fault, and perhaps another one meanwhile; then wait until the cluster is as it should be."""
        kind = first.kind if second is None else f"{first.kind} + {second.kind}"
        text = first.text if second is None else f"{first.text} + {second.text}"
        self._say(text)
        self._faults.nothing_is_decided = first.stops_decisions or (
            second is not None and second.stops_decisions
        )
        from_ns = monotonic_ns()
        first.inject()
        undo = [(from_ns + int(first.lasts_s * NS_PER_S), from_ns, first)]
        if second is not None:
            self._pause(self._rng.uniform(0.1, 1.5))
            second_ns = monotonic_ns()
            second.inject()
            undo.append((second_ns + int(second.lasts_s * NS_PER_S), second_ns, second))
        for at_ns, began_ns, fault in sorted(undo, key=lambda each: (each[2].waits, each[0])):
            self._pause((at_ns - monotonic_ns()) / NS_PER_S)
            fault.heal()
            for client in fault.clients:
                self._checker.own_faults[client].append(Interval(began_ns, monotonic_ns()))
        healed_ns = monotonic_ns()
        self._cluster.wait_until_stable(timeout_s=STABLE_S_MAX, poll_s=_STABLE_LOOK_S)
        stable_ns = monotonic_ns()
        self._done.append(Done(kind, text, from_ns, healed_ns, stable_ns))
        self._look_for_the_dead()

    def _look_for_the_dead(self) -> None:
        """Every process runs that should."""
        left = self._faults.left
        for name in (*self._cluster.coordinators, *self._cluster.nodes):
            if name not in left and not self._cluster.is_running(name):
                raise ClusterFailed(f"{name} has ended by itself\n{self._cluster.log_of(name)[-4000:]}")
        for name, process in self._clients.items():
            if not process.is_running:
                raise ClusterFailed(f"the client {name} has ended by itself\n{process.log()[-4000:]}")

    def _pause(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_S))
            if left_s > 2 * _LOOK_S:
                self._problems()

    # ----------------------------------------------------------------------- ending

    def _problems(self) -> list[Problem]:
        """Return the findings so far, looked at now and then."""
        if time.monotonic() - self._judged_at_s >= _JUDGE_S:
            self._known = self._checker.judge(self._read())
            self._judged_at_s = time.monotonic()
        return self._known

    def _read(self) -> int:
        """Read what was written down, and return a time before which everything was."""
        before_ns = monotonic_ns()
        for tail in self._tails:
            self._checker.feed(tail.read())
        return before_ns

    def _settle_groups(self) -> float:
        """Let no member leave a group any more, wait until all groups are settled, and return how long that took, in
        ms.

        Not where something is wrong already.
        """
        if self._found or self._checker.judge(self._read()):
            return 0.0
        began_ns = monotonic_ns()
        end_s = time.monotonic() + SETTLE_S_MAX
        for name in self._clients:
            if name != PROBER:
                self._clients[name].send(signal.SIGUSR1)
        while missing := self._checker.unsettled(GROUPS, KEYS, began_ns):
            if time.monotonic() > end_s:
                self._found.append(f"G3: not settled within {SETTLE_S_MAX:g} s: {'; '.join(missing)}")
                break
            time.sleep(_LOOK_S)
            self._read()
        return (monotonic_ns() - began_ns) / NS_PER_MS

    def _let_clients_end(self) -> None:
        for process in self._clients.values():
            process.thaw()
            process.send(signal.SIGTERM)
        for name, process in self._clients.items():
            try:
                code = process.wait(END_S_MAX)
            except subprocess.TimeoutExpired:
                self._found.append(f"P7: the client {name} has not ended within {END_S_MAX:g} s")
            else:
                if code:
                    self._found.append(f"P7: the client {name} ended with {code}: {process.log()[-2000:]}")
        self._read()

    def _end_clients(self) -> None:
        for process in self._clients.values():
            process.kill()

    def _report(self, ended_ns: int, settled_ms: float) -> Report:
        checker = self._checker
        problems = checker.judge()
        register = Register(self._directory / "register.db")
        problems = checker.judge_register(register.rows())
        register.close()
        losses = checker.losses()
        violations = [f"{each.rule} {each.lock}: {each.text}" for each in problems] + self._found
        lost = [each for each in losses if not each.excuse]
        starved = [each for each in losses if each.is_starved]
        excused = [each for each in losses if each.excuse and not each.is_starved]
        is_good = not violations and not lost
        self._keep = self._keep or not is_good or bool(starved)
        if not is_good:
            self._tell(problems, lost)
        (self._directory / "faults.json").write_text(
            json.dumps([msgspec.to_builtins(each) for each in self._done], indent=1), encoding="utf-8"
        )
        stalls: dict[str, tuple[int, float]] = {}
        for each in checker.stalls:
            if any(
                own.common_ns(Interval(each.from_ns, each.until_ns))
                for own in checker.own_faults[each.process]
            ):
                continue
            count, longest_ms = stalls.get(each.process, (0, 0.0))
            stalls[each.process] = (count + 1, max(longest_ms, each.waited_ns / NS_PER_MS))
        operations = dict(checker.counts)
        fenced_off = operations.pop("fenced off", 0)
        return Report(
            seed=self._options.seed,
            links=self._links.kind,
            store=self._store_kind,
            durability=self._durability,
            minutes=round((ended_ns - self._began_ns) / NS_PER_S / 60, 2),
            operations=operations,
            faults=count_faults(self._done),
            violations=violations,
            lost=[_sentence(each) for each in lost],
            excused=[_sentence(each) for each in excused],
            starved=[_sentence(each) for each in starved],
            fenced_off=fenced_off,
            settled_ms=round(settled_ms),
            unavailable=unavailable(self._done, checker.outages, ended_ns),
            stalls=stalls,
            logs=str(self._directory) if self._keep else "",
        )

    def _tell(self, problems: list[Problem], lost: list[Loss]) -> None:
        """Print the part of the history in which something went wrong."""
        places = [(each.lock, each.at_ns, f"{each.rule}: {each.text}") for each in problems]
        places += [(each.lost.lock, each.lost.at_ns, _sentence(each)) for each in lost]
        for lock, at_ns, text in places[:5]:
            self._options.say(f"--- {lock}: {text}")
            for done in self._done[-200:]:
                if done.from_ns - 20 * NS_PER_S < at_ns < done.stable_ns + 20 * NS_PER_S:
                    begin_s, end_s = (done.from_ns - at_ns) / NS_PER_S, (done.stable_ns - at_ns) / NS_PER_S
                    self._options.say(f"{begin_s:+10.3f} s to {end_s:+.3f} s  FAULT {done.text}")
            for line in self._checker.story(lock, at_ns):
                self._options.say(line)

    def _say(self, text: str) -> None:
        since_s = (monotonic_ns() - self._began_ns) / NS_PER_S
        self._options.say(f"{since_s:7.1f} s  {text}")


def _sentence(loss: Loss) -> str:
    lost = loss.lost
    end = f": {loss.excuse}" if loss.excuse else ""
    return f"{lost.client} has lost {lost.lock} with token {lost.token} ({lost.reason}){end}"


def _store_kind(options: Options) -> str:
    """Return the kind of store of a run."""
    if options.store != "auto":
        return options.store
    installed = installed_stores()
    return random.Random(f"chaos/{options.seed}/store").choice(installed) if installed else "none"


def _durability(options: Options) -> Durability:
    """Return what the nodes of a run keep."""
    if options.durability != "auto":
        return options.durability
    durabilities: tuple[Durability, ...] = ("process", "process", "disk")
    return random.Random(f"chaos/{options.seed}/durability").choice(durabilities)
