"""Mutants: methods of the real core classes that are replaced for the time of a `with` block.

Some rules stand behind each other: while one of the two is there, nothing happens without the other. Such a pair is one
mutant of two *halves*, and has to be found as a whole; that either half alone changes nothing is tested too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

Change = tuple[Any, str, Any]
Make = Callable[[], list[Change]]

MUTANTS: dict[str, Make] = {}
HALVES: dict[str, tuple[Make, Make]] = {}
"""Of the mutants that are pairs: the two rules, one by one."""
DRILLS: dict[str, Callable[[], None]] = {}
"""Situations made for one rule each."""


def mutant(make: Make) -> Make:
    """Register a function that says what is replaced in its mutant; its docstring says which rule is gone."""
    assert make.__name__ not in MUTANTS
    MUTANTS[make.__name__] = make
    return make


def pair(one: Make, other: Make) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a mutant that is two rules which stand behind each other; the function only names and describes it."""

    def register(describe: Callable[[], None]) -> Callable[[], None]:
        name = describe.__name__
        assert name not in MUTANTS
        MUTANTS[name] = one
        HALVES[name] = (one, other)
        return describe

    return register


def drill(run: Callable[[], None]) -> Callable[[], None]:
    """Register a drill under the name of its rule: `drill_x` is that of the mutant `x`, and stands beside it."""
    DRILLS[_rule_of(run.__name__)] = run
    return run


def _rule_of(name: str) -> str:
    rule = name.removeprefix("drill_")
    assert rule != name
    assert rule in MUTANTS
    assert rule not in DRILLS
    return rule


def drill_by_chance(seeds: range) -> Callable[[Callable[[int], None]], Callable[[int], None]]:
    """Register a drill in which what matters depends on which of two things comes first: it runs with several seeds."""

    def register(run: Callable[[int], None]) -> Callable[[int], None]:
        def run_all() -> None:
            for seed in seeds:
                run(seed)

        DRILLS[_rule_of(run.__name__)] = run_all
        return run

    return register


@contextmanager
def replaced(changes: list[Change]) -> Iterator[None]:
    """Run with these attributes replaced.

    Raises:
        AssertionError: an owner does not define its attribute, so that the change would switch nothing off.
    """
    before = []
    try:
        for owner, attribute, value in changes:
            assert attribute in vars(owner), f"{owner.__name__} defines no {attribute}"
            before.append((owner, attribute, owner.__dict__[attribute]))
            setattr(owner, attribute, value)
        yield
    finally:
        for owner, attribute, value in reversed(before):
            setattr(owner, attribute, value)


@contextmanager
def applied(name: str) -> Iterator[None]:
    """Run with one rule (or pair) switched off; with "" none is."""
    with ExitStack() as stack:
        for make in HALVES.get(name, (MUTANTS[name],)) if name else ():
            # Made only now, since the second half may replace what the first one has replaced.
            stack.enter_context(replaced(make()))
        yield


@contextmanager
def half_applied(name: str, half: int) -> Iterator[None]:
    """Run with only one rule of a pair switched off."""
    with replaced(HALVES[name][half]()):
        yield
