"""Every page keeps the rules for prose, and each rule finds a text that breaks it."""

from __future__ import annotations

import pytest

from tests.unit.house import prose
from tests.unit.house.reading import findings, text_of
from tests.unit.house.rules import ROOT, is_generated

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(
        path
        for path in sorted((ROOT / "examples").rglob("*.md"))
        if "node_modules" not in path.relative_to(ROOT).parts
    ),
]

HELD = ("bench", "client_sync", "compiled", "hatch_build.py", "src/lockring", "tests")
"""Files and folders of Python whose comments and docstrings are held to the list of phrases."""

MODULES = [
    path
    for place in map(ROOT.joinpath, HELD)
    for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))
    if path.name not in {"prose.py", "test_prose.py"}  # they quote the phrases
    and not is_generated(path)
]
SOURCES = [path for path in MODULES if path.is_relative_to(ROOT / "src")]


def test_lines_of_prose_are_short() -> None:
    assert findings(PAGES, lambda page: prose.long_lines(text_of(page))) == {}


def test_a_line_has_one_sentence() -> None:
    assert findings(PAGES, lambda page: prose.crowded_lines(text_of(page))) == {}


def test_worn_phrases_do_not_come_back() -> None:
    assert findings(PAGES, lambda page: prose.worn_phrases(prose.without_code(text_of(page)))) == {}


def test_worn_phrases_do_not_come_back_to_comments_and_docstrings() -> None:
    assert (
        findings(MODULES, lambda path: prose.worn_phrases(prose.comments_and_docstrings(text_of(path)))) == {}
    )


def test_worn_phrases_do_not_come_back_to_messages() -> None:
    assert findings(SOURCES, lambda path: prose.worn_phrases(prose.messages(text_of(path)))) == {}


def test_lines_of_comments_and_docstrings_are_short() -> None:
    assert findings(MODULES, lambda path: prose.long_prose(text_of(path))) == {}


@pytest.mark.parametrize(
    "text",
    [
        "The slots are placed anew.",
        "It tries in vain.",
        "It waits for 5 s at the most.",
        "It sends a frame at\nthe most.",
        "That is no lock.",
        "The lock is to be released.",
        "It is free by now.",
        "Two nodes, of which one serves.",
        "Leases of before must end.",
        "Whoever holds it renews it.",
        "Nobody polls.",
        "This is for who reads.",
        "Those who wait are served.",
        "Who holds the lock.",
        "- Who waits is served.",
        "What a node does not know is refused.",
        "The holder is told.",
        "The log tells of it.",
        "A member stops to own the key.",
        "Two clients believe to hold it.",
        "Links are not followed, also if they are new.",
    ],
)
def test_a_worn_phrase_is_found(text: str) -> None:
    assert len(list(prose.worn_phrases(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "The lock is no longer held, and there is no lock left.",
        "Who is it?",
        "What was done:",
        "It stops owning the key.",
        "It is not a lock.",
        "The toll is paid.",
    ],
)
def test_what_a_native_speaker_writes_is_fine(text: str) -> None:
    assert list(prose.worn_phrases(text)) == []


def test_a_finding_names_the_line_the_words_and_what_to_write() -> None:
    (found,) = prose.worn_phrases("A line.\nPlace it\nanew.\n")
    assert found == (3, "anew", "again, afresh, from scratch")


def test_every_phrase_has_advice_that_keeps_the_rules_itself() -> None:
    assert all(advice for _, advice in prose.PHRASES)
    assert [advice for _, advice in prose.PHRASES if list(prose.worn_phrases(advice))] == []


def test_a_long_line_of_prose_is_found() -> None:
    page = "Short.\n\n" + "word " * 24 + "word\n"
    assert [found.line for found in prose.long_lines(page)] == [3]


@pytest.mark.parametrize(
    "wide", ["| " + "x" * 130 + " |", "[name]: http://" + "x" * 130, "```\n" + "x" * 130 + "\n```"]
)
def test_tables_code_and_link_definitions_may_be_wide(wide: str) -> None:
    assert list(prose.long_lines(f"Prose.\n\n{wide}\n")) == []


@pytest.mark.parametrize(
    "line",
    [
        "One sentence. Another one.",
        "- One sentence. Another one.",
        "1. One (in brackets.) Another one.",
        "Is it? `code` says so.",
        "**Bold.** One sentence. Another one.",
        'It says "stop." Then it stops.',
    ],
)
def test_a_second_sentence_on_a_line_is_found(line: str) -> None:
    assert [found.line for found in prose.crowded_lines(f"First.\n{line}\n")] == [2]


@pytest.mark.parametrize(
    "line",
    [
        "One sentence, e.g. This one.",
        "1. One sentence.",
        "- **A heading that runs in.** One sentence.",
        "Version 0.1.0 and `a. B` of Python 3.11.7.",
        "| A cell. | May have. Two sentences. |",
        "# A heading. With a full stop.",
    ],
)
def test_one_sentence_is_not_two(line: str) -> None:
    assert list(prose.crowded_lines(line)) == []


def test_code_is_not_prose() -> None:
    page = "Call `told()`.\n\n```\nanew. In vain.\n```\n\nDone.\n"
    assert prose.without_code(page).count("\n") == page.count("\n")
    assert list(prose.worn_phrases(prose.without_code(page))) == []
    assert list(prose.crowded_lines(page)) == []


def test_of_a_module_only_comments_and_docstrings_are_prose() -> None:
    source = '"""Placed anew."""\n\nanew = "in vain"  # by now `told`\nLIMIT = 3\n"""At the\nmost."""\n'
    text = prose.comments_and_docstrings(source)
    assert text.splitlines() == ["Placed anew.", "", "by now XXXXXX", "", "At the", "most."]
    assert [(found.line, found.text) for found in prose.worn_phrases(text)] == [
        (1, "anew"),
        (3, "by now"),
        (5, "At the most"),
    ]


def test_a_long_line_of_a_docstring_or_comment_is_found_and_one_of_code_is_not() -> None:
    long = "x" * prose.LINE_MAX
    assert [each.line for each in prose.long_prose(f'"""{long}"""\n# {long}\ny = "{long}"\n')] == [1, 2]


def test_a_worn_phrase_is_found_in_a_message_and_not_in_a_name() -> None:
    source = 'raise ValueError(f"{name} is no lock")\nx = {"nobody": 1}\n"""Nobody reads this."""\n'
    assert [each.text for each in prose.worn_phrases(prose.messages(source))] == ["is no"]
