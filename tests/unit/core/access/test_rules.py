"""Rules are read as written, and a wrong one says what to write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.core.access import Rule, Verb, parse_rule
from lockring.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acquire jobs/*", Rule(Verb.ACQUIRE, "jobs/", True, False, "r")),
        ("acquire jobs/7", Rule(Verb.ACQUIRE, "jobs/7", False, False, "r")),
        ("read *", Rule(Verb.READ, "", True, False, "r")),
        ("watch", Rule(Verb.WATCH, "", True, False, "r")),
        ("  deny   break  a b  ", Rule(Verb.BREAK, "a b", False, True, "r")),
        ("drain n1", Rule(Verb.DRAIN, "n1", False, False, "r")),
        ("deny admin", Rule(Verb.ADMIN, "", True, True, "r")),
    ],
)
def test_a_rule_is_read(text: str, expected: Rule) -> None:
    assert parse_rule(text, "r") == expected


@given(st.sampled_from(list(Verb)), st.text(alphabet="ab/. ü", max_size=6), st.booleans(), st.booleans())
def test_a_rule_reads_back_as_it_is_shown(verb: Verb, pattern: str, is_prefix: bool, denies: bool) -> None:
    pattern = "" if verb is Verb.ADMIN else "n" if verb is Verb.DRAIN else pattern.strip()
    rule = Rule(verb, pattern, is_prefix or not pattern, denies, "r")
    if not pattern.endswith(" "):
        assert parse_rule(rule.text, "r") == rule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no right"),
        ("deny", "names no right"),
        (
            "write jobs/*",
            "there is no right 'write'; the rights are read, acquire, watch, break, drain, admin",
        ),
        ("admin jobs/*", "admin is not about names"),
        ("read a*b", "a '*' before the end"),
        ("read **", "a '*' before the end"),
        ("drain a/b", "can match no node"),
        ("read " + "x" * 1025, "no name has more than 1024 bytes"),
        ("read \udcff", "is not valid UTF-8"),
    ],
)
def test_a_wrong_rule_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_rule(text, "r")
    assert said in str(caught.value)
