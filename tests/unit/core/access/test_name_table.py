"""The compiled rules decide as the rules do when each is looked at in turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.core.access import NameTable, Rule, Verb, parse_rule

# Few letters, so that patterns are often parts of each other; the last code point has no successor.
PATTERNS = st.text(alphabet="ab/\U0010ffff\ud7ff", max_size=5)
RULES = st.builds(
    Rule,
    st.just(Verb.READ),
    PATTERNS,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["one", "two"]),
)


def decided(rules: list[Rule], name: str) -> Rule | None:
    """The decision as the documentation words it."""
    matching = [each for each in rules if each.matches(name)]
    candidates = [each for each in matching if each.denies] or matching
    return max(candidates, key=lambda each: (not each.is_prefix, len(each.pattern)), default=None)


def table(*texts: str) -> NameTable:
    return NameTable([parse_rule(text, "role") for text in texts])


@given(st.lists(RULES, max_size=12), PATTERNS)
def test_the_table_finds_the_rule_that_a_look_at_each_rule_finds(rules: list[Rule], name: str) -> None:
    compiled = NameTable(rules)
    assert compiled.rule_for(name) == decided(rules, name)
    assert compiled.allows(name) == ((rule := decided(rules, name)) is not None and not rule.denies)


@given(st.lists(RULES, max_size=12), PATTERNS, st.lists(PATTERNS, max_size=8))
def test_a_prefix_has_an_allowed_name_if_and_only_if_some_cut_in_it_is_allowed(
    rules: list[Rule], prefix: str, ends: list[str]
) -> None:
    compiled = NameTable(rules)
    # The first name of each piece that begins within the prefix stands for the piece.
    names = [prefix, *(cut for cut in compiled.cuts if cut.startswith(prefix))]
    assert compiled.allows_some(prefix) == any(compiled.allows(name) for name in names)
    assert compiled.allows_all(prefix) == all(compiled.allows(name) for name in names)
    if compiled.allows_all(prefix):
        assert all(compiled.allows(prefix + end) for end in ends)
    if not compiled.allows_some(prefix):
        assert not any(compiled.allows(prefix + end) for end in ends)


@given(st.lists(RULES, max_size=12))
def test_no_cut_is_wasted(rules: list[Rule]) -> None:
    compiled = NameTable(rules)
    assert compiled.cuts == sorted(set(compiled.cuts))
    assert all(one is not two for one, two in zip(compiled.rules, compiled.rules[1:], strict=False))
    assert len(compiled.cuts) <= 2 * len(rules)


def test_without_a_rule_nothing_is_allowed() -> None:
    assert not table().allows("")
    assert table().rule_for("jobs/7") is None
    assert not table("read jobs/*").allows("job")


def test_a_prefix_is_not_a_word() -> None:
    compiled = table("read jobs/*")
    assert [compiled.allows(name) for name in ("jobs/", "jobs/7", "jobs", "jobs0", "jobs.")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_denied_prefix_stays_denied_for_a_more_specific_rule() -> None:
    compiled = table("read *", "deny read secret/*", "read secret/mine")
    assert not compiled.allows("secret/mine")
    assert compiled.allows("secret")
    rule = compiled.rule_for("secret/mine")
    assert rule is not None
    assert rule.text == "deny read secret/*"


def test_the_most_specific_rule_that_allows_is_the_one_that_is_named() -> None:
    compiled = table("read *", "read jobs/*", "read jobs/7")
    found = {
        name: rule.text for name in ("x", "jobs/8", "jobs/7", "jobs/70") if (rule := compiled.rule_for(name))
    }
    assert found == {
        "x": "read *",
        "jobs/8": "read jobs/*",
        "jobs/7": "read jobs/7",
        "jobs/70": "read jobs/*",
    }


def test_a_list_of_a_prefix_needs_a_filter_only_if_some_name_in_it_is_refused() -> None:
    compiled = table("read jobs/*", "deny read jobs/secret")
    assert (compiled.allows_some("jobs/"), compiled.allows_all("jobs/")) == (True, False)
    assert (compiled.allows_some("jobs/a"), compiled.allows_all("jobs/a")) == (True, True)
    assert (compiled.allows_some(""), compiled.allows_all("")) == (True, False)
    assert (compiled.allows_some("web/"), compiled.allows_all("web/")) == (False, False)


@pytest.mark.parametrize("count", [10, 10_000])
def test_a_decision_compares_as_many_names_as_the_logarithm_of_the_rules(count: int) -> None:
    class Counted(str):
        """A name that counts how often it is compared."""

        compared = 0
        __hash__ = str.__hash__

        def __lt__(self, other: str) -> bool:
            Counted.compared += 1
            return str.__lt__(self, other)

    compiled = NameTable([parse_rule(f"read jobs/{number:05}/*", "role") for number in range(count)])
    assert compiled.allows(Counted("jobs/00007/x"))
    assert 0 < Counted.compared <= (2 * count).bit_length() + 1
